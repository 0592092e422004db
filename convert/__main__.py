"""`python -m mlx_smolvlm.convert`: arguments and printing."""

import argparse
import sys

from ..command_line import CommandLine, refuse_tracebacks
from ..loading import DTYPES
from .checkpoint import convert_checkpoint
from .plan import QuantizationOptions
from .quantize import FORMATS
from .report import ConversionReport


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input."""
    with refuse_tracebacks():
        arguments = _parser().parse_args()
        quantization = None
        if arguments.quantize:
            bits, group_sizes = FORMATS[arguments.q_mode]
            quantization = QuantizationOptions(
                bits=(4 if 4 in bits else bits[0]) if arguments.q_bits is None else arguments.q_bits,
                group_size=(64 if 64 in group_sizes else group_sizes[0])
                if arguments.q_group_size is None
                else arguments.q_group_size,
                mode=arguments.q_mode,
            )
        elif (arguments.q_bits, arguments.q_group_size, arguments.q_mode) != (None, None, "affine"):
            raise ValueError("--q-bits, --q-group-size and --q-mode ask for quantization; add -q")
        report = convert_checkpoint(
            arguments.hf_path,
            arguments.mlx_path,
            quantization=quantization,
            dtype=arguments.dtype,
            revision=arguments.revision,
        )
        _print(report)
        if arguments.upload_repo:
            _upload(report, arguments.upload_repo)


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.convert",
        description="Convert a SmolVLM-family checkpoint to an MLX folder, quantized or not.",
    )
    parser.add_argument("--hf-path", "--model", required=True, metavar="PATH_OR_HUB_ID", help="checkpoint to convert")
    parser.add_argument("--mlx-path", default="mlx_model", metavar="OUT", help="folder to make (default: mlx_model)")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--dtype", choices=DTYPES, help="type of what is not quantized (default: as in the file)")
    parser.add_argument("-q", "--quantize", action="store_true", help="quantize the decoder")
    parser.add_argument("--q-bits", type=int, metavar="N", help="bits per weight (default: 4, mxfp8: 8)")
    parser.add_argument("--q-group-size", type=int, metavar="N", help="weights that share a scale (default: 64)")
    parser.add_argument("--q-mode", choices=FORMATS, default="affine", help="format of the codes (default: affine)")
    parser.add_argument("--upload-repo", metavar="NAME", help="then upload the folder to this Hub repository")
    return parser


def _print(report: ConversionReport) -> None:
    print(f"{report.folder}: {report.size_bytes / 1e6:.1f} MB, {report.bits_per_weight:.2f} bits per weight")
    if report.quantized:
        print(f"quantized {len(report.quantized)} layers of the decoder; encoder and connector keep full precision")
    for path, reason in report.not_quantized.items():
        print(f"not quantized: {path}, {reason}")


def _upload(report: ConversionReport, repo_id: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(folder_path=report.folder, repo_id=repo_id)
    except Exception as error:  # those of the HTTP and storage clients beneath have no common base
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConnectionError(f"could not upload to {repo_id} ({what}); the folder {report.folder} is whole") from None
    print(f"uploaded to {repo_id}", file=sys.stderr)


if __name__ == "__main__":
    main()
