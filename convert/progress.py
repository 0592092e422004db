"""How far a conversion is: a bar on a terminal, a line per stage elsewhere, nothing unless asked."""

import sys
from typing import Any


class Progress:
    """Told how a conversion proceeds; this one keeps it to itself."""

    def stage(self, text: str, total_bytes: int | None = None) -> None:
        """A stage begins; `advance` will be called until `total_bytes` are done, if given. Ends the stage before."""

    def advance(self, num_bytes: int) -> None:
        """So many bytes more are done."""

    def close(self) -> None:
        """The last stage has ended, well or not."""


class StderrProgress(Progress):
    """On stderr: a line per stage and, where that is a terminal, a bar."""

    def __init__(self) -> None:
        self._bar: Any = None

    def stage(self, text: str, total_bytes: int | None = None) -> None:
        """Say it, and begin a bar if there is something to count."""
        self.close()
        if total_bytes is not None and sys.stderr.isatty():
            from tqdm import tqdm  # huggingface_hub's bar

            self._bar = tqdm(total=total_bytes, desc=text, unit="B", unit_scale=True, leave=False)
        else:
            print(text, file=sys.stderr)

    def advance(self, num_bytes: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(num_bytes)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
