"""Known answers: what holds, what differs and what cannot be run is told, with the demo model as a stand-in."""

import json

import numpy as np
import pytest
from PIL import Image

from mlx_smolvlm import DEMO_MODEL, stream_generate
from mlx_smolvlm.evaluate.published.known_answers import (
    KNOWN_ANSWERS,
    check_known_answers,
    check_line,
    environment_line,
    read_known_answers,
)

PROMPT = "<|im_start|>User:<image>What color is it?<end_of_utterance>\nAssistant:"


@pytest.fixture(scope="module")
def record(demo):
    """What the demo model answers to a grey image."""
    model, processor = demo
    image = Image.new("RGB", (80, 60), (128, 128, 128))
    inputs = processor(PROMPT, images=[image], apply_chat_template=False)
    logits = np.array(model(inputs.input_ids, inputs.pixel_values)[0, -1])
    steps = list(stream_generate(model, processor, PROMPT, images=[image], max_tokens=3))
    return {
        "model": "someone/model",
        "name": "grey",
        "prompt": PROMPT,
        "images": [{"width": 80, "height": 60}],
        "dtype": "float32",
        "prompt_ids": inputs.input_ids,
        "image_tokens": 20,
        "marker_ids": [token for token in inputs.input_ids if 3 <= token <= 9],
        "first_logits": {str(token): float(logits[token]) for token in np.argsort(logits)[-2:]},
        "answer_ids": [step.token_id for step in steps],
        "text_start": "".join(step.text for step in steps)[:2],
        "source": "this test",
    }


def written(folder, *records):
    path = folder / "known.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def test_what_holds_and_what_differs(record, tmp_path):
    wrong = {
        "prompt_ids": [1, 2, 3],
        "image_tokens": 21,
        "marker_ids": record["marker_ids"] * 2,
        "first_logits": {key: value + 0.1 for key, value in record["first_logits"].items()},
        "answer_ids": [5, *record["answer_ids"][1:]],
        "text_start": "xy",
    }
    path = written(tmp_path, record, *(record | {name: value} for name, value in wrong.items()))
    right, *others = check_known_answers(read_known_answers(path), str(DEMO_MODEL))
    assert check_line(right).startswith(
        "ok   someone/model, float32: grey: prompt ids; 20 image tokens; layout markers"
    )
    assert len(right.compared) == len(wrong) and not right.differences
    assert [len(other.differences) for other in others] == [1] * len(wrong)
    assert check_line(others[0]).startswith("FAIL someone/model")


def test_a_checkpoint_that_cannot_be_had_fails_and_the_rest_goes_on(record, tmp_path):
    missing = record | {"model": str(tmp_path / "nothing")}
    checked = list(
        check_known_answers(read_known_answers(written(tmp_path, missing, record | {"model": str(DEMO_MODEL)})))
    )
    assert "could not be run" in check_line(checked[0]) and not checked[1].differences


def test_the_same_reason_is_told_once_and_a_checkpoint_asked_for_once(record, tmp_path, monkeypatch):
    """Where the Hub could not be reached, four lines gave the same advice, each after another wait for it."""
    asked = []

    def load(path, **_):
        asked.append(path)
        raise ConnectionError(f"the Hub cannot be reached for {path}; get it elsewhere")

    monkeypatch.setattr("mlx_smolvlm.evaluate.published.known_answers.load", load)
    records = [record | {"model": model, "name": name} for model, name in (("a/b", "1"), ("a/b", "2"), ("c/d", "3"))]
    lines = [check_line(checked) for checked in check_known_answers(read_known_answers(written(tmp_path, *records)))]
    assert asked == ["a/b", "c/d"]
    assert lines[0].endswith("1: could not be run: the Hub cannot be reached for a/b; get it elsewhere")
    assert [line.partition("be run, ")[2] for line in lines[1:]] == ["for the same reason as 1"] * 2


def test_records_are_checked(record, tmp_path):
    for records, problem in [
        ([{**record, "modle": "x"}], "record 1 has the unknown field 'modle'"),
        ([record, {"model": "x", "name": "y"}], "record 2 has no prompt"),
        ([{**record, "dtype": "int4"}], "dtype 'int4', expected bfloat16"),
        ([3], "no list of known answers"),
    ]:
        with pytest.raises(ValueError, match=problem):
            read_known_answers(written(tmp_path, *records))
    (tmp_path / "known.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_known_answers(tmp_path / "known.json")


def test_the_shipped_ones_are_chosen_by_model():
    known = read_known_answers(KNOWN_ANSWERS)
    assert {answer.model.split("/")[1] for answer in known} == {
        "SmolVLM2-500M-Video-Instruct",
        "SmolVLM2-2.2B-Instruct",
    }
    assert len(read_known_answers(model="folder/SmolVLM2-2.2B-Instruct")) == 2
    with pytest.raises(ValueError, match="nothing is known of 'other'"):
        read_known_answers(model="other")
    assert "Device(" in environment_line() and "mlx " in environment_line()
