"""What adapters change in one base: each one's change of the weights times its weight, and the sum of these.

An adapter's own weights of a layer, W', are those of the base W, or what it brings whole, with its update:

    LoRA:   W' = W + scaling * B A
    DoRA:   W' = gain * (W + scaling * B A), with gain = magnitude / |W + scaling * B A| for each row

and the sum is W + weight * (W' - W) + ... So a weight of 0 changes nothing, 1 is the adapter as it was trained, and
the order does not matter. The arithmetic is that of peft, `tuners/lora/layer.py` (`get_delta_weight`) and
`tuners/lora/dora.py`, in float32 and rounded once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import mlx.core as mx

from .adapter_files import Adapter, Update

EMBEDDINGS = "language_model.embed_tokens"
HEAD = "language_model.lm_head"
_CHUNK_BYTES = 8 * 1024**2
Shape = tuple[int, ...]


class Part(NamedTuple):
    """What one adapter changes in one tensor: a whole one in its place, or None, and an update of it, or None."""

    weight: float
    whole: mx.array | None
    update: Update | None


class Changes:
    """What a set of adapters changes in a base.

    Attributes:
        adapters: with their weights.
        tie_word_embeddings: whether the head still is the embeddings.
        shapes: of the base's tensors afterwards, by name: with added tokens, and a head of its own if it needs one.
    """

    def __init__(
        self, adapters: Sequence[tuple[Adapter, float]], shapes: Mapping[str, Shape], tie_word_embeddings: bool
    ):
        """
        Args:
            adapters: with the weight of each.
            shapes: of the base's tensors, by MLX-community name; those of a quantized layer's weight, not of its codes.
            tie_word_embeddings: whether the base has no head of its own.

        Raises:
            ValueError: a tensor without its place, or adapters that contradict each other.
        """
        if tie_word_embeddings:
            adapters = [(_with_tied_head(adapter), weight) for adapter, weight in adapters]
        self.adapters = list(adapters)
        changed = {name for adapter, _ in self.adapters for name in _names(adapter)}
        self.tie_word_embeddings = tie_word_embeddings and not changed & {f"{EMBEDDINGS}.weight", f"{HEAD}.weight"}
        self.shapes = dict(shapes)
        if tie_word_embeddings and not self.tie_word_embeddings:
            self.shapes[f"{HEAD}.weight"] = self.shapes[f"{EMBEDDINGS}.weight"]
        self._resize()
        for adapter, _ in self.adapters:
            _check_fit(adapter, self.shapes)
        self._changed = changed

    @property
    def vocab_size(self) -> int:
        """Rows of the embeddings."""
        return self.shapes[f"{EMBEDDINGS}.weight"][0]

    @property
    def names(self) -> set[str]:
        """The tensors that change."""
        return self._changed

    def parts(self, name: str) -> list[Part]:
        """What each adapter that changes a tensor does to it."""
        path = name.removesuffix(".weight") if name.endswith(".weight") else ""
        parts = (Part(weight, a.replaced.get(name), a.updates.get(path)) for a, weight in self.adapters)
        return [part for part in parts if part.whole is not None or part.update is not None]

    def merge(self, name: str, array: mx.array) -> mx.array:
        """A tensor with all changes, in the base's dtype.

        Args:
            name: MLX-community name.
            array: the base's; the embeddings, for a head that the base does not have.
        """
        parts = self.parts(name)
        if not parts:
            return array
        if len(parts) == 1 and parts[0].weight == 1 and parts[0].whole is not None and parts[0].update is None:
            return parts[0].whole.astype(array.dtype)
        rows = max(1, _CHUNK_BYTES // max(array[0].nbytes, 1))
        chunks = []
        for start in range(0, self.shapes[name][0], rows):
            chunks.append(_sum(parts, array, start, start + rows).astype(array.dtype))
            mx.eval(chunks[-1])
        return mx.concatenate(chunks)

    def _resize(self) -> None:
        """Let one adapter bring embeddings and head with more rows than the base has."""
        by_token = [name for name in (f"{EMBEDDINGS}.weight", f"{HEAD}.weight") if name in self.shapes]
        most = [max((_rows(adapter, name) for name in by_token), default=0) for adapter, _ in self.adapters]
        added = max(most) - self.vocab_size
        if added <= 0:
            return
        adapter, weight = self.adapters[most.index(max(most))]
        what = f"{adapter.folder} was trained with {added} tokens more than this base model has"
        if lacking := [name for name in by_token if name not in adapter.replaced]:
            raise ValueError(
                f"{what}, and holds no {lacking[0]} with their rows; save it with save_embedding_layers=True"
            )
        if weight != 1 or sum(rows > 0 for rows in most) > 1:
            raise ValueError(f"{what}; its weight must be 1, and no other adapter may change embeddings or head")
        for name in by_token:
            self.shapes[name] = (max(most), *self.shapes[name][1:])


def _sum(parts: Sequence[Part], array: mx.array, start: int, stop: int) -> mx.array:
    """Rows of the base with all changes, float32."""
    base = array[start:stop].astype(mx.float32)
    total = base
    for weight, whole, update in parts:
        own = base if whole is None else whole[start:stop].astype(mx.float32)
        if update is not None:
            own = own + update.product(start, stop)
        if update is not None and update.magnitude is not None:
            own = own * gain_of(update.magnitude[start:stop], own)[:, None]
        total = own if weight == 1 and len(parts) == 1 else total + weight * (own - base)
    return total


def gain_of(magnitude: mx.array, adapted: mx.array) -> mx.array:
    """What brings the rows of `adapted`, float32 (out, in), to the lengths of DoRA's magnitude: (out,) float32."""
    return magnitude.astype(mx.float32) / mx.linalg.norm(adapted, axis=1)


def _with_tied_head(adapter: Adapter) -> Adapter:
    """Embeddings of mlx-lm and mlx-vlm are the head's as well, where a base ties them."""
    if adapter.is_peft or HEAD in adapter.updates or f"{HEAD}.weight" in adapter.replaced:
        return adapter
    updates, replaced = dict(adapter.updates), dict(adapter.replaced)
    if EMBEDDINGS in updates:
        updates[HEAD] = updates[EMBEDDINGS]
    if f"{EMBEDDINGS}.weight" in replaced:
        replaced[f"{HEAD}.weight"] = replaced[f"{EMBEDDINGS}.weight"]
    return replace(adapter, updates=updates, replaced=replaced)


def _names(adapter: Adapter) -> set[str]:
    return {f"{path}.weight" for path in adapter.updates} | set(adapter.replaced)


def _rows(adapter: Adapter, name: str) -> int:
    """Tokens that an adapter's embeddings or head have; 0 if it leaves them alone."""
    path = name.removesuffix(".weight")
    rows = [adapter.replaced[name].shape[0]] if name in adapter.replaced else []
    return max([*rows, *([adapter.updates[path].shape[0]] if path in adapter.updates else [])], default=0)


def _check_fit(adapter: Adapter, shapes: Mapping[str, Shape]) -> None:
    wanted: dict[str, list[Shape]] = {}
    for path, update in adapter.updates.items():
        wanted.setdefault(f"{path}.weight", []).append(update.shape)
    for name, array in adapter.replaced.items():
        wanted.setdefault(name, []).append(tuple(array.shape))
    problems = [
        f"{name} is {shapes.get(name, 'missing')}, the adapter's is {shape}"
        for name, found in sorted(wanted.items())
        for shape in found
        if shapes.get(name) != shape
    ]
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(f"{adapter.folder} does not fit this base model: {'; '.join(problems[:4])}{more}")
