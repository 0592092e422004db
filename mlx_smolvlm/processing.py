"""Messages and media -> `input_ids` and `pixel_values`. `tokenizers` alone, never transformers."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from .chat_template import FAMILY_TEMPLATE, render
from .config import ModelConfig
from .expansion import layout_marker
from .image_loading import describe_source, load_image
from .image_processing import MAX_SIDE, cut, plan, squeeze
from .messages import IMAGE_MARKER, VIDEO_MARKER, Conversation, read_conversation, read_rendered
from .processor_config import ImageConfig, ProcessorConfig, VideoConfig, read_processor_config
from .prompt_media import Clip, Medium, Picture, local_files, read_clip
from .video import read_frames

END_OF_UTTERANCE = "<end_of_utterance>"
_MARKER = re.compile(f"{IMAGE_MARKER}|{VIDEO_MARKER}")


@dataclass(frozen=True)
class Inputs:
    """What the model reads.

    Attributes:
        input_ids: the prompt's tokens.
        pixel_values: (num_tiles, tile_size, tile_size, 3) uint8, 0..255, in prompt order; None without media.
        media: one entry for each picture and video, in prompt order.
    """

    input_ids: list[int]
    pixel_values: np.ndarray | None
    media: list[Medium]

    @property
    def image_tokens(self) -> int:
        """Tokens of the prompt that stand for pictures and frames."""
        return sum(medium.image_tokens for medium in self.media)


class Processor:
    """Prepares prompts for one checkpoint, and turns tokens back into text."""

    def __init__(self, config: ProcessorConfig, tokenizer: Tokenizer):
        self.config = config
        self.tokenizer = tokenizer
        end = tokenizer.token_to_id(END_OF_UTTERANCE)
        self.stop_token_ids = frozenset([*config.eos_token_ids, *([] if end is None else [end])])

    def __call__(
        self,
        messages_or_prompt: str | Sequence[dict[str, Any]],
        images: Sequence[Any] = (),
        videos: Sequence[Any] = (),
        *,
        apply_chat_template: bool = True,
        do_image_splitting: bool | None = None,
        longest_edge: int | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> Inputs:
        """Prepare a prompt.

        Args:
            messages_or_prompt: chat messages in Hugging Face form, or a question as plain text (see `messages.py`).
            images: path, http(s) or data URL, bytes, PIL image or numpy array, each; for items without a source.
            videos: path or http(s) URL, each.
            apply_chat_template: False takes text as the whole prompt, markers included; so does text that begins
                as rendered prompts do (`<|im_start|>`).
            do_image_splitting: False sends one tile per picture; None is the checkpoint's setting.
            longest_edge: pixels to which a picture's longest side is resized; None is the checkpoint's setting.
            fps: frames per second of video; None is the checkpoint's setting.
            max_frames: most frames per video; None is the checkpoint's setting.
            check_cancelled: called between pictures and between frames; it may raise to stop.

        Raises:
            ValueError: malformed messages, media that cannot be read, options out of range, or a prompt
                longer than the model's context (with what each picture costs).
            FileNotFoundError: a picture or video that is not there.
        """
        openings = ("<|im_start|>", self.config.special_tokens.get("bos_token") or "<|im_start|>")
        rendered = isinstance(messages_or_prompt, str) and messages_or_prompt.startswith(openings)
        if rendered or not apply_chat_template:
            conversation = read_rendered(messages_or_prompt, images, videos)
        else:
            conversation = read_conversation(messages_or_prompt, images, videos)
        image_config = self._image_config(do_image_splitting, longest_edge)
        video_config = self._video_config(fps, max_frames, has_video=bool(conversation.videos))
        with local_files(conversation.videos) as paths:
            pictures = []
            for source in conversation.images:
                check_cancelled()
                pictures.append(self._picture(source, image_config))
            clips = [
                read_clip(describe_source(source), path, video_config)
                for source, path in zip(conversation.videos, paths, strict=True)
                if video_config
            ]
            prompt = self._prompt(conversation)
            order = self._in_prompt_order(prompt, pictures, clips)
            input_ids = self._encode(prompt, order)
            self._check_context(input_ids, order)
            tiles: list[np.ndarray] = []
            for medium in order:
                check_cancelled()
                if isinstance(medium, Picture):
                    tiles.extend(cut(medium.image, medium.layout, image_config.tile_size))
                else:
                    tiles.extend(self._frames(medium, check_cancelled))
        input_ids = self._encode(prompt, order) if clips else input_ids  # a file that broke off has fewer frames
        media = [medium.cost(self.config.image_seq_len) for medium in order]
        return Inputs(input_ids, np.stack(tiles) if tiles else None, media)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Tokens -> text."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def _image_config(self, do_image_splitting: bool | None, longest_edge: int | None) -> ImageConfig:
        config = self.config.image
        if longest_edge is not None:
            if not 1 <= longest_edge <= MAX_SIDE:
                raise ValueError(f"longest_edge is {longest_edge}, expected 1 to {MAX_SIDE} pixels")
            config = replace(config, longest_edge=longest_edge)
        if do_image_splitting is not None:
            config = replace(config, do_image_splitting=do_image_splitting)
        return config

    def _video_config(self, fps: float | None, max_frames: int | None, has_video: bool) -> VideoConfig | None:
        if fps is not None and not 0 < fps < float("inf"):
            raise ValueError(f"fps is {fps}, expected a positive number of frames per second")
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames is {max_frames}, expected at least 1")
        config = self.config.video
        if not has_video:
            return None
        if config is None:
            if fps is None or max_frames is None:
                raise ValueError(
                    "this checkpoint states no video sampling, so it was not made for video; "
                    "to try all the same, state both the frames per second (fps) and the most frames (max_frames)"
                )
            return VideoConfig(fps, max_frames, self.config.image.tile_size)
        return replace(config, fps=fps or config.fps, max_frames=max_frames or config.max_frames)

    def _picture(self, source: Any, config: ImageConfig) -> Picture:
        image = load_image(source)
        name, layout = describe_source(source), plan(image.size, config)
        learned = self.tokenizer.token_to_id(layout_marker(1, 1)) is not None
        if learned and layout.rows and self.tokenizer.token_to_id(layout_marker(layout.rows, layout.columns)) is None:
            raise ValueError(
                f"{name} would be cut into {layout.rows} x {layout.columns} tiles, but the model knows tokens "
                "for at most 6 x 6; choose a smaller longest edge, or do not split"
            )
        return Picture(name, image, layout)

    def _frames(self, clip: Clip, check_cancelled: Callable[[], None]) -> Iterator[np.ndarray]:
        """Decode a clip's frames as tiles; if the file breaks off, shorten its sample and say so."""
        decoded = 0
        for frame in read_frames(clip.info, clip.sample.indices):
            check_cancelled()
            yield squeeze(Image.fromarray(frame), clip.longest_edge, self.config.image.tile_size)
            decoded += 1
        wanted = len(clip.sample.indices)
        if decoded == 0:
            raise ValueError(f"{clip.name}: no frame could be decoded; the file is damaged")
        if decoded < wanted:
            warnings.warn(f"{clip.name} breaks off: {decoded} of {wanted} frames could be read", stacklevel=3)
            times = clip.sample.timestamps_s[:decoded]
            clip.sample = replace(clip.sample, indices=clip.sample.indices[:decoded], timestamps_s=times)

    def _prompt(self, conversation: Conversation) -> str:
        if conversation.text is not None:
            return conversation.text
        # As the reference: a conversation with a video takes the family's template, whatever the checkpoint's is.
        template = FAMILY_TEMPLATE if conversation.videos else self.config.chat_template
        if template is None:
            raise ValueError(
                "the checkpoint has no chat template, so it is a base model; "
                "pass the whole prompt as text, with apply_chat_template=False"
            )
        return render(template, conversation.messages, self.config.special_tokens)

    def _in_prompt_order(self, prompt: str, pictures: list[Picture], clips: list[Clip]) -> list[Picture | Clip]:
        """Media in the order of their markers; a template that drops or doubles markers is refused."""
        markers = _MARKER.findall(prompt)
        counts = {IMAGE_MARKER: len(pictures), VIDEO_MARKER: len(clips)}
        for marker, expected in counts.items():
            if markers.count(marker) != expected:
                raise ValueError(
                    f"the rendered prompt has {markers.count(marker)} {marker} markers for {expected} media; "
                    "the checkpoint's chat template does not place them"
                )
        sources: dict[str, Iterator[Picture | Clip]] = {IMAGE_MARKER: iter(pictures), VIDEO_MARKER: iter(clips)}
        return [next(sources[marker]) for marker in markers]

    def _encode(self, prompt: str, order: list[Picture | Clip]) -> list[int]:
        texts = iter([medium.expansion(self.config.image_seq_len) for medium in order])
        expanded = _MARKER.sub(lambda _: next(texts), prompt)
        # As the reference: a post-processor's tokens, unless the template wrote the first of them itself.
        opening = self.config.special_tokens.get("bos_token")
        add_special_tokens = opening is None or not expanded.startswith(opening)
        try:
            return self.tokenizer.encode(expanded, add_special_tokens=add_special_tokens).ids
        except TypeError:  # surrogates, as Python stands in for bytes that are not UTF-8
            raise ValueError("the prompt is not valid Unicode text") from None

    def _check_context(self, input_ids: list[int], order: list[Picture | Clip]) -> None:
        """Refuse, before any picture is cut or encoded, a prompt that leaves no room for an answer."""
        if len(input_ids) < self.config.context_length:
            return
        costs = [medium.cost(self.config.image_seq_len) for medium in order]
        spent = "; ".join(f"{cost.name}: {cost.image_tokens} tokens ({cost.layout})" for cost in costs) or "text alone"
        raise ValueError(
            f"the prompt has {len(input_ids)} tokens and the model's context is {self.config.context_length}: {spent}. "
            "Send fewer pictures or frames, do not split pictures, or choose a smaller longest edge"
        )


def load_processor(folder: Path, model_config: ModelConfig) -> Processor:
    """The processor of a checkpoint folder.

    Raises:
        FileNotFoundError: no `tokenizer.json` or no processor settings.
        ValueError: a damaged file, or a tokenizer that does not know the model's image token.
    """
    config = read_processor_config(folder, model_config)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer.json in {folder}: not a model folder, or an incomplete one")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"{path} is not a tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if tokenizer.token_to_id(IMAGE_MARKER) != config.image_token_id:
        raise ValueError(
            f"{path}: {IMAGE_MARKER} is token {tokenizer.token_to_id(IMAGE_MARKER)}, "
            f"but config.json says image_token_id {config.image_token_id}"
        )
    return Processor(config, tokenizer)
