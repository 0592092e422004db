"""What is kept between runs, in the user's state folder: which notes were shown, and what was typed in chats."""

import json
import os
from contextlib import suppress
from pathlib import Path

MAX_HISTORY = 1000  # entries that are read


def state_folder() -> Path:
    """`mlx-smolvlm` in `$XDG_STATE_HOME`, or in `~/.local/state`; it need not exist.

    Raises:
        RuntimeError: there is no home folder.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "mlx-smolvlm"


def is_first(note: str) -> bool:
    """Whether a note has not been shown yet; from now on it has. True each time where nothing can be kept."""
    try:
        folder = state_folder() / "shown"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / note).open("x").close()
    except FileExistsError:
        return False
    except (OSError, RuntimeError):
        pass
    return True


class History:
    """What was typed, oldest first, in a file that only the user can read: a JSON string a line."""

    def __init__(self, name: str | None):
        """`name`: of the file in the state folder; None keeps nothing."""
        self._path: Path | None = None
        self.entries: list[str] = []
        if name is None:
            return
        with suppress(OSError, RuntimeError):
            self._path = state_folder() / name
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines[-MAX_HISTORY:]:
                with suppress(ValueError):
                    entry = json.loads(line)
                    if isinstance(entry, str):
                        self.entries.append(entry)
            if len(lines) > 2 * MAX_HISTORY:  # else the file would grow for ever
                from ..files import whole_file  # once in a thousand questions

                with whole_file(self._path) as shorter:
                    shorter.write_text("\n".join([*lines[-MAX_HISTORY:], ""]), encoding="utf-8")

    def add(self, text: str) -> None:
        """Keep an entry, unless it repeats the last one. A disk that is full is no reason to end the chat."""
        if not text.strip() or self.entries[-1:] == [text]:
            return
        self.entries.append(text)
        if self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(text) + "\n")
