"""`python -m mlx_smolvlm.document`: arguments and printing."""

from ..command_line import starting  # first: Ctrl-C may come while the rest is imported

# isort: split
import argparse
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..command_line.adapter_arguments import add_adapter_argument, loading_options, model_name, names_model
from ..command_line.arguments import UNUSED_PASSWORD, add_password_arguments, read_password
from ..command_line.progress import Progress
from ..command_line.runner import BAD_INPUT, CommandLine, one_line, refuse_tracebacks
from ..command_line.signals import Interruption, end_process, handled_by
from ..command_line.standard_streams import say, shown
from ..command_line.waiting import Waiting
from ..files import refuse_unwritable
from .from_doctags import convert_doctags
from .telling import PageTeller, summary

if TYPE_CHECKING:
    from ..documents.survey import DocumentSettings

_FORMATS = ("md", "html", "json", "doctags")
_SOME_FAILED = 1  # exit status
MODELS = (
    "ibm-granite/granite-docling-258M (or its MLX build, ibm-granite/granite-docling-258M-mlx) or "
    "docling-project/SmolDocling-256M-preview"
)
_TASKS = ("page", "table", "chart", "formula", "code", "ocr", "identify", "headers", "footers")
# What only reading has a use for, with its defaults.
_READING: dict[str, Any] = {
    "model": None,
    "adapter_path": [],
    "task": None,
    "prompt": None,
    "region": None,
    "pages": None,
    "password": None,
    "password_file": None,
    "show": False,
    "scale": 2.0,
    "no_split": False,
    "max_edge": None,
    "max_pixels": None,
    "max_tokens": 8192,
    "batch_size": 4,
    "dtype": None,
}


def main() -> None:
    """Run the command line; exits with 1 if a page was cut or not read, with 2 and one line on bad input, with 130 or
    143 when interrupted."""
    with refuse_tracebacks(), handled_by(end_process):
        arguments = _parser().parse_args()
        if arguments.out == "":
            raise ValueError("--out is empty; name a folder")
        if arguments.from_doctags is not None:
            convert_doctags(arguments, _READING)
        elif (status := _read_documents(arguments)) != 0:
            sys.exit(status)


def _read_documents(arguments: argparse.Namespace) -> int:
    """Read pages and write documents; returns the exit status."""
    if not arguments.input:
        raise ValueError(
            "nothing to convert; name PDFs, images or folders, or name a file of DocTags: --from-doctags FILE"
        )
    if arguments.out is None:
        raise ValueError("no place for the results; name a folder: --out DIR")
    if arguments.out == "-":
        raise ValueError("--out - is for --from-doctags; documents that are read go into a folder: --out DIR")
    out = Path(arguments.out).expanduser()
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out {out} is a file; name a folder")
    refuse_unwritable(out)
    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size is {arguments.batch_size}, expected at least 1")
    if not names_model(arguments) or (arguments.model == "demo" and not Path("demo").exists()):
        given = "" if arguments.model else "no model is given, and "
        raise ValueError(f"{given}the embedded demo model cannot read documents; name one with --model: {MODELS}")
    from ..documents.page_images import LeftOutFiles, find_each
    from ..documents.shown_pages import is_shown_page

    left_out = LeftOutFiles()
    sources, missing = find_each(arguments.input, left_out, skipped=is_shown_page)
    with starting.importing():
        from ..api.loading import load
        from ..api.session_file import model_fingerprint
        from ..documents.document_job import DocumentJob
        from ..documents.page_records import PageRecords
        from ..documents.reading import check_reading
        from ..documents.survey import survey
    settings = _settings(arguments)
    with Waiting(not arguments.quiet):
        documents, errors = survey(sources, settings)
    for error in [*missing, *errors]:
        say(f"error: {one_line(error)}")
    notes = left_out.notes()
    is_unused = settings.password is not None and not any(document.needed_password for document in documents)
    if is_unused and documents and not errors:
        notes.append(UNUSED_PASSWORD)
    for note in notes:
        say(f"note: {note}")
    if not documents:
        return BAD_INPUT
    with Waiting(not arguments.quiet) as waiting:
        waiting.tell("loading the model")
        loading = loading_options(arguments)  # which may name the model
        model, processor = load(arguments.model, **loading)
    check_reading(model, processor, settings.options, settings.media_options, arguments.batch_size)
    with closing(PageRecords(out)) as records:
        job = DocumentJob(documents, arguments.input, records, out)
        job.begin(settings, model_name(arguments), model_fingerprint(model))
        for source in job.changed:
            say(f"note: {shown(source)} has changed since it was read; its pages are read again")
        for source, number in job.damaged:
            say(f"note: {shown(source)}, page {number}: its record in {shown(out)} is damaged; it is read again")
        start, teller = time.monotonic(), PageTeller(arguments.max_tokens, MODELS, arguments.prompt is None)
        with Interruption() as interruption, Progress(not arguments.quiet) as progress:
            progress.stage(total=len(job.todo), unit="pages")
            for reading in job.readings(model, processor, arguments.batch_size, interruption.cancel):
                teller.tell(reading)
                progress.advance(note=f"{teller.num_errors} errors" if teller.num_errors else "")
        if interruption.received is not None:
            say(f"stopped; the pages that are done are kept in {shown(out)}. Run the same command again to go on")
        interruption.conclude()
    if not arguments.quiet:
        say(summary(job, documents, teller.num_errors, time.monotonic() - start))
    is_failed = missing or errors or teller.num_errors or job.partial or left_out.unread
    return _SOME_FAILED if is_failed else 0


