"""Rows -> answers and scores, several at a time, in the order of the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from ...api.batching import BatchAnswer, generate_batch
from ...command_line.runner import one_line
from ...engine.answer import Cancelled, cancel_check
from ...engine.row import BatchRequest
from ...model.smolvlm import SmolVLM
from ...options import GenerationOptions
from ...processor.chat_template import FAMILY_TEMPLATE, render
from ...processor.processor import Processor
from ..data.eval_rows import EvalRow
from ..prompts.frame_choice import names_of
from ..prompts.row_prompts import CHAT, MAX_TOKENS, WrapperChoice, chat_message, row_prompt
from .evaluation_folder import Result
from .row_results import AskedRow

_FAILURES = (ValueError, TypeError, OSError, ImportError)


@dataclass(frozen=True)
class Asking:
    """How rows are asked.

    Attributes:
        protocol: "vlmevalkit" or "chat".
        choice: the suite's wrapper.
        max_tokens: most tokens of an answer.
        batch_size, max_cache_bytes: see `generate_batch`; they change no answer.
        scorer: the scorer of rows that name none; None for their sets'.
    """

    protocol: str
    choice: WrapperChoice
    max_tokens: int = MAX_TOKENS
    batch_size: int = 32
    max_cache_bytes: int = 2 * 1024**3
    scorer: str | None = None


class EvalRun:
    """A run over rows."""

    def __init__(self, model: SmolVLM, processor: Processor, asking: Asking, cancel: Event | None = None):
        """`cancel`, when set, ends it at the next token."""
        self._model = model
        self._processor = processor
        self._asking = asking
        self._cancel = cancel
        self._asked: dict[int, AskedRow] = {}
        self._done: dict[int, tuple[Result, Result]] = {}
        self._number_of: list[int] = []  # of each request, the number of its row

    def results(self, rows: Sequence[EvalRow]) -> Iterator[tuple[Result, Result]]:
        """The lines for results and timings, in the order of the rows.

        An answer waits for those of all rows before; that is little beside what the model keeps of a row.
        """
        try:
            yield from self._in_order(rows)
        except Cancelled:
            return

    def _in_order(self, rows: Sequence[EvalRow]) -> Iterator[tuple[Result, Result]]:
        options = GenerationOptions(
            max_tokens=self._asking.max_tokens, apply_chat_template=self._asking.protocol == CHAT
        )
        following = 0
        answers = generate_batch(
            self._model,
            self._processor,
            self._requests(rows),
            options=options,
            batch_size=self._asking.batch_size,
            max_cache_bytes=self._asking.max_cache_bytes,
            cancel=self._cancel,
        )
        for answer in answers:
            number = self._number_of[answer.index]
            self._done[number] = self._result(self._asked.pop(number), answer)
            while following in self._done:
                yield self._done.pop(following)
                following += 1
        if self._cancel is not None and self._cancel.is_set():
            return
        while following < len(rows):  # those behind the last that was answered, which cannot be asked
            yield self._done.pop(following)
            following += 1

    def _requests(self, rows: Sequence[EvalRow]) -> Iterator[BatchRequest]:
        for number, row in enumerate(rows):
            asked = AskedRow(row, row.digest())
            self._asked[number] = asked
            try:
                request = self._request(asked)
            except _FAILURES as error:
                asked.error = one_line(error)
                self._done[number] = self._result(self._asked.pop(number), BatchAnswer(number, error=error))
                continue
            self._number_of.append(number)
            yield request

    def _request(self, asked: AskedRow) -> BatchRequest:
        row = asked.row
        if self._asking.protocol == CHAT:
            return self._chat_request(asked)
        check = cancel_check(self._cancel)
        found = row_prompt(row, self._asking.choice, check)
        images = asked.show(found, check)
        return BatchRequest(asked.prompt, images, media_options=found.prompt.media_options)

    def _chat_request(self, asked: AskedRow) -> BatchRequest:
        row = asked.row
        messages, _ = chat_message(row)
        sources = row.frames if isinstance(row.frames, list) else row.images
        asked.images = names_of(row) or []
        videos = [] if row.video is None else [row.video]
        asked.prompt = rendered_chat(self._processor, messages)
        return BatchRequest(messages, [] if videos else [image.load() for image in sources], videos)

    def _result(self, asked: AskedRow, answer: BatchAnswer) -> tuple[Result, Result]:
        row = asked.row
        error = None if answer.error is None else one_line(answer.error)
        result = asked.result(
            answer.text, answer.token_ids, answer.finish_reason, error=error, scorer=self._asking.scorer
        )
        counts = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": len(answer.token_ids)}
        return result, {"dataset": row.dataset, "index": row.index, "seconds": round(answer.seconds, 4), **counts}


def rendered_chat(processor: Processor, messages: list[dict[str, Any]]) -> str:
    """Messages as the chat template renders them, `<image>` and `<video>` not yet expanded.

    Raises:
        ValueError: a checkpoint without a template.
    """
    has_video = any(item["type"] == "video" for message in messages for item in message["content"])
    template = FAMILY_TEMPLATE if has_video else processor.config.chat_template
    if template is None:
        raise ValueError("the checkpoint has no chat template; leave --protocol chat out")
    return render(
        template,
        messages,
        processor.config.special_tokens,
        continue_final_message=False,
        check_cancelled=lambda: None,
    )
