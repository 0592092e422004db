"""The base and the adapters on which torch, PEFT and TRL recorded the goldens of training, rebuilt from their seeds."""

import json
import math
from pathlib import Path

import numpy as np

from .checkpoint_configs import chat_template
from .checkpoints import weight_shapes
from .retrievers import PROJECTIONS, golden_tensor, in_drawing_order, write_in_order, write_narrow_files

TRAINING_GOLDENS = Path(__file__).parent.parent / "goldens" / "training"
ADAPTERS = ("lora_notebook", "dora_text", "rslora")
_SEED = 100


def expected() -> dict:
    """What the reference found."""
    return json.loads((TRAINING_GOLDENS / "expected.json").read_text(encoding="utf-8"))


def write_golden_base(folder: Path) -> Path:
    """The base; its digest is checked."""
    config = write_narrow_files(folder, "SmolVLMForConditionalGeneration", "smolvlm")
    template = {"chat_template": chat_template("smolvlm_256m")}
    (folder / "chat_template.json").write_text(json.dumps(template), encoding="utf-8")
    shapes = in_drawing_order(weight_shapes(config | {"tie_word_embeddings": False}))
    random = np.random.default_rng(_SEED)
    digest = write_in_order(
        folder / "model.safetensors", {name: golden_tensor(name, shape, random) for name, shape in shapes.items()}
    )
    assert digest == expected()["checksums"]["base/model.safetensors"]
    return folder


def write_golden_adapter(folder: Path, base: Path, name: str) -> Path:
    """One of `ADAPTERS`, in PEFT's format; its digest is checked."""
    from safetensors.numpy import load_file

    weights = load_file(base / "model.safetensors")
    text = _modules(weights, ".text_model.", PROJECTIONS)
    number = ADAPTERS.index(name)
    modules = [
        text + _modules(weights, ".vision_model.", ("q_proj", "k_proj", "v_proj")),
        text,
        [*_modules(weights, ".text_model.", ("q_proj", "v_proj")), "model.connector.modality_projection.proj"],
    ][number]
    rank, alpha, size = [(8, 8, 0.4), (8, 16, 0.2), (4, 16, 0.06)][number]
    random, tensors = np.random.default_rng(_SEED + 1 + number), {}
    for module in modules:
        weight = weights[f"{module}.weight"]
        rows, width = weight.shape
        a = random.standard_normal((rank, width), dtype=np.float32) / np.float32(math.sqrt(width))
        b = random.standard_normal((rows, rank), dtype=np.float32) * np.float32(size / math.sqrt(rank))
        path = f"base_model.model.{module}"
        tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
        if name == "dora_text":
            norms = np.sqrt((weight.astype(np.float64) ** 2).sum(1))
            magnitude = norms * (1 + 0.05 * random.standard_normal(rows))
            tensors[f"{path}.lora_magnitude_vector"] = magnitude.astype(np.float32)
    folder.mkdir()
    digest = write_in_order(folder / "adapter_model.safetensors", dict(sorted(tensors.items())))
    assert digest == expected()["checksums"][f"{name}/adapter_model.safetensors"]
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "base_model_name_or_path": str(base)}
    config |= {"use_dora": name == "dora_text", "use_rslora": name == "rslora"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _modules(weights: dict[str, np.ndarray], part: str, names: tuple[str, ...]) -> list[str]:
    """In the order in which they were drawn, which is that of the checkpoint's shapes."""
    layers = sorted(
        {int(name.split(".layers.")[1].split(".")[0]) for name in weights if part in name and ".layers." in name}
    )
    tower = "model.text_model.layers" if part == ".text_model." else "model.vision_model.encoder.layers"
    order = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    blocks = {name: "mlp" if name in order[4:] else "self_attn" for name in order}
    return [f"{tower}.{n}.{blocks[name]}.{name}" for n in layers for name in order if name in names]
