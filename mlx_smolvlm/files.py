"""Files and folders that appear whole or not at all, whatever ends the writing.

Everything is made in a hidden folder beside the target and takes the target's name at the end, once it is on the disk.
The hidden folder is locked while its process lives; what a killed process left is removed by the next one that writes
the same target. It is known by a marker within and by its owner: a folder that is only called so is another program's.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

_MARKER = "of_mlx_smolvlm"  # within a hidden folder, from when it is locked until all else is removed
_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_MAX_PREFIX_BYTES = 180  # of a name's; most systems have 255 for a whole one
_REPLACED = "replaced"  # within a hidden folder: the old target, until the new one has its place


def replace_anything(target: Path) -> None:
    """No objection to replacing a file."""


@contextmanager
def whole_file(target: Path, check: Callable[[Path], None] = replace_anything) -> Iterator[Path]:
    """A path to write, whose file takes the place of `target` when the block ends well, and vanishes otherwise.

    The path has the same name in another folder, so that writers that go by a file's ending choose the right format.
    The new file has the permissions of the file that it replaces, or those of any new file. If `target` is a link, the
    file that it points to is replaced.

    Args:
        target: the file's name.
        check: raises an error if the file that `target` names must not be replaced. Called before the block, and again
            at its end, since another process may have been quicker.

    Raises:
        IsADirectoryError, FileExistsError: `target` is a folder, or something else that cannot be replaced; and what
            `check` raises.
        FileNotFoundError: the folder of `target` is not there.
        OSError: no file can be written there.
    """
    place = Path(os.path.realpath(target))
    if place.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name a file to write")
    if place.exists() and not place.is_file():
        raise FileExistsError(f"{target} is a device or a pipe, which cannot be replaced; name a file to write")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent} to write {target.name} in; make it first")
    check(target)
    with suppress(OSError):  # of a folder that may be written but not listed
        remove_remains(place)
    with _named_errors(target), hidden_folder(place) as hidden:
        file = hidden / place.name
        yield file
        with suppress(FileNotFoundError):
            file.chmod(stat.S_IMODE(place.stat().st_mode))
        _flush(file)
        check(target)
        file.replace(place)
        _flush(place.parent)


def refuse_foreign(target: Path, is_own: Callable[[Path], bool], what: str) -> None:
    """Raise FileExistsError if `target` is there, and is not `what` this program writes under such names; a pipe, too,
    which would be waited for."""
    if target.exists() and not target.is_dir() and not (target.is_file() and is_own(target)):
        raise FileExistsError(f"{target} exists already and is no {what}; choose another name, or remove it first")


def refuse_unwritable(folder: Path, option: str = "--out") -> None:
    """Raise an OSError that names `option` if nothing can be written in `folder`, or if it is not there and cannot be
    made."""
    folder = folder.absolute()
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"{place} is a file, so there is no folder in it; choose another {option}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"{place} may not be written; choose another {option}")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=place))  # of file systems that cannot be written by anybody
    except OSError as error:
        raise type(error)(f"{place} cannot be written ({error.strerror}); choose another {option}") from None


def refuse_to_replace(target: Path) -> None:
    """Raise FileExistsError if `target` is anything but an empty folder."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise FileExistsError(f"{target} exists already; choose another name, or remove it first")


@contextmanager
def whole_folder(target: Path, check: Callable[[Path], None] = refuse_to_replace) -> Iterator[Path]:
    """A folder to fill that takes the name `target` when the block ends well, and vanishes otherwise.

    Folders above `target` are made, and removed again if they were made in vain. A folder that is to be replaced stays
    until the new one is on the disk; if the process is killed in between, the next one gives it its name back.

    Args:
        target: where the folder is to appear.
        check: raises an error if what `target` names must not be replaced. Called before the block, and again at its
            end, since another process may have been quicker.

    Raises:
        OSError: the folder above `target` cannot be written; and what `check` raises.
    """
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_remains(target)
        check(target)
        with _named_errors(target), hidden_folder(target) as hidden:
            folder = hidden / "new"
            folder.mkdir()
            yield folder
            for file in folder.iterdir():
                _flush(file)
            _flush(folder)
            check(target)
            _place(folder, target, hidden / _REPLACED)
            _flush(target.parent)
    except BaseException:
        _despite_interrupts(lambda: _remove_empty(made))
        raise


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON with a final newline, as it comes: see `whole_file`."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # of file names that are not UTF-8


