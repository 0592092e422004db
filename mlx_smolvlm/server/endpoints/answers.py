"""What an answer is to OpenAI's clients: objects, usage, timings and log probabilities."""

import time
import uuid
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...engine.row import RowEvent
    from ...processor.processor import Processor
    from ..engine_job import EngineJob
    from .answering import Generation

FINISH_REASONS = {"stop": "stop", "length": "length"}  # of the engine, and of the interface


class AnswerTexts:
    """The answers of a request, put together from their events.

    Attributes:
        texts: of each answer so far.
        token_ids: of each answer so far, end token included.
        logprobs: of each answer so far, as OpenAI lists them; empty lists if they were not asked for.
    """

    def __init__(self, num_answers: int, processor: "Processor"):
        self.texts = [""] * num_answers
        self.token_ids: list[list[int]] = [[] for _ in range(num_answers)]
        self.logprobs: list[list[dict[str, Any]]] = [[] for _ in range(num_answers)]
        self._processor = processor

    @classmethod
    async def of(cls, generation: "Generation") -> "AnswerTexts":
        """The answers of a request, once all have ended. Raises what `Generation.events` raises."""
        answers = cls(generation.plan.answer.n, generation.plan.processor)
        async for item in generation.events():
            if isinstance(item, tuple):
                answers.add(*item)
        return answers

    def __iter__(self) -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
        """Text, log probabilities and tokens of each answer."""
        return zip(self.texts, self.logprobs, self.token_ids, strict=True)

    def add(self, number: int, event: "RowEvent") -> list[dict[str, Any]]:
        """Add an event to an answer; returns what it adds to the log probabilities."""
        self.texts[number] += event.text
        if event.token_id is not None:
            self.token_ids[number].append(event.token_id)
        entries = logprob_entries(event, self._processor)
        self.logprobs[number] += entries
        return entries


def new_id(prefix: str) -> str:
    """An identifier for an answer."""
    return f"{prefix}-{uuid.uuid4().hex}"


def now_s() -> int:
    """The time as answers tell it: whole seconds since 1970."""
    return int(time.time())


def finish_reason(event: "RowEvent | None") -> str | None:
    """How an answer has ended, as clients know it."""
    if event is None or event.finish_reason is None:
        return None
    return FINISH_REASONS.get(event.finish_reason, "stop")


def usage(generation: "Generation") -> dict[str, Any]:
    """The tokens of a request. The prompt counts once, however many answers it has."""
    events = list(generation.latest.values())
    first = generation.latest.get(0)
    prompt = generation.plan.prompt_tokens if first is None else first.prompt_tokens
    completion = sum(event.completion_tokens for event in events)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": 0 if first is None else first.cached_tokens,
            "image_tokens": generation.plan.image_tokens if first is None else first.image_tokens,
        },
    }


def timings(job: "EngineJob", event: "RowEvent") -> dict[str, Any]:
    """How long an answer took, under llama.cpp's names; and, in milliseconds, its time in the queue."""
    num_read = event.prompt_tokens - event.cached_tokens
    prompt_s = max(job.first_s - job.begun_s, 0.0)
    decode_s, num_decoded = max(job.last_s - job.first_s, 0.0), event.completion_tokens
    return {
        "cache_n": event.cached_tokens,
        "prompt_n": num_read,
        "prompt_ms": _ms(prompt_s),
        "prompt_per_token_ms": _ms(prompt_s / max(num_read, 1)),
        "prompt_per_second": round(num_read / prompt_s, 3) if prompt_s else 0.0,
        "predicted_n": num_decoded,
        "predicted_ms": _ms(decode_s),
        "predicted_per_token_ms": _ms(decode_s / max(num_decoded - 1, 1)),
        "predicted_per_second": round((num_decoded - 1) / decode_s, 3) if decode_s and num_decoded > 1 else 0.0,
        "queue_ms": _ms(max(job.begun_s - job.submitted_s, 0.0)),
    }


def logprob_entries(event: "RowEvent", processor: "Processor") -> list[dict[str, Any]]:
    """The log probability of an event's token, as OpenAI lists it; nothing if it was not asked for, or for the end."""
    if event.token_id is None or event.logprob is None or event.token_id in processor.stop_token_ids:
        return []
    top = [_token(processor, token_id, logprob) for token_id, logprob in event.top_logprobs or ()]
    return [{**_token(processor, event.token_id, event.logprob), "top_logprobs": top}]


def completion_logprobs(entries: Sequence[dict[str, Any]], offset: int = 0) -> dict[str, Any]:
    """The same in the form of `/v1/completions`; `offset` is that of the first token in the text."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries],
        "text_offset": offsets,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _token(processor: "Processor", token_id: int, logprob: float) -> dict[str, Any]:
    text = processor.decode([token_id], skip_special_tokens=False)
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(_token_bytes(processor, token_id, text))}


def _token_bytes(processor: "Processor", token_id: int, text: str) -> bytes:
    """The bytes of a token, which may be a part of a character."""
    if "\ufffd" not in text:
        return text.encode()
    spelled: str = processor.tokenizer.id_to_token(token_id) or ""
    alphabet = _byte_alphabet()
    if all(character in alphabet for character in spelled):
        return bytes(alphabet[character] for character in spelled)
    return text.encode()


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write bytes as: printable ones as themselves, others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
