"""Key-value caches: plain, quantized, rotating, or with a row for each of many conversations."""

from ...options import GenerationOptions
from .kv_cache import KVCache
from .quantized import QuantizedKVCache
from .rotating import RotatingKVCache


def make_caches(num_layers: int, options: GenerationOptions) -> list[KVCache]:
    """Empty caches, one per layer, of the kind that `kv_bits`, `kv_group_size` and `max_kv_size` ask for."""
    if options.kv_bits is not None:
        bits, group_size, start = options.kv_bits, options.kv_group_size, options.quantized_kv_start
        return [QuantizedKVCache(bits, group_size, start) for _ in range(num_layers)]
    if options.max_kv_size is not None:
        return [RotatingKVCache(options.max_kv_size) for _ in range(num_layers)]
    return [KVCache() for _ in range(num_layers)]
