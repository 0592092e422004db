"""Arguments that the command lines which generate text share."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..media.urls import is_url
from ..options import GenerationOptions, MediaOptions, quoted
from .notes import show_unused_sampling

DEMO_QUESTION = "Describe the picture."
DEFAULT_QUESTION = "Describe this image in detail."
DEMO_VIDEO_QUESTION = "Which way does the shape move?"
DEFAULT_VIDEO_QUESTION = "Describe this video in detail."
_PASSWORD_BYTES = 4096
_IMAGE_FLAGS = {
    "do_image_splitting": "--no-split",
    "longest_edge": "--max-edge",
    "max_pixels": "--max-pixels",
    "page": "--page",
}
_VIDEO_FLAGS = {
    "fps": "--fps",
    "max_frames": "--max-frames",
    "start_s": "--start",
    "end_s": "--end",
    "hardware_decoding": "--hardware-decoding",
}


def add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    """How answers are made: the fields of `GenerationOptions`, as groups."""
    sampling = parser.add_argument_group("how the answer is chosen")
    sampling.add_argument("--max-tokens", type=int, default=256, metavar="N", help="most tokens (default: 256)")
    sampling.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default: 0)")
    sampling.add_argument("--top-p", type=float, default=1.0, metavar="P", help="share of probability kept")
    sampling.add_argument("--top-k", type=int, default=0, metavar="K", help="tokens kept; 0 keeps all")
    sampling.add_argument("--min-p", type=float, default=0.0, metavar="P", help="share of the likeliest's probability")
    sampling.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R", help="1 changes nothing")
    sampling.add_argument("--seed", type=int, metavar="S", help="fixes random choices")
    sampling.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the answer; repeatable")
    sampling.add_argument(
        "--keep-special-tokens", action="store_true", help="print them (layout tags of document models)"
    )
    sampling.add_argument(
        "--logprobs", type=int, metavar="K", help="report log probabilities, with those of the K likeliest (0 to 20)"
    )
    sampling.add_argument(
        "--ignore-chat-template", action="store_true", help="take the prompt as it is (raw), <image> markers included"
    )
    sampling.add_argument("--continue-final-message", action="store_true", help="continue the assistant's last message")
    sampling.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: bfloat16, CPU float32")

    structured = parser.add_argument_group("structured output (needs llguidance: pip install llguidance)")
    structured.add_argument("--json-schema", metavar="FILE_OR_TEXT", help="the answer is JSON, valid under this schema")
    structured.add_argument("--regex", metavar="TEXT", help="the answer matches this regular expression as a whole")

    speed = parser.add_argument_group("speed and memory")
    speed.add_argument("--speculate", type=int, metavar="N", help="prompt lookup: draft N tokens from the text")
    add_cache_arguments(speed)
    speed.add_argument("--max-kv-size", type=int, metavar="N", help="tokens seen: the first 4 and the latest")
    speed.add_argument("--prefill-chunk", type=int, default=512, metavar="N", help="prompt tokens read at a time")


def add_cache_arguments(group: argparse._ArgumentGroup) -> None:
    """How keys and values are quantized."""
    group.add_argument("--kv-bits", type=int, choices=(4, 8), help="quantize the keys and values of the context")
    group.add_argument("--kv-group-size", type=int, default=64, metavar="N", help="numbers per scale (default: 64)")
    group.add_argument("--quantized-kv-start", type=int, default=0, metavar="N", help="quantize beyond N tokens")


def add_media_arguments(parser: argparse.ArgumentParser) -> None:
    """How images and videos are read: the fields of `MediaOptions`, as one group."""
    media = parser.add_argument_group("how images and videos are read")
    media.add_argument("--no-split", action="store_true", help="one tile per image: quick and coarse")
    media.add_argument("--max-edge", type=int, metavar="N", help="pixels of an image's longest side after resizing")
    media.add_argument("--max-pixels", type=int, metavar="N", help="most pixels that an image may have as it is stored")
    media.add_argument("--page", type=int, metavar="N", help="page of an image of several pages (TIFF); the first is 1")
    media.add_argument("--fps", type=float, metavar="F", help="frames per second of video")
    media.add_argument("--max-frames", type=int, metavar="N", help="most frames per video")
    media.add_argument("--start", type=float, metavar="S", help="second of the video at which to begin")
    media.add_argument("--end", type=float, metavar="S", help="second of the video at which to end")
    media.add_argument("--hardware-decoding", action="store_true", help="decode videos with VideoToolbox (Macs alone)")


UNUSED_PASSWORD = "no document needs the password"


def add_password_arguments(parser: argparse._ActionsContainer) -> None:
    """The password of encrypted PDFs; see `read_password`."""
    parser.add_argument(
        "--password-file", metavar="FILE", help="file whose first line is the password of PDFs; - is standard input"
    )
    parser.add_argument(
        "--password", metavar="TEXT", help="the password itself, which other users of the machine may see meanwhile"
    )


def read_password(arguments: argparse.Namespace) -> str | None:
    """From `add_password_arguments`; None if there is none. No message shows it.

    Raises:
        ValueError: both are given, or one is empty or not UTF-8.
        OSError: the file cannot be read.
    """
    password: str | None = arguments.password
    name: str | None = arguments.password_file
    if name is not None:
        if password is not None:
            raise ValueError("--password and --password-file are both given; leave one of them out")
        is_input = name == "-"
        with nullcontext(sys.stdin.buffer) if is_input else Path(name).expanduser().open("rb") as file:
            line = file.readline(_PASSWORD_BYTES)
        try:
            password = line.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError(f"--password-file {quoted(name, 300)}: the first line is not UTF-8 text") from None
    if password == "":
        raise ValueError(f"--password{'' if name is None else '-file'} is empty; leave it out, or give the password")
    return password


def media_options(arguments: argparse.Namespace) -> MediaOptions:
    """From `add_media_arguments`. Raises ValueError if one is out of range."""
    return MediaOptions(
        do_image_splitting=False if arguments.no_split else None,
        longest_edge=arguments.max_edge,
        max_pixels=arguments.max_pixels,
        page=arguments.page,
        fps=arguments.fps,
        max_frames=arguments.max_frames,
        start_s=arguments.start,
        end_s=arguments.end,
        hardware_decoding=arguments.hardware_decoding,
    )


def refuse_unused(media: MediaOptions, *, has_images: bool, has_videos: bool) -> None:
    """Raise ValueError for an option of images, or of videos, where there are none."""
    defaults = MediaOptions()
    for flags, what, is_there in ((_IMAGE_FLAGS, "image", has_images), (_VIDEO_FLAGS, "video", has_videos)):
        for name, flag in flags.items():
            value = getattr(media, name)
            if not is_there and value != getattr(defaults, name):
                given = "is given" if isinstance(value, bool) else f"is {quoted(value)}"
                raise ValueError(f"{flag} {given}, but there is no {what}; leave it out")


def generation_options(arguments: argparse.Namespace) -> GenerationOptions:
    """From `add_answer_arguments`. What is wrong is said before a model is downloaded.

    Raises:
        ValueError: an option out of range, options that contradict each other, or a schema that cannot be enforced.
        ImportError: a schema or expression without llguidance.
    """
    options = GenerationOptions(
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        seed=arguments.seed,
        stop=arguments.stop,
        skip_special_tokens=not arguments.keep_special_tokens,
        json_schema=_schema(arguments.json_schema),
        regex=arguments.regex,
        logprobs=arguments.logprobs,
        prompt_lookup_tokens=arguments.speculate,
        kv_bits=arguments.kv_bits,
        kv_group_size=arguments.kv_group_size,
        quantized_kv_start=arguments.quantized_kv_start,
        max_kv_size=arguments.max_kv_size,
        prefill_chunk=arguments.prefill_chunk,
        apply_chat_template=not arguments.ignore_chat_template,
        continue_final_message=arguments.continue_final_message,
    )
    if not getattr(arguments, "quiet", False):
        show_unused_sampling(options)
    if options.is_structured:
        from ..engine.structured import read_grammar  # imports MLX

        read_grammar(options)
    return options


def _schema(schema: str | None) -> str | None:
    """The text of a schema, from a file unless it is one."""
    if schema is None or schema.lstrip().startswith("{"):
        return schema
    return text_of_file(schema, "a JSON schema")


def text_of_file(path: str, expected: str) -> str:
    """The text of a file. Raises ValueError, with what is expected of it, if it is none."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # with or without the mark that some editors put first
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; expected {expected}") from None


