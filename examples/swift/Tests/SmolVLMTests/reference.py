"""What Python answers to the questions of the tests, as JSON."""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import mlx_smolvlm
from mlx_smolvlm import Session, stream_generate

DEMO = Path(mlx_smolvlm.__file__).parent / "demo"
COLOR = "What color is the shape?"
WAY = "Which way does the shape move?"
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["red", "blue"]}}, "required": ["a"]}
model, processor = mlx_smolvlm.load(mlx_smolvlm.DEMO_MODEL)


def answer(steps):
    steps = list(steps)
    return {"text": "".join(step.text for step in steps), "ids": [step.token_id for step in steps]}


def generate(prompt, **options):
    return answer(stream_generate(model, processor, prompt, **options))


def write_adapter(folder):
    """One that changes what the model answers."""
    path = "model.text_model.layers.0.mlp.down_proj"
    out, width = model.config.text.hidden_size, model.config.text.intermediate_size
    random = np.random.RandomState(0)
    a, b = random.standard_normal((2, width)).astype(np.float32), random.standard_normal((out, 2)).astype(np.float32)
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [path]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    names = (f"base_model.model.{path}.lora_{part}.weight" for part in "AB")
    save_file(dict(zip(names, (a, b), strict=True)), folder / "adapter_model.safetensors")
    return folder


adapter = write_adapter(Path(sys.argv[1] + ".adapter"))
adapted = mlx_smolvlm.load(mlx_smolvlm.DEMO_MODEL, adapters=(adapter, 0.5))
session = Session(model, processor)
picture, second, clip = (DEMO / name for name in ("picture.png", "second.png", "clip.mp4"))
json.dump(
    {
        "picture": generate(COLOR, images=[picture]),
        "two": generate("What is different between the two pictures?", images=[picture, second]),
        "video": generate(WAY, videos=[clip]),
        "schema": generate(COLOR, images=[picture], json_schema=SCHEMA),
        "first": answer(session.ask(WAY, videos=[clip])),
        "follow": answer(session.ask(COLOR)),
        "adapted": answer(stream_generate(*adapted, COLOR, images=[picture], max_tokens=8)),
        "rgb": {"text": "", "ids": list(mlx_smolvlm.media.images.load_image(picture).size)},
    },
    sys.stdout,
)
Path(sys.argv[1]).write_bytes(mlx_smolvlm.media.images.load_image(picture).tobytes())
