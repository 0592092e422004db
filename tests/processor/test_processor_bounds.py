"""Prompts, messages and tokenizers that would cost too much, or that panic, are refused in one short line."""

import json

import pytest
from support.editing import copied

from mlx_smolvlm import load
from mlx_smolvlm.processor.messages import MAX_MESSAGES, MAX_PROMPT_CHARS
from mlx_smolvlm.processor.tokenizer_file import MAX_TOKENIZER_BYTES

LONG = "a" * (MAX_PROMPT_CHARS + 1)


@pytest.mark.parametrize(
    "prompt",
    [LONG, "<|im_start|>" + LONG, [{"role": "user", "content": LONG}], [{"role": "user", "content": LONG[:-9]}] * 2],
    ids=["text", "rendered", "message", "messages"],
)
def test_a_prompt_beyond_the_limit_is_refused(pair, prompt) -> None:
    with pytest.raises(ValueError, match=rf"the prompt has \d+ characters, the limit is {MAX_PROMPT_CHARS}"):
        pair[1](prompt)


def test_more_messages_than_the_limit_are_refused(pair) -> None:
    with pytest.raises(ValueError, match=f"there are {MAX_MESSAGES + 1} messages, the limit is {MAX_MESSAGES}"):
        pair[1]([{"role": "user", "content": "a"}] * (MAX_MESSAGES + 1))


def edit(change):
    def edited(path) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return edited


def sparse(path) -> None:
    with path.open("r+b") as file:
        file.truncate(30 * 10**9)


ODDITIES = {
    "panic while loading": (
        edit(lambda t: t["model"].update(continuing_subword_prefix="é")),
        "is not a tokenizer: slice",
    ),
    "panic while encoding": (
        edit(lambda t: t.update(pre_tokenizer={"type": "FixedLength", "length": 0})),
        "cannot encode this prompt: chunk size",
    ),
    "an expression that backtracks": (
        edit(
            lambda t: t.update(
                pre_tokenizer={
                    "type": "Split",
                    "pattern": {"Regex": "(a+)+$"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            )
        ),
        "cannot encode this prompt: Onig: Regex search error: retry-limit",
    ),
    "random tokens": (edit(lambda t: t["model"].update(dropout=0.5)), "dropout is 0.5"),
    "sparse": (sparse, f"30000000000 bytes, the limit for this file is {MAX_TOKENIZER_BYTES}"),
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_odd_tokenizer_is_refused(checkpoint, tmp_path, oddity: str) -> None:
    change, problem = ODDITIES[oddity]
    folder = copied(checkpoint("smolvlm_256m"), tmp_path / "model")
    change(folder / "tokenizer.json")
    with pytest.raises(ValueError, match=problem) as caught:
        load(folder)[1]("a" * 40 + "!")
    assert len(str(caught.value)) < 500
