"""Prompt -> text, token by token.

Generation is pulled by its consumer: each `next()` computes one token, and closing the generator, or setting
the cancel event, ends the work between two tokens, two chunks of the prompt or two pictures.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

import mlx.core as mx
import numpy as np

from .cache import KVCache
from .model import SmolVLM
from .processing import Inputs, Medium, Processor
from .sampling import SamplingOptions, make_sampler
from .text_stream import TextStream

TILES_PER_STEP = 4  # tiles encoded at a time: bounds the encoder's memory, and how long a cancel waits


@dataclass(frozen=True)
class Timing:
    """Seconds spent so far in each stage; `time_to_first_token` counts from the call to the first token."""

    processing: float = 0.0
    vision: float = 0.0
    prefill: float = 0.0
    time_to_first_token: float = 0.0
    decode: float = 0.0  # after the first token


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
    """

    text: str
    token_id: int | None
    finish_reason: str | None
    prompt_ids: list[int]
    media: list[Medium]
    completion_tokens: int
    timing: Timing
    peak_memory_bytes: int

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


@dataclass
class _Run:
    """One call's clock and cancel event."""

    cancel: Event | None
    start: float = field(default_factory=time.perf_counter)
    timing: Timing = field(default_factory=Timing)

    def check(self) -> None:
        """Raise if the cancel event is set."""
        if self.cancel is not None and self.cancel.is_set():
            raise _Cancelled

    def lap(self, stage: str, since: float) -> float:
        """Record the seconds since a moment as a stage; returns now."""
        now = time.perf_counter()
        self.timing = replace(self.timing, **{stage: now - since})
        return now


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
    apply_chat_template: bool = True,
    do_image_splitting: bool | None = None,
    longest_edge: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    prefill_chunk: int = 512,
    cancel: Event | None = None,
) -> Iterator[GenerationResponse]:
    """Answer a prompt, one token at a time.

    Args:
        model: from `load`.
        processor: from `load`.
        messages_or_prompt: chat messages in Hugging Face form, or the user's question as text. The media of
            `images` and `videos` go before the question, unless it places them with `<image>` and `<video>`.
        images: path, http(s) or data URL, bytes, PIL image or numpy array, each.
        videos: path or http(s) URL, each.
        max_tokens: most tokens to generate; fewer where the model's context ends.
        temperature, top_p, top_k, min_p, repetition_penalty, seed: see `SamplingOptions`.
        stop: strings that end the answer; they are not part of the text.
        skip_special_tokens: False keeps special tokens in the text (SmolDocling's layout tags are such).
        apply_chat_template, do_image_splitting, longest_edge, fps, max_frames: see `Processor.__call__`.
        prefill_chunk: tokens of the prompt read at a time.
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
    for name, number in (("max_tokens", max_tokens), ("prefill_chunk", prefill_chunk)):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} is {number!r}, expected a whole number of at least 1")
    if isinstance(stop, str) or not all(isinstance(string, str) and string for string in stop or ()):
        raise ValueError(f"stop is {stop!r}, expected a list of strings that are not empty")
    for name, media in (("images", images), ("videos", videos)):
        if media is not None and not isinstance(media, list | tuple):
            raise ValueError(f"{name} is {type(media).__name__}, expected a list")
    options = SamplingOptions(temperature, top_p, top_k, min_p, repetition_penalty, seed)
    return _stream(
        model,
        processor,
        messages_or_prompt,
        list(images or ()),
        list(videos or ()),
        {
            "apply_chat_template": apply_chat_template,
            "do_image_splitting": do_image_splitting,
            "longest_edge": longest_edge,
            "fps": fps,
            "max_frames": max_frames,
        },
        options,
        max_tokens,
        TextStream(processor, list(stop or ()), skip_special_tokens),
        prefill_chunk,
        _Run(cancel),
    )


def generate_text(
    model: SmolVLM, processor: Processor, messages_or_prompt: str | Sequence[dict[str, Any]], **options: Any
) -> str:
    """The whole answer; `options` are those of `stream_generate`."""
    return "".join(step.text for step in stream_generate(model, processor, messages_or_prompt, **options))


def _stream(
    model: SmolVLM,
    processor: Processor,
    messages_or_prompt: str | Sequence[dict[str, Any]],
    images: list[Any],
    videos: list[Any],
    media_options: dict[str, Any],
    options: SamplingOptions,
    max_tokens: int,
    text_stream: TextStream,
    prefill_chunk: int,
    run: _Run,
) -> Iterator[GenerationResponse]:
    inputs = Inputs([], None, [])
    count = 0

    def response(text: str, token: int | None, finish_reason: str | None) -> GenerationResponse:
        return GenerationResponse(
            text, token, finish_reason, inputs.input_ids, inputs.media, count, run.timing, mx.get_peak_memory()
        )

    try:
        mark = run.start
        inputs = processor(messages_or_prompt, images, videos, check_cancelled=run.check, **media_options)
        mark = run.lap("processing", mark)
        features = _encode_tiles(model, inputs.pixel_values, run)
        mark = run.lap("vision", mark)
        cache = model.make_cache()
        logits = _prefill(model, inputs.input_ids, features, cache, prefill_chunk, run)
        sample = make_sampler(options, inputs.input_ids, logits.shape[-1])
        token = sample(logits)
        _check_finite(logits)
        run.lap("prefill", mark)
        first = run.lap("time_to_first_token", run.start)

        room = processor.config.context_length - len(inputs.input_ids)
        for count in range(1, min(max_tokens, room) + 1):
            last = count == min(max_tokens, room)
            if not last:  # enqueue the next step before this token is read: the device never waits for Python
                following = sample(_decode_step(model, token, cache))
                mx.async_eval(following)
            token_id = int(token.item())  # type: ignore[arg-type]
            run.lap("decode", first)
            ended = token_id in processor.stop_token_ids
            text = text_stream.add(token_id)
            if ended or text_stream.stopped:
                yield response(text + text_stream.flush(), token_id, "stop")
                return
            if last:
                yield response(text + text_stream.flush(), token_id, "length")
                return
            yield response(text, token_id, None)
            run.check()
            token = following
    except _Cancelled:
        yield response(text_stream.flush(), None, "cancelled")


def _encode_tiles(model: SmolVLM, pixel_values: np.ndarray | None, run: _Run) -> mx.array | None:
    """Image features of all tiles, (num_tiles * image_seq_len, hidden_size), evaluated a few tiles at a time."""
    if pixel_values is None:
        return None
    parts = []
    for start in range(0, len(pixel_values), TILES_PER_STEP):
        run.check()
        parts.append(model.image_features(pixel_values[start : start + TILES_PER_STEP]))
        mx.eval(parts[-1])
    return mx.concatenate(parts)


def _prefill(
    model: SmolVLM, input_ids: list[int], features: mx.array | None, cache: list[KVCache], chunk: int, run: _Run
) -> mx.array:
    """Read the prompt chunk by chunk; returns the logits after its last token, (1, vocab_size)."""
    embeddings = model.input_embeddings(input_ids, features)
    hidden = embeddings
    for start in range(0, len(input_ids), chunk):
        run.check()
        hidden = model.language_model(embeddings[:, start : start + chunk], cache)
        mx.eval([(layer.keys, layer.values) for layer in cache])
    return model.language_model.logits(hidden[:, -1])


def _decode_step(model: SmolVLM, token: mx.array, cache: list[KVCache]) -> mx.array:
    """One token (1,) -> the logits after it, (1, vocab_size)."""
    hidden = model.language_model(model.language_model.embed_tokens(token)[None], cache)
    return model.language_model.logits(hidden[:, -1])


def _check_finite(logits: mx.array) -> None:
    if not mx.isfinite(logits).all().item():
        raise ValueError(
            f"the model computes values that are not finite in {str(logits.dtype).removeprefix('mlx.core.')}; "
            "load it with dtype bfloat16 or float32, and if they persist the weights are damaged"
        )
