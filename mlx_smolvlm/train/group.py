"""Several processes of `mlx.launch` that train together: the first one keeps the state and writes the output."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import mlx.core as mx

from ..batch.ranks import Ranks
from .learning.optimization import Optimization


def check_alike(ranks: Ranks, record: Mapping[str, Any]) -> None:
    """Refuse processes with other options, data or models.

    Raises:
        ValueError: they differ.
        OSError: another process has ended.
    """
    digests = ranks.share(blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).digest())
    if len(set(digests)) > 1:
        raise ValueError("the processes of mlx.launch were given different options, rows or models; give all the same")


def begin_alike(ranks: Ranks, optimization: Optimization) -> None:
    """Let all processes begin with the state of the first."""
    if ranks.size == 1:
        return
    step = int(ranks.share(str(optimization.step).encode())[0])
    state = {}
    for name, array in optimization.state().items():
        own = array if ranks.rank == 0 else mx.zeros_like(array)
        state[name] = mx.distributed.all_sum(own, stream=mx.cpu)
        mx.eval(state[name])
    optimization.restore(step, state)


def shared_cancel(ranks: Ranks, is_set: bool) -> bool:
    """Whether any process is to end."""
    return is_set if ranks.size == 1 else b"1" in ranks.share(b"1" if is_set else b"0")
