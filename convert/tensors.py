"""Source tensors -> the tensors of the new folder: announced by name, shape and type, then computed one by one."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from .plan import Plan
from .quantize import Rounding
from .shards import TensorSpec
from .source_checkpoint import Source

_CHUNK_SIZE = 2**20
_INFINITY = {  # dtype -> unsigned integers of its size, and the bits of infinity; those of NaN are above them
    mx.float32: (mx.uint32, 0x7F80_0000),
    mx.bfloat16: (mx.uint16, 0x7F80),
    mx.float16: (mx.uint16, 0x7C00),
}


def output_specs(source: Source, plan: Plan, dtype: mx.Dtype | None) -> dict[str, TensorSpec]:
    """The tensors that `output_tensors` will yield, by name and in its order; nothing is read."""
    specs = {}
    for name, shape in source.shapes.items():
        own = source.dtype(name)
        placeholder = mx.zeros(shape, dtype if dtype and mx.issubdtype(own, mx.floating) else own)  # lazy: no memory
        path = name.removesuffix(".weight")
        layer_format = plan.get(path)
        if layer_format is None or path == name:
            specs[name] = TensorSpec(shape, placeholder.dtype)
        else:
            for kind, array in layer_format.quantize(placeholder).items():
                specs[f"{path}.{kind}"] = TensorSpec(tuple(array.shape), array.dtype)
    return specs


def output_tensors(
    source: Source, plan: Plan, dtype: mx.Dtype | None, rounding: Rounding
) -> Iterator[tuple[str, mx.array]]:
    """The tensors to write, computed from one source tensor at a time, which is released before the next.

    Raises:
        ValueError: a tensor holds values that are not finite.
    """
    for name in source.shapes:
        array = rounding.transform(name, source.read(name))
        if mx.issubdtype(array.dtype, mx.floating):
            if not _is_finite(array):
                raise ValueError(f"{source.folder}: {name} holds values that are not finite (NaN or infinity)")
            if dtype is not None and array.dtype != dtype:
                array = array.astype(dtype)
                if not _is_finite(array):
                    raise ValueError(
                        f"{source.folder}: {name} has values too large for {dtype}; choose another --dtype"
                    )
        path = name.removesuffix(".weight")
        layer_format = plan.get(path)
        if layer_format is None or path == name:
            yield name, array
        else:
            tensors = rounding.quantize(path, array, layer_format)
            del array
            while tensors:
                kind = next(iter(tensors))
                yield f"{path}.{kind}", tensors.pop(kind)
        mx.clear_cache()  # buffers of one size are of no use to the next tensor


def _is_finite(array: mx.array) -> bool:
    """Whether no value's exponent is all ones; far quicker than MLX's floating-point comparisons."""
    unsigned, infinity = _INFINITY[array.dtype]
    flat: Any = mx.contiguous(array).reshape(-1).view(unsigned)  # a buffer, which its types tell from Python 3.12 on
    bits = np.asarray(memoryview(flat))
    without_sign = bits.dtype.type(2 ** (8 * bits.itemsize - 1) - 1)
    starts = range(0, bits.size, _CHUNK_SIZE)
    return all((bits[start : start + _CHUNK_SIZE] & without_sign).max() < infinity for start in starts)
