"""Many prompts -> their texts, several decoded at a time; a finished one makes room for the next."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Unpack

from ..engine.answer import cancel_check, check_pair
from ..engine.preparing import PREPARING_THREADS
from ..engine.row import BatchRequest, RowEvent, check_bounds, check_row_options
from ..engine.rows import Rows
from ..engine.structured import make_constraint
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions, MediaOptions, OptionKeywords, resolve_options
from ..processor.processor import Processor


@dataclass(frozen=True)
class BatchAnswer:
    """The answer to one prompt, or the reason why there is none.

    Attributes:
        index: which prompt, counted from 0.
        text: the answer, empty if there is an error.
        token_ids: the tokens of the answer, end token included.
        finish_reason: "stop" (an end token or stop string, or structured output that is complete) or "length"; None if
            there is an error.
        error: why there is no answer: what `stream_generate` would raise; None if there is one.
        prompt_tokens, image_tokens: tokens of the prompt, and those of them that stand for images and frames.
        logprobs, top_logprobs: of each token, as in `GenerationResponse`; None unless asked for.
        seconds: from the first work of the model on this prompt to its last token. Prompts that are answered at the
            same time share them.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    error: Exception | None = None
    prompt_tokens: int = 0
    image_tokens: int = 0
    seconds: float = 0.0
    logprobs: list[float] | None = None
    top_logprobs: list[list[tuple[int, float]]] | None = None

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer, end token included."""
        return len(self.token_ids)


def generate_batch(
    model: SmolVLM,
    processor: Processor,
    requests: Iterable[BatchRequest],
    *,
    options: GenerationOptions | None = None,
    media_options: MediaOptions | None = None,
    batch_size: int = 32,
    max_cache_bytes: int = 2 * 1024**3,
    max_feature_bytes: int = 64 * 1024**2,
    max_prefix_bytes: int = 0,
    cancel: Event | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Iterator[BatchAnswer]:
    """Answer prompts together.

    Every answer is the one that its prompt gets alone, with the same seed too. (Sums are added in another order, so
    where two tokens are likely to the last digit the choice may differ, as it may between two devices.) Prompts are
    taken from `requests` as room is made, and their media prepared in threads while the model works: memory does not
    depend on how many there are. `Rows` does the same step by step, with requests that come and go.

    Args:
        model, processor: from `load`.
        requests: the prompts; an iterator is read no further than needed.
        options, media_options, keywords: as in `stream_generate`, for all requests without options of their own.
            Prompt lookup and rotating key-value caches are refused: only one answer at a time can have them. All
            answers have the key-value cache of these options; a request that asks for another gets an error.
        batch_size: most answers to make at a time.
        max_cache_bytes: most memory for keys and values; fewer answers are made at a time where it takes more.
        max_feature_bytes: most memory for image features, for images that are shown again.
        max_prefix_bytes: most memory for keys and values of earlier prompts, for prompts with the same beginning; 0
            keeps none.
        cancel: when set, no more answers come, at the next token or chunk.

    Yields:
        An answer per prompt, in the order in which they are finished.

    Raises:
        ValueError: options out of range, or a schema or expression that no answer can follow. A prompt that cannot be
            read, or after which the model computes values that are not finite, raises nothing: its answer has an
            `error`.
        TypeError: an unknown option, or `requests` that are no list or iterator of requests.
        OSError: prompts cannot be prepared for lack of disk space or open files.
    """
    check_pair(model, processor)
    if isinstance(requests, str | bytes | BatchRequest | Mapping) or not isinstance(requests, Iterable):
        raise TypeError(f"requests is {type(requests).__name__}, expected BatchRequest objects in a list or iterator")
    options, media_options = resolve_options(options, media_options, keywords)
    check_row_options(model, options)
    make_constraint(
        options, processor, model.config.text.vocab_size, options.max_tokens
    )  # otherwise each answer would fail
    bounds = {
        "batch_size": batch_size,
        "max_cache_bytes": max_cache_bytes,
        "max_feature_bytes": max_feature_bytes,
        "max_prefix_bytes": max_prefix_bytes,
    }
    check_bounds(**bounds)
    cancel_check(cancel)  # refuses what is no event
    return _answers(model, processor, requests, options, media_options, bounds, cancel)


def _answers(
    model: SmolVLM,
    processor: Processor,
    requests: Iterable[BatchRequest],
    options: GenerationOptions,
    media_options: MediaOptions,
    bounds: dict[str, int],
    cancel: Event | None,
) -> Iterator[BatchAnswer]:
    events: dict[Hashable, list[RowEvent]] = {}
    refused: list[BatchAnswer] = []
    numbered = enumerate(requests)

    def refill() -> None:
        while rows.num_unread + len(refused) <= PREPARING_THREADS and (following := next(numbered, None)) is not None:
            index, request = following
            try:
                rows.add(request, options, media_options, key=index, cancel=cancel)
            except (ValueError, TypeError, ImportError) as error:  # of this request alone
                refused.append(BatchAnswer(index, error=error))

    # Here, since arrays belong to the thread that makes them. Nobody waits for the next token of an answer.
    with Rows(
        model,
        processor,
        **bounds,
        max_pause_s=None,
        kv_bits=options.kv_bits,
        kv_group_size=options.kv_group_size,
        quantized_kv_start=options.quantized_kv_start,
        refill=refill,
    ) as rows:
        refill()
        while (rows or refused) and not (cancel is not None and cancel.is_set()):
            while refused:
                yield refused.pop(0)
            for event in rows.step():
                events.setdefault(event.key, []).append(event)
                if event.finish_reason not in (None, "cancelled"):
                    yield _answer(events.pop(event.key))
            refill()


def _answer(events: list[RowEvent]) -> BatchAnswer:
    """The answer of a row that has ended."""
    last = events[-1]
    assert isinstance(last.key, int)
    if last.error is not None:
        return BatchAnswer(last.key, error=last.error)
    logprobs = [event.logprob for event in events if event.logprob is not None]
    top_logprobs = [event.top_logprobs for event in events if event.top_logprobs is not None]
    return BatchAnswer(
        index=last.key,
        text="".join(event.text for event in events),
        token_ids=[event.token_id for event in events if event.token_id is not None],
        finish_reason=last.finish_reason,
        prompt_tokens=last.prompt_tokens,
        image_tokens=last.image_tokens,
        seconds=last.seconds,
        logprobs=logprobs or None,
        top_logprobs=top_logprobs if logprobs else None,
    )
