"""Work in flight, a unit at a time, in turn: jobs, and the answers of each model that are made together."""

from collections import deque
from collections.abc import Callable
from threading import Event

from ..engine.row import BatchRequest
from ..options import GenerationOptions
from .events import BridgeEvent, error_event
from .jobs import Job, LoadedModel


class Schedule:
    """What goes on. Of one thread."""

    def __init__(self, post: Callable[[BridgeEvent], None]):
        """`post` is given every event."""
        self._post = post
        self._jobs: dict[int, tuple[int | None, Job]] = {}  # by request, with the number of its model
        self._turns: deque[Callable[[], bool]] = deque()

    def __len__(self) -> int:
        """Units that may be done, or wait for others."""
        return len(self._turns)

    def do_one_unit(self) -> bool:
        """Do a unit of whatever is next and can go on; returns whether there was any."""
        return any(self._turns.popleft()() for _ in range(len(self._turns)))

    def add_job(self, number: int, model: int | None, job: Job) -> None:
        """Begin with a request that takes many steps; it ends with its model."""
        self._jobs[number] = (model, job)

        def unit() -> bool:
            if number not in self._jobs:  # it has been ended
                return False
            try:
                events = next(job)
            except StopIteration as end:
                del self._jobs[number]
                self._post(end.value)
                return True
            except BaseException as error:
                self.end(number, error)
                return True
            self._turns.append(unit)
            for event in events or ():
                self._post(event)
            return events is not None

        self._turns.append(unit)

    def add_row(
        self, loaded: LoadedModel, request: BatchRequest, number: int, options: GenerationOptions, cancel: Event
    ) -> None:
        """Begin with an answer that is made together with others. Raises what `Rows.add` raises."""
        has_turn = bool(loaded.asked)
        loaded.add(request, number, options, cancel)

        def unit() -> bool:
            if not loaded.asked:
                return False
            for event in loaded.step():
                self._post(event)
            if loaded.asked:
                self._turns.append(unit)
            return True

        if not has_turn:
            self._turns.append(unit)

    def end(self, number: int, error: BaseException) -> None:
        """End a job with an error."""
        _, job = self._jobs.pop(number)
        try:
            job.close()
        finally:
            self._post(error_event(number, error))

    def end_all_of(self, model: int, loaded: LoadedModel, error: BaseException) -> None:
        """End all that a model does with an error."""
        for event in loaded.end_all(error):
            self._post(event)
        for number in [number for number, (of_model, _) in self._jobs.items() if of_model == model]:
            self.end(number, error)
