"""Messages and media -> `input_ids` and `pixel_values`. `tokenizers` alone, never transformers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from tokenizers import Tokenizer

from ..media.images import ImageSource, load_image
from ..media.reporting import report
from ..model.adapters.companion_files import companion_finder
from ..model.config import ModelConfig
from ..options import GenerationOptions, MediaKeywords, MediaOptions, refuse_keywords, resolve_options
from .chat_template import render, template_for
from .content_items import OptionedSource
from .expansion import layout_marker
from .kept_media import KeptMedium, resolved_source
from .literal_text import LiteralText
from .messages import (
    IMAGE_MARKER,
    VIDEO_MARKER,
    Conversation,
    Message,
    Several,
    check_chars,
    check_continues,
    check_length,
    read_conversation,
    read_rendered,
)
from .processor_config import ProcessorConfig, read_processor_config
from .prompt import MARKER, Inputs, Prompt, PromptMedium
from .prompt_media import Clip, FrameSeries, LoadedImage, download_folder, open_clip, open_image
from .sampled_video import VideoSource
from .tiling import squeeze
from .tokenizer_file import read_tokenizer, tokenizer_errors

END_OF_UTTERANCE = "<end_of_utterance>"


class Processor:
    """Prepares prompts for one checkpoint, and turns tokens back into text."""

    def __init__(self, config: ProcessorConfig, tokenizer: Tokenizer):
        self.config = config
        self.tokenizer = tokenizer
        end = tokenizer.token_to_id(END_OF_UTTERANCE)
        self.stop_token_ids = frozenset([*config.eos_token_ids, *([] if end is None else [end])])

    def __call__(
        self,
        messages_or_prompt: str | Sequence[Message],
        images: Several[ImageSource] = (),
        videos: Several[VideoSource] = (),
        *,
        media_options: MediaOptions | None = None,
        apply_chat_template: bool = True,
        continue_final_message: bool = False,
        check_cancelled: Callable[[], None] = lambda: None,
        **keywords: Unpack[MediaKeywords],
    ) -> Inputs:
        """Prepare a prompt, all its pixels included.

        The arguments are those of `prepare`, with the fields of `MediaOptions` as keywords, and so are the errors.
        """
        with self.prepare(
            messages_or_prompt,
            images,
            videos,
            media_options=media_options,
            apply_chat_template=apply_chat_template,
            continue_final_message=continue_final_message,
            check_cancelled=check_cancelled,
            **keywords,
        ) as prompt:
            return prompt.inputs()

    @contextmanager
    def prepare(
        self,
        messages_or_prompt: str | Sequence[Message],
        images: Several[ImageSource] = (),
        videos: Several[VideoSource] = (),
        *,
        media_options: MediaOptions | None = None,
        apply_chat_template: bool = True,
        continue_final_message: bool = False,
        check_cancelled: Callable[[], None] = lambda: None,
        **keywords: Unpack[MediaKeywords],
    ) -> Iterator[Prompt]:
        """Plan a prompt: its tokens are known and its media open, but no pixel is resized and no frame decoded yet.

        Args:
            messages_or_prompt: chat messages in Hugging Face format, or a question as plain text (see `messages.py`).
            images: path, http(s) or data URL, bytes, PIL image or numpy array, each; for items without a source.
            videos: path, http(s) URL or `SampledVideo`, each. Both may also be a `KeptMedium`, or what `open_image` and
                `open_video` returned, in messages too.
            media_options, keywords: how images and videos are read, where not as the checkpoint says.
            apply_chat_template: False takes text as the whole prompt, markers included; so does text that begins
                as rendered prompts do (`<|im_start|>`).
            continue_final_message: see `GenerationOptions`.
            check_cancelled: called between images and between packets and frames of videos; it may raise to stop.

        Raises:
            ValueError: malformed messages, media that cannot be read, options out of range, or a prompt
                longer than the model's context (with what each image costs).
            FileNotFoundError: an image or video that is not there.
            TypeError: an unknown option, or one of answers.
        """
        refuse_keywords(keywords, GenerationOptions, "a prompt is prepared here, and no answer made")
        _, options = resolve_options(None, media_options, keywords)
        openings = ("<|im_start|>", self.config.special_tokens.get("bos_token") or "<|im_start|>")
        check_length(messages_or_prompt)
        rendered = isinstance(messages_or_prompt, str) and messages_or_prompt.startswith(openings)
        if rendered or not apply_chat_template:
            conversation = read_rendered(messages_or_prompt, images, videos)
        else:
            conversation = read_conversation(messages_or_prompt, images, videos)
        if continue_final_message:
            check_continues(conversation)
        kept = [source for source in [*conversation.images, *conversation.videos] if isinstance(source, KeptMedium)]
        needs_folder = any(not isinstance(video, Clip | FrameSeries) for video in conversation.videos)
        with download_folder() if needs_folder else nullcontext("") as downloads:

            def open_one(source: Any, options: MediaOptions) -> LoadedImage:
                return self.open_image(source, options, check_cancelled)

            def open_video(source: Any, options: MediaOptions) -> Clip | FrameSeries:
                return self.open_video(source, Path(downloads), options, check_cancelled)

            def open_all(
                kind: str, sources: Sequence[Any], opener: Callable[[Any, MediaOptions], Any]
            ) -> list[PromptMedium]:
                media: list[PromptMedium] = []
                for number, source in enumerate(sources, 1):
                    check_cancelled()
                    report(f"opening {kind}", number, len(sources))
                    if isinstance(source, LoadedImage | Clip | FrameSeries):
                        media.append(source)
                        continue
                    own = options
                    if isinstance(source, OptionedSource):
                        source, own = resolved_source(source, options)
                    is_kept = isinstance(source, KeptMedium)
                    media.append(source.open(opener) if is_kept else opener(source, own))
                return media

            try:
                loaded_images = open_all("image", conversation.images, open_one)
                clips = open_all("video", conversation.videos, open_video)
                text = self._prompt(conversation, continue_final_message, check_cancelled)
                media = self._in_prompt_order(text, loaded_images, clips)
                prompt = Prompt(text, media, self.encode, self.config, check_cancelled)
                prompt.check_context()
                yield prompt
            finally:
                for medium in kept:
                    medium.close()

    def video_tile(self, frame: Any) -> np.ndarray:
        """One frame of a video as the encoder sees it, for a `SampledVideo` with `are_tiles`.

        Args:
            frame: PIL image or (height, width, 3) uint8 RGB array.

        Returns:
            (tile_size, tile_size, 3) uint8.
        """
        tile_size = self.config.image.tile_size
        longest_edge = self.config.video.longest_edge if self.config.video else tile_size
        return squeeze(load_image(frame), longest_edge, tile_size)

    @cached_property
    def _literal_text(self) -> LiteralText:
        return LiteralText(self.tokenizer, self.config.special_tokens)

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        """Tokens that `decode` leaves out where it skips special tokens, and how they are spelled."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {token_id: token.content for token_id, token in added.items() if token.special}

    def __repr__(self) -> str:
        image, video = self.config.image, self.config.video
        sampling = f"{video.fps:g} frames a second, at most {video.max_frames}" if video else "not made for video"
        return (
            f"<Processor: {self.tokenizer.get_vocab_size()} tokens, images to {image.longest_edge} pixels in tiles of "
            f"{image.tile_size}, {self.config.image_seq_len} tokens each; {sampling}>"
        )

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Tokens -> text."""
        with tokenizer_errors("the checkpoint's tokenizer.json cannot decode its tokens"):
            return self.tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def literal(self, text: str) -> str:
        """Text to put into messages where `<image>`, `<end_of_utterance>` and the like are text, and no tokens.

        The prompt then has the very characters that are spelled out, whatever they are.
        """
        return self._literal_text.escape(text)

    def open_image(
        self, source: Any, options: MediaOptions, check_cancelled: Callable[[], None] = lambda: None
    ) -> LoadedImage:
        """Load and plan an image, to be passed to `prepare`, even several times. Raises what `prepare` raises."""
        image = open_image(source, self.config.image_for(options), options, check_cancelled)
        layout = image.layout
        learned = self.tokenizer.token_to_id(layout_marker(1, 1)) is not None
        if learned and layout.rows and self.tokenizer.token_to_id(layout_marker(layout.rows, layout.columns)) is None:
            raise ValueError(
                f"{image.name} would be cut into {layout.rows} x {layout.columns} tiles, but the model knows tokens "
                "for at most 6 x 6; choose a smaller longest edge, or do not split"
            )
        return image

    def open_video(
        self, source: Any, folder: Path, options: MediaOptions, check_cancelled: Callable[[], None] = lambda: None
    ) -> Clip | FrameSeries:
        """Probe a video and choose its frames, to be passed to `prepare`, even several times.

        Args:
            source: path, URL or `SampledVideo`.
            folder: where a video that is no file is written. Files stay where they are until the last answer ends.
            options: how it is read.
            check_cancelled: as in `prepare`.

        Raises:
            ValueError: what `prepare` raises.
        """
        tile_size = self.config.image.tile_size
        return open_clip(source, folder, self.config.video_for(options), tile_size, options, check_cancelled)

    def _prompt(
        self, conversation: Conversation, continue_final_message: bool, check_cancelled: Callable[[], None]
    ) -> str:
        if conversation.text is not None:
            return conversation.text
        texts = (item.get("text", "") for message in conversation.messages for item in message["content"])
        check_chars(sum(map(len, texts)))
        return render(
            template_for(self.config.chat_template, bool(conversation.videos)),
            conversation.messages,
            self.config.special_tokens,
            continue_final_message=continue_final_message,
            check_cancelled=check_cancelled,
        )

    def _in_prompt_order(
        self, prompt: str, images: Sequence[PromptMedium], clips: Sequence[PromptMedium]
    ) -> list[PromptMedium]:
        """Media in the order of their markers; a template that drops or doubles markers is refused."""
        markers = MARKER.findall(prompt)
        sources = {IMAGE_MARKER: iter(images), VIDEO_MARKER: iter(clips)}
        for marker, media in ((IMAGE_MARKER, images), (VIDEO_MARKER, clips)):
            if markers.count(marker) != len(media):
                raise ValueError(
                    f"the rendered prompt has {markers.count(marker)} {marker} markers for {len(media)} media; "
                    "the checkpoint's chat template does not place them"
                )
        return [next(sources[marker]) for marker in markers]

    def encode(self, text: str, is_beginning: bool = True) -> list[int]:
        """The tokens of a prompt, markers expanded; or those of a part that does not begin it.

        Raises:
            ValueError: text that is too long or no valid Unicode.
        """
        # As in the reference: a post-processor's tokens, unless the template wrote the first of them itself.
        opening = self.config.special_tokens.get("bos_token")
        add_special_tokens = is_beginning and (opening is None or not text.startswith(opening))
        check_chars(len(text))
        try:
            with tokenizer_errors("the checkpoint's tokenizer.json cannot encode this prompt"):
                return self._literal_text.encode(text, add_special_tokens)
        except TypeError:  # surrogates, as Python stands in for bytes that are not UTF-8
            raise ValueError("the prompt is not valid Unicode text") from None


def load_processor(folder: Path, model_config: ModelConfig, adapters: Sequence[Path] = ()) -> Processor:
    """The processor of a checkpoint folder; files that stand in folders of adapters win.

    Raises:
        FileNotFoundError: no `tokenizer.json` or no processor settings.
        ValueError: a damaged file, or a tokenizer that does not know the model's image token.
    """
    find = companion_finder(folder, adapters)
    config = read_processor_config(folder, model_config, find)
    return Processor(config, read_tokenizer(find("tokenizer.json"), config.image_token_id))
