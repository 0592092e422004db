"""Arguments that the command lines which generate text share."""

import argparse
from typing import Any

DEMO_NOTE = (
    "This is the embedded demo model (2.4 million parameters): it knows coloured shapes, short numbers and little\n"
    "else. For a real one: --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct {example}"
)
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


def generation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of `stream_generate` from `add_sampling_arguments`. Raises ValueError if one is out of range."""
    from .sampling import SamplingOptions

    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
    sampling = {name: getattr(arguments, name) for name in names}
    SamplingOptions(**sampling)  # what is out of range is said before a model is downloaded
    return {
        **sampling,
        "max_tokens": arguments.max_tokens,
        "stop": arguments.stop,
        "skip_special_tokens": not arguments.keep_special_tokens,
    }


def speed_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of `stream_generate` from `add_speed_arguments`. Raises ValueError if they do not go together."""
    from .cache_options import CacheOptions
    from .prompt_lookup import check_prompt_lookup
    from .sampling import SamplingOptions

    names = ("kv_bits", "kv_group_size", "quantized_kv_start", "max_kv_size")
    cache = {name: getattr(arguments, name) for name in names}
    sampling = SamplingOptions(arguments.temperature, repetition_penalty=arguments.repetition_penalty)
    check_prompt_lookup(arguments.speculate, sampling, CacheOptions(**cache))
    return {"prompt_lookup_tokens": arguments.speculate, **cache}


def with_system_prompt(prompt: str, system: str | None, num_images: int, num_videos: int) -> list[dict[str, Any]] | str:
    """The question, as messages if there is a system prompt. Raises ValueError if one is empty."""
    if not prompt.strip():
        raise ValueError("--prompt is empty; ask something")
    if system is None:
        return prompt
    if not system.strip():
        raise ValueError("--system is empty; leave it out")
    from .messages import user_content

    return [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": user_content(prompt, num_images, num_videos)},
    ]
