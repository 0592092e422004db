"""SmolLM2 / Llama decoder with a KV cache.

Port of transformers, `models/llama/modeling_llama.py`. A token's step is a chain of small kernels, and for models of
this size starting them is what takes time: the matrices that share an input are joined (`fuse`), queries, keys and
values are rotated and stored as one array, and sums are left to the products before them. Submodules are read as
items, `self["mlp"]`, wherever each token passes: as attributes they take several times as long.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .cache import KVCache
from .caches.options import CacheOptions
from .config import TextConfig
from .layers.activations import swiglu
from .layers.projections import fuse, project, project_all, project_onto
from .layers.rotary import RotaryEmbedding

Rotate = Callable[[mx.array], mx.array]


class Attention(nn.Module):
    """Causal attention; groups of query heads share a key-value head.

    Has `q_proj`, `k_proj` and `v_proj`, or after `fuse` one list `qkv_proj` in their place.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self._heads = config.num_attention_heads
        self._all_heads = config.num_attention_heads + 2 * config.num_key_value_heads
        self._head_dim = config.head_dim
        self._scale = config.head_dim**-0.5
        hidden_size, kv_size = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(hidden_size, self._heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(self._heads * config.head_dim, hidden_size, bias=False)

    def fuse(self) -> None:
        """Join the projections, as far as they are stored alike."""
        if "q_proj" in self:
            self.qkv_proj = fuse([self.q_proj, self.k_proj, self.v_proj])
            del self.q_proj, self.k_proj, self.v_proj

    def __call__(self, x: mx.array, residual: mx.array, cache: KVCache, rotate: Rotate) -> mx.array:
        """residual + attention(x), each (1, num_tokens, hidden_size)."""
        num_tokens = x.shape[1]
        parts = project_all(self.get("qkv_proj") or (self["q_proj"], self["k_proj"], self["v_proj"]), x)
        projected = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=-1)
        heads = rotate(projected.reshape(-1, 1, self._head_dim))
        heads = heads.reshape(1, num_tokens, self._all_heads, self._head_dim).transpose(0, 2, 1, 3)
        queries, keys_values = mx.split(heads, [self._heads], axis=1)
        out = cache.attend(queries, keys_values, self._scale)  # (1, heads, num_tokens, head_dim)
        return project_onto(self["o_proj"], out.transpose(0, 2, 1, 3).reshape(1, num_tokens, -1), residual)


class MLP(nn.Module):
    """SwiGLU. Has `gate_proj` and `up_proj`, or after `fuse` one list `gate_up_proj` in their place."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def fuse(self) -> None:
        """Join the two projections, if they are stored alike."""
        if "gate_proj" in self:
            self.gate_up_proj = fuse([self.gate_proj, self.up_proj])
            del self.gate_proj, self.up_proj

    def __call__(self, x: mx.array, residual: mx.array) -> mx.array:
        """residual + mlp(x), each (1, num_tokens, hidden_size)."""
        parts = project_all(self.get("gate_up_proj") or (self["gate_proj"], self["up_proj"]), x)
        gate, up = parts if len(parts) == 2 else mx.split(parts[0], 2, axis=-1)
        return project_onto(self["down_proj"], swiglu(gate, up), residual)


class DecoderLayer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config)

    def __call__(self, x: mx.array, cache: KVCache, rotate: Rotate) -> mx.array:
        x = self["self_attn"](self["input_layernorm"](x), x, cache, rotate)
        return self["mlp"](self["post_attention_layernorm"](x), x)


class LanguageModel(nn.Module):
    """Decoder with its embeddings and, unless tied to them, its head."""

    def __init__(self, config: TextConfig, tie_word_embeddings: bool):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if not tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._tied = tie_word_embeddings
        self._rope = RotaryEmbedding(config)

    def fuse(self) -> None:
        """Join the matrices that share an input, layer by layer, so that no more than one layer is held twice.

        `load` does this. Without it the model works as well, and its layers have the paths of the files: load with
        `fuse=False` to look at single layers or to replace them, and call this when done.
        """
        for layer in self.layers:
            layer.self_attn.fuse()
            layer.mlp.fuse()
            mx.eval(layer.parameters())

    def make_cache(self, options: CacheOptions | None = None) -> list[KVCache]:
        """An empty cache, one entry per layer."""
        return (options or CacheOptions()).make(len(self.layers))

    def rotation(self, positions: np.ndarray) -> Rotate:
        """What turns the heads of a layer by the positions of their tokens, (num_tokens,)."""
        return self._rope.at(positions)

    def __call__(self, inputs_embeds: mx.array, cache: list[KVCache]) -> mx.array:
        """Read tokens after those in the cache.

        (1, num_tokens, hidden_size) -> last hidden states of the same shape, normed; `cache` is extended. Which
        tokens continue which is for the cache alone to know (see `caches/batch.py`).
        """
        x = inputs_embeds
        rotate = self.rotation(cache[0].positions(x.shape[1]))
        for layer, layer_cache in zip(self.layers, cache, strict=True):
            x = layer(x, layer_cache, rotate)
        return self.norm(x)

    def logits(self, hidden_states: mx.array) -> mx.array:
        """(..., hidden_size) -> (..., vocab_size)."""
        return self.embed_tokens.as_linear(hidden_states) if self._tied else project(self.lm_head, hidden_states)
