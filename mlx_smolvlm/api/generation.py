"""Prompt -> text, token by token.

Generation is pulled by its consumer: each `next()` computes one token, and closing the generator, or setting
the cancel event, ends the work between two tokens, two chunks of the prompt or two pictures.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from typing import Any

import mlx.core as mx

from ..engine.decoding import decode
from ..engine.feature_cache import FeatureCache
from ..engine.generation_options import GenerationOptions
from ..engine.prefill import read_prompt
from ..engine.prompt_cache import PromptCache
from ..engine.prompt_lookup import PromptLookup, check_prompt_lookup
from ..engine.sampling import check_finite, make_sampler
from ..engine.structured import check_form, constrained_tokens, make_constraint
from ..engine.text_stream import TextStream
from ..engine.timing import Stopwatch, Timing
from ..media.options import MediaOptions
from ..model.caches.options import CacheOptions
from ..model.smolvlm import SmolVLM
from ..processor.processor import Processor
from ..processor.prompt_media import Medium


@dataclass(frozen=True)
class GenerationResponse:
    """One step of an answer.

    Attributes:
        text: what this step adds to the text; empty while a character or a stop string is incomplete.
        token_id: the token chosen in this step; None if cancelled before there was one.
        finish_reason: None while going on; then "stop" (an end token or stop string), "length" or "cancelled".
        prompt_ids: the prompt's tokens.
        media: the pictures and videos of the prompt, with what each cost.
        completion_tokens: tokens chosen so far, end token included.
        timing: seconds per stage so far.
        peak_memory_bytes: most memory that MLX has held in this process.
        drafted_tokens: tokens drafted by prompt lookup so far.
        accepted_tokens: those of them that were right, and so cost no step of their own.
    """

    text: str
    token_id: int | None
    finish_reason: str | None
    prompt_ids: list[int]
    media: list[Medium]
    completion_tokens: int
    timing: Timing
    peak_memory_bytes: int
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, those of pictures and videos included."""
        return len(self.prompt_ids)

    @property
    def image_tokens(self) -> int:
        """Tokens of the prompt that stand for pictures and frames."""
        return sum(medium.image_tokens for medium in self.media)

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first per second; 0 before there is a second one."""
        later = self.completion_tokens - 1
        return later / self.timing.decode if later > 0 and self.timing.decode > 0 else 0.0


class _Cancelled(Exception):
    """The cancel event was set between two units of work."""


@dataclass(frozen=True)
class _Request:
    """The arguments of one call, checked."""

    model: SmolVLM
    processor: Processor
    messages_or_prompt: str | Sequence[dict[str, Any]]
    images: list[Any]
    videos: list[Any]
    media: MediaOptions
    options: GenerationOptions
    apply_chat_template: bool
    prefill_chunk: int
    prompt_lookup_tokens: int | None
    cache_options: CacheOptions
    prompt_cache: PromptCache
    feature_cache: FeatureCache
    cancel: Event | None

    def check_cancelled(self) -> None:
        """Raise if the cancel event is set."""
        if self.cancel is not None and self.cancel.is_set():
            raise _Cancelled


def stream_generate(
    model: SmolVLM,
    processor: Processor,
    messages_or_prompt: str | Sequence[dict[str, Any]],
    *,
    images: Sequence[Any] | None = None,
    videos: Sequence[Any] | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop: Sequence[str] | None = None,
    skip_special_tokens: bool = True,
    json_schema: dict[str, Any] | str | None = None,
    regex: str | None = None,
    apply_chat_template: bool = True,
    do_image_splitting: bool | None = None,
    longest_edge: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    hardware_decoding: bool = False,
    prefill_chunk: int = 512,
    prompt_lookup_tokens: int | None = None,
    kv_bits: int | None = None,
    kv_group_size: int = 64,
    quantized_kv_start: int = 0,
    max_kv_size: int | None = None,
    prompt_cache: PromptCache | None = None,
    feature_cache: FeatureCache | None = None,
    cancel: Event | None = None,
) -> Iterator[GenerationResponse]:
    """Answer a prompt, one token at a time.

    Args:
        model, processor: from `load`.
        messages_or_prompt: chat messages in Hugging Face form, or the user's question as text. The media of
            `images` and `videos` go before the question, unless it places them with `<image>` and `<video>`.
        images: path, http(s) or data URL, bytes, PIL image or numpy array, each.
        videos: path, http(s) URL or `SampledVideo`, each.
        max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed, stop, skip_special_tokens, json_schema,
            regex: see `GenerationOptions`.
        apply_chat_template: see `Processor.prepare`.
        do_image_splitting, longest_edge, fps, max_frames, start_s, end_s, hardware_decoding: see `MediaOptions`.
        prefill_chunk: most tokens of the prompt read at a time.
        prompt_lookup_tokens: most tokens to draft from what the text has said before and to check in one step, for
            answers that repeat the prompt or themselves; None drafts nothing. The answer is the greedy one all the
            same, so the temperature must be 0 and no penalty set. Drafts stop by themselves where they fail.
        kv_bits, kv_group_size, quantized_kv_start, max_kv_size: see `CacheOptions`.
        prompt_cache: what earlier calls have read and is not read again, for follow-up questions.
        feature_cache: image features of earlier calls, for pictures and frames that are shown again.
        cancel: when set, generation ends with "cancelled" at the next frame, chunk or token.

    Options are checked at once; the prompt and its media are read at the first `next()`.

    Yields:
        A response per token. The last one has a `finish_reason`; the texts joined are the answer, without the
        space that separates it from "Assistant:".

    Raises:
        ValueError: malformed messages, unreadable media, options out of range, a prompt longer than the
            context, or logits that are not finite (damaged weights, or float16 overflow).
        FileNotFoundError: a picture or video that is not there.
    """
    options = GenerationOptions(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=() if stop is None else stop,
        skip_special_tokens=skip_special_tokens,
        json_schema=json_schema,
        regex=regex,
    )
    if not isinstance(prefill_chunk, int) or prefill_chunk < 1:
        raise ValueError(f"prefill_chunk is {prefill_chunk!r}, expected a whole number of at least 1")
    for name, media in (("images", images), ("videos", videos)):
        if media is not None and not isinstance(media, list | tuple):
            raise ValueError(f"{name} is {type(media).__name__}, expected a list")
    cache_options = CacheOptions(kv_bits, kv_group_size, quantized_kv_start, max_kv_size)
    cache_options.check(model.config.text.head_dim)
    check_prompt_lookup(prompt_lookup_tokens, options.sampling, cache_options)
    check_form(json_schema, regex, prompt_lookup_tokens, max_kv_size)
    return _stream(
        _Request(
            model=model,
            processor=processor,
            messages_or_prompt=messages_or_prompt,
            images=list(images or ()),
            videos=list(videos or ()),
            media=MediaOptions(do_image_splitting, longest_edge, fps, max_frames, start_s, end_s, hardware_decoding),
            options=options,
            apply_chat_template=apply_chat_template,
            prefill_chunk=prefill_chunk,
            prompt_lookup_tokens=prompt_lookup_tokens,
            cache_options=cache_options,
            prompt_cache=PromptCache() if prompt_cache is None else prompt_cache,
            feature_cache=FeatureCache() if feature_cache is None else feature_cache,
            cancel=cancel,
        ),
        Stopwatch(),
    )


def generate_text(
    model: SmolVLM, processor: Processor, messages_or_prompt: str | Sequence[dict[str, Any]], **options: Any
) -> str:
    """The whole answer; `options` are those of `stream_generate`."""
    return "".join(step.text for step in stream_generate(model, processor, messages_or_prompt, **options))


def _stream(request: _Request, stopwatch: Stopwatch) -> Iterator[GenerationResponse]:
    model, processor, cache = request.model, request.processor, request.prompt_cache
    options = request.options
    text_stream = TextStream(processor, list(options.stop), options.skip_special_tokens)
    prompt_ids: list[int] = []
    media: list[Medium] = []
    count = 0
    lookup: PromptLookup | None = None

    def response(text: str, token: int | None, finish_reason: str | None) -> GenerationResponse:
        return GenerationResponse(
            text,
            token,
            finish_reason,
            prompt_ids,
            media,
            count,
            stopwatch.timing,
            mx.get_peak_memory(),
            lookup.drafted if lookup else 0,
            lookup.accepted if lookup else 0,
        )

    try:
        with ExitStack() as files:
            with stopwatch.stage("processing"):
                prompt = files.enter_context(
                    processor.prepare(
                        request.messages_or_prompt,
                        request.images,
                        request.videos,
                        options=request.media,
                        apply_chat_template=request.apply_chat_template,
                        check_cancelled=request.check_cancelled,
                    )
                )
                prompt_ids, media = prompt.input_ids, prompt.costs
                budget = min(options.max_tokens, processor.config.context_length - len(prompt_ids))
                vocab_size = model.config.text.vocab_size
                constraint = make_constraint(options.json_schema, options.regex, processor, vocab_size, budget)
            cache.open(model, request.cache_options)
            logits = read_prompt(
                model, prompt, cache, request.feature_cache, request.prefill_chunk, stopwatch, request.check_cancelled
            )
            prompt_ids, media = prompt.input_ids, prompt.costs
        del prompt  # and with it all pictures
        with stopwatch.stage("prefill"):
            sample = make_sampler(options.sampling, prompt_ids, vocab_size)
            check_finite(logits)
        if request.prompt_lookup_tokens:
            lookup = PromptLookup(prompt_ids, request.prompt_lookup_tokens)
        if constraint is None:
            tokens = decode(model, cache, sample, sample(logits), budget, lookup)
        else:
            tokens = constrained_tokens(model, cache, sample, logits, budget, constraint)
        for count, token_id in enumerate(tokens, 1):
            stopwatch.token()
            text = text_stream.add(token_id)
            reason = None
            if constraint is not None and constraint.is_complete:
                reason = "length" if constraint.is_cut else "stop"
            elif token_id in processor.stop_token_ids or text_stream.stopped:
                reason = "stop"
            elif count == budget:
                reason = "length"
            if reason:
                yield response(text + text_stream.flush(), token_id, reason)
                return
            yield response(text, token_id, None)
            request.check_cancelled()
    except _Cancelled:
        yield response(text_stream.flush(), None, "cancelled")
