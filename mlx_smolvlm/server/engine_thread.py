"""One thread owns MLX from load to exit and drives `Rows`: requests come in, events go out to the loops that wait."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..media.prefetch import as_exception
from .engine_job import Delivered, EngineJob
from .errors import ApiError, bad_request, internal_error, refusal, server_busy
from .metrics import Gauges, Metrics
from .models import by_id, load_served, make_rows
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..engine.row import BatchRequest, RowEvent
    from ..engine.rows import Rows
    from ..model.smolvlm import SmolVLM
    from ..options import GenerationOptions
    from ..processor.processor import Processor

LOG = logging.getLogger("mlx_smolvlm.server")
ROWS_PER_CLEANING = 64  # buffers of lengths that may not come again are released after so many answers
IDLE_S = 2.0  # after which they are released, too
POLL_S = 0.5  # how long the idle thread sleeps at most


class Engine:
    """The thread, its queue, and how many may wait.

    Attributes:
        state: "loading", "ok", "closing" or "dead".
        failure: why there is no model, where the state is "dead".
        pairs: models and their processors by their ids, once the state is "ok".
        model, processor: the first of them.
        metrics: counts and times of all that happens.
    """

    def __init__(
        self,
        settings: ServerSettings,
        load: "Callable[[], tuple[SmolVLM, Processor] | Mapping[str, tuple[SmolVLM, Processor]]] | None" = None,
    ):
        """
        Args:
            settings: bounds, and which model to load.
            load: called in the thread for the model and its processor, or for several by their ids; None loads what
                the settings name.
        """
        self.settings = settings
        self.state = "loading"
        self.failure: Exception | None = None
        self.pairs: dict[str, tuple[SmolVLM, Processor]] = {}
        self.model: Any = None
        self.processor: Any = None
        self.metrics = Metrics()
        self.ready = threading.Event()  # set when the state is no longer "loading"
        self._load = load or partial(load_served, settings)
        self._lock = threading.Lock()
        self._waiting: deque[EngineJob] = deque()
        self._running: set[EngineJob] = set()
        self._num_claimed = 0
        self._wake = threading.Event()
        self._stopping = False
        self._rows: Rows | None = None
        self._num_ended = 0
        self._thread = threading.Thread(target=self._run, name="mlx_smolvlm engine", daemon=True)  # it may download

    # What event loops call

    def start(self) -> None:
        """Start the thread, which loads the model first."""
        self._thread.start()

    def check_ready(self) -> None:
        """Raise ApiError unless requests can be answered."""
        if self.state == "loading":
            raise ApiError(503, "model_loading", "the model is being loaded; try again", headers=[("Retry-After", "2")])
        if self.state == "closing":
            raise ApiError(503, "server_closing", "the server is shutting down", headers=[("Retry-After", "2")])
        if self.state == "dead":
            raise ApiError(503, "engine_dead", "the engine has ended; restart the server, whose log says why")

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Within: so many answers may be in flight or wait. Raises ApiError: there is no room, or no engine."""
        self.check_ready()
        most = self.settings.rows + self.settings.max_waiting
        if count > most:
            raise bad_request(f"n is {count}, but this server makes or queues at most {most} answers", "n")
        with self._lock:
            is_full = self._num_claimed + count > most
            self._num_claimed += 0 if is_full else count
        if is_full:
            self.metrics.refused("queue_full")
            raise server_busy(f"{most} answers are in flight or wait, which is the most; try again")
        try:
            yield
        finally:
            with self._lock:
                self._num_claimed -= count

    def submit(
        self,
        request: "BatchRequest",
        options: "GenerationOptions",
        deliver: Callable[[Delivered], None],
        tells_progress: bool = False,
    ) -> EngineJob:
        """Ask for an answer; see `EngineJob`. Cancel it when it is no longer waited for."""
        job = EngineJob(request, options, deliver, asyncio.get_running_loop(), tells_progress)
        with self._lock:
            self._waiting.append(job)
        self._wake_up()
        return job

    def cancel(self, job: EngineJob) -> None:
        """End an answer, in whatever stage it is. From any thread; nothing happens if it has ended."""
        job.cancel.set()
        with self._lock, suppress(ValueError):  # it is in `Rows`, or has ended
            self._waiting.remove(job)  # else its media would wait for a row, too
        self._wake_up()

    @property
    def num_running(self) -> int:
        """Answers in `Rows`."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Answers that have a place and wait, or whose media are read."""
        return max(0, self._num_claimed - len(self._running))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight or waits."""
        return not self._num_claimed and not self._running

    def begin_closing(self) -> None:
        """Refuse further requests; those in flight go on."""
        if self.state in ("ok", "loading"):
            self.state = "closing"

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End what is in flight with errors, then the thread. Returns whether it has ended in time."""
        self.begin_closing()
        self._stopping = True
        self._wake_up()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def gauges(self) -> Gauges:
        """What is in flight, and sizes and counts of the caches."""
        gauges = Gauges(self.num_running, self.num_waiting, self.settings.max_cache_bytes)
        rows = self._rows
        if rows is None:
            return gauges
        kv_bytes, encode_s = rows.usage
        features = rows.feature_cache
        return replace(
            gauges,
            kv_bytes=kv_bytes,
            prefix_bytes=rows.prefix_cache.size_bytes,
            feature_bytes=features.size_bytes,
            tiles_asked=features.num_asked,
            tiles_encoded=features.num_encoded,
            encode_s=encode_s,
            has_model=True,
        )

    # What runs in the thread

    def _wake_up(self) -> None:
        self._wake.set()
        rows = self._rows
        if rows is not None:
            rows.wake()

    def _run(self) -> None:
        try:
            self.pairs = by_id(self.settings, self._load())
            self.model, self.processor = next(iter(self.pairs.values()))
            self._rows = make_rows(self.settings, self.model, self.processor, self._refill)
        except BaseException as error:  # whatever it is, it ends the server, whose main thread is another
            self.failure = as_exception(error)
            self.state = "dead"
            self.ready.set()
            return
        if self.state == "loading":
            self.state = "ok"
        self.ready.set()
        try:
            self._serve()
        except BaseException:
            LOG.exception("the engine has ended")
        finally:
            self.state = "closing" if self._stopping else "dead"
            code = "server_closing" if self._stopping else "engine_dead"
            message = "the server is shutting down" if self._stopping else "the engine has ended"
            self._fail_all(ApiError(503, code, message))
            if self._rows is not None:
                self._rows.close()

    def _serve(self) -> None:
        import mlx.core as mx

        idle_since: float | None = None
        while not self._stopping:
            self._wake.clear()
            self._refill()
            assert self._rows is not None
            if not len(self._rows):
                now = time.monotonic()
                idle_since = idle_since or now
                if self._num_ended and now - idle_since > IDLE_S:
                    mx.clear_cache()
                    self._num_ended = 0
                self._wake.wait(POLL_S)
                continue
            idle_since = None
            try:
                events = self._rows.step()
            except BaseException:  # whose fault it is cannot be told, so all of them end
                LOG.exception("a step of the engine failed")
                self._fail_all(internal_error(), waiting=False)
                self._rows.close()
                self._rows = make_rows(self.settings, self.model, self.processor, self._refill)
                continue
            self._deliver(events)
            if self._num_ended >= ROWS_PER_CLEANING:
                mx.clear_cache()
                self._num_ended = 0

    def _refill(self) -> None:
        """Hand waiting answers to `Rows`, as many as there may be; called between its units of work, too."""
        assert self._rows is not None
        while len(self._rows) < self.settings.rows:
            with self._lock:
                if not self._waiting:
                    return
                job = self._waiting.popleft()
            if job.cancel.is_set():
                continue
            try:
                self._rows.add(
                    job.request,
                    job.options,
                    key=job,
                    cancel=job.cancel,
                    on_begin=partial(self._begun, job),
                    on_progress=partial(self._post, job) if job.tells_progress else None,
                )
            except Exception as error:
                self._post(job, refusal(error))
                continue
            self._running.add(job)

    def _begun(self, job: EngineJob) -> None:
        job.begun_s = time.perf_counter()
        self.metrics.queued(job.begun_s - job.submitted_s)
        self._post(job, None)

    def _deliver(self, events: "list[RowEvent]") -> None:
        now = time.perf_counter()
        for event in events:
            job: EngineJob = event.key  # type: ignore[assignment]
            if event.token_id is not None:
                if job.first_s:
                    self.metrics.next_token(now - job.last_s)
                else:
                    job.first_s = now
                    self.metrics.first_token(now - job.submitted_s, event)
                job.last_s = now
            if event.finish_reason is not None:
                self._running.discard(job)
                self._num_ended += 1
                self.metrics.ended(event, now - job.submitted_s, now - job.first_s if job.first_s else 0.0)
            self._post(job, event if event.error is None else refusal(event.error))

    def _post(self, job: EngineJob, event: Delivered) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it who waited
            job.loop.call_soon_threadsafe(job.deliver, event)

    def _fail_all(self, error: ApiError, waiting: bool = True) -> None:
        jobs = list(self._running)
        self._running.clear()
        if waiting:
            with self._lock:
                jobs += self._waiting
                self._waiting.clear()
        for job in jobs:
            self._post(job, error)
