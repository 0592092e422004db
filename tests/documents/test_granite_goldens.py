"""granite-docling's own configuration, tokens and template: what the reference makes of them (see the golden file)."""

import hashlib

import numpy as np
import pytest
from support.granite_checkpoint import IMAGES, golden, weights_digest, write_granite_checkpoint

from mlx_smolvlm import BatchRequest, Rows, load, stream_generate
from mlx_smolvlm.model.config import read_model_config
from mlx_smolvlm.processor.processor import load_processor

CASES = golden()["cases"]
END = 100257


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = write_granite_checkpoint(tmp_path_factory.mktemp("granite") / "files", has_weights=False)
    return load_processor(folder, read_model_config(folder))


@pytest.fixture(scope="module")
def granite_pair(tmp_path_factory):
    folder = write_granite_checkpoint(tmp_path_factory.mktemp("granite") / "model")
    assert weights_digest(folder) == golden()["weights_sha256"], "this numpy makes other random numbers"
    return load(folder, dtype="float32")


def images_of(case):
    return [IMAGES / name for name in case["images"]]


def question(case):
    content = [{"type": "image"}] * len(case["images"]) + [{"type": "text", "text": case["text"]}]
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("name", CASES)
def test_prompts_are_the_references(processor, name):
    case = CASES[name]
    expected = [token for token, count in case["input_ids"] for _ in range(count)]
    with processor.prepare(question(case), images_of(case)) as prompt:
        assert prompt.input_ids == expected


def test_a_rendered_prompt_is_known_by_its_first_token(processor):
    case = CASES["text"]
    rendered = (
        f"<|start_of_role|>user<|end_of_role|>{case['text']}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
    )
    with processor.prepare(rendered) as prompt:
        assert prompt.input_ids == [token for token, count in case["input_ids"] for _ in range(count)]


@pytest.mark.parametrize("name", ["strip", *(pytest.param(n, marks=pytest.mark.slow) for n in ("letter", "two"))])
def test_pixels_are_the_references(processor, name):
    case = CASES[name]
    inputs = processor(question(case), images_of(case))
    pixels = np.ascontiguousarray(np.asarray(inputs.pixel_values).transpose(0, 3, 1, 2))
    assert list(pixels.shape) == case["pixels_shape"]
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == case["pixels_sha256"]


def test_special_tokens_stay_and_locations_are_none(processor):
    for known in golden()["tokens"]:
        ids = processor.tokenizer.encode(known["text"], add_special_tokens=False).ids
        assert ids == known["ids"]
        assert processor.decode(ids, skip_special_tokens=False) == known["keep_special"]
        assert processor.decode(ids) == known["skip_special"]


def test_a_token_beyond_the_embeddings_ends_nothing(processor):
    """added_tokens.json names <end_of_utterance> 100352, which is the number of embeddings."""
    assert golden()["files"]["added_tokens.json"] == {"<end_of_utterance>": 100352}
    assert processor.stop_token_ids == {END}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_answers_are_the_references(granite_pair, name):
    case = CASES[name]
    steps = stream_generate(*granite_pair, question(case), images=images_of(case), max_tokens=64)
    assert [step.token_id for step in steps] == case["greedy"]


@pytest.mark.slow
def test_four_pages_together_give_what_each_gives_alone(granite_pair):
    names, found = golden()["batch"]["cases"], {}
    with Rows(*granite_pair, batch_size=4) as rows:
        for name in names:
            rows.add(BatchRequest(CASES[name]["text"], images_of(CASES[name])), key=name, max_tokens=64)
        while rows:
            for event in rows.step():
                found.setdefault(event.key, []).append(event.token_id)
    assert [found[name] for name in names] == golden()["batch"]["greedy"]
