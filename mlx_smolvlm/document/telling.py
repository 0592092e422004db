"""What the command says about pages."""

from typing import TYPE_CHECKING

from ..command_line.progress import counted, duration, per_second
from ..command_line.runner import one_line
from ..command_line.standard_streams import line_start, say, shown

if TYPE_CHECKING:
    from ..documents.document_job import DocumentJob
    from ..documents.page_reading import PageReading
    from ..documents.survey import FoundDocument


class PageTeller:
    """Says what went wrong with a page, each in a line; `num_errors` counts the pages that were not read."""

    def __init__(self, max_tokens: int, models: str, expects_tags: bool) -> None:
        """`models` names those that are made for documents, whose answers have tags, whatever else may be asked."""
        self.num_errors = 0
        self._max_tokens = max_tokens
        self._models = models
        self._has_tags = not expects_tags

    def tell(self, reading: "PageReading") -> None:
        """A page is done."""
        from ..documents.page_file import on_page
        from ..documents.tags import TAG

        place = f"{shown(reading.source)}, page {reading.number}"
        if reading.error is not None:
            self.num_errors += 1
            self._say(f"error: {on_page(one_line(reading.error), shown(reading.source), reading.number)}")
        elif reading.finish_reason == "length":
            why = "the end of the model's context" if reading.completion_tokens < self._max_tokens else "--max-tokens"
            self._say(f"{place}: cut after {reading.completion_tokens} tokens, {why}; what was read is kept")
        elif reading.finish_reason == "loop":
            self._say(f"{place}: the model repeated itself and was stopped; what was read is kept")
        if reading.error is None and not self._has_tags:
            self._has_tags = True
            if TAG.search(reading.doctags) is None:
                self._say(f"note: {place}: no DocTags in the answer; use a model made for documents: {self._models}")

    def _say(self, line: str) -> None:
        say(f"{line_start()}{line}")


def summary(job: "DocumentJob", documents: "list[FoundDocument]", num_errors: int, seconds: float) -> str:
    """One line."""
    line = f"{counted(job.num_pages, 'page')} of {counted(len(documents), 'document')}"
    if job.partial:
        line += f", {len(job.partial)} of them cut"
    if num_errors:
        line += f", {num_errors} not read"
    if not job.todo:
        return f"{line}; nothing was left to read"
    if len(job.todo) < job.num_pages:
        line += f"; {job.num_pages - len(job.todo)} were read before"
    return f"{line}; {duration(seconds)}, {per_second(len(job.todo) / seconds, 'pages')}"
