"""An engine of plain types that never raises: requests in from any thread, events out of one thread that owns MLX."""

import time
from collections import deque
from threading import Condition, Event

from .events import LOST_MEMORY, BridgeEvent, ErrorEvent, LogEvent, error_event
from .handlers import Handlers
from .pixels import PixelLayout
from .requests import parse_json, read_request, request_id
from .schedule import Schedule

POLL_S = 0.01  # how long work that waits for others is left alone


class BridgeEngine:
    """Models, sessions and captions of one program.

    `submit`, `cancel` and `push_frame` may be called from any thread, and never wait for MLX. `step` belongs to one
    thread, which does all the work. Nothing raises: every request ends with an `end` event, one that answers it, or an
    `error`. Nothing global is touched, but for what a `limits` request asks for.

    Attributes:
        is_broken: the GPU cannot be used in this process any more, so a new one is needed.
    """

    def __init__(self) -> None:
        self.is_broken = False
        self._changed = Condition()
        self._inbox: deque[tuple[str, list[bytes]]] = deque()
        self._outbox: deque[BridgeEvent] = deque()
        self._cancels: dict[int, Event] = {}  # of requests that are in flight
        self._early: set[int] = set()  # cancelled while they may have been in the inbox
        self._schedule = Schedule(self._post)
        self._handlers = Handlers(self._schedule, self._post)

    # From any thread

    def submit(self, message: str, attachments: list[bytes]) -> None:
        """Queue a request, with the bytes that it refers to."""
        with self._changed:
            self._inbox.append((message, list(attachments)))
            self._changed.notify_all()

    def cancel(self, request_id: int) -> None:
        """End a request at its next token, chunk or frame. Nothing happens if there is none."""
        with self._changed:
            event = self._cancels.get(request_id)
            if event is not None:
                event.set()
            elif self._inbox:
                self._early.add(request_id)
            self._changed.notify_all()

    def push_frame(
        self, source_id: int, data: bytes, width: int, height: int, bytes_per_row: int, format: str, seconds: float
    ) -> bool:
        """Hand over a frame of `captions`; a tile is made of it at once, if it is one that is sampled.

        Args:
            source_id: the `id` of the `captions` request.
            data, width, height, bytes_per_row, format: the pixels, as in `PixelLayout`.
            seconds: when it is shown, on any clock that ascends.

        Returns:
            Whether frames are still wanted. One that is refused ends the captions with an error.
        """
        source = self._handlers.sources.get(source_id)
        if source is None:
            return False
        try:
            return source.push((PixelLayout(width, height, bytes_per_row, format), data), float(seconds))
        except Exception as error:
            source.fail(error)
            return False

    def report(self, level: str, message: str) -> None:
        """Add a `log` event."""
        self._post(LogEvent(None, level, " ".join(message.split())))

    # From the one thread

    def step(self, wait_seconds: float) -> str | None:
        """Do one unit of work, or wait for some.

        Returns:
            One event as JSON; None if the time has passed without one.
        """
        deadline_s = time.monotonic() + wait_seconds
        while True:
            is_busy = False
            try:
                if not self._outbox:
                    self._take_requests()
                if not self._outbox:
                    is_busy = self._schedule.do_one_unit()
                if self._outbox:
                    return self._outbox.popleft().json()
            except BaseException as error:  # of nobody's request: it is reported, and the others go on
                return error_event(None, error).json()
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return None
            if not is_busy:
                with self._changed:
                    if not self._inbox and not self._outbox:
                        self._changed.wait(min(left_s, POLL_S) if self._schedule else left_s)

    def _take_requests(self) -> None:
        while self._inbox:
            message, attachments = self._inbox[0]
            number: int | None = None
            try:
                value = parse_json(message)
                number = request_id(value)
                if number is not None and number in self._cancels:
                    taken, number = number, None  # the request in flight is not to end by this error
                    raise ValueError(f"there is a request {taken} already; choose another id")
                request = read_request(value)
                cancel = Event()
                with self._changed:
                    self._cancels[request.id] = cancel
                    if request.id in self._early:
                        cancel.set()
                self._handlers.begin(request, attachments, cancel)
            except BaseException as error:  # SystemExit and MemoryError, too
                self._post(error_event(number, error))
            with self._changed:
                self._inbox.popleft()
                if not self._inbox:
                    self._early.clear()

    def _post(self, event: BridgeEvent) -> None:
        with self._changed:
            self._outbox.append(event)
            if isinstance(event, ErrorEvent) and any(sign in event.message for sign in LOST_MEMORY):
                self.is_broken = True
            if event.is_last and event.id is not None:
                self._cancels.pop(event.id, None)
                self._handlers.sources.pop(event.id, None)
            self._changed.notify_all()
