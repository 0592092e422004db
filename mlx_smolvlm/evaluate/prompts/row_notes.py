"""What is said of rows before they are asked: what is not as a reader might think."""

from ...command_line.standard_streams import say
from ...options import did_you_mean
from ..data.row_files import RowFiles
from ..data.sets import SETS
from .row_prompts import CHAT, left_out, row_rule


def say_notes(found: RowFiles, protocol: str) -> None:
    """On stderr: sets without rules of their own, and fields that neither prompts nor scores use."""
    is_chat = protocol == CHAT
    for dataset in sorted({row.dataset for row in found.rows if not (is_chat or row_rule(row).is_known)}):
        rule = next(row_rule(row) for row in found.rows if row.dataset == dataset)
        kind = "questions with options" if rule.message == "mcq" else "plain questions"
        near = f"{advice} " if (advice := did_you_mean(dataset, list(SETS))) else ""
        say(
            f"note: {dataset} is not the name of a set with prompts of its own, so its rows are asked as {kind} by the "
            f"default builder ({near}if it is one under another name, add --dataset NAME)"
        )
    unused = found.unused | {name for row in found.rows if not (is_chat and row.is_video) for name in left_out(row)}
    if unused:
        say(f"note: not used in prompts or scores: {', '.join(sorted(unused))}")