def add_media_sources(parser: argparse._ArgumentGroup) -> None:
    """`--image` and `--video`, each with one source or several, and repeatable."""
    for kind, which in (("image", "an image, - reads one"), ("video", "a video")):
        parser.add_argument(
            f"--{kind}",
            action="extend",
            nargs="+",
            metavar="FILE_OR_URL",
            default=[],
            help=f"{which}, or several; repeatable",
        )


def sort_media(sources: Sequence[str]) -> dict[str, list[str]]:
    """Bare files and addresses by kind, "image" or "video": by content where there is a file, else by suffix.

    Raises:
        FileNotFoundError: neither a file nor an address.
    """
    if not sources:
        return {}
    from ..media.signatures import is_video

    sorted_sources: dict[str, list[str]] = {"image": [], "video": []}
    for source in sources:
        path = Path(source).expanduser()
        if not is_url(source) and source != "-" and (path.is_dir() or not path.exists()):
            what = "a folder, not a file" if path.is_dir() else "no such file"
            raise FileNotFoundError(f"{source}: {what} (a question is given by --prompt, in quotes)")
        sorted_sources["video" if is_video(source) else "image"].append(source)
    return sorted_sources


def check_files(sources: list[str]) -> None:
    """Raise FileNotFoundError for an image or video that is neither there, nor an address, nor standard input."""
    for source in sources:
        if source != "-" and not is_url(source) and not Path(source).expanduser().exists():
            raise FileNotFoundError(f"{source}: no such file; check the path")


def with_system_prompt(prompt: str, system: str | None, num_images: int, num_videos: int) -> list[dict[str, Any]] | str:
    """The question, as messages if there is a system prompt. Raises ValueError if one is empty."""
    if not prompt.strip():
        raise ValueError("--prompt is empty; ask something")
    if system is None:
        return prompt
    if not system.strip():
        raise ValueError("--system is empty; leave it out")
    from ..processor.messages import user_content

    return [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": user_content(prompt, num_images, num_videos)},
    ]
