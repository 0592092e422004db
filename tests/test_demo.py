"""The embedded demo model sees: true answers on fresh scenes, through the same path as any model."""

import sys
from pathlib import Path
from random import Random

import mlx.core as mx
import pytest
from support.editing import WEIGHTS

from mlx_smolvlm import DEMO_MODEL, BatchRequest, GenerationOptions, generate_batch, generate_text
from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "demo_model"
sys.path.append(str(EXAMPLE))

import scenes  # noqa: E402
from evaluate import with_media  # noqa: E402

# The table in examples/demo_model/README.md is over 300 samples a task. Here so many of a few must be right that a
# model as good as that table fails once in a thousand, and one that guesses one of four answers passes once in 240.
SAMPLES, NEEDED = 8, 6


@pytest.mark.parametrize("task", scenes.QUESTIONS)
def test_the_demo_model_answers_truly(demo, tmp_path, task):
    asked = [scenes.scene_for(Random(f"test/{task}/{number}"), task) for number in range(SAMPLES)]
    folders = [tmp_path / str(number) for number in range(SAMPLES)]
    for folder in folders:
        folder.mkdir()
    requests = [BatchRequest(with_media(scene, folder)) for scene, folder in zip(asked, folders, strict=True)]
    answers = generate_batch(*demo, requests, options=GenerationOptions(max_tokens=48), batch_size=SAMPLES)
    assert sum(answer.text == asked[answer.index].turns[0][2] for answer in answers) >= NEEDED


def test_it_follows_a_conversation(demo):
    scene = scenes.picture_of_one_shape(Random("conversation"), ["describe", "color", "shape", "where"])
    chat = []
    for number, (_, question, answer) in enumerate(scene.turns):
        media = [{"type": "image", "image": scene.images[0]}] if number == 0 else []
        chat.append({"role": "user", "content": [*media, {"type": "text", "text": question}]})
        assert generate_text(*demo, chat) == answer
        chat.append({"role": "assistant", "content": answer})


def test_the_shipped_model_is_the_conversion_of_the_checkpoint(tmp_path):
    convert_checkpoint(EXAMPLE / "checkpoint", tmp_path / "converted", quantization=QuantizationOptions())
    shipped, made = (
        {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (WEIGHTS, "README.md")}
        for folder in (DEMO_MODEL, tmp_path / "converted")
    )
    assert shipped == made
    shipped_weights, weights = (mx.load(str(folder / WEIGHTS)) for folder in (DEMO_MODEL, tmp_path / "converted"))
    assert shipped_weights.keys() == weights.keys()
    assert all(mx.array_equal(shipped_weights[name], weights[name]) for name in weights)
    assert sum(path.stat().st_size for path in DEMO_MODEL.iterdir()) < 2.5e6


def test_a_scene_is_fixed_by_its_seed():
    first, second = (scenes.scene_for(Random("seed"), "describe") for _ in range(2))
    assert first.turns == second.turns
    assert first.images[0].tobytes() == second.images[0].tobytes()
