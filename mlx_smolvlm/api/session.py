"""A conversation: text, images and videos that were read once are not read again."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from typing import Any, Unpack

from ..engine.answer import check_pair
from ..engine.exclusive import Exclusive
from ..engine.feature_cache import FeatureCache
from ..engine.prompt_cache import PromptCache
from ..media.images import ImageSource
from ..model.smolvlm import SmolVLM
from ..options import (
    FetchPolicy,
    GenerationKeywords,
    GenerationOptions,
    MediaOptions,
    OptionKeywords,
    refuse_keywords,
    refuse_options,
    resolve_options,
)
from ..processor.kept_media import Content, kept_content
from ..processor.messages import Several, text_item, without_markers
from ..processor.processor import Processor
from ..processor.sampled_video import VideoSource
from .generation import GenerationResponse, stream_generate
from .session_file import SavedSession, Turn, read_session, write_session


class Session:
    """A conversation with a model, and all that the model has read of it. One answer at a time.

    Every question continues from the longest beginning that it shares with what was read: follow-ups, an edited or
    repeated question and a regenerated answer read only what is new. Images and videos of earlier turns are not
    opened again, unless something before them changes.

    An answer ends up in the conversation when its stream ends: whole, or as far as it came where the consumer closes
    the stream or the cancel event is set. If reading or answering fails, or is cancelled before there is a word of
    the answer, the conversation is as it was before.

    Attributes:
        model, processor: from `load`.
        system: the system prompt or None; it may be changed between questions.
        options: how answers are made where a question does not say.
        media_options: how images and videos are read where a question does not say.
        turns: the conversation so far, without the system prompt.
        prompt_cache: what the model has read.
        feature_cache: image features of what was shown.
    """

    def __init__(
        self,
        model: SmolVLM,
        processor: Processor,
        *,
        system: str | None = None,
        options: GenerationOptions | None = None,
        media_options: MediaOptions | None = None,
        max_feature_bytes: int = 256 * 1024**2,
        **keywords: Unpack[OptionKeywords],
    ):
        """
        Args:
            model, processor: from `load`.
            system: the system prompt.
            options, media_options, keywords: as in `stream_generate`, where a question does not say. A session makes
                its prompts itself: `apply_chat_template=False` and `continue_final_message` are refused.
            max_feature_bytes: most memory for the image features of images and frames that may be shown again; the
                least recently used go first.
        """
        check_pair(model, processor)
        self.model = model
        self.processor = processor
        self.system = system
        self.options, self.media_options = resolve_options(options, media_options, keywords)
        check_session_options(self.options)
        self.turns: list[Turn] = []
        self.prompt_cache = PromptCache()
        self.feature_cache = FeatureCache(max_feature_bytes)
        self._in_use = Exclusive(
            "an answer is still being made, or the session saved; finish or close its stream first"
        )

    def __repr__(self) -> str:
        media = [item["type"] for turn in self.turns for item in turn.content if item["type"] != "text"]
        asked = [f"{len(self.turns)} questions", f"{media.count('image')} images", f"{media.count('video')} videos"]
        return f"<Session: {', '.join(asked)}; {len(self.prompt_cache.token_ids)} tokens read>"

    def __reduce__(self) -> str:
        raise TypeError("a Session can be neither pickled nor copied; use Session.save and Session.load")

    def ask(
        self,
        text: str,
        *,
        images: Several[ImageSource] = (),
        videos: Several[VideoSource] = (),
        options: GenerationOptions | None = None,
        media_options: MediaOptions | None = None,
        cancel: Event | None = None,
        **keywords: Unpack[OptionKeywords],
    ) -> Iterator[GenerationResponse]:
        """Ask the next question.

        Args:
            text: the question; `<image>` and `<video>` in it place the media, which otherwise go before it.
            images: path, http(s) or data URL, bytes, PIL image or numpy array, each.
            videos: path, http(s) URL or `SampledVideo`, each.
            options, media_options, keywords: how the answer is made and these images and videos are read, as in
                `stream_generate`; None for the session's.
            cancel: when set, the answer ends at the next frame, chunk or token.

        Yields:
            A response per token, as `stream_generate` does.

        Raises:
            ValueError: an empty question, or another answer that is still being made; and all of `stream_generate`.
        """
        options, media_options = self._resolved(options, media_options, keywords)
        return self._answer(kept_content(text, images, videos, media_options), None, options, cancel)

    def edit(
        self,
        text: str,
        *,
        images: Several[ImageSource] | None = None,
        videos: Several[VideoSource] | None = None,
        options: GenerationOptions | None = None,
        media_options: MediaOptions | None = None,
        cancel: Event | None = None,
        **keywords: Unpack[OptionKeywords],
    ) -> Iterator[GenerationResponse]:
        """Ask the last question in other words. Its images and videos stay, unless new ones are given.

        Arguments and errors are those of `ask`; ValueError also if there is no last question, if media that stay are
        to be read in another way, or if the conversation goes on before the first `next()`.
        """
        last = self._last_turn()
        options, media_options = self._resolved(options, media_options, keywords)
        if images is None and videos is None:
            if media_options != self.media_options:
                raise ValueError("the media of the question stay as they were read; pass them again to change that")
            kept = {kind: [item[kind] for item in last.content if item["type"] == kind] for kind in ("image", "video")}
            content = kept_content(text, kept["image"], kept["video"], media_options)
        else:
            content = kept_content(text, images, videos, media_options)
        return self._answer(content, last, options, cancel)

    def regenerate(
        self,
        *,
        options: GenerationOptions | None = None,
        cancel: Event | None = None,
        **keywords: Unpack[GenerationKeywords],
    ) -> Iterator[GenerationResponse]:
        """Regenerate the last answer; a different one needs a temperature above 0.

        Raises:
            ValueError: there is no last question; and as `edit`.
            TypeError: options of media, which stay as they were read.
        """
        refuse_keywords(keywords, MediaOptions, "the media of the question stay as they were read")
        options, _ = self._resolved(options, None, keywords)
        last = self._last_turn()
        return self._answer(last.content, last, options, cancel)

    def use(self, model: SmolVLM, processor: Processor) -> None:
        """Go on with another model, such as the same base with other adapters; what was read is read again by it.

        Raises:
            ValueError: an answer is still being made.
            TypeError: no model with its processor.
        """
        check_pair(model, processor)
        with self._in_use.held():
            if model is not self.model:
                self.prompt_cache, self.feature_cache = PromptCache(), FeatureCache(self.feature_cache.max_bytes)
            self.model, self.processor = model, processor

    def undo(self) -> Turn:
        """Take back the last question with its answer, and return them.

        Raises:
            ValueError: there is none, or an answer is still being made.
        """
        with self._in_use.held():
            last, self.turns = self._last_turn(), self.turns[:-1]
            return last

    def save(self, path: str | Path) -> None:
        """Write the session into one file, whole or not at all: conversation, media and what the model has read.

        Images and videos that are files stay where they are, as videos behind an address do; images that came
        from elsewhere are in the file. Image features, the model, `options` and `media_options` are not.

        Raises:
            ValueError: an answer is still being made.
            FileExistsError: `path` is a file that is no saved session; only those are replaced.
            OSError, RuntimeError: the file cannot be written; a forked process, where MLX would hang.
        """
        check_pair(self.model, self.processor)  # which refuses forked processes
        with self._in_use.held():
            turns = [(turn.content, turn.answer, turn.finish_reason) for turn in self.turns]
            write_session(Path(path), self.model, SavedSession(self.system, turns, self.prompt_cache))

    @classmethod
    def load(
        cls, path: str | Path, model: SmolVLM, processor: Processor, *, fetch_policy: FetchPolicy | None = None
    ) -> "Session":
        """A session that was saved; its next question reads no more than it would have, unless options of the
        key-value cache are given. `fetch_policy` holds for videos that have to be downloaded again.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no session, a damaged one, or one with another model or other types of numbers.
        """
        check_pair(model, processor)
        saved = read_session(Path(path), model, fetch_policy)
        session = cls(model, processor, system=saved.system)
        session.turns, session.prompt_cache = [Turn(*turn) for turn in saved.turns], saved.prompt_cache
        return session

    def _resolved(
        self, options: GenerationOptions | None, media_options: MediaOptions | None, keywords: Any
    ) -> tuple[GenerationOptions, MediaOptions]:
        resolved = resolve_options(options or self.options, media_options or self.media_options, keywords)
        check_session_options(resolved[0])
        return resolved

    def _answer(
        self, content: Content, replaced: Turn | None, options: GenerationOptions, cancel: Event | None
    ) -> Iterator[GenerationResponse]:
        self._in_use.refuse()
        return self._stream(content, replaced, options, cancel)

    def _stream(
        self, content: Content, replaced: Turn | None, options: GenerationOptions, cancel: Event | None
    ) -> Generator[GenerationResponse, None, None]:
        with ExitStack() as use:
            use.enter_context(self._in_use.held())
            if replaced is not None and (not self.turns or self.turns[-1].content is not replaced.content):
                raise ValueError("the conversation has changed since; call edit or regenerate again")
            before = self.turns if replaced is None else self.turns[:-1]
            answer, is_made = "", False
            steps = stream_generate(
                self.model,
                self.processor,
                self._messages(before, content),
                options=options,
                prompt_cache=self.prompt_cache,
                feature_cache=self.feature_cache,
                cancel=cancel,
            )
            try:
                for step in use.enter_context(closing(steps)):
                    answer += step.text
                    if step.finish_reason is not None:
                        is_made = True
                        if step.completion_tokens:
                            self.turns = [*before, Turn(content, answer, step.finish_reason)]
                        use.close()  # the consumer need not ask for what comes after the last step
                    yield step
            except GeneratorExit:
                if not is_made:
                    self.turns = [*before, Turn(content, answer, "closed")]
                raise

    def _messages(self, turns: list[Turn], content: Content) -> list[dict[str, Any]]:
        """The conversation in Hugging Face format, with a question that has no answer yet at its end."""
        messages = [{"role": "system", "content": [text_item(self.system)]}] if self.system else []
        for turn in turns:
            messages += [
                {"role": "user", "content": turn.content},
                {"role": "assistant", "content": [text_item(without_markers(self._without_end(turn.answer)))]},
            ]
        return [*messages, {"role": "user", "content": content}]

    def _without_end(self, answer: str) -> str:
        """The template ends answers itself; they bring an end of their own where special tokens are not skipped."""
        ends = [self.processor.tokenizer.id_to_token(token_id) for token_id in self.processor.stop_token_ids]
        for end in filter(None, ends):
            answer = answer.removesuffix(end)
        return answer

    def _last_turn(self) -> Turn:
        if not self.turns:
            raise ValueError("the conversation has no question yet; ask one first")
        return self.turns[-1]


def check_session_options(options: GenerationOptions) -> None:
    """Raise ValueError for options that a session cannot use."""
    refuse_options(
        options, ("apply_chat_template", "continue_final_message"), "a session makes its prompts from the conversation"
    )
