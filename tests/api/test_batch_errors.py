"""What goes wrong with one prompt of many is its own answer's error, and no other's."""

import errno
from itertools import count

import mlx.core as mx
import pytest

from mlx_smolvlm import DEMO_MODEL, BatchRequest, generate_batch, load, stream_generate
from mlx_smolvlm.engine import rows as rows_module


@pytest.fixture(scope="module")
def demo():
    """The demo model and its processor."""
    return load(DEMO_MODEL, dtype="float32")


def test_a_prompt_that_cannot_be_read_is_an_answer_with_an_error(demo):
    requests = [
        BatchRequest("x", ["no such.png"]),
        BatchRequest("Hello"),
        BatchRequest("x", [b"no picture"]),
        BatchRequest("x", [object()]),
        BatchRequest("<image>"),
        BatchRequest("", []),
        BatchRequest("long " * 20_000),
        BatchRequest("x", videos=["no such.mp4"]),
    ]
    answers = {answer.index: answer for answer in generate_batch(*demo, requests)}
    assert sorted(answers) == list(range(8))
    problems = ("no such file", None, "not an image", "object", "<image> marker", "empty", "context", "no such.mp4")
    for index, problem in enumerate(problems):
        answer = answers[index]
        if problem is None:
            assert (answer.error, answer.text) == (None, "".join(s.text for s in stream_generate(*demo, "Hello")))
        else:
            assert problem in str(answer.error)
            assert (answer.text, answer.token_ids, answer.finish_reason) == ("", [], None)


def test_values_that_are_not_finite_spoil_one_answer_alone(demo, monkeypatch):
    """In float16, one picture may overflow where all others are fine."""
    original, calls = rows_module.check_finite, count()

    def check(logits):
        original(logits * (mx.nan if next(calls) == 1 else 1))

    monkeypatch.setattr(rows_module, "check_finite", check)
    answers = list(generate_batch(*demo, [BatchRequest("Hello")] * 3))
    assert len(answers) == 3
    (error,) = [answer.error for answer in answers if answer.error]
    assert "values that are not finite" in str(error)


@pytest.mark.parametrize(("raised", "is_fatal"), [(LookupError("odd"), False), (OSError(errno.ENOSPC, "full"), True)])
def test_what_a_prompt_raises_is_its_own_error_but_a_full_disk_is_not(demo, monkeypatch, raised, is_fatal):
    model, processor = demo

    class Raising:
        def prepare(self, messages_or_prompt, *arguments, **options):
            if messages_or_prompt == "odd":
                raise raised
            return processor.prepare(messages_or_prompt, *arguments, **options)

        def __getattr__(self, name):
            return getattr(processor, name)

    answers = generate_batch(model, Raising(), [BatchRequest("odd"), BatchRequest("Hello"), "text"])
    if is_fatal:
        with pytest.raises(OSError, match="full"):
            list(answers)
        return
    errors = {answer.index: answer.error for answer in answers}
    assert errors[0] is raised
    assert errors[1] is None
    assert str(errors[2]) == "the request is str, expected a BatchRequest"


@pytest.mark.parametrize("media", ["a.png", b"...", {"a.png": 1}, object()])
def test_media_that_are_no_list_are_refused_at_once(media):
    """Of a path, each letter would be opened."""
    for name in ("images", "videos"):
        with pytest.raises(ValueError, match=rf"^{name} is .*, expected a list; pass a single one as {name}="):
            BatchRequest("x", **{name: media})


@pytest.mark.parametrize("requests", ["Hello", BatchRequest("Hello"), {"messages_or_prompt": "Hello"}, None])
def test_requests_that_are_no_list_are_refused_at_once(demo, requests):
    with pytest.raises(TypeError, match="expected BatchRequest objects in a list"):
        generate_batch(*demo, requests)


def test_a_processor_refuses_media_that_are_no_list(demo):
    for prompt in ("What?", [{"role": "user", "content": "What?"}], "<|im_start|>User:<image>"):
        with pytest.raises(ValueError, match=r"images is 'a\.png', expected a list"):
            demo[1](prompt, "a.png")
