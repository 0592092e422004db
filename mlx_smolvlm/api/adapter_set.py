"""Several adapters on one base model, chosen by name for each call."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

from ..model.checkpoint_folder import check_folder
from ..model.config import read_model_config
from ..model.smolvlm import SmolVLM
from ..options import quoted
from ..processor.processor import Processor, load_processor
from .finding import AdapterSource, find_checkpoint, open_adapters
from .loading import check_dtype, default_dtype, load_model, refuse_retriever, with_adapters


class AdapterSet:
    """A base model, and models with adapters that share its weights: load once, choose by name for every call.

    `pair(name)` gives a model and its processor as `load` does, for any function that takes them. Each model is an
    object of its own, so whatever is bound to a model (`PromptCache`, `FeatureCache`, `Session`, `Rows`) is bound to
    its adapters: what one has read is never continued by another. Memory is that of the base and of the adapters'
    own tensors. Any thread may use it.

        adapters = AdapterSet("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", {"cad": "cad-lora"})
        adapters.add("mixed", [("cad-lora", 0.7), "notes-lora"])
        model, processor = adapters.pair("mixed")

    Attributes:
        folder: of the base model.
    """

    def __init__(
        self,
        path_or_hub_id: str | Path,
        adapters: Mapping[str, AdapterSource | Sequence[AdapterSource]] | None = None,
        *,
        dtype: str | None = None,
        revision: str | None = None,
        fuse: bool = True,
    ):
        """
        Args:
            path_or_hub_id, dtype, revision, fuse: of the base, as in `load`.
            adapters: by name, one or several that are used together, as in `load`.

        Raises:
            ValueError, FileNotFoundError, ConnectionError: as `load` and `add`.
        """
        check_dtype(dtype)
        self.folder = find_checkpoint(path_or_hub_id, revision=revision)
        check_folder(self.folder)
        config = read_model_config(self.folder)
        refuse_retriever(self.folder, config)
        processor = load_processor(self.folder, config)
        model = load_model(self.folder, config, dtype or default_dtype(), fuse=fuse)
        self._base = model, processor
        self._pairs: dict[str, tuple[SmolVLM, Processor]] = {}
        self._lock = Lock()
        for name, sources in (adapters or {}).items():
            self.add(name, sources)

    def __repr__(self) -> str:
        return f"<AdapterSet on {self.folder}: {', '.join(self.names) or 'no adapters'}>"

    @property
    def names(self) -> list[str]:
        """Names to choose from, in the order in which they were added."""
        return list(self._pairs)

    def add(self, name: str, adapters: AdapterSource | Sequence[AdapterSource]) -> None:
        """Load one adapter, or several that are used together, under a name.

        Raises:
            ValueError: a name that is empty or taken, no adapters, or adapters that do not fit.
            FileNotFoundError, ConnectionError: as `load`.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"the name of an adapter is {quoted(name)}, expected some text")
        opened = open_adapters(adapters)
        if not opened:
            raise ValueError(f"no adapters are given for {quoted(name)}; name at least one")
        base, _ = self._base
        model = with_adapters(base, self.folder, opened)
        processor = load_processor(self.folder, model.config, [adapter.folder for adapter, _ in opened])
        with self._lock:
            if name in self._pairs:
                raise ValueError(
                    f"there are adapters {quoted(name)} already; remove them first, or choose another name"
                )
            self._pairs[name] = model, processor

    def remove(self, name: str) -> None:
        """Forget a name; calls that have its model go on with it. Raises ValueError if there is no such name."""
        with self._lock:
            self.pair(name)
            del self._pairs[name]

    def pair(self, name: str | None = None) -> tuple[SmolVLM, Processor]:
        """The model with the adapters of a name, and its processor; None for the base alone.

        Raises:
            ValueError: there is no such name.
        """
        if name is None:
            return self._base
        found = self._pairs.get(name)
        if found is None:
            raise ValueError(
                f"there are no adapters {quoted(name)}; expected one of {', '.join(self.names) or '(none)'}"
            )
        return found
