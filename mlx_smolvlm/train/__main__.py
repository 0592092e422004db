"""`python -m mlx_smolvlm.train`: arguments and printing."""

import argparse
import os
from typing import TYPE_CHECKING

from ..command_line import starting
from ..command_line.notes import show_missing_decoder
from ..command_line.runner import BAD_INPUT, CommandLine, refuse_tracebacks
from .dataset.data_arguments import add_data_arguments, check_data_arguments
from .run_arguments import add_run_arguments, recipe_of

if TYPE_CHECKING:
    from ..batch.ranks import Ranks


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input, with 130 or 143 when interrupted."""
    group: list[Ranks] = []
    try:
        with refuse_tracebacks():
            _run(_parser().parse_args(), group)
    except SystemExit as ending:
        if any(ranks.is_stuck for ranks in group):
            os._exit(ending.code if isinstance(ending.code, int) else BAD_INPUT)
        raise


def _run(arguments: argparse.Namespace, group: "list[Ranks]") -> None:
    """Do it all. `group` gets the processes that do it together, once they are known."""
    check_data_arguments(arguments)
    recipe = recipe_of(arguments)
    show_missing_decoder(arguments)
    if not arguments.check:
        with starting.importing():
            from ..batch.ranks import Ranks
            from .training_command import run_training

        group.append(Ranks())
        run_training(arguments, recipe, group[0])
        return
    with starting.importing():
        from ..api.finding import find_checkpoint
        from ..api.loading import DEMO_MODEL
        from ..model.checkpoint_folder import check_folder
        from ..model.config import read_model_config
        from ..processor.processor import load_processor
        from .reports.check import run_check

    folder = find_checkpoint(arguments.model or DEMO_MODEL)
    check_folder(folder)
    init = [] if recipe.init_adapter is None else [find_checkpoint(recipe.init_adapter)]  # which may have a template
    run_check(arguments, load_processor(folder, read_model_config(folder), init))


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.train",
        description="Fine-tune a model on rows of questions and answers: LoRA, DoRA, rsLoRA, or full weights.",
        epilog="A run can be stopped (Ctrl-C) or killed at any moment: the same command with --resume goes on, and its "
        "result is the same to the byte. Started by mlx.launch, several processes or Macs train together.",
    )
    parser.add_argument("--model", metavar="PATH_OR_HUB_ID", help="the base (default: the built-in demo model)")
    add_data_arguments(parser)
    add_run_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
