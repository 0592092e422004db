"""The decoder as a chain of blocks, each run by itself."""

from collections.abc import Callable

import mlx.core as mx

from ..model.caches.kv_cache import KVCache
from ..model.config import ModelConfig
from ..model.language import LanguageModel

EMBEDDINGS = "language_model.embed_tokens"
HEAD = "language_model.lm_head"

Block = Callable[[mx.array], mx.array]
"""Hidden states (1, num_tokens, hidden_size) of a whole sequence -> those after the block, or its logits."""


def decoder_block(decoder: LanguageModel, index: int) -> Block:
    """A layer of the decoder that reads whole sequences from their first token on."""

    def block(x: mx.array) -> mx.array:
        cache = KVCache()
        return decoder.layers[index](x, cache, decoder.step(x, [cache]))

    return block


def head_path(config: ModelConfig) -> str:
    """The path of what turns hidden states into logits."""
    return EMBEDDINGS if config.tie_word_embeddings else HEAD
