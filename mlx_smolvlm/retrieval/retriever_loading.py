"""Folders or Hub ids of a ColSmol checkpoint and of adapters -> a `Retriever`."""

from collections.abc import Sequence
from pathlib import Path

from ..api.finding import AdapterSource, base_of, find_checkpoint, open_adapters
from ..api.loading import load_checked
from ..model.checkpoint_folder import ADAPTER_CONFIG
from ..model.config import RETRIEVER, ModelConfig
from ..processor.processor import END_OF_UTTERANCE
from .prompt_formats import DEFAULT_FORMAT, find_format
from .retriever import Retriever


def load_retriever(
    path: str | Path | None,
    adapter_path: AdapterSource | Sequence[AdapterSource] | None = None,
    prompt_format: str = DEFAULT_FORMAT,
    *,
    dtype: str | None = None,
    revision: str | None = None,
) -> Retriever:
    """Load a ColSmol model: a ColIdefics3 checkpoint, with adapters or without.

    Args:
        path: a folder, in Hugging Face layout or converted, quantized or not, or the id of a repository on the Hugging
            Face Hub. An adapter, as the released colSmol-256M and -500M are, stands for the base that it names with
            this adapter; so does None with `adapter_path`.
        adapter_path: adapters of the base, as `adapters` of `load`. The layer that makes the vectors, `linear`, is the
            base's, with what an adapter changes in it.
        prompt_format: "training", the prompts that the released checkpoints were trained with (colpali-engine 0.3.5 to
            0.3.8), or "current" (0.3.13 and later). Pages and queries need the same one.
        dtype: "bfloat16", "float16" or "float32"; None for `default_dtype()`, as in `load`.
        revision: branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: no such checkpoint or adapter, or files are missing from it.
        ValueError: a checkpoint of another kind, such as one that answers, one without `linear`, damaged files, or
            adapters that do not fit.
        ConnectionError: the Hub cannot be reached or refuses.
    """
    find_format(prompt_format)
    if adapter_path is None:
        if path is None:
            raise ValueError("no model is given; name a ColIdefics3 checkpoint, or an adapter of one")
        folder = find_checkpoint(path, revision=revision)
        if not (folder / "config.json").is_file() and (folder / ADAPTER_CONFIG).is_file():
            path, adapter_path, revision = None, folder, None
    adapters = [] if adapter_path is None else open_adapters(adapter_path)
    if path is None:
        path, revision = base_of([adapter for adapter, _ in adapters], revision, "the checkpoint's path")
        try:
            find_checkpoint(path, revision=revision)
        except FileNotFoundError as error:
            folder = adapters[0][0].folder
            raise FileNotFoundError(f"the base model of the adapter {folder} is missing: {error}") from None
    sources = [(adapter.folder, weight) for adapter, weight in adapters]
    model, processor = load_checked(path, _check_kind, adapters=sources, dtype=dtype, revision=revision)
    if processor.tokenizer.token_to_id(END_OF_UTTERANCE) is None:
        raise ValueError(f"{path}: the tokenizer does not know {END_OF_UTTERANCE}, with which queries end")
    return Retriever(model, processor, prompt_format)


def _check_kind(folder: Path, config: ModelConfig) -> None:
    if not config.is_retriever:
        raise ValueError(
            f"{folder} answers questions and makes no vectors: its config.json does not name the architecture "
            f"{RETRIEVER}; use a ColSmol checkpoint, or python -m mlx_smolvlm.generate"
        )
