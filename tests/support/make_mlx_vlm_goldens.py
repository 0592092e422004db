"""Make goldens/mlx_vlm.json: what mlx-vlm answers from folders converted here, and check the other direction.

    pip install mlx-vlm
    PYTHONPATH=.:tests python tests/support/make_mlx_vlm_goldens.py

Committed goldens: mlx-vlm 0.7.10, MLX 0.32 on a CPU. A folder that mlx-vlm made is not committed: the script itself
compares what the two programs answer from it.
"""

import json
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_smolvlm import load
from mlx_smolvlm.convert import LayerFormat, QuantizationOptions, convert_checkpoint

GOLDEN = Path(__file__).parent.parent / "goldens" / "mlx_vlm.json"
CHECKPOINT = Path(__file__).parent.parent.parent / "examples" / "demo_model" / "checkpoint"
NUM_TOKENS = 6
CASES = {
    "plain": None,
    "4 bits": QuantizationOptions(),
    "mixed": QuantizationOptions(
        recipe="mixed_3_6",
        parts={"vision": LayerFormat(4, 16, "nvfp4"), "connector": LayerFormat(5, 128)},
        skip=["*.layers.1.mlp.up_proj"],
    ),
    "mxfp4": QuantizationOptions(4, 32, "mxfp4", parts={"connector": LayerFormat(8, 32, "mxfp8")}),
}


def prompt(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and the pixels (1, size, size, 3), uint8, of a tile of noise."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vision = config["vision_config"]
    num_image_tokens = (vision["image_size"] // vision["patch_size"] // config["scale_factor"]) ** 2
    ids = [1, 50, 60, *[config["image_token_id"]] * num_image_tokens, 70, 80, 90]
    shape = (1, vision["image_size"], vision["image_size"], 3)
    return np.array(ids), np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def our_answer(folder: Path) -> list[int]:
    """Greedy tokens of this project, in float32."""
    model, _ = load(folder, dtype="float32")
    ids, pixels = prompt(folder)
    cache = model.make_cache()
    embeddings = model.input_embeddings(ids, model.image_features(pixels))
    answer: list[int] = []
    while len(answer) < NUM_TOKENS:
        logits = model.language_model.logits(model.language_model(embeddings, cache))
        answer.append(int(mx.argmax(logits[0, -1]).item()))
        embeddings = model.input_embeddings(answer[-1:], None)
    return answer


def their_answer(folder: Path) -> list[int]:
    """Greedy tokens of mlx-vlm; the folder's own types."""
    from mlx_vlm.models.cache import make_prompt_cache
    from mlx_vlm.utils import load_model

    model = load_model(folder)
    ids, pixels = prompt(folder)
    pixel_values = mx.array(pixels.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)[None]
    tokens = mx.array(ids)[None]
    cache = make_prompt_cache(model.language_model)
    embeddings = model.get_input_embeddings(tokens, pixel_values).inputs_embeds
    logits = model.language_model(tokens, inputs_embeds=embeddings, cache=cache).logits
    answer: list[int] = []
    while len(answer) < NUM_TOKENS:
        answer.append(int(mx.argmax(logits[0, -1]).item()))
        logits = model.language_model(mx.array([answer[-1:]]), cache=cache).logits
    return answer


def main() -> None:
    from mlx_vlm.convert import convert

    mx.set_default_device(mx.cpu)
    golden = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, quantization in CASES.items():
            convert_checkpoint(CHECKPOINT, folder / case, quantization=quantization, dtype="float32")
            golden[case] = their_answer(folder / case)
        for bits in (4, 8):
            made = folder / f"theirs{bits}"
            convert(str(folder / "plain"), str(made), True, 64, bits, dtype="float32", trust_remote_code=False)
            assert our_answer(made) == their_answer(made), bits
    GOLDEN.write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
