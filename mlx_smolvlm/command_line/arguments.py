"""Arguments that the command lines which generate text share."""

import argparse
from pathlib import Path
from typing import Any

from ..media.urls import is_url

DEMO_NOTE = (
    "This is the embedded demo model (2.4 million parameters): it knows coloured shapes, short numbers and little\n"
    "else. For a real one: --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct {example}"
)
DEMO_QUESTION = "Describe the picture."
DEFAULT_QUESTION = "Describe this image in detail."
DEMO_VIDEO_QUESTION = "Which way does the shape move?"
DEFAULT_VIDEO_QUESTION = "Describe this video in detail."


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """How the answer is chosen, as one group."""
    sampling = parser.add_argument_group("how the answer is chosen")
    sampling.add_argument("--max-tokens", type=int, default=256, metavar="N", help="most tokens (default: 256)")
    sampling.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default: 0)")
    sampling.add_argument("--top-p", type=float, default=1.0, metavar="P", help="share of probability kept")
    sampling.add_argument("--top-k", type=int, default=0, metavar="K", help="tokens kept; 0 keeps all")
    sampling.add_argument("--min-p", type=float, default=0.0, metavar="P", help="share of the likeliest's probability")
    sampling.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R", help="1 changes nothing")
    sampling.add_argument("--seed", type=int, metavar="S", help="fixes random choices")
    sampling.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the answer; repeatable")
    sampling.add_argument("--keep-special-tokens", action="store_true", help="print them (SmolDocling's layout tags)")
    sampling.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: bfloat16, CPU float32")


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """Drafts, and how the context is kept, as one group."""
    speed = parser.add_argument_group("speed and memory")
    speed.add_argument("--speculate", type=int, metavar="N", help="draft up to N tokens from what the text has said")
    speed.add_argument("--kv-bits", type=int, choices=(4, 8), help="quantize the keys and values of the context")
    speed.add_argument("--kv-group-size", type=int, default=64, metavar="N", help="numbers per scale (default: 64)")
    speed.add_argument("--quantized-kv-start", type=int, default=0, metavar="N", help="tokens kept unquantized so long")
    speed.add_argument("--max-kv-size", type=int, metavar="N", help="tokens seen: the first 4 and the latest")


def add_frame_arguments(group: argparse._ArgumentGroup) -> None:
    """How many frames of a video are looked at."""
    group.add_argument("--fps", type=float, metavar="F", help="frames per second of video")
    group.add_argument("--max-frames", type=int, metavar="N", help="most frames per video")


def add_media_arguments(parser: argparse.ArgumentParser) -> None:
    """How pictures and videos are read, as one group."""
    media = parser.add_argument_group("how pictures and videos are read")
    media.add_argument("--no-split", action="store_true", help="one tile per picture: quick and coarse")
    media.add_argument("--max-edge", type=int, metavar="N", help="pixels of a picture's longest side after resizing")
    add_frame_arguments(media)
    media.add_argument("--start", type=float, metavar="S", help="second of the video at which to begin")
    media.add_argument("--end", type=float, metavar="S", help="second of the video at which to end")
    media.add_argument("--hardware-decoding", action="store_true", help="decode videos with VideoToolbox, if there")


def add_form_arguments(parser: argparse.ArgumentParser) -> None:
    """The form that answers keep to, as one group."""
    form = parser.add_argument_group("what the answer looks like (needs llguidance: pip install llguidance)")
    form.add_argument("--json-schema", metavar="FILE_OR_TEXT", help="the answer is JSON, valid under this schema")
    form.add_argument("--regex", metavar="TEXT", help="the answer matches this regular expression as a whole")


def media_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of `MediaOptions` from `add_media_arguments`. Raises ValueError if one is out of range."""
    from ..media.options import MediaOptions

    options = MediaOptions(
        do_image_splitting=False if arguments.no_split else None,
        longest_edge=arguments.max_edge,
        fps=arguments.fps,
        max_frames=arguments.max_frames,
        start_s=arguments.start,
        end_s=arguments.end,
        hardware_decoding=arguments.hardware_decoding,
    )
    return vars(options)


def form_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """`json_schema` and `regex` from `add_form_arguments`. Raises ValueError if an answer cannot keep to them."""
    from ..engine.structured import read_grammar

    schema = arguments.json_schema
    if schema is not None and not schema.lstrip().startswith("{"):
        try:
            schema = Path(schema).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{schema} is not a text file; expected a JSON schema") from None
    read_grammar(schema, arguments.regex)
    return {"json_schema": schema, "regex": arguments.regex}


def generation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of `stream_generate` from `add_sampling_arguments` and, where a command has it, `add_form_arguments`.

    Raises:
        ValueError: one is out of range, or they do not go together.
    """
    from ..engine.generation_options import GenerationOptions

    names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop")
    options = {name: getattr(arguments, name) for name in names}
    options["skip_special_tokens"] = not arguments.keep_special_tokens
    if hasattr(arguments, "json_schema"):
        options |= form_options(arguments)
    GenerationOptions(**options)  # what is out of range is said before a model is downloaded
    return options


def speed_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of `stream_generate` from `add_speed_arguments`. Raises ValueError if they do not go together."""
    from ..engine.prompt_lookup import check_prompt_lookup
    from ..engine.sampling import SamplingOptions
    from ..model.caches.options import CacheOptions

    names = ("kv_bits", "kv_group_size", "quantized_kv_start", "max_kv_size")
    cache = {name: getattr(arguments, name) for name in names}
    sampling = SamplingOptions(arguments.temperature, repetition_penalty=arguments.repetition_penalty)
    check_prompt_lookup(arguments.speculate, sampling, CacheOptions(**cache))
    return {"prompt_lookup_tokens": arguments.speculate, **cache}


def check_files(sources: list[str]) -> None:
    """Raise FileNotFoundError for a picture or video that is neither there nor an address."""
    for source in sources:
        if not is_url(source) and not Path(source).expanduser().exists():
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
