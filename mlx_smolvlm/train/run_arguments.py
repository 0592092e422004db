"""The arguments of `train` that say how is trained, and where to."""

import argparse
from dataclasses import fields
from typing import Any

from ..command_line.runner import output_argument
from .recipe import METHODS, SCHEDULES, TEXT_TARGETS, Recipe

_SAVE_EVERY = 25


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained, for how long, and where the result goes."""
    out = parser.add_argument_group("output")
    out.add_argument(
        "--adapter-out",
        type=output_argument,
        metavar="DIR",
        help="folder to make: an adapter of PEFT's; a checkpoint with --method full",
    )
    out.add_argument("--resume", action="store_true", help="go on where a run into DIR was stopped or killed")
    out.add_argument(
        "--save-every",
        type=int,
        default=_SAVE_EVERY,
        metavar="N",
        help=f"steps between two states (default: {_SAVE_EVERY})",
    )
    out.add_argument(
        "--merge",
        nargs="?",
        const="",
        type=output_argument,
        metavar="DIR",
        help="then write the merged checkpoint (default: DIR-merged)",
    )
    out.add_argument(
        "--plot",
        type=output_argument,
        metavar="FILE",
        help="draw losses and rate as .png, .pdf or .svg (needs matplotlib)",
    )
    out.add_argument("--quiet", action="store_true", help="print errors alone")

    what = parser.add_argument_group("what is trained")
    what.add_argument("--method", choices=METHODS, help="an adapter of this kind (default: lora), or full weights")
    what.add_argument("--rank", type=int, metavar="R", help="of the adapter's matrices (default: 8)")
    what.add_argument("--alpha", type=float, metavar="A", help="scale of the adapter (default: the rank)")
    what.add_argument("--dropout", type=float, default=0.0, metavar="D", help="of the adapter's inputs (default: 0)")
    what.add_argument("--init-adapter", metavar="DIR", help="continue this adapter of PEFT's")
    what.add_argument(
        "--target",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="layers to adapt: a path or its end, as in PEFT, in all parts; or all-linear (default: the text's "
        f"{', '.join(TEXT_TARGETS)})",
    )
    what.add_argument("--train-vision", action="store_true", help="also the image encoder")
    what.add_argument("--train-connector", action="store_true", help="also the connector")

    how = parser.add_argument_group("training")
    how.add_argument("--steps", type=int, metavar="N", help="optimizer steps")
    how.add_argument("--epochs", type=int, metavar="E", help="times that all rows are seen (default: 1)")
    how.add_argument("--batch-size", type=int, default=4, metavar="B", help="rows of a batch (default: 4)")
    how.add_argument(
        "--accumulate", type=int, default=1, metavar="K", help="batches whose gradients are one step's (default: 1)"
    )
    how.add_argument("--learning-rate", type=float, default=1e-4, metavar="LR", help="the highest (default: 1e-4)")
    how.add_argument("--vision-learning-rate", type=float, metavar="LR", help="of the image encoder")
    how.add_argument("--connector-learning-rate", type=float, metavar="LR", help="of the connector")
    how.add_argument("--schedule", choices=SCHEDULES, default="constant", help="of the rate (default: constant)")
    how.add_argument("--warmup", type=int, default=0, metavar="S", help="steps in which the rate rises (default: 0)")
    how.add_argument("--weight-decay", type=float, default=0.01, metavar="W", help="of AdamW (default: 0.01)")
    how.add_argument("--max-grad-norm", type=float, metavar="G", help="clip gradients to this norm (default: do not)")
    how.add_argument("--seed", type=int, default=0, metavar="S", help="of matrices, order and dropout (default: 0)")
    how.add_argument("--no-shuffle", action="store_true", help="keep the order of the rows")
    how.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="of the networks (default: bfloat16, on the CPU float32); what is trained is kept in float32",
    )
    how.add_argument("--max-memory", type=float, metavar="GB", help="cut batches, or recompute, to stay below this")
    how.add_argument("--grad-checkpoint", action="store_true", help="recompute activations rather than keep them")
    how.add_argument(
        "--feature-cache", metavar="DIR", help="keep image features of a frozen encoder here (default: during the run)"
    )


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The options of a run. Raises ValueError for what is out of range, or contradictory."""
    given = {"targets": tuple(arguments.target), "shuffle": not arguments.no_shuffle}
    given["max_memory_gb"] = arguments.max_memory
    options: dict[str, Any] = vars(arguments) | given
    if arguments.save_every < 1:
        raise ValueError(f"--save-every is {arguments.save_every}, expected at least 1")
    return Recipe(**{field.name: options[field.name] for field in fields(Recipe)})
