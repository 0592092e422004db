"""`python -m mlx_smolvlm.watch`: arguments, signals and printing."""

from .command_line import starting  # first: Ctrl-C may come while the rest is imported

# isort: split
import argparse
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from .command_line.adapter_arguments import add_adapter_argument, loading_options, names_model
from .command_line.arguments import (
    DEFAULT_VIDEO_QUESTION,
    DEMO_VIDEO_QUESTION,
    add_answer_arguments,
    add_media_arguments,
    generation_options,
    media_options,
    with_system_prompt,
)
from .command_line.runner import CommandLine, explain_call, print_json, refuse_tracebacks
from .command_line.signals import Interruption, end_process, handled_by
from .command_line.standard_input import check_standard_input, read_texts
from .command_line.standard_streams import line_start, say

if TYPE_CHECKING:
    from .api.caption_steps import Caption
    from .command_line.waiting import Waiting

_TEXTS = ("prompt", "system", "json_schema")  # `-` reads them from standard input


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input, with 130 or 143 when interrupted."""
    with refuse_tracebacks(), handled_by(end_process), _messages_on_stderr():
        arguments = _parser().parse_args()
        from .command_line.waiting import Waiting  # --help does without

        with Waiting(not arguments.quiet) as waiting:
            _run(arguments, waiting)


def _run(arguments: argparse.Namespace, waiting: "Waiting") -> None:
    check_standard_input(arguments, _TEXTS, "SOURCE -" if arguments.source == "-" else None)
    read_texts(arguments, _TEXTS)
    prompt = arguments.prompt
    if prompt is None:
        prompt = DEFAULT_VIDEO_QUESTION if names_model(arguments) else DEMO_VIDEO_QUESTION
    messages = with_system_prompt(prompt, arguments.system, 0, 1)
    with starting.importing():
        from .api.captioning import check_caption_options, check_timing, stream_captions
        from .api.loading import DEMO_MODEL, load
        from .media.live.naming import read_source

    # What is wrong is said before a model is downloaded.
    options, media = generation_options(arguments), media_options(arguments)
    check_caption_options(options, media)
    timing = {"window_s": arguments.window, "every_s": arguments.every, "stall_timeout_s": arguments.stall_timeout}
    check_timing(**timing, retries=arguments.retries)
    read_source(arguments.source)

    from .command_line.notes import show_cut, show_demo_note, show_speed_note

    is_talkative = not (arguments.json or arguments.quiet)
    waiting.tell("loading the model")
    loading = loading_options(arguments)
    model, processor = load(DEMO_MODEL if arguments.model is None else arguments.model, **loading)
    waiting.stop()
    if is_talkative:
        show_speed_note()
    waiting.tell("watching")
    interruption = Interruption(watches_output=True)
    captions = stream_captions(
        model,
        processor,
        arguments.source,
        messages,
        **timing,
        options=options,
        media_options=media,
        realtime=arguments.realtime,
        retries=arguments.retries,
        cancel=interruption.cancel,
    )
    with interruption, closing(captions):
        is_cut_told = not is_talkative
        for number, caption in enumerate(captions):
            waiting.stop()
            if number == 0 and arguments.model is None and is_talkative:  # not before an error, which stands alone
                show_demo_note("SOURCE")
            _print(caption, arguments.json, arguments.quiet)
            if caption.finish_reason == "length" and not is_cut_told:
                is_cut_told = True  # one line, whatever happens to the captions that follow
                show_cut(
                    f"note: the caption is cut, by --max-tokens {options.max_tokens} or the end of the model's "
                    "context; a higher number leaves room for more"
                )
            waiting.tell("watching")
    interruption.conclude()


@contextmanager
def _messages_on_stderr() -> Iterator[None]:
    """Show what the package reports while it goes on."""
    handler = _Saying()
    handler.setFormatter(logging.Formatter(f"{line_start()}%(message)s"))
    log = logging.getLogger(__package__)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class _Saying(logging.Handler):
    """Prints on stderr as all else does. A `StreamHandler` would print a traceback where it fails."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        say(self.format(record))


def _print(caption: "Caption", as_json: bool, is_quiet: bool) -> None:
    if caption.dropped_frames and not is_quiet:
        say(
            f"{caption.dropped_frames} frames dropped, {caption.total_dropped} in all: "
            "the model is slower than the source"
        )
    if as_json:
        print_json(asdict(caption))
    else:
        text = " ".join(caption.text.split())
        print(f"[{_clock(caption.start_s)} - {_clock(caption.end_s)}] {text}", flush=True)


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, with tenths where there are some: 00:00:07.7."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    whole = f"{minutes // 60:02d}:{minutes % 60:02d}:{tenths // 10:02d}"
    return whole if tenths % 10 == 0 else f"{whole}.{tenths % 10}"


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.watch",
        description="Describe a video while it goes on: a file, a camera or a stream, window by window.",
    )
    source = parser.add_argument_group("what to watch")
    source.add_argument(
        "source",
        metavar="SOURCE",
        help="a file, a named pipe, - for standard input, camera, camera:N or N, screen, a device as FORMAT:NAME "
        "(v4l2:/dev/video0, avfoundation:0, lavfi:testsrc2), or an address (rtsp, http, https, tcp, udp, ...)",
    )
    source.add_argument("--realtime", action="store_true", help="play a file or a pipe at its own pace")
    source.add_argument(
        "--stall-timeout", type=float, default=8.0, metavar="S", help="longest silence of the source (default: 8)"
    )
    source.add_argument(
        "--retries", type=int, default=5, metavar="N", help="times to connect again to a lost stream (default: 5)"
    )

    prompt = parser.add_argument_group("what to ask")
    prompt.add_argument("--model", metavar="PATH_OR_HUB_ID", help="checkpoint (default: the embedded demo model)")
    add_adapter_argument(prompt)
    prompt.add_argument("--prompt", metavar="TEXT", help="question about each window")
    prompt.add_argument("--system", metavar="TEXT", help="system prompt")

    windows = parser.add_argument_group("how the video is cut")
    windows.add_argument("--window", type=float, default=10.0, metavar="S", help="seconds to look at (default: 10)")
    windows.add_argument("--every", type=float, metavar="S", help="seconds between captions (default: --window)")

    add_media_arguments(parser)
    add_answer_arguments(parser)

    output = parser.add_argument_group("what is printed")
    output.add_argument("--json", action="store_true", help="one JSON object for each caption, one per line")
    output.add_argument("--quiet", action="store_true", help="nothing but the captions, and errors")
    return parser


explain_call(__name__, "stream_captions(model, processor, source, prompt)")

if __name__ == "__main__":
    main()
