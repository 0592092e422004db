"""The part of the command line that measures: `--compare`, `--calibrate`, and the check of float16."""

import argparse
import json
import warnings
from pathlib import Path

from ..api.finding import base_of, find_checkpoint, open_adapters
from ..command_line.adapter_arguments import adapter_sources
from ..command_line.drawings import check_plot
from ..command_line.progress import Progress
from ..command_line.runner import output_path
from ..command_line.standard_streams import say
from ..evaluate.mini.mini_selection import MiniSuite
from ..media.reporting import report
from ..model.config import read_model_config
from ..processor.processor import load_processor
from .calibration import calibrate, float16_warnings, quality_data
from .calibration_data import check_samples, read_samples
from .card import CARD, refresh_quality
from .compare import compare_checkpoints
from .mini_quality import MINI_ROWS, mini_quality
from .plan import Plan, QuantizationOptions, plan_quantization, refuse_unquantized
from .quality import QUALITY, quality_json, quality_text, write_plot, write_quality
from .quantize import Rounding
from .retriever_comparison import compare_retrievers, comparison_text
from .save import check_target
from .source_checkpoint import Source, open_source

_FOR_CONVERSION = (
    *("hf_path", "mlx_path", "adapter_path", "revision", "force", "upload_repo", "verbose", "dequantize", "calibrate"),
    *("quantize", "q_bits", "q_group_size", "q_mode", "q_recipe", "q_embeddings", "q_connector", "q_vision", "skip"),
    *("allow_unquantized", "target_bpw"),
)


def add_quality_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    group = parser.add_argument_group("quality")
    group.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="convert nothing; measure how far checkpoint B's answers are from A's, computed in --dtype or float32",
    )
    group.add_argument(
        "--mini-rows",
        type=int,
        metavar="N",
        help=f"with --compare, rows of the mini suite to score both on (default: {MINI_ROWS}; 0 leaves it out)",
    )
    group.add_argument("--json", action="store_true", help="with --compare, print one JSON object instead of a table")
    group.add_argument(
        "--plot", type=output_path, metavar="FILE", help="with --compare, draw it too (.png, .svg, .pdf)"
    )
    group.add_argument(
        "--calibrate",
        action="store_true",
        help="with -q, round by what the decoder does on samples, and measure the result; needs memory for the model",
    )
    group.add_argument(
        "--target-bpw",
        type=float,
        metavar="BITS",
        help="with --calibrate, choose each layer's bits for this mean, scales included (4 bits in groups of 64: 4.5)",
    )
    group.add_argument(
        "--data",
        metavar="DIR",
        help="samples to measure and calibrate on: images, each with its question in a .txt of the same name, PDFs "
        "(their pages), or .jsonl files with a conversation per line (default: drawn on the fly); "
        "for ColSmol, PDFs and images",
    )


def check_quality_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that have no meaning together.

    Raises:
        ValueError: such options.
    """
    if arguments.compare is None:
        given = (("--json", arguments.json or None), ("--plot", arguments.plot), ("--mini-rows", arguments.mini_rows))
        for option, value in given:
            if value is not None:
                raise ValueError(f"{option} shows a comparison; add --compare A B")
    elif useless := [name for name in _FOR_CONVERSION if getattr(arguments, name) != parser.get_default(name)]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise ValueError(f"--compare converts nothing; leave {options} out")
    if arguments.calibrate and not arguments.quantize:
        raise ValueError("--calibrate is about quantization; add -q")
    if arguments.calibrate and arguments.adapter_path:
        raise ValueError("--calibrate takes no --adapter-path; merge the adapter into a folder first, and convert that")
    if arguments.calibrate and arguments.q_mode not in (None, "affine"):
        raise ValueError(f"--calibrate rounds in the affine mode; leave --q-mode {arguments.q_mode} out")
    if arguments.target_bpw is not None:
        if not arguments.calibrate:
            raise ValueError("--target-bpw chooses bits by calibration; add --calibrate")
        if arguments.q_bits is not None or arguments.q_recipe is not None:
            raise ValueError("--target-bpw chooses the bits; leave --q-bits and --q-recipe out")
    if arguments.data is not None and not (arguments.compare or arguments.calibrate or arguments.dtype == "float16"):
        raise ValueError("--data is for measuring; add --compare A B, --calibrate or --dtype float16")


def run_comparison(arguments: argparse.Namespace, command: str) -> None:
    """`--compare`: print, draw, and leave the measures in the candidate's folder if that is a quantized one."""
    if arguments.plot:
        check_plot(arguments.plot)
    reference, candidate = arguments.compare
    if _is_retriever(reference):
        _compare_retrievers(arguments, reference, candidate)
        return
    num_rows = MINI_ROWS if arguments.mini_rows is None else arguments.mini_rows
    if num_rows:
        MiniSuite(num_rows)  # refuses what is out of range before the work
    data = quality_data(arguments.data, calibrating=False)
    dtype = arguments.dtype or "float32"
    comparison = compare_checkpoints(reference, candidate, data.measurement, dtype=dtype)
    quality = quality_json(comparison, data.description, command, dtype)
    if num_rows:
        report("asking both the mini suite")
        quality |= mini_quality(reference, candidate, num_rows, dtype)
    report("")  # the line that says what goes on
    print(json.dumps(quality) if arguments.json else quality_text(quality))
    if arguments.plot:
        report("drawing")
        write_plot(quality, arguments.plot)
        report("")
    if Path(candidate).is_dir() and open_source(candidate).formats:
        _leave(quality, Path(candidate))


