"""How a checkpoint's images, videos and prompts are prepared: its processor files -> frozen dataclasses.

Released checkpoints keep this in `preprocessor_config.json` and `processor_config.json`; transformers 5 writes
one `processor_config.json` with nested `image_processor` and `video_processor`. Both are read.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..model.adapters.companion_files import Find
from ..model.config import ModelConfig
from ..model.json_fields import Fields, read_json, read_text
from ..options import MAX_FPS, MediaOptions, quoted
from .chat_template import MAX_TEMPLATE_CHARS

LANCZOS = 1  # Pillow's number of the filter


@dataclass(frozen=True)
class ImageConfig:
    """`longest_edge`: pixels that an image's longest side is resized to; `tile_size`: side of a tile in pixels."""

    longest_edge: int
    tile_size: int
    do_image_splitting: bool


@dataclass(frozen=True)
class VideoConfig:
    """Sampling: `fps` frames per second of video, at most `max_frames`; `longest_edge` in pixels, before squeezing."""

    fps: float
    max_frames: int
    longest_edge: int


@dataclass(frozen=True)
class ProcessorConfig:
    """`chat_template` is None for base models; `special_tokens` (names to strings) are the template's variables."""

    image: ImageConfig
    video: VideoConfig | None
    image_seq_len: int
    image_token_id: int
    context_length: int
    eos_token_ids: tuple[int, ...]
    chat_template: str | None
    special_tokens: dict[str, str]

    def image_for(self, options: MediaOptions) -> ImageConfig:
        """The settings for images; a caller's options win."""
        config = self.image
        if options.longest_edge is not None:
            config = replace(config, longest_edge=options.longest_edge)
        if options.do_image_splitting is not None:
            config = replace(config, do_image_splitting=options.do_image_splitting)
        return config

    def video_for(self, options: MediaOptions) -> VideoConfig:
        """The settings for videos; a caller's options win.

        Raises:
            ValueError: a checkpoint that was not made for video, unless both rate and number of frames are given.
        """
        if self.video is not None:
            fps, max_frames = options.fps or self.video.fps, options.max_frames or self.video.max_frames
            return replace(self.video, fps=fps, max_frames=max_frames)
        if options.fps is None or options.max_frames is None:
            raise ValueError(
                "this checkpoint states no video sampling, so it was not made for video; "
                "to try all the same, state both the frames per second (fps) and the most frames (max_frames)"
            )
        return VideoConfig(options.fps, options.max_frames, self.image.tile_size)


def read_processor_config(folder: Path, model: ModelConfig, find: Find | None = None) -> ProcessorConfig:
    """Read the processor files of a checkpoint, checked against its model; `find` says where else they are.

    Raises:
        FileNotFoundError: no image processor settings in the folder.
        ValueError: a field that is missing, of the wrong kind, or contradicts `config.json`.
    """
    find = find or folder.joinpath
    own = _optional_json(find("processor_config.json"))
    raw_image = Fields(own, str(find("processor_config.json"))).section("image_processor", {})
    where = f"{find('processor_config.json')}, image_processor"
    if not raw_image:
        raw_image, where = read_json(find("preprocessor_config.json")), str(find("preprocessor_config.json"))
    image = _image_config(raw_image, where)
    patches = image.tile_size // model.vision.patch_size
    if patches != model.vision.patches_per_side:
        raise ValueError(
            f"{where}: tiles of {image.tile_size} pixels are {patches} patches wide, "
            f"but config.json says {model.vision.patches_per_side}"
        )
    stated = own.get("image_seq_len")
    if stated is not None and stated != model.image_seq_len:
        raise ValueError(
            f"{find('processor_config.json')}: image_seq_len is {quoted(stated)}, "
            f"but config.json gives {model.image_seq_len} tokens per tile"
        )
    tokenizer = _optional_json(find("tokenizer_config.json"))
    return ProcessorConfig(
        image=image,
        video=_video_config(find, own, Fields(raw_image, where)),
        image_seq_len=model.image_seq_len,
        image_token_id=model.image_token_id,
        context_length=model.text.max_position_embeddings,
        eos_token_ids=model.eos_token_ids,
        chat_template=_chat_template(find, own, tokenizer),
        special_tokens=_special_tokens(tokenizer),
    )


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _image_config(raw: dict[str, Any], where: str) -> ImageConfig:
    fields = Fields(raw, where)
    for name in ("do_resize", "do_rescale", "do_normalize"):
        fields.require(name, True, default=True)
    fields.require("resample", LANCZOS, default=LANCZOS)
    for name in ("image_mean", "image_std"):  # SigLIP's: pixels in -1..1, as `vision.py` scales them
        fields.require(name, [0.5, 0.5, 0.5], default=[0.5, 0.5, 0.5])
    tile = Fields(fields.section("max_image_size"), f"{where}, max_image_size")
    size = Fields(fields.section("size"), f"{where}, size")
    return ImageConfig(
        longest_edge=size.positive("longest_edge"),
        tile_size=tile.positive("longest_edge"),
        do_image_splitting=fields.get("do_image_splitting", bool, True),
    )


def _video_config(find: Find, own: dict[str, Any], image: Fields) -> VideoConfig | None:
    """`video_sampling`; None where the checkpoint has none (v1, Idefics3).

    A `size` beside it overrides its `video_size`, as in transformers (`video_processing_smolvlm.py`): released
    checkpoints have both, and their frames are resized to `size` before they are squeezed to a tile.
    """
    nested, separate = find("processor_config.json"), find("video_preprocessor_config.json")
    sources = (
        Fields(Fields(own, str(nested)).section("video_processor", {}), f"{nested}, video_processor"),
        Fields(_optional_json(separate), str(separate)),
        image,
    )
    source = next((source for source in sources if source.section("video_sampling", {})), None)
    if source is None:
        return None
    fields = Fields(source.section("video_sampling"), f"{source.where}, video_sampling")
    size_of_frames = source.section("size", {}) or fields.section("video_size")
    size = Fields(size_of_frames, f"{source.where}, size of video frames")
    fps = fields.positive("fps", float)
    if fps > MAX_FPS:
        raise ValueError(f"{fields.where}: 'fps' is {fps:g}, expected at most {MAX_FPS:g}")
    return VideoConfig(
        fps=fps,
        max_frames=fields.positive("max_frames"),
        longest_edge=size.positive("longest_edge"),
    )


def _chat_template(find: Find, own: dict[str, Any], tokenizer: dict[str, Any]) -> str | None:
    """The template in the order in which transformers looks for it."""
    path = find("chat_template.jinja")
    if path.is_file():
        return read_text(path, 4 * MAX_TEMPLATE_CHARS)
    separate = _optional_json(find("chat_template.json"))
    for source in (separate, own, tokenizer):
        template = source.get("chat_template")
        if isinstance(template, list):  # several, by name
            named = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
            template = named[0].get("template") if named else None
        if isinstance(template, str):
            return template
    return None


def _special_tokens(tokenizer: dict[str, Any]) -> dict[str, str]:
    """`bos_token`, `eos_token` and the like; a token is a string or an object with `content`."""
    tokens = {}
    for name, value in tokenizer.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens
