"""SmolLM2 / Llama decoder with a KV cache.

Port of transformers, `models/llama/modeling_llama.py`. A token's step is a chain of small kernels, and for models of
this size starting them is what takes time: queries, keys and values are rotated and stored as one array, sums are left
to the products before them, and `fuse` joins the matrices that share an input (see `layers/fusing.py`). What each token
passes is read as an item, `self["mlp"]`: as an attribute it takes several times as long. MLX's functions are called
rather than methods, and arguments given by position, where that takes less time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from ..options import GenerationOptions
from .caches.kv_cache import KVCache
from .caches.quantized import QuantizedKVCache
from .caches.rotating import RotatingKVCache
from .config import TextConfig
from .layers.activations import Activation, compiled_on_gpu, swiglu
from .layers.fusing import Fusible, IndexedModule
from .layers.normalization import Normalize, normalization
from .layers.projections import Product, ProductOnto, ProductPair, product, product_onto, product_pair
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


class Attention(Fusible[tuple[Product, ProductOnto]]):
    """Causal attention; groups of query heads share a key-value head."""

    INPUT_LAYERS = ("q_proj", "k_proj", "v_proj")
    OUTPUT_LAYER = "o_proj"

    def __init__(self, config: TextConfig):
        super().__init__()
        heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, config.hidden_size, bias=False)
        self._geometry = (heads, heads + 2 * kv_heads, head_dim, head_dim**-0.5)

    @staticmethod
    def products(inputs: Sequence[nn.Module], output: nn.Module) -> tuple[Product, ProductOnto]:
        """How the queries, keys and values, and the output, are computed from these layers."""
        return product(inputs), product_onto(output)

    def __call__(self, x: mx.array, residual: mx.array, cache: KVCache, step: Step) -> mx.array:
        """residual + attention(x), each (1, num_tokens, hidden_size)."""
        project, project_onto = self._find(self)
        query_heads, all_heads, head_dim, scale = self["_geometry"]
        num_tokens = step.num_tokens
        heads = step.rotate(mx.reshape(project(x), (-1, 1, head_dim)))
        if num_tokens == 1:  # two axes of which one is 1 need no swapping
            heads = mx.reshape(heads, (1, all_heads, 1, head_dim))
        else:
            heads = mx.reshape(heads, (1, num_tokens, all_heads, head_dim)).swapaxes(1, 2)
        queries, keys_values = mx.split(heads, [query_heads], 1)
        out = cache.attend(queries, keys_values, scale)  # (1, heads, num_tokens, head_dim)
        if num_tokens > 1:
            out = out.swapaxes(1, 2)
        return project_onto(mx.reshape(out, (1, num_tokens, -1)), residual)


class MLP(Fusible[tuple[ProductPair, ProductOnto]]):
    """SwiGLU."""

    INPUT_LAYERS = ("gate_proj", "up_proj")
    OUTPUT_LAYER = "down_proj"

    def __init__(self, config: TextConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    @staticmethod
    def products(inputs: Sequence[nn.Module], output: nn.Module) -> tuple[ProductPair, ProductOnto]:
        """How gate and up, and the output, are computed from these layers."""
        return product_pair(inputs), product_onto(output)

    def __call__(self, x: mx.array, residual: mx.array, step: Step) -> mx.array:
        """residual + mlp(x), each (1, num_tokens, hidden_size)."""
        project_pair, project_onto = self._find(self)
        gate, up = project_pair(x)
        return project_onto(step.swiglu(gate, up), residual)


class DecoderLayer(IndexedModule):
    """Pre-norm transformer block."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config)

    def __call__(self, x: mx.array, cache: KVCache, step: Step) -> mx.array:
        normalize = step.normalize
        x = self["self_attn"](normalize(self["input_layernorm"], x), x, cache, step)
        return self["mlp"](normalize(self["post_attention_layernorm"], x), x, step)


class LanguageModel(IndexedModule):
    """Decoder with its embeddings and, unless tied to them, its head."""

    def __init__(self, config: TextConfig, tie_word_embeddings: bool):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if not tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._eps = config.rms_norm_eps
        self._rope = RotaryEmbedding(config)

    def fuse(self) -> None:
        """Join the matrices that share an input, block by block, so that no more than one block is held twice.

        This makes steps quicker and changes nothing else: layers stay at their paths, and a layer that is replaced,
        quantized, adapted or trained afterwards takes effect, though its block is no longer joined. `load` calls this;
        call it again after such changes.
        """
        for block in self.modules():
            if isinstance(block, Fusible):
                block.fuse()

    def make_cache(self, options: GenerationOptions | None = None) -> list[KVCache]:
        """An empty cache, one entry per layer, of the kind that `kv_bits` and `max_kv_size` of the options ask for."""
        if options is not None and options.kv_bits is not None:
            bits, group_size, start = options.kv_bits, options.kv_group_size, options.quantized_kv_start
            return [QuantizedKVCache(bits, group_size, start) for _ in self.layers]
        if options is not None and options.max_kv_size is not None:
            return [RotatingKVCache(options.max_kv_size) for _ in self.layers]
        return [KVCache() for _ in self.layers]

    def step(self, x: mx.array, cache: list[KVCache]) -> Step:
        """How the layers treat the tokens of `x`, (1, num_tokens, hidden_size), the next ones of the cache."""
        num_tokens = x.shape[1]
        rotate = self._rope.at(cache[0].positions(num_tokens))
        return Step(num_tokens, normalization(x, self._eps), rotate, compiled_on_gpu(swiglu))

    def __call__(self, inputs_embeds: mx.array, cache: list[KVCache]) -> mx.array:
        """Read tokens after those in the cache.

        (1, num_tokens, hidden_size) -> last hidden states of the same shape, normed; `cache` is extended. Which
        tokens continue which is for the cache alone to know (see `caches/batch_cache.py`).
        """
        x = inputs_embeds
        step = self.step(x, cache)
        for layer, layer_cache in zip(self.layers, cache, strict=True):
            x = layer(x, layer_cache, step)
        return step.normalize(self["norm"], x)

    def logits(self, hidden_states: mx.array) -> mx.array:
        """(..., hidden_size) -> (..., vocab_size)."""
        if "lm_head" in self or hasattr(self, "lm_head"):
            return product([self["lm_head"]])(hidden_states)
        return self.embed_tokens.as_linear(hidden_states)
