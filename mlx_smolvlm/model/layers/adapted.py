"""Layers with a low-rank change beside them: adapters that are used without being merged."""

import mlx.core as mx
import mlx.nn as nn


class AdaptedLinear(nn.Module):
    """gain * base(x) + x A B: a linear layer, plain or quantized, that keeps its weights, and what adapters add.

    Attributes:
        base: the layer, with or without an additive bias.
        lora_a: (in, rank), of all adapters.
        lora_b: (rank, out), with all factors in it.
        gain: (out,), by which DoRA stretches rows; None for LoRA.
        gained_bias: (out,), what keeps the base's bias as it was in spite of the gain, or None.
    """

    def __init__(self, base: nn.Module, lora_a: mx.array, lora_b: mx.array, gain: mx.array | None = None):
        super().__init__()
        self.base = base
        self.lora_a = lora_a
        self.lora_b = lora_b
        self.gain = gain
        bias: mx.array | None = base.get("bias")
        self.gained_bias = None if gain is None or bias is None else bias * (1 - gain)

    def __call__(self, x: mx.array) -> mx.array:
        """(..., in) -> (..., out)."""
        y = self["base"](x)
        if self.gain is not None:
            y = y * self.gain if self.gained_bias is None else y * self.gain + self.gained_bias
        return mx.addmm(y, x @ self["lora_a"], self["lora_b"])


class AdaptedEmbedding(nn.Module):
    """Embeddings with a low-rank change; as the head of a tied base they are what they were.

    Attributes:
        base: the embeddings, plain or quantized.
        lora_a: (num_embeddings, rank), of all adapters, with all factors in it.
        lora_b: (rank, dims).
        gain: (num_embeddings,), by which DoRA stretches rows; None for LoRA.
    """

    def __init__(self, base: nn.Module, lora_a: mx.array, lora_b: mx.array, gain: mx.array | None = None):
        super().__init__()
        self.base = base
        self.lora_a = lora_a
        self.lora_b = lora_b
        self.gain = gain

    def __call__(self, ids: mx.array) -> mx.array:
        """(...) -> (..., dims)."""
        embeddings = self["base"](ids)
        if self.gain is not None:
            embeddings = embeddings * self.gain[ids][..., None]
        change: mx.array = self["lora_a"][ids] @ self["lora_b"]
        return embeddings + change

    def as_linear(self, x: mx.array) -> mx.array:
        """The base as a head, (..., dims) -> (..., num_embeddings)."""
        logits: mx.array = self.base.as_linear(x)
        return logits
