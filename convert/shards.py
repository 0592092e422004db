"""Writes safetensors files tensor by tensor, so that no file is ever held in memory.

The format needs every name, type and shape before the first byte of data; all of them are known beforehand. (The
functions of MLX and of safetensors take a whole file's tensors at once.)
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx

from ..files import write_json
from ..model.weights import INDEX

MAX_SHARD_BYTES = 5 * 1024**3  # as the ecosystem's other converters
_DTYPES = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32", mx.uint8: "U8"}
_CARRIERS = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}  # Python's buffers know no bfloat16


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as the file's header describes it."""

    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def size_bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.size


def write_weights(
    folder: Path,
    specs: Mapping[str, TensorSpec],
    tensors: Iterable[tuple[str, mx.array]],
    on_written: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Write tensors as `model.safetensors`, or as shards with an index.

    Args:
        folder: where to.
        specs: all tensors by name, in the order in which they come.
        tensors: the tensors; each is evaluated, written and released before the next one is asked for.
        on_written: called with the size of each tensor in bytes.

    Raises:
        OSError: the disk is full, or fails.
        ValueError: a tensor that is not the one that `specs` announced.
    """
    shards = _shards(specs)
    coming = iter(tensors)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        is_only = len(shards) == 1
        file_name = "model.safetensors" if is_only else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(names, file_name)
        path = folder / file_name
        try:
            with path.open("wb") as file:
                file.write(_header({name: specs[name] for name in names}))
                for name in names:
                    _write(file, name, specs[name], *next(coming))
                    on_written(specs[name].size_bytes)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # of a write, it does not name the file
            raise OSError(error.errno, error.strerror, str(path)) from None
    if len(shards) > 1:
        total = sum(spec.size_bytes for spec in specs.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def _shards(specs: Mapping[str, TensorSpec]) -> list[list[str]]:
    """Names by file, each file as full as MAX_SHARD_BYTES allows."""
    shards: list[list[str]] = [[]]
    held_bytes = 0
    for name, spec in specs.items():
        if shards[-1] and held_bytes + spec.size_bytes > MAX_SHARD_BYTES:
            shards.append([])
            held_bytes = 0
        shards[-1].append(name)
        held_bytes += spec.size_bytes
    return shards


def _header(specs: Mapping[str, TensorSpec]) -> bytes:
    """Length of the JSON in eight bytes, and the JSON, filled up so that the data begin on a multiple of eight."""
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}  # by which the ecosystem knows the layout
    offset = 0
    for name, spec in specs.items():
        end = offset + spec.size_bytes
        entries[name] = {"dtype": _DTYPES[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(file: BinaryIO, name: str, spec: TensorSpec, found_name: str, array: mx.array) -> None:
    found = TensorSpec(tuple(array.shape), array.dtype)
    if (found_name, found) != (name, spec):
        raise ValueError(
            f"{found_name} is {found.shape} {found.dtype}; announced was {name}, {spec.shape} {spec.dtype}"
        )
    carrier: Any = mx.contiguous(array).view(_CARRIERS[spec.dtype.size])  # a buffer, as its types tell from 3.12 on
    mx.eval(carrier)
    file.write(memoryview(carrier))
