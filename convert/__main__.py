"""`python -m mlx_smolvlm.convert`: arguments and printing."""

import argparse
import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

from ..api.loading import DTYPES
from ..command_line.adapter_arguments import adapter_sources, add_adapter_argument
from ..command_line.progress import Progress
from ..command_line.runner import CommandLine, output_argument, refuse_tracebacks
from ..command_line.standard_streams import say
from ..command_line.waiting import Waiting
from ..model.adapters.adapter_export import FORMATS as ADAPTER_FORMATS
from .checkpoint import convert_checkpoint
from .conversion_report import ConversionReport
from .export_adapter import export_adapter
from .plan import RECIPES, QuantizationOptions
from .quality_command import (
    add_quality_options,
    calibrated_plan,
    check_float16_samples,
    check_quality_options,
    report_quality,
    run_comparison,
    warn_of_float16,
)
from .quantize import FORMATS, parse_format

_NOT_FOR_EXPORTS = ("quantize", "dequantize", "calibrate", "compare", "revision", "force", "upload_repo", "dtype")
_PARTS = ("embeddings", "connector", "vision")
_MODE_NAMES = ", ".join(mode for mode in FORMATS if mode != "affine")


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input."""
    with refuse_tracebacks(), ExitStack() as opened:
        parser = _parser()
        arguments = parser.parse_args()
        check_quality_options(parser, arguments)
        waiting = opened.enter_context(Waiting())
        waiting.tell("opening the checkpoint")
        command = _command(sys.argv[1:])
        if arguments.compare:
            run_comparison(arguments, command)
            return
        if arguments.export_adapter is not None:
            _export_adapter(arguments)
            return
        if arguments.adapter_format is not None:
            raise ValueError("--adapter-format is that of --export-adapter; add it")
        if arguments.hf_path is None and not arguments.adapter_path:
            raise ValueError("name the checkpoint to convert by --hf-path, or an adapter by --adapter-path")
        if arguments.quantize and arguments.dequantize:
            raise ValueError("-q and -d exclude each other; -q alone quantizes a quantized checkpoint again")
        if arguments.upload_repo is not None:
            from huggingface_hub.utils import validate_repo_id  # slow to import

            validate_repo_id(arguments.upload_repo)  # before the work, not after it
        quantization, plan, rounding, progress = _quantization(arguments), None, None, Progress()
        if arguments.calibrate and quantization:
            plan, rounding = calibrated_plan(arguments, quantization, progress)
            quantization = None if plan else quantization
        if arguments.dtype == "float16":
            check_float16_samples(arguments)
        report = convert_checkpoint(
            arguments.hf_path,
            arguments.mlx_path,
            quantization=quantization,
            plan=plan,
            rounding=rounding,
            dequantize=arguments.dequantize,
            adapter_path=adapter_sources(arguments.adapter_path) or None,
            dtype=arguments.dtype,
            revision=arguments.revision,
            force=arguments.force,
            allow_unquantized=arguments.allow_unquantized,
            command=command,
            repo_id=arguments.upload_repo,
            progress=progress,
        )
        waiting.stop()
        _print(report, arguments)
        if arguments.dtype == "float16":
            warn_of_float16(arguments, report.folder)
        if rounding:
            report_quality(arguments, report.folder, command, progress)
        if arguments.upload_repo:
            _upload(report, arguments.upload_repo)


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.convert",
        description="Convert a SmolVLM-family checkpoint to an MLX folder, quantized or not.",
    )
    parser.add_argument("--hf-path", "--model", metavar="PATH_OR_HUB_ID", help="checkpoint to convert")
    parser.add_argument(
        "--mlx-path",
        default="mlx_model",
        type=output_argument,
        metavar="OUT",
        help="folder to make (default: mlx_model)",
    )
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    add_adapter_argument(parser, "merged first")
    parser.add_argument(
        "--export-adapter",
        type=output_argument,
        metavar="OUT",
        help="write the adapter in another format; convert nothing",
    )
    parser.add_argument("--adapter-format", choices=ADAPTER_FORMATS, help="of --export-adapter (default: the other)")
    parser.add_argument("--dtype", choices=DTYPES, help="type of what is not quantized (default: as in the file)")
    parser.add_argument("-d", "--dequantize", action="store_true", help="turn a quantized checkpoint into a plain one")
    parser.add_argument("--force", action="store_true", help="replace the checkpoint in OUT when the new one is whole")
    parser.add_argument("--verbose", action="store_true", help="say of each layer how it is stored, and why")
    parser.add_argument("--upload-repo", metavar="NAME", help="then upload the folder to this Hub repository")
    quantize = parser.add_argument_group("quantization")
    quantize.add_argument("-q", "--quantize", action="store_true", help="quantize the decoder")
    quantize.add_argument("--q-bits", type=int, metavar="N", help="bits per weight (default: 4, mxfp8: 8)")
    quantize.add_argument("--q-group-size", type=int, metavar="N", help="weights that share a scale (default: 64)")
    quantize.add_argument("--q-mode", choices=FORMATS, help="format of the codes (default: affine)")
    quantize.add_argument(
        "--q-recipe",
        "--quant-predicate",
        choices=RECIPES,
        help="few bits for most layers and more for sensitive ones, in place of --q-bits",
    )
    for part, default in zip(_PARTS, ("as the decoder", "none", "none"), strict=True):
        what = "embeddings and head" if part == "embeddings" else part
        quantize.add_argument(
            f"--q-{part}",
            metavar="FORMAT",
            help=f"format of the {what}: bits, {_MODE_NAMES} or none (default: {default})",
        )
    quantize.add_argument(
        "--skip", action="append", metavar="PATTERN", help="keep layers of this path, * for anything; may be repeated"
    )
    quantize.add_argument(
        "--allow-unquantized", action="store_true", help="go on where no layer can be quantized as asked"
    )
    add_quality_options(parser)
    return parser


def _quantization(arguments: argparse.Namespace) -> QuantizationOptions | None:
    """What the options ask for; None without -q."""
    parts = {part: getattr(arguments, f"q_{part}") for part in _PARTS}
    given = {"--q-bits": arguments.q_bits, "--q-group-size": arguments.q_group_size, "--q-mode": arguments.q_mode}
    given |= {"--q-recipe": arguments.q_recipe, "--skip": arguments.skip}
    given |= {"--allow-unquantized": arguments.allow_unquantized or None}
    given |= {f"--q-{part}": text for part, text in parts.items()}
    if not arguments.quantize:
        if useless := [option for option, value in given.items() if value is not None]:
            raise ValueError(f"{' and '.join(useless)} asks for quantization; add -q")
        return None
    if arguments.q_recipe is not None and arguments.q_bits is not None:
        raise ValueError(f"--q-bits {arguments.q_bits} and --q-recipe {arguments.q_recipe} exclude each other")
    mode = arguments.q_mode or "affine"
    bits, group_sizes = FORMATS[mode]
    default_bits, default_group_size = 4 if 4 in bits else bits[0], 64 if 64 in group_sizes else group_sizes[0]
    group_size = default_group_size if arguments.q_group_size is None else arguments.q_group_size
    return QuantizationOptions(
        bits=default_bits if arguments.q_bits is None else arguments.q_bits,
        group_size=group_size,
        mode=mode,
        recipe=arguments.q_recipe,
        parts={
            part: parse_format(text, group_size if mode == "affine" else 64)
            for part, text in parts.items()
            if text is not None
        },
        skip=arguments.skip or (),
    )


def _export_adapter(arguments: argparse.Namespace) -> None:
    useless = [name for name in _NOT_FOR_EXPORTS if getattr(arguments, name)]
    if arguments.mlx_path != _parser().get_default("mlx_path"):
        useless.append("mlx_path")
    if useless:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise ValueError(f"--export-adapter converts no model; leave {options} out")
    sources = adapter_sources(arguments.adapter_path)
    if len(sources) != 1:
        raise ValueError(f"--export-adapter takes one --adapter-path, {len(sources)} were given")
    folder, notes = export_adapter(
        sources[0], arguments.export_adapter, adapter_format=arguments.adapter_format, base=arguments.hf_path
    )
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    for note in notes:
        say(f"note: {note}")


def _command(words: list[str]) -> str:
    """The command line as others could run it: of paths on this machine, only the last name is shown."""

    def shown(word: str) -> str:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        return option + equals + (Path(value).name if os.path.isabs(value) or os.path.exists(value) else value)

    return f"python -m mlx_smolvlm.convert {shlex.join(map(shown, words))}"


def _print(report: ConversionReport, arguments: argparse.Namespace) -> None:
    print(f"{report.folder}: {report.size_bytes / 1e6:.1f} MB, {report.bits_per_weight:.2f} bits per weight")
    if arguments.target_bpw is not None:
        fixed = arguments.q_embeddings is not None
        what, bits = (
            ("without embeddings and head", report.bits_of("decoder"))
            if fixed
            else ("with embeddings and head", report.bits_of("decoder", "embeddings"))
        )
        print(
            f"decoder {what}: {bits:.2f} bits per weight (--target-bpw {arguments.target_bpw:g}); the whole model: "
            f"{report.bits_per_weight:.2f}"
        )
    for note in report.notes:
        say(f"note: {note}")
    if arguments.verbose:
        for path, layer_format in report.plan.items():
            print(f"{path}: {layer_format or f'not quantized, {report.reasons[path]}'}")
    elif report.quantized or arguments.quantize:
        for line in report.summary():
            print(line)


def _upload(report: ConversionReport, repo_id: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(folder_path=report.folder, repo_id=repo_id)
    except Exception as error:  # those of the HTTP and storage clients beneath have no common base
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConnectionError(f"could not upload to {repo_id} ({what}); the folder {report.folder} is whole") from None
    say(f"uploaded to {repo_id}")


if __name__ == "__main__":
    main()
