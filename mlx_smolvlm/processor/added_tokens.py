"""Whether an adapter's own tokenizer knows tokens for which neither it nor its base has embeddings."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ..model.adapters.adapter_files import Adapter
from ..model.adapters.changes import EMBEDDINGS
from ..model.json_fields import check_file_size
from ..options import quoted
from .tokenizer_file import MAX_TOKENIZER_BYTES, tokenizer_errors

ADDED_BY_PROCESSORS = "<end_of_utterance>"
"""transformers' processors add it to every tokenizer that they save, with embeddings for it or without."""


def check_tokens(base: Path, adapters: Sequence[Adapter], vocab_size: int) -> None:
    """Refuse an adapter with a tokenizer of its own whose tokens have no trained embeddings.

    Embeddings are often padded, so that tokens can be added within them, and no shape tells.

    Args:
        base: folder of the base model.
        adapters: all that are used with it.
        vocab_size: rows of the embeddings with them.

    Raises:
        ValueError: with the names of the tokens.
    """
    known = vocabulary(base / "tokenizer.json")
    for adapter in adapters:
        own = vocabulary(adapter.folder / "tokenizer.json")
        if own is None or known is None or own == known:
            continue
        added = {
            token: number
            for token, number in own.items()
            if known.get(token) != number and token != ADDED_BY_PROCESSORS
        }
        if not added or (adapter_has_embeddings(adapter) and max(added.values()) < vocab_size):
            continue
        names = ", ".join(quoted(token, 40) for token in sorted(added)[:4])
        more = f" and {len(added) - 4} more" if len(added) > 4 else ""
        raise ValueError(
            f"{adapter.folder} was trained with a tokenizer that has other tokens than the base's ({names}{more}), and "
            "holds no embeddings for them; save it with save_embedding_layers=True, or with modules_to_save"
        )


def adapter_has_embeddings(adapter: Adapter) -> bool:
    """Whether an adapter has learned anything about embeddings."""
    return EMBEDDINGS in adapter.updates or f"{EMBEDDINGS}.weight" in adapter.replaced


def vocabulary(path: Path) -> dict[str, int] | None:
    """A tokenizer's tokens with their numbers; None if there is none."""
    if not path.is_file():
        return None
    check_file_size(path, MAX_TOKENIZER_BYTES)
    with tokenizer_errors(f"{path} is not a tokenizer"):
        known: dict[str, int] = Tokenizer.from_file(str(path)).get_vocab()
    return known
