"""`python -m mlx_smolvlm.index`: arguments, signals and printing."""

from .command_line import starting  # first: Ctrl-C may come while the rest is imported

# isort: split
import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .command_line.arguments import UNUSED_PASSWORD, add_password_arguments, read_password
from .command_line.progress import Progress, duration, per_second
from .command_line.retriever_arguments import add_retriever_arguments, open_retriever
from .command_line.runner import CommandLine, one_line, output_argument, refuse_tracebacks
from .command_line.signals import Interruption
from .command_line.standard_streams import line_start, say, shown
from .command_line.waiting import Waiting

if TYPE_CHECKING:
    from .retrieval.index_writer import IndexWriter
    from .retrieval.indexing import UpdatePlan
    from .retrieval.retriever import Retriever

_SOME_FAILED = 1  # exit status


def main() -> None:
    """Run the command line; exits with 1 if something could not be read, with 2 and one line on bad input, with 130 or
    143 when interrupted."""
    with refuse_tracebacks():
        status = _run(_parser().parse_args())
    sys.exit(status)


def _run(arguments: argparse.Namespace) -> int:
    if not arguments.out:
        raise ValueError("--out is empty; name the folder of the index")
    folder = Path(arguments.out).expanduser().absolute()
    if arguments.export_lancedb == "":
        raise ValueError("--export-lancedb is empty; name a folder")
    password = read_password(arguments)
    if password is not None and not arguments.input:
        raise ValueError("a password is given, and no documents that it could open; leave it out")
    if not (arguments.input or arguments.prune or arguments.export_lancedb):
        raise ValueError("nothing to do: name PDFs, images or folders, or give --prune or --export-lancedb")
    target = Path(arguments.export_lancedb).expanduser().absolute() if arguments.export_lancedb else None
    with Waiting(not arguments.quiet) as waiting:
        waiting.tell("looking through the input")
        with starting.importing():
            from .documents.page_images import LeftOutFiles, find_each
            from .documents.shown_pages import is_shown_page
            from .retrieval.index_writer import IndexWriter, check_target
            from .retrieval.lance_index import check_lancedb_target, export_lancedb
            from .retrieval.manifest import is_index, read_manifest
            from .retrieval.pooling import MAX_POOL_FACTOR
        check_target(folder)
        if not arguments.input:
            read_manifest(folder)  # else an index would be made of nothing
        if target is not None:
            check_lancedb_target(target)
            if target == folder or folder in target.parents:
                raise ValueError(f"{target} is the index or within it; name another folder with --export-lancedb")
        factor = arguments.pool_factor
        if factor is not None and not 1 <= factor <= MAX_POOL_FACTOR:
            raise ValueError(f"--pool-factor is {factor}, expected 1 (none) to {MAX_POOL_FACTOR}")
        left_out = LeftOutFiles()

        def is_own(path: Path) -> bool:
            return folder in path.absolute().parents

        sources, missing = find_each(
            arguments.input, left_out, skipped=lambda path: is_own(path) or is_shown_page(path)
        )
        if missing and not sources:
            raise missing[0]
        waiting.tell("loading the model")
        index = read_manifest(folder).settings if is_index(folder) else None
        retriever, settings = open_retriever(arguments, folder, index, factor)
        writer = IndexWriter(folder, settings)
    with writer:
        for error in missing:
            say(f"error: {one_line(error)}")
        for note in [*writer.notes, *left_out.notes()]:
            say(f"note: {note}")
        num_failed = _update(arguments, writer, retriever, sources, password)
        if target is not None:
            with Waiting(not arguments.quiet) as waiting:
                waiting.tell("exporting to LanceDB")
                num_pages = export_lancedb(folder, target)
            if not arguments.quiet:
                print(f"{shown(target)}: {num_pages} pages, for LanceDB")
        return _SOME_FAILED if num_failed or missing or left_out.unread else 0


