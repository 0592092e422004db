"""Prompt -> text, token by token.

Generation is pulled by its consumer: each `next()` computes one token, and closing the generator, or setting
the cancel event, ends the work between two tokens, two chunks of the prompt or two images.
"""

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from typing import Unpack

import mlx.core as mx

from ..engine.answer import Answer, AnswerStep, Cancelled, cancel_check, check_options, check_pair
from ..engine.decoding import decode
from ..engine.feature_cache import FeatureCache
from ..engine.prefill import read_prompt
from ..engine.prompt_cache import PromptCache
from ..engine.prompt_lookup import PromptLookup
from ..engine.sampling import check_finite
from ..engine.timing import Stopwatch, Timing
from ..media.images import ImageSource
from ..model.forking import refuse_forked_process
from ..model.smolvlm import SmolVLM
from ..options import GenerationOptions, MediaOptions, OptionKeywords, resolve_options
from ..processor.messages import Message, Several, check_media
from ..processor.processor import Processor
from ..processor.prompt_media import Medium
from ..processor.sampled_video import VideoSource


@dataclass(frozen=True)
class GenerationResponse:
    """One step of an answer.

    Attributes:
        text: what this step adds to the text; empty while a character or a stop string is incomplete.
        token_id: the token chosen in this step; None if cancelled before there was one.
        finish_reason: None while going on; then "stop" (an end token or stop string), "length" or "cancelled".
        prompt_ids: the prompt's tokens.
        media: the images and videos of the prompt, with what each cost.
        completion_tokens: tokens chosen so far, end token included.
        timing: seconds per stage so far.
        peak_memory_bytes: most memory that MLX has held in this process.
        drafted_tokens: tokens drafted by prompt lookup so far.
        accepted_tokens: those of them that were right, and so cost no step of their own.
        logprob: natural logarithm of the token's probability; None unless `GenerationOptions.logprobs` asks for it.
        top_logprobs: (token id, logarithm) of the likeliest tokens, likeliest first; None unless asked for.
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
    logprob: float | None = None
    top_logprobs: list[tuple[int, float]] | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, those of images and videos included."""
        return len(self.prompt_ids)

    @property
    def image_tokens(self) -> int:
        """Tokens of the prompt that stand for images and frames."""
        return sum(medium.image_tokens for medium in self.media)

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first per second; 0 before there is a second one."""
        later = self.completion_tokens - 1
        return later / self.timing.decode if later > 0 and self.timing.decode > 0 else 0.0


def stream_generate(
    model: SmolVLM,
    processor: Processor,
    messages_or_prompt: str | Sequence[Message],
    *,
    images: Several[ImageSource] | None = None,
    videos: Several[VideoSource] | None = None,
    options: GenerationOptions | None = None,
    media_options: MediaOptions | None = None,
    prompt_cache: PromptCache | None = None,
    feature_cache: FeatureCache | None = None,
    cancel: Event | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Generator[GenerationResponse, None, None]:
    """Answer a prompt, one token at a time.

    Args:
        model, processor: from `load`.
        messages_or_prompt: chat messages in Hugging Face format, or the user's question as text. The media of
            `images` and `videos` go before the question, unless it places them with `<image>` and `<video>`.
        images: path, http(s) or data URL, bytes, PIL image or numpy array, each.
        videos: path, http(s) URL or `SampledVideo`, each.
        options: how the answer is made.
        media_options: how images and videos are read.
        prompt_cache: keys and values of earlier calls, so that follow-up questions do not read them again; for one
            stream at a time.
        feature_cache: image features of earlier calls, for images and frames that are shown again.
        cancel: when set, generation ends with "cancelled" at the next frame, chunk or token.
        keywords: fields of `GenerationOptions` and `MediaOptions`, in place of what the objects say:
            `max_tokens=50, temperature=0.7, max_frames=8`.

    Options are checked at once; the prompt and its media are read at the first `next()`.

    Yields:
        A response per token. The last one has a `finish_reason`; the texts joined are the answer, without the
        space that separates it from "Assistant:".

    Raises:
        ValueError: malformed messages, unreadable media, options out of range, a prompt longer than the
            context, a prompt cache that is in use, or logits that are not finite (damaged weights, or float16
            overflow).
        TypeError: an unknown option, no model with its processor, or caches and events that are none.
        RuntimeError: a forked process, if its parent had a model: MLX would hang.
        FileNotFoundError: no such image or video.
        ImportError: `json_schema` or `regex` without llguidance.
    """
    check_pair(model, processor)
    options, media_options = resolve_options(options, media_options, keywords)
    images, videos = check_media("images", images), check_media("videos", videos)
    check_options(model, options)
    call = _Call(model, processor, options, media_options, prompt_cache, feature_cache, cancel)
    return call.stream(messages_or_prompt, images, videos)


def generate_text(
    model: SmolVLM,
    processor: Processor,
    messages_or_prompt: str | Sequence[Message],
    *,
    images: Several[ImageSource] | None = None,
    videos: Several[VideoSource] | None = None,
    options: GenerationOptions | None = None,
    media_options: MediaOptions | None = None,
    prompt_cache: PromptCache | None = None,
    feature_cache: FeatureCache | None = None,
    cancel: Event | None = None,
    **keywords: Unpack[OptionKeywords],
) -> str:
    """The whole answer. Arguments and errors are those of `stream_generate`."""
    steps = stream_generate(
        model,
        processor,
        messages_or_prompt,
        images=images,
        videos=videos,
        options=options,
        media_options=media_options,
        prompt_cache=prompt_cache,
        feature_cache=feature_cache,
        cancel=cancel,
        **keywords,
    )
    return "".join(step.text for step in steps)


class _Call:
    """One call of `stream_generate`, its arguments checked."""

    def __init__(
        self,
        model: SmolVLM,
        processor: Processor,
        options: GenerationOptions,
        media_options: MediaOptions,
        prompt_cache: PromptCache | None,
        feature_cache: FeatureCache | None,
        cancel: Event | None,
    ):
        for name, given, kind in (
            ("prompt_cache", prompt_cache, PromptCache),
            ("feature_cache", feature_cache, FeatureCache),
        ):
            if given is not None and not isinstance(given, kind):
                raise TypeError(f"{name} is {type(given).__name__}, expected a {kind.__name__}")
        self._model = model
        self._processor = processor
        self._options = options
        self._media_options = media_options
        self._cache = PromptCache() if prompt_cache is None else prompt_cache
        self._feature_cache = FeatureCache() if feature_cache is None else feature_cache
        self._check_cancelled = cancel_check(cancel)
        self._stopwatch = Stopwatch()
        self._prompt_ids: list[int] = []
        self._media: list[Medium] = []
        self._answer: Answer | None = None
        self._lookup: PromptLookup | None = None

    def stream(
        self, messages_or_prompt: str | Sequence[Message], images: Several[ImageSource], videos: Several[VideoSource]
    ) -> Generator[GenerationResponse, None, None]:
        """See `stream_generate`."""
        refuse_forked_process()  # the call may have been made before the fork
        with ExitStack() as use:
            use.enter_context(self._cache.in_use.held())
            try:
                answer, logits = self._read(messages_or_prompt, images, videos)
                sampler = answer.sampler(self._prompt_ids)
                if self._options.prompt_lookup_tokens is not None:
                    self._lookup = PromptLookup(self._prompt_ids, self._options.prompt_lookup_tokens)
                steps = decode(self._model, self._cache, answer, sampler, logits, self._lookup)
                for step in steps:
                    self._stopwatch.token()
                    if step.finish_reason is not None:  # the consumer need not ask for what comes after the last step
                        deque(steps, maxlen=0)  # drafts leave the cache
                        use.close()
                    yield self._response(step)
                    if step.finish_reason is None:
                        refuse_forked_process()
                        self._check_cancelled()
            except Cancelled:
                use.close()
                text = "" if self._answer is None else self._answer.flush()
                yield self._response(AnswerStep(None, text, "cancelled"))

    def _read(
        self, messages_or_prompt: str | Sequence[Message], images: Several[ImageSource], videos: Several[VideoSource]
    ) -> tuple[Answer, mx.array]:
        """Read the prompt; returns the answer at its beginning, and the logits after the prompt, (1, vocab_size)."""
        options, stopwatch = self._options, self._stopwatch
        with ExitStack() as files:
            with stopwatch.stage("processing"):
                prompt = files.enter_context(
                    self._processor.prepare(
                        messages_or_prompt,
                        images,
                        videos,
                        media_options=self._media_options,
                        apply_chat_template=options.apply_chat_template,
                        continue_final_message=options.continue_final_message,
                        check_cancelled=self._check_cancelled,
                    )
                )
                self._prompt_ids, self._media = prompt.input_ids, prompt.costs
                answer = self._answer = Answer(self._model, self._processor, options, len(prompt.input_ids))
            self._cache.open(self._model, options)
            logits = read_prompt(
                self._model,
                prompt,
                self._cache,
                self._feature_cache,
                options.prefill_chunk,
                stopwatch,
                self._check_cancelled,
            )
            self._prompt_ids, self._media = prompt.input_ids, prompt.costs  # a video may have broken off
        with stopwatch.stage("prefill"):
            check_finite(logits)
        return answer, logits

    def _response(self, step: AnswerStep) -> GenerationResponse:
        return GenerationResponse(
            step.text,
            step.token_id,
            step.finish_reason,
            self._prompt_ids,
            self._media,
            0 if self._answer is None else len(self._answer.token_ids),
            self._stopwatch.timing,
            mx.get_peak_memory(),
            self._lookup.drafted if self._lookup else 0,
            self._lookup.accepted if self._lookup else 0,
            step.logprob,
            step.top_logprobs,
        )
