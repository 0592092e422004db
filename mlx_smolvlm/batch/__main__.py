"""`python -m mlx_smolvlm.batch`: arguments, signals and printing."""

import argparse
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..command_line import starting
from ..command_line.adapter_arguments import add_adapter_argument, loading_options, model_name, names_model
from ..command_line.arguments import (
    DEFAULT_QUESTION,
    DEFAULT_VIDEO_QUESTION,
    DEMO_QUESTION,
    DEMO_VIDEO_QUESTION,
    add_answer_arguments,
    add_media_arguments,
    generation_options,
    media_options,
    refuse_unused,
    with_system_prompt,
)
from ..command_line.progress import Progress, duration, per_second
from ..command_line.runner import BAD_INPUT, CommandLine, refuse_tracebacks
from ..command_line.signals import Interruption, leave_threads
from ..command_line.standard_input import check_standard_input, read_texts
from ..command_line.standard_streams import say, shown
from ..command_line.waiting import Waiting
from ..options import refuse_options
from .inputs import LeftOut, read_items
from .items import Item, plural

if TYPE_CHECKING:
    from .job import Job
    from .ranks import Ranks
    from .sidecars import Sidecars

_RESULTS_PER_CLEANING = 64
_TEXTS = ("prompt", "system", "json_schema")  # `-` reads them from standard input
_SIDECARS = ("txt", "json", "xmp")
_SOME_FAILED = 1  # exit status


def main() -> None:
    """Run the command line; exits with 1 if something was not answered, with 2 and one line on bad input, with 130 or
    143 when interrupted."""
    group: list[Ranks] = []
    try:
        with refuse_tracebacks():
            status = _run(_parser().parse_args(), group)
        sys.exit(status)
    except SystemExit as ending:
        if any(ranks.is_stuck for ranks in group):
            os._exit(ending.code if isinstance(ending.code, int) else BAD_INPUT)
        raise


def _run(arguments: argparse.Namespace, group: "list[Ranks]") -> int:
    """Do it all; returns the exit status. `group` gets the processes that do it together, once they are known."""
    out = _out(arguments)
    check_standard_input(arguments, _TEXTS)
    read_texts(arguments, _TEXTS)
    prompts = _prompts(arguments)
    left_out = LeftOut()
    with ExitStack() as opened:
        with Waiting(not arguments.quiet) as waiting:
            waiting.tell("looking through the input")
            items = _items(arguments, out, left_out)
            _check_marker(arguments.prompt, items)
            # What is wrong is said before a model is downloaded, and most of it before MLX is imported.
            with starting.importing():
                from ..api.loading import DEMO_MODEL, load
                from ..command_line.notes import show_demo_note, show_missing_decoder
                from ..engine.row import refuse_single_options
                from .job import Job
                from .question import Question
                from .ranks import Ranks
                from .results import STDOUT

            options = generation_options(arguments)
            refuse_single_options(options)
            reason = "lines of results have no place for them; generate --json reports them"
            refuse_options(options, ("logprobs",), reason)
            media, are_videos = media_options(arguments), [item.is_video for item in items]
            refuse_unused(media, has_images=not all(are_videos), has_videos=any(are_videos))
            show_missing_decoder(arguments)
            question = Question(*prompts, arguments.system, options, media)
            ranks = Ranks()
            group.append(ranks)
            sidecars = _sidecars(arguments.sidecar, items)
            job = opened.enter_context(Job(items, question, out, ranks, arguments.retry_errors, sidecars))
            waiting.tell("loading the model")
            loading = loading_options(arguments)
            model, processor = load(arguments.model or DEMO_MODEL, **loading)
            waiting.tell("looking for what is left to do")
            job.begin(model_name(arguments), model)
        is_first = ranks.rank == 0
        if arguments.model is None and is_first and not arguments.quiet:
            show_demo_note("INPUT")
        for note in [*(left_out.notes() if is_first else ()), *job.notes]:
            say(f"note: {note}")
        import mlx.core as mx

        start, num_errors = time.monotonic(), 0
        stopping = Interruption(second=leave_threads, watches_output=out == STDOUT)
        with stopping as interruption, Progress(is_first and not arguments.quiet) as progress:
            progress.stage(total=len(job.todo), unit="images")
            results = job.results(model, processor, batch_size=arguments.batch_size, cancel=interruption.cancel)
            for number, result in enumerate(results, 1):
                num_errors += result.error is not None
                progress.advance(note=f"{num_errors} errors")
                if number % _RESULTS_PER_CLEANING == 0:
                    mx.clear_cache()  # buffers of lengths that may not come again
        job.check()
        if interruption.received is not None and out != STDOUT:
            say(f"stopped; what was done is kept in {shown(job.path)}. Run the same command again to do the rest")
        interruption.conclude()
        job.finish(time.monotonic() - start)
        if not is_first:
            return 0  # by another status, `mlx.launch` would end the first process
        if not arguments.quiet:
            say(_summary(job, time.monotonic() - start, out))
        _say_problems(sidecars)
        is_failed = job.num_errors or left_out.unread or (sidecars and sidecars.problems)
        return _SOME_FAILED if is_failed else 0


def _out(arguments: argparse.Namespace) -> Path:
    """Where results go, if results can be kept there."""
    from .layouts import layout_of

    if arguments.out == "-":
        if arguments.retry_errors:
            raise ValueError("--retry-errors tries again what a file has with an error, and --out - keeps none")
        return Path("-")
    out = Path(arguments.out).expanduser()
    if arguments.out.endswith(os.sep) or out.is_dir():
        raise IsADirectoryError(
            f"--out {arguments.out} is a folder; name a file in it, such as {out / 'results.jsonl'}"
        )
    if out.is_file() or not out.exists():  # others are refused when they are opened
        layout_of(out)
    return out


