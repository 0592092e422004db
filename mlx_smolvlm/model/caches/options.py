"""How the keys and values of a long context are kept."""

from dataclasses import dataclass

from .kv_cache import KVCache
from .quantized import QuantizedKVCache
from .rotating import KEEP, RotatingKVCache

KV_BITS = (4, 8)
KV_GROUP_SIZES = (32, 64, 128)


@dataclass(frozen=True)
class CacheOptions:
    """Names and meaning as in mlx-lm.

    Attributes:
        kv_bits: bits per number in the cache, 4 or 8; None keeps the model's type.
        kv_group_size: numbers that share a scale, 32, 64 or 128; must divide the model's head_dim.
        quantized_kv_start: tokens from which on the cache is quantized; shorter contexts keep full precision.
        max_kv_size: most tokens to see: the first few and the latest; None sees all. Memory stays bounded, and what
            lies between is forgotten.
    """

    kv_bits: int | None = None
    kv_group_size: int = 64
    quantized_kv_start: int = 0
    max_kv_size: int | None = None

    def __post_init__(self) -> None:
        if self.kv_bits is not None and self.kv_bits not in KV_BITS:
            raise ValueError(f"kv_bits is {self.kv_bits!r}, expected one of {KV_BITS} or None")
        if self.kv_group_size not in KV_GROUP_SIZES:
            raise ValueError(f"kv_group_size is {self.kv_group_size!r}, expected one of {KV_GROUP_SIZES}")
        if not isinstance(self.quantized_kv_start, int) or self.quantized_kv_start < 0:
            raise ValueError(f"quantized_kv_start is {self.quantized_kv_start!r}, expected a whole number, 0 or more")
        if self.max_kv_size is not None and (not isinstance(self.max_kv_size, int) or self.max_kv_size <= KEEP):
            raise ValueError(f"max_kv_size is {self.max_kv_size!r}, expected a whole number above {KEEP}")
        if self.kv_bits is not None and self.max_kv_size is not None:
            raise ValueError("kv_bits and max_kv_size do not go together; choose one")

    def check(self, head_dim: int) -> None:
        """Refuse a group size that the heads of a model cannot take."""
        if self.kv_bits is not None and head_dim % self.kv_group_size:
            fitting = [size for size in KV_GROUP_SIZES if head_dim % size == 0]
            advice = f"use {' or '.join(map(str, fitting))}" if fitting else "leave out kv_bits"
            raise ValueError(
                f"kv_group_size {self.kv_group_size} does not divide this model's head_dim, {head_dim}; {advice}"
            )

    def make(self, num_layers: int) -> list[KVCache]:
        """Empty caches, one per layer."""
        if self.kv_bits is not None:
            return [
                QuantizedKVCache(self.kv_bits, self.kv_group_size, self.quantized_kv_start) for _ in range(num_layers)
            ]
        if self.max_kv_size is not None:
            return [RotatingKVCache(self.max_kv_size) for _ in range(num_layers)]
        return [KVCache() for _ in range(num_layers)]
