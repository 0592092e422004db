"""`python -m mlx_smolvlm.train`: arguments and printing."""

import argparse

from ..command_line import starting
from ..command_line.runner import CommandLine, refuse_tracebacks
from .data_arguments import add_data_arguments, check_data_arguments


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input."""
    with refuse_tracebacks():
        arguments = _parser().parse_args()
        check_data_arguments(arguments)
        with starting.importing():
            from ..api.finding import find_checkpoint
            from ..api.loading import DEMO_MODEL
            from ..model.checkpoint_folder import check_folder
            from ..model.config import read_model_config
            from ..processor.processor import load_processor
            from .check import run_check

        if not arguments.check:
            raise ValueError("only --check is there yet")
        folder = find_checkpoint(arguments.model or DEMO_MODEL)
        check_folder(folder)
        run_check(arguments, load_processor(folder, read_model_config(folder)))


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(prog="python -m mlx_smolvlm.train", description="Fine-tune a model on rows.")
    parser.add_argument("--model", metavar="PATH_OR_HUB_ID", help="the base (default: the built-in demo model)")
    add_data_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
