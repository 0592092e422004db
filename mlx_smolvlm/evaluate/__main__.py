"""`python -m mlx_smolvlm.evaluate`: arguments and printing."""

import argparse
from pathlib import Path

from ..command_line.runner import CommandLine, print_json, refuse_tracebacks
from ..command_line.standard_streams import say
from .row_files import RowFiles, read_rows
from .row_prompts import listed_prompts, row_rule, wrapper_for
from .wrapper_prompts import WRAPPERS


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input."""
    with refuse_tracebacks():
        _run(_parser().parse_args())


def _run(arguments: argparse.Namespace) -> None:
    root = arguments.image_root.expanduser() if arguments.image_root else None
    found = read_rows([Path(name).expanduser() for name in arguments.data], arguments.dataset, root)
    _say_notes(found)
    if not arguments.print_prompts:
        raise ValueError("only --print-prompts is there yet")
    for listed in listed_prompts(found.rows, wrapper_for(arguments.model, arguments.wrapper)):
        print_json(listed)


def _say_notes(found: RowFiles) -> None:
    """What is not as a reader might think: sets without rules of their own, and columns that are not used."""
    for dataset in sorted({row.dataset for row in found.rows if not row_rule(row).is_known}):
        rule = next(row_rule(row) for row in found.rows if row.dataset == dataset)
        kind = "a question with options" if rule.message == "mcq" else "a plain question"
        say(
            f"note: {dataset} is no set whose prompts SmolVLM's wrappers treat in their own way; it has the default "
            f"builder, as {kind} (--dataset NAME says which set it is)"
        )
    if found.unused:
        say(f"note: not used: {', '.join(sorted(found.unused))}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.evaluate",
        description="Score a model on local data, with the prompts and scores of VLMEvalKit.",
    )
    parser.add_argument("data", nargs="+", metavar="DATA", help="rows: .tsv or .csv of VLMEvalKit, or .jsonl")
    parser.add_argument("--model", metavar="PATH_OR_HUB_ID", help="checkpoint (default: the embedded demo model)")
    parser.add_argument("--dataset", metavar="NAME", help="VLMEvalKit's name of the set (default: the file's name)")
    parser.add_argument("--image-root", type=Path, metavar="DIR", help="where paths in rows count from")
    parser.add_argument(
        "--wrapper", choices=tuple(WRAPPERS), help="whose prompts: SmolVLM's or SmolVLM2's (default: by the model)"
    )
    parser.add_argument(
        "--print-prompts", action="store_true", help="print prompts, images and their order, a line of JSON each"
    )
    return parser


if __name__ == "__main__":
    main()
