"""Describes a video segment by segment, and cuts the highlights out.

    python examples/video_highlights.py match.mp4 --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct
    python examples/video_highlights.py mlx_smolvlm/demo/clip.mp4 --find "to the right"

Which segments are highlights, the model decides: it is first shown frames from all over the video and says what it
is about; then, segment by segment, it describes what happens and says whether that stands out from the rest. With
`--find`, highlights are the segments whose description contains a text: small models, such as the embedded demo,
describe better than they judge.

Three files are written, whole or not at all: the video (highlights.mp4), and beside it the time line of all
segments for programs (.json) and for people (.md). Without highlights there is no video.
"""

import argparse
import re
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from highlights.segments import Segment, laid_end_to_end, split

from mlx_smolvlm.command_line.progress import Progress
from mlx_smolvlm.command_line.runner import CommandLine, output_path, refuse_tracebacks
from mlx_smolvlm.files import whole_file, write_json

if TYPE_CHECKING:
    from mlx_smolvlm.media.video.probing import VideoInfo

DEMO = "the demo model"
QUESTION = "Describe what happens in this video in one or two sentences."
DEMO_QUESTION = "Which way does the shape move?"


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input."""
    with refuse_tracebacks():
        _run(_parser().parse_args())


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python examples/video_highlights.py",
        description="Describe a video segment by segment, and cut the highlights out.",
    )
    parser.add_argument("video", metavar="VIDEO", help="the file")
    parser.add_argument("--model", metavar="PATH_OR_HUB_ID", help="checkpoint (default: the embedded demo model)")
    parser.add_argument(
        "--out", type=output_path, default=Path("highlights.mp4"), metavar="FILE.mp4", help="%(default)s"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")

    choice = parser.add_argument_group("what is a highlight")
    choice.add_argument("--find", metavar="TEXT", help="regular expression for descriptions, case ignored")
    choice.add_argument("--max-highlights", type=int, default=5, metavar="N", help="most segments (default: 5)")

    look = parser.add_argument_group("how the video is looked at")
    look.add_argument("--segment", type=float, default=10, metavar="S", help="seconds per segment (default: 10)")
    look.add_argument("--question", metavar="TEXT", help="asked about each segment (default: to describe it)")
    look.add_argument("--fps", type=float, metavar="F", help="frames per second that the model sees")
    look.add_argument("--max-frames", type=int, metavar="N", help="most frames per segment that it sees")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    _check(arguments)
    files = _files(arguments)
    from mlx_smolvlm.media.video.probing import (
        probe,  # slow to import, and only now is it known that the arguments are good
    )

    info = probe(arguments.video)
    if info.packets is None:
        raise ValueError(f"{arguments.video} is an animated picture, of which nothing can be cut out; convert it first")
    segments = _limited(_described(info, arguments), arguments.max_highlights)
    print(_write(info, segments, arguments, files))


def _write(info: "VideoInfo", segments: list[Segment], arguments: argparse.Namespace, files: dict[str, Path]) -> str:
    """Write the time lines, and the video if there are highlights; returns what to tell the user.

    None of them takes its place before all are whole.
    """
    from highlights.cut import cut
    from highlights.timeline import as_json, as_markdown, clock

    summary = [f"no highlights in {arguments.video}"]
    spans = laid_end_to_end(segments)
    with ExitStack() as whole:
        if spans:
            video = whole.enter_context(whole_file(files["mp4"]))
            length_s = sum(span.length_s for span in spans)
            with Progress() as progress:
                progress.stage(total=round(length_s), unit="s")
                is_copy = cut(info, spans, video, progress.reach)
            found = (segment for segment in segments if segment.is_highlight)
            summary = [f"{clock(segment.start_s)} - {clock(segment.end_s)}  {segment.description}" for segment in found]
            summary.append(f"{arguments.out}: {length_s:.1f} s, {'copied as it was' if is_copy else 're-encoded'}")
        facts = (arguments.video, arguments.model or DEMO, segments, str(arguments.out) if spans else None)
        write_json(whole.enter_context(whole_file(files["json"])), as_json(*facts))
        whole.enter_context(whole_file(files["md"])).write_text(as_markdown(*facts), encoding="utf-8")
    if not spans:
        files["mp4"].unlink(missing_ok=True)  # of an earlier run: it would not be what the time line says
    return "\n".join(summary)


def _files(arguments: argparse.Namespace) -> dict[str, Path]:
    """The files to write, by their kind; none may be there, unless --force."""
    files = {kind: arguments.out.with_suffix(f".{kind}") for kind in ("mp4", "json", "md")}
    for path in files.values():
        if path.exists() and path.samefile(arguments.video):
            raise ValueError(f"{path} is the video itself; choose another --out")
        if path.exists() and not arguments.force:
            raise FileExistsError(f"{path} is there already; choose another --out, or replace it with --force")
    return files


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot work before anything slow is done."""
    if not 1 <= arguments.segment < float("inf"):
        raise ValueError(f"--segment is {arguments.segment:g}, expected at least 1 second")
    if arguments.max_highlights < 1:
        raise ValueError(f"--max-highlights is {arguments.max_highlights}, expected at least 1")
    if arguments.out.suffix != ".mp4":
        raise ValueError(f"--out is {arguments.out}, expected a name that ends in .mp4")
    if not arguments.out.parent.is_dir():
        raise FileNotFoundError(f"no folder {arguments.out.parent} for --out; make it first")
    if arguments.find is None and arguments.model is None:
        raise ValueError("the demo model cannot tell what is a highlight; give --find TEXT, or --model with a real one")
    try:
        re.compile(arguments.find or "")
    except re.error as error:
        raise ValueError(f"--find is {arguments.find!r}, not a regular expression: {error}") from None


def _described(info: "VideoInfo", arguments: argparse.Namespace) -> list[Segment]:
    """All segments with what the model says of them, and whether they are highlights."""
    from highlights.describe import Narrator

    from mlx_smolvlm import DEMO_MODEL, MediaOptions, load

    options = MediaOptions(fps=arguments.fps, max_frames=arguments.max_frames)
    model, processor = load(arguments.model or DEMO_MODEL)
    narrator = Narrator(model, processor, info, options)
    question = arguments.question or (QUESTION if arguments.model else DEMO_QUESTION)
    overview = narrator.overview() if arguments.find is None else None
    described, undecided = [], 0
    segments = split(info, arguments.segment)
    with Progress() as progress:
        progress.stage(total=len(segments), unit="segments")
        for segment in segments:
            description, is_highlight = narrator.describe(segment, question, overview)
            if arguments.find is not None:
                is_highlight = re.search(arguments.find, description, re.IGNORECASE) is not None
            undecided += is_highlight is None
            described.append(replace(segment, description=description, is_highlight=bool(is_highlight)))
            progress.advance()
    if undecided:
        print(f"note: segments that got neither yes nor no, and are no highlights: {undecided}", file=sys.stderr)
    return described


def _limited(segments: list[Segment], max_highlights: int) -> list[Segment]:
    """Of too many highlights, those that are least like the rest."""
    from highlights.describe import most_distinct

    found = [number for number, segment in enumerate(segments) if segment.is_highlight]
    if len(found) <= max_highlights:
        return segments
    print(f"note: of {len(found)} highlights, the {max_highlights} least like the rest are kept", file=sys.stderr)
    kept = most_distinct(segments, found, max_highlights)
    return [replace(segment, is_highlight=number in kept) for number, segment in enumerate(segments)]


if __name__ == "__main__":
    main()
