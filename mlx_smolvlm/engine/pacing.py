"""How much of a prompt may be read between two decode steps, from the measured time of earlier units."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ..options import is_between, quoted

MAX_PAUSE_S = 0.065  # with a decode step, no answer waits for longer than 0.15 s on machines that are quick enough
LEAST_TOKENS = 16  # of a chunk, if they fit into a pause: smaller chunks take little less time
NEWEST = 0.5  # weight of the newest measure
LATEST_STEPS = 4  # the quickest of so many decode steps is taken for the time of one
MARGIN = 1.25  # units are made this much smaller than they need be: attention grows, and machines vary
MOST_ALONE_S = 0.3  # of a unit where nobody decodes
MAX_PATIENCE_S = 0.05
STEPS_PER_PAUSE = 2  # a pause may take as long as so many decode steps; of three, a token may be 0.2 s late on a CPU


class Pace:
    """Seconds for a token of a prompt, a tile and a decode step, measured as the work goes on."""

    def __init__(self, max_pause_s: float | None):
        """`max_pause_s`: most seconds for which rows may wait, or the time of two steps if that is longer.

        Raises:
            ValueError: no positive number.
        """
        if max_pause_s is not None and not (is_between(max_pause_s, 0, float("inf")) and max_pause_s > 0):
            raise ValueError(f"max_pause_s is {quoted(max_pause_s)}, expected a positive number of seconds or None")
        self._max_pause_s = max_pause_s
        self.token_s = 5e-3  # until they are measured: small units first
        self.tile_s = 1e-1
        self.step_s = 0.0
        self._steps_s: deque[float] = deque(maxlen=LATEST_STEPS)

    @property
    def pause_s(self) -> float:
        """Seconds that prompts may be read for between two decode steps."""
        if self._max_pause_s is None:
            return float("inf")
        return max(self._max_pause_s, STEPS_PER_PAUSE * self.step_s)

    def is_used_up(self, left_s: float) -> bool:
        """Whether so little is left of a pause that the smallest chunk could exceed it."""
        return left_s < max(self.pause_s / 4, min(LEAST_TOKENS * self.token_s, self.pause_s / 2))

    @property
    def unit_s(self) -> float:
        """Seconds that a unit may take where nobody decodes: what comes meanwhile, or is cancelled, waits for it."""
        return float("inf") if self._max_pause_s is None else max(MOST_ALONE_S, self.pause_s)

    @property
    def patience_s(self) -> float:
        """Seconds for which a prompt that has just come is worth waiting for: little beside the next tile."""
        return 0.0 if self._max_pause_s is None else min(self.tile_s / 10, MAX_PATIENCE_S)

    def tokens_within(self, seconds: float, most: int) -> int:
        """Tokens of a prompt that can be read in a time, at least one.

        Far behind the beginning of a prompt, where each token attends to thousands, a CPU may need more than a pause
        for a few.
        """
        if seconds == float("inf"):
            return most
        return min(max(int(seconds / self.token_s / MARGIN), self._least_tokens), most)

    @property
    def _least_tokens(self) -> int:
        return int(max(1, min(LEAST_TOKENS, self.pause_s / self.token_s / MARGIN)))

    def tiles_within(self, seconds: float, most: int) -> int:
        """Tiles that can be encoded in a time, at least one."""
        if seconds == float("inf"):
            return most
        return min(max(int(seconds / self.tile_s / MARGIN), 1), most)

    @contextmanager
    def tokens(self, count: int) -> Iterator[None]:
        """Measure reading so many tokens."""
        start = time.perf_counter()
        yield
        if count >= self._least_tokens:  # of fewer, most of the time is the same for any number
            self.token_s = _mean(self.token_s, (time.perf_counter() - start) / count)

    def note_tiles(self, count: int, seconds: float) -> None:
        """Note how long encoding so many tiles took; none if their features were known."""
        if count:
            self.tile_s = _mean(self.tile_s, seconds / count)

    @contextmanager
    def step(self, num_lanes: int) -> Iterator[None]:
        """Measure a decode step of so many lanes. The time of one counts: else the more lanes, the longer a pause."""
        start = time.perf_counter()
        yield
        self._steps_s.append((time.perf_counter() - start) / num_lanes)
        # A step that waited for other programs must not allow a pause of three such steps.
        self.step_s = min(self._steps_s)


def _mean(before: float, now: float) -> float:
    """Rises at once, as a unit that is too long is felt; falls slowly."""
    return max(now, _between(before, now))


def _between(before: float, now: float) -> float:
    return before * (1 - NEWEST) + now * NEWEST