def _settings(arguments: argparse.Namespace) -> "DocumentSettings":
    """How documents are read. What is wrong is said before a model is downloaded."""
    from ..documents.page_file import check_scale
    from ..documents.page_ranges import page_ranges
    from ..documents.survey import DocumentSettings
    from ..documents.tasks import PageTask, parse_region
    from ..options import GenerationOptions, MediaOptions

    check_scale(arguments.scale)
    if arguments.task is not None and arguments.prompt is not None:
        raise ValueError("--task and --prompt are both given; ask by one of them")
    region = None if arguments.region is None else parse_region(arguments.region)
    return DocumentSettings(
        task=PageTask(arguments.task or "page", region, arguments.prompt),
        scale=arguments.scale,
        options=GenerationOptions(max_tokens=arguments.max_tokens),
        media_options=MediaOptions(
            do_image_splitting=False if arguments.no_split else None,
            longest_edge=arguments.max_edge,
            max_pixels=arguments.max_pixels,
        ),
        to=arguments.to,
        shows=arguments.show,
        pages=None if arguments.pages is None else page_ranges(arguments.pages),
        password=read_password(arguments),
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.document",
        description="Convert PDFs and images to Markdown, HTML, JSON or DocTags with a model made for documents, such "
        "as granite-docling. Run the same command again to go on after an interruption: no page is read twice.",
        epilog="Exit status: 0 if all was read, 1 if a page was cut or something was not read (each says why), 2 if "
        "the run could not be done, 130 or 143 if it was stopped.",
    )
    parser.add_argument(
        "input", nargs="*", metavar="INPUT", help="PDF, image, TIFF of several pages, address, or folder of these"
    )
    parser.add_argument(
        "--from-doctags",
        metavar="FILE",
        help="convert DocTags that are already there, without a model; - is standard input",
    )
    parser.add_argument("--to", choices=_FORMATS, default="md", help="what to write (default: md, Markdown)")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the results, made if it is not there. With --from-doctags, a folder that is there or a file "
        "(default, and for -: standard output)",
    )
    parser.add_argument("--quiet", action="store_true", help="nothing on stderr but errors and notes")

    reading = parser.add_argument_group("how INPUT is read")
    reading.add_argument("--model", metavar="PATH_OR_HUB_ID", help=f"{MODELS}")
    add_adapter_argument(reading)
    reading.add_argument("--task", choices=_TASKS, help="what to ask about each page (default: page)")
    reading.add_argument("--prompt", metavar="TEXT", help="ask this about each page, in place of --task")
    reading.add_argument(
        "--region",
        metavar="L,T,R,B",
        help="part of each page, 0 to 500 from its top left corner: for ocr, identify, table, chart, formula and code; "
        "with --prompt, what the model sees",
    )
    reading.add_argument("--pages", metavar="RANGES", help="of each document, such as 3-7,10 or 5- (default: all)")
    add_password_arguments(reading)
    reading.add_argument("--show", action="store_true", help="also write page images with the boxes that were found")
    reading.add_argument("--scale", type=float, default=2.0, metavar="S", help="pixels per point (default: 2, 144 dpi)")
    reading.add_argument("--no-split", action="store_true", help="one tile per page: quick and coarse")
    reading.add_argument("--max-edge", type=int, metavar="N", help="pixels of a page's longest side after resizing")
    reading.add_argument("--max-pixels", type=int, metavar="N", help="most pixels that an image may have")
    reading.add_argument("--max-tokens", type=int, default=8192, metavar="N", help="most per page (default: 8192)")
    reading.add_argument(
        "--batch-size",
        type=int,
        default=4,
        metavar="N",
        help="pages read at a time, as far as 2 GiB hold them (default: 4)",
    )
    reading.add_argument("--dtype", choices=("bfloat16", "float32"), help="default: bfloat16, CPU float32")
    return parser


if __name__ == "__main__":
    main()
