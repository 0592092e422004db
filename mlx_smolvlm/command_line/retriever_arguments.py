"""Arguments that `index` and `search` share: which ColSmol model, and its prompts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..retrieval.prompt_formats import DEFAULT_FORMAT, PROMPT_FORMATS
from .adapter_arguments import adapter_sources, add_adapter_argument

if TYPE_CHECKING:
    from ..retrieval.manifest import IndexSettings
    from ..retrieval.retriever import Retriever

RELEASED = "vidore/colSmol-256M"  # what to name to people who have no model yet


def add_retriever_arguments(parser: argparse._ActionsContainer, without: str) -> None:
    """`--model`, `--adapter-path`, `--prompt-format` and `--dtype`; `without` says which model is the default."""
    parser.add_argument(
        "--model",
        metavar="PATH_OR_HUB_ID",
        help=f"ColSmol checkpoint or adapter, such as {RELEASED} (default: {without})",
    )
    add_adapter_argument(parser)
    parser.add_argument(
        "--prompt-format",
        choices=PROMPT_FORMATS,
        help="prompts around pages and queries: as the released models were trained, or of colpali-engine since 0.3.13 "
        f"(default: the index's, {DEFAULT_FORMAT} for a new one)",
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="(default: the index's; bfloat16 for a new one, on a CPU float32)",
    )


def open_retriever(
    arguments: argparse.Namespace, folder: Path, index: "IndexSettings | None", pool_factor: int | None = None
) -> "tuple[Retriever, IndexSettings]":
    """Load the model that is named, or that an index was made with.

    Args:
        arguments: of `add_retriever_arguments`.
        folder: of the index.
        index: its settings; None for a new one.
        pool_factor: as asked for; None takes the index's.

    Returns:
        The retriever, and the settings of an index made with it.

    Raises:
        ValueError: no model is named and there is no index; or it is not the one that the index was made with.
        FileNotFoundError, ConnectionError: as `load_retriever`.
    """
    from ..api.loading import default_dtype
    from ..retrieval.indexing import check_settings, settings_of
    from ..retrieval.retriever_loading import load_retriever

    model, adapters = arguments.model, adapter_sources(arguments.adapter_path)
    if model == "demo" and not Path(model).exists():
        raise ValueError(
            f"the embedded demo model makes no vectors; name a ColSmol model by --model, such as {RELEASED}, of the Hub"
        )
    if model is None and not adapters:
        if index is None:
            raise ValueError(f"name the ColSmol model that makes the vectors by --model, such as {RELEASED}")
        model, adapters = index.model, list(index.adapters)
    prompt_format = arguments.prompt_format or (index.prompt_format if index else DEFAULT_FORMAT)
    dtype = arguments.dtype or (index.dtype if index else default_dtype())
    try:
        retriever = load_retriever(model, adapters or None, prompt_format, dtype=dtype)
    except FileNotFoundError as error:
        if arguments.model is None and index is not None:
            raise FileNotFoundError(f"{error} ({folder} was made with it; name its new place by --model)") from None
        raise
    pool_factor = pool_factor or (index.pool_factor if index else 1)
    own = settings_of(retriever, model or "", adapters, dtype, pool_factor)
    if index is not None:
        check_settings(folder, index, own)
    return retriever, own
