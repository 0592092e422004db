"""The whole network: tiles and token ids -> logits."""

from copy import deepcopy
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..options import GenerationOptions
from .caches.kv_cache import KVCache
from .config import ModelConfig
from .connector import Connector
from .forking import refuse_forked_process
from .language import LanguageModel
from .layers.streams import side_by_side
from .vision import VisionModel


class SmolVLM(nn.Module):
    """SigLIP encoder, pixel-shuffle connector and SmolLM2 / Llama decoder.

    Attributes with parameters are named as MLX-community files name them.
    """

    def __init__(self, config: ModelConfig, vector_size: int | None = None):
        """
        Args:
            config: the checkpoint's.
            vector_size: width of the vectors that a retriever makes, in place of logits; None for other models.
        """
        refuse_forked_process()
        super().__init__()
        self.vision_model = VisionModel(config.vision)
        self.connector = Connector(config)
        self.language_model = LanguageModel(config.text, config.tie_word_embeddings or vector_size is not None)
        if vector_size is not None:
            self.linear = nn.Linear(config.text.hidden_size, vector_size)
        self._config = config

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("a model cannot be pickled; call load() in each process")

    def __deepcopy__(self, memo: dict[int, Any]) -> "SmolVLM":
        copied = memo[id(self)] = self.__class__.__new__(self.__class__)
        for name, value in self.items():
            copied[name] = deepcopy(value, memo)
        vars(copied).update(deepcopy(vars(self), memo))
        return copied

    @property
    def config(self) -> ModelConfig:
        """The configuration that the network was built from."""
        return self._config

    def make_cache(self, options: GenerationOptions | None = None) -> list[KVCache]:
        """An empty KV cache, for one conversation."""
        return self.language_model.make_cache(options)

    def image_features(self, pixel_values: mx.array | np.ndarray) -> mx.array:
        """Encode tiles into the decoder's space.

        Args:
            pixel_values: (num_tiles, tile_size, tile_size, 3), uint8, 0..255, tiles in prompt order.

        Returns:
            (num_tiles * image_seq_len, text hidden_size), one row for each image token of the prompt.
        """
        refuse_forked_process()
        features = side_by_side(lambda tiles: self.connector(self.vision_model(tiles)), mx.array(pixel_values))
        return features.reshape(-1, features.shape[-1])

    def input_embeddings(self, input_ids: list[int] | np.ndarray, image_features: mx.array | None) -> mx.array:
        """Token embeddings with the image tokens' rows replaced by image features, in order.

        Args:
            input_ids: (num_tokens,).
            image_features: (num_image_tokens, hidden_size), or None if the prompt has no image.

        Returns:
            (1, num_tokens, hidden_size).

        Raises:
            ValueError: not as many features as image tokens, or token ids beyond the vocabulary.
        """
        refuse_forked_process()
        ids = np.asarray(input_ids)
        vocab_size = self._config.text.vocab_size
        if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:  # MLX would read beyond the embeddings
            raise ValueError(f"token ids go from {ids.min()} to {ids.max()}, but the model knows {vocab_size} tokens")
        embeddings = self.language_model.embed_tokens(mx.array(ids))
        positions = np.flatnonzero(ids == self._config.image_token_id)
        given = 0 if image_features is None else image_features.shape[0]
        if len(positions) != given:
            raise ValueError(f"the prompt has {len(positions)} image tokens but {given} image features were given")
        if image_features is not None:
            embeddings[mx.array(positions)] = image_features.astype(embeddings.dtype)
        return embeddings[None]

    def vectors(self, inputs_embeds: mx.array, cache: list[KVCache]) -> mx.array:
        """What a retriever makes of a prompt: a vector of length 1 for each token.

        Port of colpali-engine, `models/idefics3/colidefics3/modeling_colidefics3.py`.

        Args:
            inputs_embeds: (1, num_tokens, hidden_size).
            cache: which tokens see which (see `caches/packed_rows.py`).

        Returns:
            (num_tokens, vector_size) float32.
        """
        refuse_forked_process()
        vectors = self.linear(self.language_model(inputs_embeds, cache))[0].astype(mx.float32)
        return vectors / mx.linalg.norm(vectors, axis=-1, keepdims=True)

    def __call__(
        self,
        input_ids: list[int] | np.ndarray,
        pixel_values: mx.array | np.ndarray | None = None,
        cache: list[KVCache] | None = None,
    ) -> mx.array:
        """Logits for every position, (1, num_tokens, vocab_size).

        `input_ids` (num_tokens,) continue what `cache` holds; `pixel_values` as in `image_features`.
        """
        features = None if pixel_values is None else self.image_features(pixel_values)
        hidden = self.language_model(self.input_embeddings(input_ids, features), cache or self.make_cache())
        return self.language_model.logits(hidden)
