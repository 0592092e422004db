"""What goes wrong with one prompt of many is its own answer's error, and no other's."""

import errno
from itertools import count, repeat

import mlx.core as mx
import pytest

from mlx_smolvlm import DEMO_MODEL, BatchRequest, GenerationOptions, Rows, generate_batch, load, stream_generate
from mlx_smolvlm.engine import rows as rows_module
from mlx_smolvlm.engine import structured


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


def test_a_full_disk_is_told_again_by_every_step(demo, monkeypatch):
    """The second one ended in an AssertionError."""

    def prepare(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(demo[1], "prepare", prepare)
    with Rows(*demo) as rows:
        rows.add(BatchRequest("Hello"))
        for _ in range(2):
            with pytest.raises(OSError, match="full"):
                while True:
                    rows.step()


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


def test_requests_are_read_no_further_than_needed_if_all_are_refused(demo):
    """They were read to the end before the first answer came."""
    single = GenerationOptions(prompt_lookup_tokens=3)
    read = count()
    answers = generate_batch(*demo, (BatchRequest(f"{next(read)}", options=single) for _ in repeat(None)))
    assert [next(answers).index for _ in range(20)] == list(range(20))
    assert next(read) < 40


def test_an_extra_that_is_missing_is_an_error_of_those_that_need_it(demo, monkeypatch):
    def absent():
        raise ImportError("json_schema and regex need llguidance")

    monkeypatch.setattr(structured, "_llguidance", absent)
    requests = [BatchRequest("Hello", options=GenerationOptions(regex="never asked for before")), BatchRequest("Hello")]
    answers = {answer.index: answer for answer in generate_batch(*demo, requests, max_tokens=2)}
    assert isinstance(answers[0].error, ImportError)
    assert answers[1].error is None


def test_a_processor_refuses_media_that_are_no_list(demo):
    for prompt in ("What?", [{"role": "user", "content": "What?"}], "<|im_start|>User:<image>"):
        with pytest.raises(ValueError, match=r"images is 'a\.png', expected a list"):
            demo[1](prompt, "a.png")
