"""A random bfloat16 checkpoint of a released geometry at full size, in two shards, made without holding it."""

import json
import shutil
from pathlib import Path

import mlx.core as mx

from support.checkpoints import distribution, weight_shapes, write_checkpoint
from support.editing import set_field
from support.released_configs import IMAGE_SEQ_LEN, RELEASED

_OMITTED = {"num_attention_heads": 32}, {"num_hidden_layers": 12, "intermediate_size": 3072}  # of text, of vision


def write_large_checkpoint(name: str, folder: Path) -> Path:
    """Write the geometry `name`, one of RELEASED, with a tiny checkpoint's tokenizer; returns the folder."""
    companions = write_checkpoint("smolvlm_256m", folder / "tiny")
    tiny = json.loads((companions / "config.json").read_text(encoding="utf-8"))
    config = RELEASED[name] | {"image_token_id": tiny["image_token_id"]}
    config["text_config"] = _OMITTED[0] | config["text_config"]
    config["vision_config"] = _OMITTED[1] | config["vision_config"]
    for file in companions.glob("*.json"):
        shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.rmtree(companions)
    tile_size = config["vision_config"]["image_size"]
    set_field(folder / "preprocessor_config.json", {"longest_edge": tile_size}, "max_image_size")
    set_field(folder / "preprocessor_config.json", {"longest_edge": 4 * tile_size}, "size")
    set_field(folder / "processor_config.json", IMAGE_SEQ_LEN[name], "image_seq_len")
    shapes = list(weight_shapes(config).items())
    weight_map = {}
    for number, part in enumerate((shapes[: len(shapes) // 2], shapes[len(shapes) // 2 :]), 1):
        file_name = f"model-{number:05d}-of-00002.safetensors"
        weights = {}
        for weight_name, shape in part:
            mean, deviation = distribution(weight_name, shape, tied=False)
            unit = mx.random.uniform(-1, 1, shape, dtype=mx.bfloat16, key=mx.random.key(len(weight_map)))
            weights[weight_name] = mean + deviation * 3**0.5 * unit
            mx.eval(weights[weight_name])
            weight_map[weight_name] = file_name
        mx.save_safetensors(str(folder / file_name), weights, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
