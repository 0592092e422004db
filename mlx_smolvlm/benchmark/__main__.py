"""`python -m mlx_smolvlm.benchmark`: arguments and printing."""

from ..command_line import starting  # noqa: F401 - first: Ctrl-C may come while the rest is imported

# isort: split
import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from ..api.loading import DTYPES, default_dtype
from ..command_line.adapter_arguments import adapter_sources, add_adapter_argument
from ..command_line.drawings import check_plot
from ..command_line.progress import Progress
from ..command_line.runner import CommandLine, output_argument, refuse_tracebacks
from ..command_line.signals import end_process, handled_by
from ..command_line.standard_streams import line_start, say
from ..command_line.waiting import Waiting
from ..files import whole_file, write_json
from .benchmark_run import BenchmarkRun, Settings
from .geometries import GEOMETRIES
from .measurement import Measurement, PeerComparison
from .peers import PEERS, check_peer, compare, is_compared
from .report import check_report_target, json_report, table, write_report_plot
from .serving import compare_servers, serving
from .size import size
from .stages import decode, loading, prefill, preprocessing, start, start_picture, vision
from .video_stages import video

SECTIONS: dict[str, Callable[[BenchmarkRun], Iterator[Measurement]]] = {
    "start": start,
    "start-picture": start_picture,
    "load": loading,
    "preprocessing": preprocessing,
    "vision": vision,
    "prefill": prefill,
    "decode": decode,
    "video": video,
    "size": size,
    "server": serving,
}
DEFAULT_SECTIONS = [name for name in SECTIONS if name not in ("size", "server")]  # which take long


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input, with 130 or 143 when interrupted."""
    with refuse_tracebacks(), handled_by(end_process, [signal.SIGTERM]), ExitStack() as stack:
        arguments = _parser().parse_args()
        with Waiting(not arguments.quiet) as waiting:
            waiting.tell("looking for the programs to compare with")
            pythons = _pythons(arguments)
        settings = _settings(arguments)
        outputs = [Path(name) for name in (arguments.json, arguments.plot) if name is not None]
        for path in outputs:
            if not path.parent.is_dir():
                raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into")
        if arguments.json is not None:
            check_report_target(Path(arguments.json))
        if arguments.plot is not None:
            if not arguments.against and "size" not in arguments.only:
                raise ValueError("--plot has nothing to draw: compare with peers (--against), or add --only size")
            check_plot(Path(arguments.plot))
        folder = arguments.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="mlx_smolvlm_benchmark_"))
        run = BenchmarkRun(settings, Path(folder).expanduser(), Progress(not arguments.quiet))
        run.folder.mkdir(parents=True, exist_ok=True)
        measurements: list[Measurement] = []
        comparisons: list[PeerComparison] = []
        try:
            for name in () if arguments.peers_only else arguments.only:
                for measured in SECTIONS[name](run):
                    measurements.append(measured)
                if run.is_interrupted:
                    raise KeyboardInterrupt
            for found in compare(run, arguments.against, pythons, arguments.only):
                comparisons.append(found)
            if "server" in arguments.only and "mlx-vlm" in arguments.against:
                comparisons += compare_servers(run, "mlx-vlm", pythons.get("mlx-vlm", sys.executable))
        except (KeyboardInterrupt, SystemExit):
            run.progress.close()
            what = "this has been measured" if measurements or comparisons else "nothing has been measured yet"
            say(f"{line_start()}stopped; {what}")
            raise
        finally:  # what has been measured is not lost to what could not be
            run.progress.close()
            report = json_report(run, measurements, comparisons)
            if measurements or comparisons:
                print(table(report))
                if arguments.json is not None:
                    with whole_file(Path(arguments.json), check_report_target) as path:
                        write_json(path, report)
        if arguments.plot is not None:
            with Waiting(not arguments.quiet) as waiting:
                waiting.tell("drawing")
                write_report_plot(report, Path(arguments.plot))


def _settings(arguments: argparse.Namespace) -> Settings:
    changed = arguments.decoder_layers or arguments.encoder_layers or arguments.bits
    if arguments.model is not None and (changed or arguments.geometry is not None):
        raise ValueError("--geometry, --decoder-layers, --encoder-layers and --bits do not go with --model")
    if arguments.video is not None and not Path(arguments.video).is_file():
        raise FileNotFoundError(f"no video {arguments.video}")
    return Settings(
        model=arguments.model,
        adapters=tuple(adapter_sources(arguments.adapter_path)),
        geometry=arguments.geometry or "256m",
        decoder_layers=arguments.decoder_layers,
        encoder_layers=arguments.encoder_layers,
        bits=arguments.bits,
        dtype=arguments.dtype or default_dtype(),
        runs=arguments.runs,
        prompt_tokens=arguments.prompt_tokens,
        new_tokens=arguments.new_tokens,
        image_size=arguments.image_size,
        video=arguments.video,
        clip_s=arguments.clip_seconds,
        max_frames=arguments.max_frames,
        pictures=arguments.pictures,
        contexts=arguments.contexts,
        clients=arguments.clients,
    )


def _pythons(arguments: argparse.Namespace) -> dict[str, str]:
    if arguments.against and arguments.adapter_path:
        raise ValueError("--adapter-path does not go with --against: other programs would run without the adapters")
    pythons = {}
    for entry in arguments.peer_python:
        peer, separator, path = entry.partition("=")
        if not separator or peer not in PEERS:
            raise ValueError(f"--peer-python is {entry!r}, expected PEER=PATH with a peer of {', '.join(PEERS)}")
        pythons[peer] = str(Path(path).expanduser())
    if unused := next((peer for peer in pythons if peer not in arguments.against), None):
        raise ValueError(f"--peer-python is about {unused}, which is not compared; add --against {unused}")
    if arguments.peers_only and not arguments.against:
        raise ValueError(f"--peers-only has nothing to compare with; add --against with one of {', '.join(PEERS)}")
    for peer in arguments.against:
        if not is_compared(peer, arguments.only):
            raise ValueError(f"--only {','.join(arguments.only)} has nothing that {peer} can be compared in")
        check_peer(peer, pythons.get(peer, sys.executable))
    return pythons


def _names(known: list[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return parse


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 999999")
    return int(text)


def _positives(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds up to 3600")
    return value


def _size(text: str) -> tuple[int, int]:
    width, separator, height = text.partition("x")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is no size like 4000x3000")
    return _positive(width), _positive(height)


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.benchmark",
        description="Measure every stage of an answer, on a real checkpoint or on random weights of a geometry.",
    )
    model = parser.add_argument_group("the model")
    model.add_argument("--model", metavar="PATH_OR_HUB_ID", help="a real checkpoint")
    add_adapter_argument(model)
    model.add_argument("--geometry", choices=list(GEOMETRIES), help="random weights of this shape (default: 256m)")
    model.add_argument("--decoder-layers", type=_positive, metavar="N", help="fewer or more than the geometry has")
    model.add_argument("--encoder-layers", type=_positive, metavar="N", help="fewer or more than the geometry has")
    model.add_argument("--bits", type=int, choices=(2, 3, 4, 5, 6, 8), help="quantize the decoder")
    model.add_argument("--dtype", choices=list(DTYPES), help="default: bfloat16, CPU float32")
    model.add_argument(
        "--folder", type=output_argument, metavar="PATH", help="keeps checkpoints and inputs for the next time"
    )

    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--only",
        type=_names(list(SECTIONS)),
        default=DEFAULT_SECTIONS,
        metavar="SECTION,...",
        help=f"of {', '.join(SECTIONS)} (default: all but size and server)",
    )
    what.add_argument("--runs", type=_positive, default=5, metavar="N", help="runs of each (default: 5)")
    what.add_argument("--prompt-tokens", type=_positive, default=851, metavar="N", help="default: 851")
    what.add_argument("--new-tokens", type=_positive, default=64, metavar="N", help="default: 64")
    what.add_argument("--image-size", type=_size, default=(4000, 3000), metavar="WxH", help="default: 4000x3000")
    what.add_argument("--video", metavar="FILE", help="default: a generated clip, 1280 x 720")
    what.add_argument("--clip-seconds", type=_seconds, default=60.0, metavar="S", help="length of it (default: 60)")
    what.add_argument("--max-frames", type=_positive, default=64, metavar="N", help="of the video (default: 64)")
    what.add_argument("--pictures", type=_positives, default=[1, 2, 4, 8], metavar="N,...", help="for size")
    what.add_argument(
        "--contexts",
        type=_positives,
        default=[256, 512, 1024, 2048, 4096, 8000],
        metavar="N,...",
        help="tokens, for size",
    )

    what.add_argument(
        "--clients", type=_positives, default=[1, 4, 8, 32], metavar="N,...", help="at a time, for server"
    )

    peers = parser.add_argument_group("other programs")
    peers.add_argument(
        "--against", type=_names(list(PEERS)), default=[], metavar="PEER,...", help=f"of {', '.join(PEERS)}"
    )
    peers.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="PEER=PATH",
        help="interpreter that has a peer, if it is another one; repeatable",
    )
    peers.add_argument("--peers-only", action="store_true", help="compare, and measure nothing else")

    output = parser.add_argument_group("what is written")
    output.add_argument("--json", type=output_argument, metavar="FILE", help="everything, each run included")
    output.add_argument(
        "--plot", type=output_argument, metavar="FILE", help="ratios and sizes, .png or .svg (needs matplotlib)"
    )
    output.add_argument("--quiet", action="store_true", help="do not tell what is being measured")
    return parser


if __name__ == "__main__":
    main()
