"""`python -m mlx_smolvlm.search`: arguments and printing."""

from .command_line import starting  # first: Ctrl-C may come while the rest is imported

# isort: split
import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .command_line.arguments import add_password_arguments, read_password
from .command_line.retriever_arguments import add_retriever_arguments, open_retriever
from .command_line.runner import CommandLine, output_argument, print_json, refuse_tracebacks
from .command_line.waiting import Waiting

if TYPE_CHECKING:
    from .model.smolvlm import SmolVLM
    from .processor.processor import Processor
    from .retrieval.page_index import SearchResult

_MAX_TOKENS = 256
_MAX_PATH = 1000  # characters that are shown
_ANSWER_PAGES = 3  # more would not fit into the context of these models, cut into tiles


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input."""
    with refuse_tracebacks():
        arguments = _parser().parse_args()
        from .command_line.signals import end_at_once, if_held_up  # --help does without

        with if_held_up(end_at_once), Waiting(not arguments.quiet) as waiting:
            _run(arguments, waiting)


def _run(arguments: argparse.Namespace, waiting: Waiting) -> None:
    for option in ("--top-k", "--answer-pages", "--max-tokens"):
        value = getattr(arguments, option[2:].replace("-", "_"))
        if value is not None and value < 1:
            raise ValueError(f"{option} is {value}, expected at least 1")
    if (arguments.answer_pages or arguments.max_tokens) and not arguments.answer:
        option = "--answer-pages" if arguments.answer_pages else "--max-tokens"
        raise ValueError(f"{option} is about --answer MODEL; add it")
    for option in ("--html", "--answer"):
        if getattr(arguments, option[2:]) == "":
            raise ValueError(f"{option} is empty; give it a value, or leave it out")
    password = read_password(arguments)
    if password is not None and not (arguments.html or arguments.answer):
        raise ValueError("the password opens PDFs for --html and --answer, and neither is given; leave it out")
    if not arguments.query.strip():
        raise ValueError("the question is empty; name words to look for")
    folder = Path(arguments.index).expanduser().absolute()
    page = Path(arguments.html).expanduser() if arguments.html else None
    waiting.tell("opening the index")
    with starting.importing():
        from .retrieval.lance_index import LanceIndex, is_lancedb
        from .retrieval.page_index import PageIndex
        from .retrieval.results_page import check_results_page, write_results_page
    if page is not None:
        check_results_page(page)
    index = LanceIndex(folder) if is_lancedb(folder) else PageIndex(folder)
    if not index.num_pages:
        raise ValueError(f"{folder} has no pages yet; add some with python -m mlx_smolvlm.index")
    waiting.tell("loading the model")
    retriever, _ = open_retriever(arguments, folder, index.settings)
    answering = _load_answering(arguments.answer) if arguments.answer else None
    waiting.tell("searching")
    (query,) = retriever.embed_queries([arguments.query])
    results = index.search(query, arguments.top_k)
    waiting.stop()
    _print(results, arguments.json)
    if page is not None:
        waiting.tell("drawing where the words matched")
        write_results_page(page, retriever, arguments.query, results, password)
        waiting.stop()
    if answering is not None:
        _answer(*answering, arguments, results, password, waiting)


def _load_answering(model: str) -> "tuple[SmolVLM, Processor]":
    from .api.loading import DEMO_MODEL, load

    return load(DEMO_MODEL if model == "demo" else model)


def _answer(
    model: "SmolVLM",
    processor: "Processor",
    arguments: argparse.Namespace,
    results: "list[SearchResult]",
    password: str | None,
    waiting: Waiting,
) -> None:
    """Ask about the best pages, and print the answer: after the table, or as the last line of JSON."""
    from .api.generation import stream_generate
    from .command_line.notes import cut_note, show_cut
    from .retrieval.results_page import page_image

    shown = results[: arguments.answer_pages or _ANSWER_PAGES]
    names = [f"{_short(result.path)}, page {result.page}" for result in shown]
    waiting.tell("reading the pages")
    images = [page_image(result, password) for result in shown]
    pieces: list[str] = []
    max_tokens = arguments.max_tokens or _MAX_TOKENS
    for step in stream_generate(model, processor, arguments.query, images=images, max_tokens=max_tokens):
        if not pieces:
            waiting.stop()
            if not arguments.json:
                print(f"\nAnswer, from {'; '.join(names)}:")
        pieces.append(step.text)
        if not arguments.json:
            print(step.text, end="", flush=True)
    if arguments.json:
        pages = [{"path": result.path, "page": result.page} for result in shown]
        print_json({"answer": "".join(pieces), "pages": pages})
        return
    print(flush=True)
    if step.finish_reason == "length" and not arguments.quiet:
        show_cut(cut_note(step, max_tokens, processor.config.context_length))


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
    from .media.urls import printable

    return printable(path.removeprefix(os.getcwd() + os.sep), _MAX_PATH)


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
    answer = parser.add_argument_group("an answer")
    answer.add_argument(
        "--answer",
        metavar="MODEL",
        help="ask this SmolVLM model (a folder or Hub id; demo for the embedded one) the question about the best pages",
    )
    answer.add_argument("--answer-pages", type=int, metavar="N", help=f"show it so many (default: {_ANSWER_PAGES})")
    answer.add_argument("--max-tokens", type=int, metavar="N", help=f"most tokens of it (default: {_MAX_TOKENS})")
    output = parser.add_argument_group("what is printed")
    output.add_argument(
        "--json",
        action="store_true",
        help="a line of JSON for each page: path, page and score; with --answer, a last line with the answer",
    )
    output.add_argument(
        "--html",
        type=output_argument,
        metavar="FILE",
        help="write the pages, with where each word of the question matched, as one HTML file",
    )
    add_password_arguments(output)
    output.add_argument("--quiet", action="store_true", help="nothing but the results, and errors")
    return parser


if __name__ == "__main__":
    main()
