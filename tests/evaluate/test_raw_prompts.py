"""The server's `/v1/completions` answers raw prompts as the protocol does in this process, token by token."""

import pytest
from support.server import DEMO, data_url, running_server

from mlx_smolvlm import stream_generate
from mlx_smolvlm.evaluate.data.eval_rows import EvalRow, ImageRef
from mlx_smolvlm.evaluate.prompts.row_prompts import WrapperChoice, row_prompt

PICTURES = [DEMO / "picture.png", DEMO / "first.png", DEMO / "second.png"]
OPTIONS = {"A": "red", "B": "blue <image 1>"}


@pytest.fixture(scope="module")
def server(demo):
    with running_server(demo) as running:
        yield running


@pytest.mark.parametrize(
    ("dataset", "count", "options"),
    [
        ("Other", 1, {}),
        ("OCRBench", 2, {}),
        ("MMStar", 1, OPTIONS),
        ("MMMU_DEV_VAL", 2, OPTIONS),
        ("ChartQA_TEST", 1, {}),
    ],
)
def test_completions_equal_the_protocol(server, demo, dataset, count, options):
    images = [ImageRef(path.name, path) for path in PICTURES[:count]]
    row = EvalRow(1, dataset, "What color is it?", options=options, answer="red", images=images)
    prompt = row_prompt(row, WrapperChoice("smolvlm2", 512)).prompt
    steps = list(
        stream_generate(
            *demo,
            prompt.text,
            images=[PICTURES[number] for number in prompt.images],
            apply_chat_template=False,
            max_tokens=24,
            logprobs=0,
        )
    )
    body = {
        "prompt": prompt.text,
        "images": [data_url(PICTURES[number]) for number in prompt.images],
        "max_tokens": 24,
        "temperature": 0,
        "logprobs": 0,
    }
    answer = server.http.post("/v1/completions", json=body).json()
    (choice,) = answer["choices"]
    assert choice["text"] == "".join(step.text for step in steps)
    assert choice["finish_reason"] == steps[-1].finish_reason
    shown = [step for step in steps if step.finish_reason != "stop"]  # the server leaves the end token out
    assert choice["logprobs"]["tokens"] == [demo[1].decode([step.token_id]) for step in shown]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx([step.logprob for step in shown], abs=1e-3)
    assert answer["usage"]["prompt_tokens"] == steps[-1].prompt_tokens
    assert answer["usage"]["completion_tokens"] == steps[-1].completion_tokens
