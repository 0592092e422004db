"""What Python answers to the questions of the tests, as JSON."""

import json
import sys
from pathlib import Path

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
        "rgb": {"text": "", "ids": list(mlx_smolvlm.media.images.load_image(picture).size)},
    },
    sys.stdout,
)
Path(sys.argv[1]).write_bytes(mlx_smolvlm.media.images.load_image(picture).tobytes())
