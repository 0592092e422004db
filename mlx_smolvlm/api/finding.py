"""Names of models and adapters -> their folders, here or downloaded from the Hub."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..media.reporting import report
from ..model.adapters.adapter_files import Adapter, read_adapter
from ..model.checkpoint_folder import refused_file
from ..options import is_between, quoted

AdapterSource = str | Path | tuple[str | Path, float]
"""Folder or Hub id of an adapter; or that, and its weight."""

MAX_ADAPTER_WEIGHT = 1000.0
_MAX_PATH_CHARS = 4096


def find_checkpoint(path_or_hub_id: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of a checkpoint, downloading it from the Hub if need be. Raises what `load` raises."""
    name = str(path_or_hub_id)
    if not name:
        raise FileNotFoundError("the model's name is empty; expected a folder or a Hub id (owner/name)")
    if len(name) > _MAX_PATH_CHARS:
        raise FileNotFoundError(f"no folder {quoted(name)}; that is longer than any path or Hub id")
    try:
        folder = Path(path_or_hub_id).expanduser()
        check_utf8(folder)
        if folder.is_dir():
            _refuse_revision(folder, revision)
            return folder
        is_file = folder.exists()
    except (RuntimeError, OSError) as error:  # ~ without a home folder; a part too long for a file, or not to be read
        reason = getattr(error, "strerror", None) or str(error)
        raise FileNotFoundError(f"no folder {quoted(name, 300)}: {reason}; expected a folder or a Hub id") from None
    if is_file:
        raise FileNotFoundError(refused_file(folder))
    if Path(name).suffix.lower() == ".gguf":
        raise FileNotFoundError(f"no file {quoted(name, 300)}; and GGUF files are read by llama.cpp, not here")
    if name == "demo":
        raise FileNotFoundError(
            "no folder 'demo'; the embedded demo model is used where no model is named (in Python: load(DEMO_MODEL))"
        )
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        raise FileNotFoundError(f"no folder {quoted(name, 300)}, and that is no Hub id either (owner/name)")
    from .hub import download

    return download(name, revision)


def _refuse_revision(folder: Path, revision: str | None) -> None:
    if revision is not None:
        raise ValueError(f"revision is {quoted(revision)}, but {folder} is a folder, and only the Hub has revisions")


def check_utf8(path: Path) -> None:
    """Raise ValueError for a path that the libraries that read tokenizers and weights cannot be told."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"the path {str(path)!a} is not UTF-8; give the folder another name") from None


def open_adapters(sources: AdapterSource | Sequence[AdapterSource]) -> list[tuple[Adapter, float]]:
    """Adapters with their weights, read from their folders or from the Hub.

    Raises:
        FileNotFoundError: no such adapter, or only one with pickled weights.
        ValueError: an adapter that is not understood, or a weight out of range.
        TypeError: what is no path, no Hub id and no pair with a weight.
        ConnectionError: the Hub cannot be reached or refuses.
    """
    is_pair = isinstance(sources, tuple) and len(sources) == 2 and isinstance(sources[1], int | float)
    if isinstance(sources, Mapping):
        raise TypeError("adapters have names here; to choose among several by name, use AdapterSet")
    listed: Any = [sources] if isinstance(sources, str | Path) or is_pair else sources
    opened = []
    for source in listed:
        path, weight = source if isinstance(source, tuple) and len(source) == 2 else (source, 1.0)
        if not isinstance(path, str | Path):
            raise TypeError(
                f"an adapter is {quoted(source)}, expected a folder or Hub id, or (folder or Hub id, weight)"
            )
        if not is_between(weight, -MAX_ADAPTER_WEIGHT, MAX_ADAPTER_WEIGHT):
            limit = f"{MAX_ADAPTER_WEIGHT:g}"
            raise ValueError(
                f"the weight of adapter {path} is {quoted(weight)}, expected a number from -{limit} to {limit}"
            )
        report("loading the adapter")
        opened.append((read_adapter(find_checkpoint(path)), float(weight)))
    return opened


def base_of(adapters: Sequence[Adapter], revision: str | None, option: str) -> tuple[str, str | None]:
    """The base model that adapters name, and its revision, for a user who names none by `option`.

    Raises:
        ValueError: they name none, or several.
    """
    bases = sorted({adapter.base for adapter in adapters if adapter.base})
    if not bases:
        raise ValueError(f"no model is given, and the adapter's configuration names no base; name it by {option}")
    if len(bases) > 1:
        raise ValueError(f"the adapters name different bases ({', '.join(bases[:4])}); name one by {option}")
    revisions = {adapter.revision for adapter in adapters if adapter.base}
    is_folder = Path(bases[0]).expanduser().is_dir()  # which has no revisions
    return bases[0], revision or (revisions.pop() if len(revisions) == 1 and not is_folder else None)


def name_of(adapter: Path) -> str:
    """What to call an adapter: its folder's name, or where that is one of the Hub's cache, its id."""
    repository = adapter.resolve().parent.parent.name
    if adapter.resolve().parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/", 1)
    return adapter.resolve().name
