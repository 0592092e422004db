"""`--known-answers`: printing and exit status."""

from pathlib import Path

from .known_answers import check_known_answers, check_line, environment_line, read_known_answers


def run_known_answers(file: Path, model: str | None, dtype: str | None) -> int:
    """Print what this runs on, and a line per check.

    Args:
        file: the records.
        model: the model to check alone, by its Hub id or a folder called as the Hub calls it.
        dtype: a number type in place of the records' own.

    Returns:
        The exit status: 0 if all holds, otherwise 1.

    Raises:
        ValueError: as `read_known_answers`.
    """
    known = read_known_answers(file, model)
    print(environment_line())
    failed = 0
    for checked in check_known_answers(known, model, dtype):
        print(check_line(checked), flush=True)
        failed += bool(checked.differences)
    print(f"{len(known) - failed} of {len(known)} hold")
    return int(failed > 0)
