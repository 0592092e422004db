"""This process among those that `mlx.launch` has started, on one machine or several."""

import os
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from threading import Thread
from typing import Any

import mlx.core as mx
import numpy as np

PATIENCE_S = 3600.0  # for which others are waited for; one may have a model to download
_POLL_S = 0.2  # within which a signal is handled


class Ranks:
    """A group of processes; one alone where there was no `mlx.launch`.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        is_stuck: whether an exchange was given up. It cannot be ended, and Python would wait for it at its own end.
    """

    def __init__(self) -> None:
        self._group = None if _is_alone() else mx.distributed.init()
        self.rank = self._group.rank() if self._group else 0
        self.size = self._group.size() if self._group else 1
        self.is_stuck = False
        self._exchanges = 0

    def share(self, data: bytes, patience_s: float | None = None) -> list[bytes]:
        """The data of each process, by rank; all processes call this, and wait for each other.

        MLX does not always notice that another process is gone: some of its backends then wait for ever, deaf to
        signals. So the exchange is made in a thread, and waited for as long as `patience_s`, or `PATIENCE_S`.

        Raises:
            OSError: another process has ended, or did not come.
        """
        if self.size == 1:
            return [data]
        patience_s = PATIENCE_S if patience_s is None else patience_s
        self._exchanges += 1
        headers = self._gather(self._header(self.rank, data), patience_s)
        sizes = [int(size) for size in headers[:, 2]]
        padded = np.zeros(max(*sizes, 1), np.uint8)
        padded[: len(data)] = np.frombuffer(data, np.uint8)
        rows = self._gather(padded, patience_s, headers)
        return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]

    def gather(self, parts: Iterable[bytes], patience_s: float) -> Iterable[bytes]:
        """The parts of all processes, a few at a time; as `share`."""
        own = iter(parts)
        while any(shared := self.share(next(own, b""), patience_s)):
            yield from filter(None, shared)

    def _header(self, rank: int, data: bytes) -> np.ndarray:
        """(5,) int64: the exchange, the process, the length of what it gives, and a digest of that."""
        return np.array(
            [self._exchanges, rank, len(data), *np.frombuffer(blake2b(data, digest_size=16).digest(), np.int64)]
        )

    def _gather(self, array: np.ndarray, patience_s: float, headers: np.ndarray | None = None) -> np.ndarray:
        """(n,) of each process -> (size, n): headers, or what they tell of; after a death, MLX may give zeros."""

        def exchange() -> np.ndarray:
            return np.array(mx.distributed.all_gather(mx.array(array)[None], group=self._group, stream=mx.cpu))

        self.is_stuck = True  # should a signal end the wait
        try:
            gathered: np.ndarray = _waited_for(exchange, patience_s)
        except TimeoutError:
            raise _gone(f"it did not come within {patience_s:g} s") from None
        except RuntimeError as error:
            self.is_stuck = False
            raise _gone(str(error)) from None
        self.is_stuck = False
        for rank, row in enumerate(gathered):
            if headers is None:
                is_sound = row[:2].tolist() == [self._exchanges, rank] and row[2] >= 0
            else:
                is_sound = np.array_equal(self._header(rank, row[: headers[rank, 2]].tobytes()), headers[rank])
            if not is_sound:
                raise _gone("what came of it is damaged")
        return gathered


def _is_alone() -> bool:
    """Whether `mlx.launch -n 1` has started this process: MLX cannot read the empty list of hosts that it writes."""
    hosts = Path(os.environ.get("MLX_HOSTFILE", ""))
    return hosts.is_file() and not hosts.read_text().strip()


def _gone(reason: str) -> OSError:
    return OSError(
        f"another process has ended ({reason}); what each has done is kept: run the same command again, with any "
        "number of processes, to do the rest"
    )


def _waited_for(function: Callable[[], Any], patience_s: float) -> Any:
    """What a function returns or raises, in a thread that is left behind after a time, with TimeoutError."""
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["value"] = function()
        except BaseException as error:
            outcome["error"] = error

    thread = Thread(target=work, name="mlx_smolvlm exchange", daemon=True)
    thread.start()
    waited_s = 0.0
    while thread.is_alive() and waited_s < patience_s:
        thread.join(_POLL_S)
        waited_s += _POLL_S
    if not outcome:
        raise TimeoutError
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