def _is_retriever(name: str) -> bool:
    folder = find_checkpoint(name)
    return (folder / "config.json").is_file() and read_model_config(folder).is_retriever


def _compare_retrievers(arguments: argparse.Namespace, reference: str, candidate: str) -> None:
    given = (("--plot", arguments.plot), ("--mini-rows", arguments.mini_rows))
    if useless := [option for option, value in given if value is not None]:
        raise ValueError(f"{reference} finds pages and answers nothing; leave {' and '.join(useless)} out")
    if arguments.data is None:
        raise ValueError(f"{reference} finds pages: name a folder of PDFs and images to compare on by --data DIR")
    measures = compare_retrievers(reference, candidate, Path(arguments.data).expanduser(), arguments.dtype or "float32")
    report("")
    print(json.dumps(measures) if arguments.json else comparison_text(measures))


def calibrated_plan(
    arguments: argparse.Namespace, options: QuantizationOptions, progress: Progress
) -> tuple[Plan | None, Rounding]:
    """`--calibrate`: how to round, and by which plan if bits are chosen."""
    source = _source(arguments)
    data = quality_data(arguments.data, calibrating=True)
    check_samples(load_processor(source.folder, source.config), data.measurement)
    if not (arguments.allow_unquantized or source.formats):
        refuse_unquantized(*plan_quantization(source.layers, options), source.layers, options)
    plan, rounding = calibrate(
        source,
        options,
        data.calibration,
        target_bpw=arguments.target_bpw,
        dtype=arguments.dtype,
        progress=progress,
    )
    return (None if arguments.target_bpw is None else plan), rounding


def report_quality(arguments: argparse.Namespace, folder: Path, command: str, progress: Progress) -> None:
    """After `--calibrate`: measure the new folder against its source, and leave the measures in it."""
    progress.stage("measuring the result")
    data = quality_data(arguments.data, calibrating=True)
    reference = find_checkpoint(arguments.hf_path, revision=arguments.revision)
    comparison = compare_checkpoints(reference, folder, data.measurement)
    _leave(quality_json(comparison, data.description, command), folder)
    summary = comparison.summary()
    print(
        f"KL divergence {summary['kl_mean']:.6f}, top-1 agreement {summary['top_1_agreement']:.1%}, "
        f"on {data.description}"
    )


def check_float16_samples(arguments: argparse.Namespace) -> None:
    """Before `--dtype float16 --data DIR`: refuse samples that cannot be read."""
    if arguments.data:
        base, revision = arguments.hf_path, arguments.revision
        if base is None:
            adapters = [adapter for adapter, _ in open_adapters(adapter_sources(arguments.adapter_path))]
            base, revision = base_of(adapters, revision, "--hf-path")
        source = open_source(base, revision=revision)
        check_target(Path(arguments.mlx_path).expanduser().absolute(), source.folder, arguments.force)
        check_samples(load_processor(source.folder, source.config), read_samples(arguments.data))


def warn_of_float16(arguments: argparse.Namespace, folder: Path) -> None:
    """After `--dtype float16`: a warning for each layer of the new folder that may overflow."""
    for line in float16_warnings(folder, arguments.data):
        warnings.warn(line, stacklevel=1)


def _source(arguments: argparse.Namespace) -> Source:
    """The checkpoint to convert; a target that could not be written is refused here, before the work."""
    source = open_source(arguments.hf_path, revision=arguments.revision)
    check_target(Path(arguments.mlx_path).expanduser().absolute(), source.folder, arguments.force)
    return source


def _leave(quality: dict[str, object], folder: Path) -> None:
    """Write `quality.json` and bring the model card up to date; a folder that may not be written is left as it is."""
    try:
        others = write_quality(folder, quality)
        if (folder / CARD).is_file():
            refresh_quality(folder)
        if others:
            say(f"{folder / QUALITY} also keeps: {'; '.join(others)}")
    except (OSError, ValueError) as error:
        say(f"{folder} keeps its old report: {error}")
