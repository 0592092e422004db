"""What is said of rows before they are asked: what is not as a reader might think."""

from ...command_line.standard_streams import say
from ...options import did_you_mean
from ..data.row_files import RowFiles
from ..data.sets import SETS
from .row_prompts import CHAT, left_out, row_rule

_NAMED = 4  # sets


def say_notes(found: RowFiles, protocol: str) -> None:
    """On stderr: sets without rules of their own, in a line for each way to ask, and fields that nothing uses."""
    is_chat = protocol == CHAT
    kinds: dict[str, list[str]] = {}
    for row in found.rows:
        if not (is_chat or (rule := row_rule(row)).is_known):
            kind = "questions with options" if rule.message == "mcq" else "plain questions"
            if row.dataset not in kinds.setdefault(kind, []):
                kinds[kind].append(row.dataset)
    for kind, names in kinds.items():
        near = f"{advice} " if (advice := did_you_mean(names[0], list(SETS))) else ""
        is_named = "is not the name of a set" if len(names) == 1 else "are not names of sets"
        own, it_is = ("its", "it is one") if len(names) == 1 else ("their", "one is known")
        others = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
        say(
            f"note: {', '.join(names[:_NAMED])}{others} {is_named} with prompts of {own} own, so {own} rows are asked "
            f"as {kind} by the default builder ({near}if {it_is} under another name, add --dataset NAME)"
        )
    unused = found.unused | {name for row in found.rows if not (is_chat and row.is_video) for name in left_out(row)}
    if unused:
        say(f"note: not used in prompts or scores: {', '.join(sorted(unused))}")
