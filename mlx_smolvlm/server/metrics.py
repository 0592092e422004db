"""Counts and times of the server, as Prometheus text. Names end as vLLM's do, so that dashboards know them."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import __version__

if TYPE_CHECKING:
    from ..engine.row import RowEvent

PREFIX = "smolvlm:"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many values lie below each bound, and their sum."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count a value."""
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        """The histogram as text."""
        total = 0
        for bound, count in zip([*map(str, BUCKETS_S), "+Inf"], self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


HISTOGRAMS = {
    "request_queue_time_seconds": "From a request's place in the queue to the first work on its prompt.",
    "request_prefill_time_seconds": "From the first work on a prompt, media encoded, to the first token.",
    "time_to_first_token_seconds": "From a request's place in the queue to its first token.",
    "inter_token_latency_seconds": "Between two tokens of an answer.",
    "request_decode_time_seconds": "From the first token of an answer to its end.",
    "e2e_request_latency_seconds": "From a request's place in the queue to the end of its answer.",
}


@dataclass(frozen=True)
class Gauges:
    """What holds now: answers in flight, and sizes in bytes and counts of the caches."""

    num_running: int
    num_waiting: int
    max_cache_bytes: int
    kv_bytes: int = 0
    prefix_bytes: int = 0
    feature_bytes: int = 0
    tiles_asked: int = 0
    tiles_encoded: int = 0
    encode_s: float = 0.0
    has_model: bool = False


class Metrics:
    """All counts; any thread may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._histograms = {name: Histogram() for name in HISTOGRAMS}
        self._ended: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    def refused(self, reason: str) -> None:
        """A request found no room."""
        with self._lock:
            self._refused[reason] += 1

    def queued(self, seconds: float) -> None:
        """The model begins with a prompt that has waited."""
        with self._lock:
            self._histograms["request_queue_time_seconds"].add(seconds)

    def first_token(self, seconds: float, event: "RowEvent") -> None:
        """The first token of an answer, `seconds` after it was submitted."""
        with self._lock:
            self._histograms["time_to_first_token_seconds"].add(seconds)
            self._histograms["request_prefill_time_seconds"].add(event.seconds)
            self._tokens["prompt"] += event.prompt_tokens
            self._tokens["cached"] += event.cached_tokens
            self._tokens["image"] += event.image_tokens
            self._tokens["generation"] += 1

    def next_token(self, seconds: float) -> None:
        """A further token, `seconds` after the one before it."""
        with self._lock:
            self._histograms["inter_token_latency_seconds"].add(seconds)
            self._tokens["generation"] += 1

    def ended(self, event: "RowEvent", seconds: float, decode_s: float) -> None:
        """An answer has ended."""
        with self._lock:
            self._ended[event.finish_reason or ""] += 1
            self._histograms["e2e_request_latency_seconds"].add(seconds)
            if decode_s:
                self._histograms["request_decode_time_seconds"].add(decode_s)

    def text(self, gauges: Gauges) -> str:
        """All of it as Prometheus text."""
        return "\n".join([*_gauge_lines(gauges), *self._own_lines(), ""])

    def _own_lines(self) -> Iterator[str]:
        with self._lock:
            for kind in ("prompt", "cached", "image", "generation"):
                said = {"cached": "copied from earlier prompts", "image": "for images and frames"}.get(kind, "")
                name = f"{kind}_tokens_total"
                yield from _family(name, "counter", f"{kind.capitalize()} tokens{', ' + said if said else ''}.")
                yield f"{PREFIX}{name} {self._tokens[kind]}"
            hits = (("queries", self._tokens["prompt"]), ("hits", self._tokens["cached"]))
            for what, value in hits:
                yield from _family(f"prefix_cache_{what}_total", "counter", f"Prompt cache: {what}, in tokens.")
                yield f"{PREFIX}prefix_cache_{what}_total {value}"
            yield from _family("request_success_total", "counter", "Answers that have ended, by reason.")
            for reason in ("stop", "length", "cancelled", "error"):
                yield f'{PREFIX}request_success_total{{finished_reason="{reason}"}} {self._ended[reason]}'
            yield from _family("request_refused_total", "counter", "Requests that found no room, by reason.")
            for reason in ("queue_full", "queue_timeout"):
                yield f'{PREFIX}request_refused_total{{reason="{reason}"}} {self._refused[reason]}'
            for name, said in HISTOGRAMS.items():
                yield from _family(name, "histogram", said)
                yield from self._histograms[name].lines(PREFIX + name)


def _gauge_lines(now: Gauges) -> Iterator[str]:
    values: list[tuple[str, str, str, float]] = [
        ("num_requests_running", "gauge", "Answers that are read or decoded.", now.num_running),
        ("num_requests_waiting", "gauge", "Answers that wait, or whose media are read.", now.num_waiting),
        ("kv_cache_bytes", "gauge", "Keys and values of answers in flight, at most.", now.kv_bytes),
        (
            "kv_cache_usage_perc",
            "gauge",
            "The same as a share of its bound.",
            now.kv_bytes / max(1, now.max_cache_bytes),
        ),
        ("prefix_cache_bytes", "gauge", "Keys and values of earlier prompts.", now.prefix_bytes),
        ("mm_cache_bytes", "gauge", "Features of images.", now.feature_bytes),
        ("mm_cache_queries_total", "counter", "Image cache: tiles asked for.", now.tiles_asked),
        ("mm_cache_hits_total", "counter", "Image cache: tiles found.", now.tiles_asked - now.tiles_encoded),
        ("encode_time_seconds_total", "counter", "Time for encoding images.", now.encode_s),
    ]
    if now.has_model:
        import mlx.core as mx

        values += [
            ("mlx_active_bytes", "gauge", "Memory that MLX uses.", mx.get_active_memory()),
            ("mlx_cache_bytes", "gauge", "Memory that MLX keeps for later.", mx.get_cache_memory()),
            ("mlx_peak_bytes", "gauge", "Most memory that MLX has used.", mx.get_peak_memory()),
        ]
    for name, kind, said, value in values:
        yield from _family(name, kind, said)
        yield f"{PREFIX}{name} {value:.6g}" if value % 1 else f"{PREFIX}{name} {int(value)}"
    yield from _family("build_info", "gauge", "The version of the server.")
    yield f'{PREFIX}build_info{{version="{__version__}"}} 1'


def _family(name: str, kind: str, said: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {said}"
    yield f"# TYPE {PREFIX}{name} {kind}"