@contextmanager
def hidden_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, marked as in use. Its name has a part chosen before, by which it is found
    and removed where Ctrl-C comes while it is made."""
    prefix = f"{_prefix(target)}{secrets.token_hex(4)}"
    hidden = lock = None

    def clean() -> None:
        for path in [hidden] if hidden else _beginning_with(prefix, target.parent):
            _clear(path, target)

    try:
        try:
            hidden = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
            lock = _lock(hidden)
            (hidden / _MARKER).touch()
            yield hidden
        finally:
            _despite_interrupts(clean)
    finally:
        _despite_interrupts(clean)  # if Ctrl-C came just before the other
        if lock is not None:
            os.close(lock)


@contextmanager
def _named_errors(target: Path) -> Iterator[None]:
    """Within: what the system says of a full disk, which names no file, names `target`."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_ERRNOS and error.filename is None:
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise


def _beginning_with(prefix: str, folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name.startswith(prefix)]
    except OSError:  # it may be written but not listed, or is not there
        return []


def _prefix(target: Path) -> str:
    """How hidden folders of a target begin; a long name is cut, since what is added must fit, too."""
    name = os.fsencode(target.name)
    if len(name) > _MAX_PREFIX_BYTES:
        name = name[:_MAX_PREFIX_BYTES] + blake2b(name, digest_size=8).hexdigest().encode()
    return f".{os.fsdecode(name)}.partial."


def remove_remains(target: Path) -> None:
    """Remove what killed processes left; a folder that one was about to replace gets its name back."""
    for remains in target.parent.iterdir():
        is_ours = remains.name.startswith(_prefix(target)) and _is_ours(remains)
        lock = _lock(remains) if is_ours else None
        if lock is None:  # something else, or of a process that lives
            continue
        try:
            _clear(remains, target)
        finally:
            os.close(lock)


def _is_ours(folder: Path) -> bool:
    """Whether a folder was made here, by this user: links and what only has the name are not."""
    try:
        own, marker = folder.lstat(), (folder / _MARKER).lstat()
    except OSError:
        return False
    is_of_kind = stat.S_ISDIR(own.st_mode) and stat.S_ISREG(marker.st_mode)
    return is_of_kind and own.st_uid == marker.st_uid == os.geteuid()


def _clear(hidden: Path, target: Path) -> None:
    """Remove a hidden folder, its marker last; a target that was about to be replaced gets its name back."""
    replaced = hidden / _REPLACED
    if replaced.is_dir() and not replaced.is_symlink() and not os.path.lexists(target):
        replaced.rename(target)
    for path in list(hidden.iterdir()) if hidden.is_dir() else []:
        if path.name == _MARKER:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (hidden / _MARKER).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        hidden.rmdir()


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # of one that meanwhile holds something else
        for folder in folders:
            with suppress(FileNotFoundError):
                folder.rmdir()


def _despite_interrupts(clean: Callable[[], None]) -> None:
    """Clean up to the end, from the beginning again where Ctrl-C comes meanwhile; then it counts."""
    interrupt = None
    while True:
        try:
            clean()
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _place(folder: Path, target: Path, replaced: Path) -> None:
    """Give `folder` the name `target`; what had it goes to `replaced`, or stays if that fails."""
    try:
        if target.exists():
            target.rename(replaced)
        folder.rename(target)
    except BaseException:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise


def _lock(folder: Path) -> int | None:
    """Mark a folder as in use while this process lives; None if another has done so, or if there are no locks here."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _flush(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
