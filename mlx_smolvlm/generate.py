"""`python -m mlx_smolvlm.generate`: arguments and printing."""

from .command_line import starting  # first: Ctrl-C may come while the rest is imported

# isort: split
import argparse
import json
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from .command_line.adapter_arguments import add_adapter_argument, loading_options, model_name, names_model
from .command_line.arguments import (
    DEFAULT_QUESTION,
    DEFAULT_VIDEO_QUESTION,
    DEMO_QUESTION,
    DEMO_VIDEO_QUESTION,
    add_answer_arguments,
    add_media_arguments,
    add_media_sources,
    check_files,
    generation_options,
    media_options,
    refuse_unused,
    sort_media,
    text_of_file,
    with_system_prompt,
)
from .command_line.runner import CommandLine, explain_call, print_json, refuse_tracebacks
from .command_line.standard_input import check_standard_input, read_pipes, read_texts
from .command_line.standard_streams import say
from .options import refuse_options

if TYPE_CHECKING:
    from .api.generation import GenerationResponse
    from .command_line.waiting import Waiting
    from .media.images import ImageSource

_TEXTS = ("prompt", "system", "messages", "json_schema")  # `-` reads them from standard input


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input."""
    with refuse_tracebacks():
        arguments = _parser().parse_args()
        from .command_line.signals import end_at_once, if_held_up  # --help does without
        from .command_line.waiting import Waiting

        with if_held_up(end_at_once), Waiting(not arguments.quiet) as waiting:
            _run(arguments, waiting)


def _run(arguments: argparse.Namespace, waiting: "Waiting") -> None:
    if arguments.quiet and arguments.verbose:
        raise ValueError("--quiet and --verbose exclude each other; leave one out")
    for kind, sources in sort_media(arguments.media).items():
        getattr(arguments, kind).extend(sources)
    check_standard_input(arguments, _TEXTS)
    read_texts(arguments, _TEXTS)
    messages = _messages(arguments)
    # What is out of range or not there is said before a model is downloaded.
    check_files([*arguments.image, *arguments.video])
    options, media = generation_options(arguments), media_options(arguments)
    if not arguments.json:
        refuse_options(options, ("logprobs",), "only --json reports them; add it")
    from .command_line.notes import cut_note, show_cut, show_demo_note, show_missing_decoder, show_speed_note

    kinds = _kinds(messages)
    shows_demo = not (names_model(arguments) or arguments.prompt or arguments.video or arguments.messages)
    has_images = bool(arguments.image or shows_demo or kinds & {"image", "image_url"})
    refuse_unused(media, has_images=has_images, has_videos=bool(arguments.video or "video" in kinds))
    show_missing_decoder(arguments)
    loading = loading_options(arguments)
    is_demo, is_talkative = arguments.model is None, not (arguments.json or arguments.quiet)
    if is_demo and is_talkative:
        show_demo_note('--image YOUR.jpg --prompt "..."')
    waiting.tell("loading the model")
    with starting.importing():
        from .api.generation import stream_generate  # after the arguments are known to be good
        from .api.loading import DEMO_MODEL, load

    shown_images: list[ImageSource] = [*read_pipes(arguments.image)]
    start = time.perf_counter()
    model, processor = load(DEMO_MODEL if is_demo else arguments.model, **loading)
    load_s = time.perf_counter() - start
    if is_demo and not (arguments.image or arguments.video or arguments.prompt or arguments.messages):
        sample = str(DEMO_MODEL.parent / "picture.png")
        shown_images = [sample]
        if is_talkative:
            waiting.stop()
            say(f"Image: {sample}\nQuestion: {DEMO_QUESTION}")
    if is_talkative:
        waiting.stop()
        show_speed_note()
    waiting.tell("reading the prompt")
    steps: list[GenerationResponse] = []
    for step in stream_generate(
        model,
        processor,
        messages,
        images=shown_images,
        videos=arguments.video,
        options=options,
        media_options=media,
    ):
        if not steps:
            waiting.stop()
            if arguments.verbose:
                _print_budget(step)
        steps.append(step)
        if arguments.json:
            waiting.tell(f"{len(steps)} tokens")
        else:
            print(step.text, end="", flush=True)
    waiting.stop()
    if arguments.json:
        print_json(_report(steps, load_s, model_name(arguments)))
    else:
        print(flush=True)
    if is_talkative and steps[-1].finish_reason == "length":
        show_cut(cut_note(steps[-1], options.max_tokens, processor.config.context_length))
    if arguments.verbose:
        _print_timing(steps[-1], load_s)


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.generate",
        description="Ask a SmolVLM model about images and videos. Without arguments, the embedded demo answers.",
    )
    prompt = parser.add_argument_group("what to ask")
    prompt.add_argument("--model", metavar="PATH_OR_HUB_ID", help="checkpoint (default: the embedded demo model)")
    add_adapter_argument(prompt)
    prompt.add_argument("media", nargs="*", metavar="FILE_OR_URL", help="images and videos, without an option")
    add_media_sources(prompt)
    prompt.add_argument("--prompt", metavar="TEXT", help="question, - reads it; <image>, <video> place media")
    prompt.add_argument("--system", metavar="TEXT", help="system prompt")
    prompt.add_argument("--messages", metavar="FILE.json", help="Hugging Face chat messages, instead of --prompt")

    add_media_arguments(parser)
    add_answer_arguments(parser)

    output = parser.add_argument_group("what is printed")
    output.add_argument("--json", action="store_true", help="one JSON object instead of the text")
    output.add_argument("--verbose", action="store_true", help="token budget and times per stage, on stderr")
    output.add_argument("--quiet", action="store_true", help="nothing but the answer, and errors")
    return parser


def _messages(arguments: argparse.Namespace) -> list[dict[str, Any]] | str:
    """Messages from the arguments; media without a place stand before the question."""
    if arguments.messages is not None:
        if arguments.prompt is not None or arguments.system is not None:
            raise ValueError("--messages already holds the prompt; leave out --prompt and --system")
        return _read_messages(arguments.messages)
    prompt = arguments.prompt
    if prompt is None:
        if arguments.video:
            prompt = DEFAULT_VIDEO_QUESTION if names_model(arguments) else DEMO_VIDEO_QUESTION
        elif arguments.image:
            prompt = DEFAULT_QUESTION if names_model(arguments) else DEMO_QUESTION
        elif names_model(arguments) or arguments.system:
            raise ValueError("nothing to ask: give --prompt, --image, --video or --messages")
        else:
            prompt = DEMO_QUESTION
    return with_system_prompt(prompt, arguments.system, len(arguments.image), len(arguments.video))


def _read_messages(path: str) -> list[dict[str, Any]]:
    """Messages from a file, or as JSON; relative paths in them count from the working directory."""
    is_text = path.lstrip().startswith(("[", "{"))  # as read from standard input
    text = path if is_text else text_of_file(path, "messages in JSON")
    path = "the text of --messages" if is_text else path
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(messages, list):
        raise ValueError(f"{path} holds a JSON {type(messages).__name__}, expected a list of messages")
    return messages


def _kinds(messages: list[dict[str, Any]] | str) -> set[str]:
    """The types of content items; what is malformed is refused later."""
    contents = [] if isinstance(messages, str) else [part.get("content") for part in messages if isinstance(part, dict)]
    items = [item for content in contents if isinstance(content, list) for item in content if isinstance(item, dict)]
    return {str(item.get("type")) for item in items}


def _report(steps: "list[GenerationResponse]", load_s: float, model: str) -> dict[str, Any]:
    """The object that --json prints; times in seconds."""
    last = steps[-1]
    timing = last.timing
    return {
        "text": "".join(step.text for step in steps),
        "token_ids": [step.token_id for step in steps if step.token_id is not None],
        "prompt_token_ids": last.prompt_ids,
        "finish_reason": last.finish_reason,
        "usage": {
            "prompt_tokens": last.prompt_tokens,
            "image_tokens": last.image_tokens,
            "completion_tokens": last.completion_tokens,
            "drafted_tokens": last.drafted_tokens,
            "accepted_tokens": last.accepted_tokens,
        },
        "timing": {
            "load": load_s,
            "processing": timing.processing,
            "vision": timing.vision,
            "prefill": timing.prefill,
            "time_to_first_token": timing.time_to_first_token,
            "decode": timing.decode,
        },
        "decode_tokens_per_second": last.decode_tokens_per_second,
        "peak_memory_bytes": last.peak_memory_bytes,
        "model": model,
        **_logprobs(steps),
    }


def _logprobs(steps: "list[GenerationResponse]") -> dict[str, Any]:
    """Of each token, if they were asked for."""
    if steps[0].logprob is None:
        return {}
    top = [[{"token_id": token, "logprob": logprob} for token, logprob in step.top_logprobs or []] for step in steps]
    return {"logprobs": [step.logprob for step in steps], "top_logprobs": top}


def _print_budget(step: "GenerationResponse") -> None:
    """Print the cost of the prompt, before the answer."""
    numbers = {kind: count(1) for kind in ("image", "video")}
    for medium in step.media:
        number = next(numbers[medium.kind])
        say(f"{medium.kind} {number}: {medium.image_tokens} tokens, {medium.layout} ({medium.name})")
    say(f"prompt: {step.prompt_tokens} tokens, {step.image_tokens} of them for images")


def _print_timing(step: "GenerationResponse", load_s: float) -> None:
    timing = step.timing
    say(
        f"load {load_s:.2f} s, processing {timing.processing:.2f} s, vision {timing.vision:.2f} s, "
        f"prefill {timing.prefill:.2f} s, first token after {timing.time_to_first_token:.2f} s, "
        f"decode {timing.decode:.2f} s ({step.decode_tokens_per_second:.1f} tokens/s), "
        f"{step.completion_tokens} tokens, peak memory {step.peak_memory_bytes / 1e6:.0f} MB"
    )


explain_call(__name__, "generate_text(model, processor, prompt, images=[...]) or stream_generate(...)")

if __name__ == "__main__":
    main()
