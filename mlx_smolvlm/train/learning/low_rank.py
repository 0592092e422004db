"""Layers whose low-rank change is trained while the layer itself stays: LoRA and DoRA, on plain and quantized weights.

The arithmetic is that of peft, `tuners/lora/layer.py` and `tuners/lora/dora.py`; matrices have PEFT's shapes, so that
parameters and gradients are those of its files.
"""

from collections.abc import Sequence
from hashlib import blake2b

import mlx.core as mx
import mlx.nn as nn

from ...model.adapters.attaching import dense_weight


class Noise:
    """Dropout whose choice depends on the row of data and the layer alone.

    So it is the same however rows are divided into micro-batches, when a layer is computed again for its gradient, and
    after a run was resumed.

    Attributes:
        rate: share of inputs that become 0; 0 for no dropout.
        tokens, tiles: name and length of each stretch of the tokens, or of each tile, that is computed now.
        places: of the tokens that are computed among all of these; None for all.
    """

    def __init__(self, rate: float = 0.0):
        self.rate = rate
        self.tokens: Sequence[tuple[str, int]] = ()
        self.tiles: Sequence[str] = ()
        self.places: mx.array | None = None

    def drop(self, x: mx.array, layer: str, is_visual: bool) -> mx.array:
        """Inputs of a layer, (1, num_tokens, in) or (num_tiles, length, in), some of them 0 and the others scaled."""
        stretches = [(name, x.shape[1]) for name in self.tiles] if is_visual else self.tokens
        if not self.rate or not stretches:
            return x
        kept = 1 - self.rate
        masks = [
            mx.random.bernoulli(kept, (length, x.shape[-1]), key=key_of(f"{name} {layer}"))
            for name, length in stretches
        ]
        mask = mx.concatenate(masks)
        if self.places is not None and not is_visual:
            mask = mask[self.places]
        mask = mask.reshape(x.shape)
        return mx.where(mask, x * (1 / kept), mx.array(0, x.dtype))


def key_of(name: str) -> mx.array:
    """A random key for a name."""
    return mx.random.key(int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little"))


class LowRankLinear(nn.Module):
    """base(x) + scaling * drop(x) A' B', or with a magnitude, DoRA's form of it.

    Attributes:
        base: the layer, plain or quantized, with or without a bias; it is not trained.
        lora_a: (rank, in).
        lora_b: (out, rank).
        magnitude: (out,), the lengths of DoRA's rows; None for LoRA.
    """

    def __init__(
        self,
        base: nn.Module,
        lora_a: mx.array,
        lora_b: mx.array,
        scaling: float,
        magnitude: mx.array | None,
        name: str,
        noise: Noise,
    ):
        super().__init__()  # type: ignore[no-untyped-call]
        self.base = base
        self.lora_a = lora_a
        self.lora_b = lora_b
        self.magnitude = magnitude
        self._scaling = scaling
        self._name = name
        self._is_visual = not name.startswith("language_model.")
        self._noise = noise

    def __call__(self, x: mx.array) -> mx.array:
        """(..., in) -> (..., out)."""
        a, b = self["lora_a"].astype(x.dtype), self["lora_b"].astype(x.dtype)
        y: mx.array = self["base"](x)
        dropped = self._noise.drop(x, self._name, self._is_visual)
        if self.magnitude is None:
            return mx.addmm(y, dropped @ a.T, b.T, alpha=self._scaling)
        change: mx.array = (dropped @ a.T) @ b.T * self._scaling
        gain = self.gain()
        plain: mx.array = y if dropped is x else self["base"](dropped)
        if "bias" in self["base"]:
            plain = plain - self["base"]["bias"]
        return y + (gain - 1).astype(x.dtype) * plain + gain.astype(x.dtype) * change

    def gain(self) -> mx.array:
        """DoRA's factor of each row, (out,) float32. The rows' length counts as a constant in the gradient."""
        a, b = self["lora_a"].astype(mx.float32), self["lora_b"].astype(mx.float32)
        adapted = dense_weight(self["base"]).astype(mx.float32) + self._scaling * (b @ a)
        magnitude: mx.array = self["magnitude"].astype(mx.float32)
        return magnitude / mx.stop_gradient(mx.linalg.norm(adapted, axis=1))


class LowRankEmbedding(nn.Module):
    """base(ids) + scaling * A'[ids] B'; as the head of a tied base the embeddings are what they were.

    Attributes:
        base: the embeddings, plain or quantized; they are not trained.
        lora_a: (rank, dims).
        lora_b: (num_embeddings, rank).
    """

    def __init__(self, base: nn.Module, lora_a: mx.array, lora_b: mx.array, scaling: float):
        super().__init__()  # type: ignore[no-untyped-call]
        self.base = base
        self.lora_a = lora_a
        self.lora_b = lora_b
        self._scaling = scaling

    def __call__(self, ids: mx.array) -> mx.array:
        """(...) -> (..., dims)."""
        embeddings: mx.array = self["base"](ids)
        change: mx.array = self["lora_b"][ids] @ self["lora_a"] * self._scaling
        return embeddings + change.astype(embeddings.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        """The base as a head, (..., dims) -> (..., num_embeddings)."""
        logits: mx.array = self.base.as_linear(x)
        return logits
