"""SmolLM2 / Llama decoder with a KV cache.

Port of transformers, `models/llama/modeling_llama.py`. A token's step is a chain of small kernels, and for models of
this size starting them is what takes time: the matrices that share an input are joined (`fuse`), queries, keys and
values are rotated and stored as one array, and sums are left to the products before them. Submodules are read as
items, `self["mlp"]`, wherever each token passes: as attributes they take several times as long.
"""

from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from ..options import GenerationOptions
from .caches import make_caches
from .caches.kv_cache import KVCache
from .config import TextConfig
from .layers.activations import Activation, compiled_on_gpu, swiglu
from .layers.normalization import Normalize, normalization
from .layers.projections import (
    Product,
    ProductOnto,
    ProductPair,
    fuse,
    product,
    product_onto,
    product_pair,
    with_columns,
)
from .layers.rotary import RotaryEmbedding, Rotate


class Step(NamedTuple):
    """What all layers do alike to the tokens of one step: chosen once, by the device and the tokens' positions.

    Attributes:
        num_tokens: of the step.
        normalize: see `layers/normalization.py`.
        rotate: see `layers/rotary.py`.
        swiglu: see `layers/activations.py`.
    """

    num_tokens: int
    normalize: Normalize
    rotate: Rotate
    swiglu: Activation


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
        self._project: Product | None = None
        self._project_onto: ProductOnto | None = None

    def fuse(self) -> None:
        """Join the projections, as far as they are stored alike."""
        if "q_proj" in self:
            self.qkv_proj = fuse([self.q_proj, self.k_proj, self.v_proj])
            del self.q_proj, self.k_proj, self.v_proj
            self._project = product(self.qkv_proj)
            self._project_onto = product_onto(with_columns(self.o_proj))

    def __call__(self, x: mx.array, residual: mx.array, cache: KVCache, step: Step) -> mx.array:
        """residual + attention(x), each (1, num_tokens, hidden_size)."""
        num_tokens = step.num_tokens
        project = self._project or product([self.q_proj, self.k_proj, self.v_proj])
        project_onto = self._project_onto or product_onto(self.o_proj)
        heads = step.rotate(project(x).reshape(-1, 1, self._head_dim))
        if num_tokens == 1:  # two axes of which one is 1 need no swapping
            heads = heads.reshape(1, self._all_heads, 1, self._head_dim)
        else:
            heads = heads.reshape(1, num_tokens, self._all_heads, self._head_dim).swapaxes(1, 2)
        queries, keys_values = mx.split(heads, [self._heads], axis=1)
        out = cache.attend(queries, keys_values, self._scale)  # (1, heads, num_tokens, head_dim)
        if num_tokens > 1:
            out = out.swapaxes(1, 2)
        return project_onto(out.reshape(1, num_tokens, -1), residual)


class MLP(nn.Module):
    """SwiGLU. Has `gate_proj` and `up_proj`, or after `fuse` one list `gate_up_proj` in their place."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self._project_pair: ProductPair | None = None
        self._project_onto: ProductOnto | None = None

    def fuse(self) -> None:
        """Join the two projections, if they are stored alike."""
        if "gate_proj" in self:
            self.gate_up_proj = fuse([self.gate_proj, self.up_proj])
            del self.gate_proj, self.up_proj
            self._project_pair = product_pair(self.gate_up_proj)
            self._project_onto = product_onto(with_columns(self.down_proj))

    def __call__(self, x: mx.array, residual: mx.array, step: Step) -> mx.array:
        """residual + mlp(x), each (1, num_tokens, hidden_size)."""
        project_pair = self._project_pair or product_pair([self.gate_proj, self.up_proj])
        project_onto = self._project_onto or product_onto(self.down_proj)
        gate, up = project_pair(x)
        return project_onto(step.swiglu(gate, up), residual)


class DecoderLayer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config)

    def __call__(self, x: mx.array, cache: KVCache, step: Step) -> mx.array:
        x = self["self_attn"](step.normalize(self["input_layernorm"], x), x, cache, step)
        return self["mlp"](step.normalize(self["post_attention_layernorm"], x), x, step)


class LanguageModel(nn.Module):
    """Decoder with its embeddings and, unless tied to them, its head."""

    def __init__(self, config: TextConfig, tie_word_embeddings: bool):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if not tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._head: Product | None = None
        self._eps = config.rms_norm_eps
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
        if "lm_head" in self:
            self._head = product([with_columns(self.lm_head)])

    def make_cache(self, options: GenerationOptions | None = None) -> list[KVCache]:
        """An empty cache, one entry per layer, of the kind that the options ask for."""
        return make_caches(len(self.layers), options or GenerationOptions())

    def step(self, x: mx.array, cache: list[KVCache]) -> Step:
        """How the layers treat the tokens of `x`, (1, num_tokens, hidden_size), the next ones of the cache."""
        num_tokens = x.shape[1]
        rotate = self._rope.at(cache[0].positions(num_tokens))
        return Step(num_tokens, normalization(x, self._eps), rotate, compiled_on_gpu(swiglu))

    def __call__(self, inputs_embeds: mx.array, cache: list[KVCache]) -> mx.array:
        """Read tokens after those in the cache.

        (1, num_tokens, hidden_size) -> last hidden states of the same shape, normed; `cache` is extended. Which
        tokens continue which is for the cache alone to know (see `caches/batch.py`).
        """
        x = inputs_embeds
        step = self.step(x, cache)
        for layer, layer_cache in zip(self.layers, cache, strict=True):
            x = layer(x, layer_cache, step)
        return step.normalize(self["norm"], x)

    def logits(self, hidden_states: mx.array) -> mx.array:
        """(..., hidden_size) -> (..., vocab_size)."""
        if "lm_head" not in self:
            return self.embed_tokens.as_linear(hidden_states)
        return (self._head or product([self.lm_head]))(hidden_states)
