"""Shared fixtures: a program with the demo model, and what the same questions get in Python."""

import pytest
from support.bridge import Program

from mlx_smolvlm import stream_generate
from mlx_smolvlm.bridge import Engine


@pytest.fixture(scope="module")
def program():
    """A program that has loaded the demo model as number 1."""
    program = Program(Engine())
    assert program.ask("load", dtype="float32")[-1]["event"] == "loaded"
    yield program
    program.ask("unload", model=1)  # its threads would be counted by tests of other files


@pytest.fixture(scope="module")
def expected(demo):
    """A function from a question to text and token ids as `stream_generate` has them."""

    def answer(prompt, **arguments):
        steps = list(stream_generate(*demo, prompt, **arguments))
        return "".join(step.text for step in steps), [step.token_id for step in steps]

    return answer
