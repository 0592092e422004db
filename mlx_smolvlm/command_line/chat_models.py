"""The models that a chat may go on with: one base, with the adapters that `/adapter` names, or without."""

import argparse
import shlex

from ..api.adapter_set import AdapterSet
from ..api.finding import open_adapters
from ..api.loading import DEMO_MODEL
from ..model.smolvlm import SmolVLM
from ..processor.processor import Processor
from .adapter_arguments import adapter_sources, loading_options

BASE = "none"  # what names the base without adapters


class ChatModels:
    """One base, and models with adapters on it, by the words that name these.

    Attributes:
        chosen: the words for the adapters in use; empty for the base.
    """

    def __init__(self, arguments: argparse.Namespace):
        """Load what `--model` and `--adapter-path` name. Raises what `load` raises."""
        loading = loading_options(arguments)
        open_adapters(loading.pop("adapters", ()))  # what is wrong with them is said before a model is downloaded
        self._models = AdapterSet(DEMO_MODEL if arguments.model is None else arguments.model, **loading)
        self.chosen = ""
        self._choose(arguments.adapter_path)

    @property
    def pair(self) -> tuple[SmolVLM, Processor]:
        """The model in use, and its processor."""
        return self._models.pair(self.chosen or None)

    def obey(self, text: str) -> str:
        """Choose the adapters that a line names, or "none"; an empty line only asks. Returns what is in use.

        Raises:
            ValueError, FileNotFoundError, ConnectionError: adapters that cannot be read, or do not fit.
        """
        words = shlex.split(text)
        if words:
            self._choose([] if words == [BASE] else words)
        return f"adapter: {self.chosen}" if self.chosen else "no adapter"

    def _choose(self, words: list[str]) -> None:
        name = " + ".join(words)
        if name and name not in self._models.names:
            self._models.add(name, adapter_sources(words))
        self.chosen = name
