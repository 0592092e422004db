"""The decoder written plainly, one product per matrix and one array per thing: the yardstick of language.py.

Port of transformers, `models/llama/modeling_llama.py`; Llama 3's frequency scaling after
`modeling_rope_utils.py`.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from mlx_smolvlm.model.config import RopeScaling, TextConfig


class KVCache:
    """One layer's keys and values, (1, num_key_value_heads, offset, head_dim), in a buffer that grows by steps.

    A step copies what is held once per `STEP` tokens rather than once per token.
    """

    STEP = 256  # tokens

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0  # tokens held

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append keys and values, (1, num_key_value_heads, num_tokens, head_dim); returns all that is held."""
        end = self.offset + keys.shape[2]
        if self.keys is None or self.values is None:
            capacity = -(-end // self.STEP) * self.STEP
            self.keys = mx.zeros((*keys.shape[:2], capacity, keys.shape[3]), keys.dtype)
            self.values = mx.zeros((*values.shape[:2], capacity, values.shape[3]), values.dtype)
        elif end > self.keys.shape[2]:
            grown = -(-end // self.STEP) * self.STEP - self.keys.shape[2]
            room = (*keys.shape[:2], grown, keys.shape[3])
            self.keys = mx.concatenate([self.keys, mx.zeros(room, keys.dtype)], axis=2)
            self.values = mx.concatenate([self.values, mx.zeros(room, values.dtype)], axis=2)
        self.keys[:, :, self.offset : end] = keys
        self.values[:, :, self.offset : end] = values
        self.offset = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def trim(self, offset: int) -> None:
        """Forget all but the first `offset` tokens."""
        self.offset = min(self.offset, offset)


def llama3_wavelengths(head_dim: int, theta: float, scaling: RopeScaling) -> mx.array:
    """Reciprocal rotary frequencies, (head_dim / 2,) float32, as `mx.fast.rope` takes them in `freqs`.

    Short wavelengths stay, long ones are stretched by the factor, those between are interpolated.
    """
    periods = theta ** (mx.arange(0, head_dim, 2).astype(mx.float32) / head_dim)
    turns = scaling.original_max_position_embeddings / (2 * math.pi * periods)  # within the original context
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = mx.clip(smooth, 0, 1)
    return 1 / ((1 - smooth) / (scaling.factor * periods) + smooth / periods)


class RotaryEmbedding(nn.Module):
    """Rotates queries or keys by position; the halves of the head dimension are paired, as in Llama."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self._dims = config.head_dim
        self._base = None if config.rope_scaling else config.rope_theta
        self._wavelengths = None
        if config.rope_scaling:
            self._wavelengths = llama3_wavelengths(config.head_dim, config.rope_theta, config.rope_scaling)
            mx.eval(self._wavelengths)  # an unevaluated array could not be used in another thread

    def __call__(self, x: mx.array, offset: int) -> mx.array:
        """(batch, heads, tokens, head_dim), the first token at position `offset`."""
        return mx.fast.rope(
            x, self._dims, traditional=False, base=self._base, scale=1.0, offset=offset, freqs=self._wavelengths
        )


class Attention(nn.Module):
    """Causal attention; groups of query heads share a key-value head."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._scale = config.head_dim**-0.5
        hidden_size, head_dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(hidden_size, self._heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, self._kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, self._kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(self._heads * head_dim, hidden_size, bias=False)
        self._rope = RotaryEmbedding(config)

    def __call__(self, x: mx.array, cache: KVCache) -> mx.array:
        batch, tokens, _ = x.shape

        def heads(projected: mx.array, count: int) -> mx.array:  # -> (batch, heads, tokens, head_dim)
            return projected.reshape(batch, tokens, count, -1).transpose(0, 2, 1, 3)

        offset = cache.offset
        queries = self._rope(heads(self.q_proj(x), self._heads), offset)
        keys = self._rope(heads(self.k_proj(x), self._kv_heads), offset)
        keys, values = cache.update(keys, heads(self.v_proj(x), self._kv_heads))
        out = mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=self._scale, mask="causal" if tokens > 1 else None
        )
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(batch, tokens, -1))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(nn.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config)

    def __call__(self, x: mx.array, cache: KVCache) -> mx.array:
        x = x + self.self_attn(self.input_layernorm(x), cache)
        return x + self.mlp(self.post_attention_layernorm(x))


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

    def make_cache(self) -> list[KVCache]:
        """An empty cache, one entry per layer."""
        return [KVCache() for _ in self.layers]

    def __call__(self, inputs_embeds: mx.array, cache: list[KVCache]) -> mx.array:
        """Read tokens after those in the cache.

        (1, num_tokens, hidden_size) -> last hidden states of the same shape, normed; `cache` is extended.
        """
        x = inputs_embeds
        for layer, layer_cache in zip(self.layers, cache, strict=True):
            x = layer(x, layer_cache)
        return self.norm(x)

    def logits(self, hidden_states: mx.array) -> mx.array:
        """(..., hidden_size) -> (..., vocab_size)."""
        return self.embed_tokens.as_linear(hidden_states) if self._tied else self.lm_head(hidden_states)
