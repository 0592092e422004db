"""Answers the rows of an evaluation with transformers, and writes the same form of results.

    pip install torch transformers torchvision num2words
    python examples/evaluate_reference.py MMStar.tsv --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct --out reference
    python -m mlx_smolvlm.evaluate MMStar.tsv --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct --out ported
    python -m mlx_smolvlm.evaluate --compare reference ported --out comparison

It does what VLMEvalKit's wrapper does: float32, greedy, one row at a time, raw prompts. Rows, prompts, frames and
scores come from mlx_smolvlm; tiles, tokens and answers from transformers. MLX is not needed.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_smolvlm.command_line.progress import Progress
from mlx_smolvlm.command_line.runner import CommandLine, one_line, output_path, refuse_tracebacks
from mlx_smolvlm.evaluate.data.row_files import read_rows
from mlx_smolvlm.evaluate.prompts.row_prompts import MAX_TOKENS, VLMEVALKIT, row_prompt, wrapper_for
from mlx_smolvlm.evaluate.prompts.wrapper_prompts import WRAPPERS
from mlx_smolvlm.evaluate.runs.eval_report import write_summary
from mlx_smolvlm.evaluate.runs.evaluation_folder import EvaluationFolder, file_digest
from mlx_smolvlm.evaluate.runs.row_results import AskedRow
from mlx_smolvlm.evaluate.runs.summary import summary_text
from mlx_smolvlm.media.images import load_image
from mlx_smolvlm.options import MediaOptions


@dataclass
class Reference:
    """A model of transformers and its processor."""

    model: Any
    processor: Any
    max_tokens: int

    def answer(self, prompt: str, images: list[Any], media: MediaOptions) -> tuple[str, list[int], str]:
        """The answer's text, its tokens, and why it ended: "stop" or "length"."""
        import torch

        image_processor = self.processor.image_processor
        before = image_processor.size, image_processor.do_image_splitting
        try:
            if media.longest_edge is not None:  # of a video's frames; the suite's wrapper never sets it back
                image_processor.size = {"longest_edge": media.longest_edge}
                image_processor.do_image_splitting = False
            pictures = [load_image(image) for image in images]
            inputs = self.processor(text=prompt, images=[pictures] if pictures else None, return_tensors="pt")
        finally:
            image_processor.size, image_processor.do_image_splitting = before
        with torch.no_grad():
            output = self.model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)
        token_ids = output[0, inputs["input_ids"].shape[1] :].tolist()
        text = self.processor.batch_decode([token_ids], skip_special_tokens=True)[0]
        return text, token_ids, "length" if len(token_ids) == self.max_tokens else "stop"


def main() -> None:
    """Run the command line."""
    with refuse_tracebacks():
        _run(_parser().parse_args())


def _run(arguments: argparse.Namespace) -> None:
    paths = [Path(name) for name in arguments.data]
    rows = read_rows(paths, arguments.dataset, arguments.image_root).rows[: arguments.limit]
    choice = wrapper_for(arguments.model, arguments.wrapper)
    reference = _load(arguments.model, arguments.max_tokens)
    settings = {
        "model": f"{arguments.model} by transformers",
        "fingerprint": arguments.model,
        "dtype": "float32",
        "protocol": VLMEVALKIT,
        "wrapper": choice.wrapper,
        "max_tokens": arguments.max_tokens,
        "dataset": arguments.dataset,
        "rows": len(rows),
        "data": [{"name": path.name, "sha256": file_digest(path)} for path in paths],
    }
    with EvaluationFolder(arguments.out, settings, [row.key for row in rows]) as folder, Progress() as progress:
        folder.note_places(paths, arguments.image_root)
        todo = rows[folder.done :]
        progress.stage(total=len(todo), unit="rows")
        for row in todo:
            asked = AskedRow(row, row.digest())
            try:
                found = row_prompt(row, choice)
                images = asked.show(found)
                result = asked.result(*reference.answer(asked.prompt, images, found.prompt.media_options))
            except (ValueError, TypeError, OSError) as error:
                result = asked.result(error=one_line(error))
            folder.add(result, {"dataset": row.dataset, "index": row.index})
            progress.advance()
    print(summary_text(write_summary(arguments.out, rows, settings)))


def _load(name: str, max_tokens: int) -> Reference:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(name, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(name)
    processor.image_processor = AutoImageProcessor.from_pretrained(name, backend="pil")  # as the suite resized
    return Reference(model, processor, max_tokens)


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python examples/evaluate_reference.py", description="Answer the rows of an evaluation with transformers."
    )
    parser.add_argument("data", nargs="+", metavar="DATA", help="rows, as mlx_smolvlm.evaluate takes them")
    parser.add_argument("--model", required=True, metavar="PATH_OR_HUB_ID", help="checkpoint")
    parser.add_argument("--out", required=True, type=output_path, metavar="DIR", help="folder for the results")
    parser.add_argument("--dataset", metavar="NAME", help="VLMEvalKit's name of the set")
    parser.add_argument("--image-root", type=Path, metavar="DIR", help="where paths in rows count from")
    parser.add_argument("--wrapper", choices=tuple(WRAPPERS), help="whose prompts (default: by the model)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, metavar="N", help="most tokens of an answer")
    return parser


if __name__ == "__main__":
    main()