def _prompts(arguments: argparse.Namespace) -> tuple[str, str]:
    """The questions about images and about videos that bring none of their own, if they can be asked."""
    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size is {arguments.batch_size}, expected at least 1")
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit is {arguments.limit}, expected at least 1")
    prompt = arguments.prompt
    with_system_prompt(DEFAULT_QUESTION if prompt is None else prompt, arguments.system, 0, 0)  # refuses what is empty
    if prompt is None:
        if not names_model(arguments):
            return DEMO_QUESTION, DEMO_VIDEO_QUESTION
        return DEFAULT_QUESTION, DEFAULT_VIDEO_QUESTION
    markers = prompt.count("<image>") + prompt.count("<video>")
    if markers > 1:
        raise ValueError(f"--prompt has {markers} markers, but each question is about one image or video")
    return prompt, prompt


def _check_marker(prompt: str | None, items: list[Item]) -> None:
    """Refuse a marker that is none for any of those that the prompt is about."""
    kinds = {item.is_video for item in items if item.prompt is None}
    for marker, is_video in (("<image>", False), ("<video>", True)):
        if prompt is not None and marker in prompt and kinds == {not is_video}:
            other = "images" if is_video else "videos"
            raise ValueError(f"--prompt has the marker {marker}, but is about {other} only; leave it out")


def _items(arguments: argparse.Namespace, out: Path, left_out: LeftOut) -> list[Item]:
    from .result_files import is_results_file

    ignored = [] if arguments.ignore_fields is None else arguments.ignore_fields.split(",")

    def is_left_out(path: Path) -> bool:
        return is_results_file(path, out)

    sidecar = f".{arguments.sidecar}" if arguments.sidecar else None
    items = read_items(arguments.input, is_left_out, sidecar=sidecar, ignored_fields=ignored, left_out=left_out)
    return items[: arguments.limit]


def _summary(job: "Job", seconds: float, out: Path) -> str:
    """One line."""
    num_errors = job.num_errors
    line = f"{plural(job.num_items, 'image')}: {job.num_lines - num_errors} answered, "
    line += f"{num_errors} with {'an error' if num_errors == 1 else 'errors'}"
    if num_errors and str(out) != "-":
        line += f' (see "error" in {out})'
    if job.num_cut:
        line += f'; {job.num_cut} cut by --max-tokens or the end of the model\'s context (finish_reason "length")'
    if job.num_done:
        line += f"; {job.num_done} of them done before"
    if not job.num_missing:
        return f"{line}; nothing was left to do"
    return f"{line}; {duration(seconds)}, {per_second(job.num_missing / seconds, 'images')}"


def _sidecars(form: str | None, items: list[Item]) -> "Sidecars | None":
    if form is None:
        return None
    from .sidecars import Sidecars  # XML is slow to import

    return Sidecars(form, items)


def _say_problems(sidecars: "Sidecars | None") -> None:
    """One line about sidecars that were not written."""
    if sidecars is not None and sidecars.problems:
        count = len(sidecars.problems)
        path, reason = next(iter(sidecars.problems.items()))
        say(
            f"{plural(count, 'sidecar')} {'was' if count == 1 else 'were'} not written: {path}: {reason}"
            f"{' (and others)' if count > 1 else ''}; move what is there, and run the same command again"
        )


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.batch",
        description="Ask one question about many images: a result for each, with path, text and error. Run the "
        "same command again to go on after an interruption, or when images have been added: what has a result is not "
        "done again.",
        epilog="Exit status: 0 if all was answered, 1 if something was not (each says why), 2 if the run could not be "
        "done, 130 or 143 if it was stopped. Started by mlx.launch, several processes or Macs share the work: "
        "mlx.launch --hosts mac1,mac2 -- python -m mlx_smolvlm.batch ... (the same files and model on each).",
    )
    what = parser.add_argument_group("what to ask")
    what.add_argument(
        "input",
        nargs="+",
        metavar="INPUT",
        help="a folder (with its subfolders, but nothing hidden), a glob, images, addresses, or a list: .jsonl with "
        "a path and, if you like, a prompt in each line, .csv with such columns, or .txt with a path or an address in "
        "each line (paths count from the list's folder)",
    )
    what.add_argument("--model", metavar="PATH_OR_HUB_ID", help="checkpoint (default: the embedded demo model)")
    add_adapter_argument(what)
    what.add_argument("--prompt", metavar="TEXT", help="question about each, where a list does not give one")
    what.add_argument("--system", metavar="TEXT", help="system prompt")
    what.add_argument("--ignore-fields", metavar="NAMES", help="fields of lists to ignore, separated by commas")
    what.add_argument("--limit", type=int, metavar="N", help="only the first N of the input, to try things out")

    how = parser.add_argument_group("where results go, and how many are made at a time")
    how.add_argument(
        "--out",
        default="results.jsonl",
        metavar="FILE",
        help="results: FILE.jsonl (a line of JSON each), FILE.csv, FILE.json (one array), or - for lines of JSON on "
        "standard output (default: results.jsonl)",
    )
    how.add_argument(
        "--sidecar",
        choices=_SIDECARS,
        help="also write each answer beside its image: cat.jpg has cat.txt, cat.json or cat.xmp. What others wrote "
        "there stays",
    )
    how.add_argument("--quiet", action="store_true", help="nothing on stderr but errors and what was left out, and why")
    how.add_argument("--retry-errors", action="store_true", help="try again what has a line with an error")
    how.add_argument(
        "--batch-size",
        type=int,
        default=32,
        metavar="N",
        help="most answers to make at a time, as far as their keys and values fit into 2 GiB (default: 32)",
    )
    add_media_arguments(parser)
    add_answer_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