def _update(
    arguments: argparse.Namespace,
    writer: "IndexWriter",
    retriever: "Retriever",
    sources: list[str],
    password: str | None,
) -> int:
    """Bring the index up to date; returns how many documents and pages could not be read."""
    from .documents.page_file import on_page
    from .retrieval.indexing import plan_update, update

    failed: list[str] = []

    def on_error(source: str, page: int | None, error: Exception) -> None:
        failed.append(source)
        say(f"{line_start()}error: {on_page(one_line(error), shown(source), page)}")

    start = time.monotonic()
    with Interruption() as interruption, Progress(not arguments.quiet) as progress:
        with Waiting(not arguments.quiet):
            plan = plan_update(writer, sources, on_error, interruption.cancel.is_set, password)
        if password is not None and not (plan.needed_password or failed):
            say(f"note: {UNUSED_PASSWORD}")
        progress.stage(total=plan.num_pages, unit="pages")
        update(
            writer,
            retriever,
            plan.todo,
            on_error=on_error,
            on_page=lambda: progress.advance(note=f"{len(failed)} errors" if failed else ""),
            is_cancelled=interruption.cancel.is_set,
            password=password,
        )
        gone = writer.prune() if arguments.prune and not interruption.cancel.is_set() else []
        if not interruption.cancel.is_set():
            writer.finish()
    if interruption.received is not None:
        say(f"stopped; what was done is kept in {shown(writer.folder)}. Run the same command again to do the rest")
    interruption.conclude()
    if not arguments.quiet:
        print(_summary(writer, plan, len(failed), len(gone), time.monotonic() - start))
    return len(failed)


def _summary(writer: "IndexWriter", plan: "UpdatePlan", num_failed: int, num_gone: int, seconds: float) -> str:
    """One line."""
    manifest = writer.manifest
    documents = len(manifest.documents)
    counts = {
        "new": plan.num_new,
        "changed": plan.num_changed,
        "read again": plan.num_again,
        "unchanged": plan.num_unchanged,
        "removed": num_gone,
    }
    what = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    line = f"{shown(writer.folder)}: {manifest.num_pages} pages of {documents} document{'s' * (documents != 1)}"
    line += f" ({what})" if what else ""
    if plan.num_pages:
        line += f"; read {plan.num_pages} pages in {duration(seconds)}, {per_second(plan.num_pages / seconds, 'pages')}"
    return line + (f"; {num_failed} with errors" if num_failed else "")


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.index",
        description="Make an index of the pages of PDFs and images, for python -m mlx_smolvlm.search. Run the same "
        "command again to go on after an interruption, or to bring the index up to date: what is in it is not read "
        "again.",
        epilog="Exit status: 0 if all pages are in the index, 1 if something could not be read (each says why), 2 if "
        "the run could not be done, 130 or 143 if it was stopped.",
    )
    what = parser.add_argument_group("what to index")
    what.add_argument(
        "input",
        nargs="*",
        metavar="INPUT",
        help="PDFs (needs pypdfium2: pip install 'mlx-smolvlm[documents]'), images, TIFF files of several pages, or "
        "folders of them (with their subfolders, but nothing hidden)",
    )
    what.add_argument(
        "--out",
        required=True,
        type=output_argument,
        metavar="INDEX",
        help="folder of the index, made or brought up to date",
    )
    what.add_argument("--prune", action="store_true", help="remove documents whose files are no longer there")
    what.add_argument(
        "--export-lancedb",
        type=output_argument,
        metavar="FOLDER",
        help="then write the index as a LanceDB database, which search takes as well (needs lancedb: pip install "
        "'mlx-smolvlm[lancedb]')",
    )
    add_password_arguments(what)
    what.add_argument("--quiet", action="store_true", help="nothing but errors and notes")
    how = parser.add_argument_group("how pages become vectors")
    add_retriever_arguments(how, "the index's")
    how.add_argument(
        "--pool-factor",
        type=int,
        metavar="K",
        help="replace like vectors of a page by their mean: the index is K times smaller, and less exact "
        "(default: the index's, 1 for a new one: none)",
    )
    return parser


if __name__ == "__main__":
    main()
