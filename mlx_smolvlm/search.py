"""`python -m mlx_smolvlm.search`: arguments and printing."""

from .command_line import starting  # first: Ctrl-C may come while the rest is imported

# isort: split
import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .command_line.retriever_arguments import add_retriever_arguments, open_retriever
from .command_line.runner import CommandLine, print_json, refuse_tracebacks
from .command_line.waiting import Waiting

if TYPE_CHECKING:
    from .retrieval.page_index import SearchResult


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input."""
    with refuse_tracebacks():
        arguments = _parser().parse_args()
        from .command_line.signals import end_at_once, if_held_up  # --help does without

        with if_held_up(end_at_once), Waiting(not arguments.quiet) as waiting:
            _run(arguments, waiting)


def _run(arguments: argparse.Namespace, waiting: Waiting) -> None:
    if arguments.top_k < 1:
        raise ValueError(f"--top-k is {arguments.top_k}, expected at least 1")
    folder = Path(arguments.index).expanduser().absolute()
    waiting.tell("opening the index")
    with starting.importing():
        from .retrieval.page_index import PageIndex
    index = PageIndex(folder)
    if not index.manifest.num_pages:
        raise ValueError(f"{folder} has no pages yet; add some with python -m mlx_smolvlm.index")
    waiting.tell("loading the model")
    retriever, _ = open_retriever(arguments, folder, index.manifest.settings)
    waiting.tell("searching")
    (query,) = retriever.embed_queries([arguments.query])
    results = index.search(query, arguments.top_k)
    waiting.stop()
    _print(results, arguments.json)


def _print(results: "list[SearchResult]", as_json: bool) -> None:
    """A line for each result: of JSON, or of a table."""
    if as_json:
        for result in results:
            print_json({"path": result.path, "page": result.page, "score": result.score})
        return
    rows = [("score", "page", "document")]
    rows += [(f"{result.score:.3f}", str(result.page), _short(result.path)) for result in results]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for score, page, path in rows:
        print(f"{score:>{widths[0]}}  {page:>{widths[1]}}  {path}")


def _short(path: str) -> str:
    """A path as people know it: from the working directory, if it is below."""
    here = os.getcwd() + os.sep
    return path.removeprefix(here) if path.startswith(here) else path


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.search",
        description="Find the pages of an index, made by python -m mlx_smolvlm.index, that answer a question.",
    )
    what = parser.add_argument_group("what to find")
    what.add_argument("index", metavar="INDEX", help="folder of the index")
    what.add_argument("query", metavar="QUESTION", help="question or words to look for")
    what.add_argument("--top-k", type=int, default=5, metavar="K", help="most pages to list (default: 5)")
    add_retriever_arguments(what, "the index's")
    output = parser.add_argument_group("what is printed")
    output.add_argument("--json", action="store_true", help="a line of JSON for each page: path, page and score")
    output.add_argument("--quiet", action="store_true", help="nothing but the results, and errors")
    return parser


if __name__ == "__main__":
    main()
