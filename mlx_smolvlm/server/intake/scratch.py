"""Folders for files of a while, which the next server removes where one is killed."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ...files import hidden_folder, remove_remains

NAME = "mlx_smolvlm_server"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in the system's temporary one, which vanishes at the end; those of killed servers are removed first."""
    target = Path(tempfile.gettempdir()) / NAME
    with suppress(OSError):  # the next one will try again
        remove_remains(target)
    with hidden_folder(target) as folder:
        yield folder


class ScratchFiles:
    """A folder for the videos of a request, if it needs one. Both methods write to the disk, so threads call them."""

    def __init__(self) -> None:
        self._files = ExitStack()
        self.folder: Path | None = None

    def open(self) -> Path:
        """The folder, made when it is first asked for."""
        if self.folder is None:
            self.folder = self._files.enter_context(scratch_folder())
        return self.folder

    def close(self) -> None:
        """Remove it."""
        self._files.close()
