"""What is wrong with a request, or within Python, is one error event, and the next request is answered."""

import pytest
from support.bridge import Program, text_of
from support.layout import PACKAGE

from mlx_smolvlm.bridge import Engine

PICTURE = PACKAGE / "demo" / "picture.png"
QUESTION = "What color is the shape?"


@pytest.mark.parametrize(
    ("request_fields", "kind", "message"),
    [
        ({"request": "respond", "model": 1, "promt": "?"}, "invalid_request", "did you mean 'prompt'?"),
        ({"request": "respond", "model": 1}, "invalid_request", "respond has no prompt, expected text"),
        ({"request": "respond", "model": "1", "prompt": "?"}, "invalid_request", "model is '1', expected a whole"),
        ({"request": "respond", "model": True, "prompt": "?"}, "invalid_request", "model is True, expected a whole"),
        ({"request": "respond", "model": 5, "prompt": "?"}, "closed", "there is no model 5; load it first"),
        ({"request": "respond", "model": 1, "prompt": ""}, "invalid_request", ""),
        (
            {"request": "respond", "model": 1, "prompt": "?", "options": {"tempreature": 1}},
            "invalid_request",
            "temperature",
        ),
        ({"request": "respond", "model": 1, "prompt": "word " * 9000}, "invalid_request", "context is 2048"),
        (
            {"request": "respond", "model": 1, "prompt": "?", "images": [{"path": "/no/such.png"}]},
            "file_not_found",
            "/no/such.png",
        ),
        ({"request": "respond", "model": 1, "prompt": "?", "images": [{"attachment": 1}]}, "invalid_request", "has 1"),
        ({"request": "respond", "model": 1, "prompt": "?", "images": [{}]}, "invalid_request", "one of the two"),
        (
            {"request": "respond", "model": 1, "prompt": "?", "images": [{"attachment": 0, "width": 3}]},
            "invalid_request",
            "all of width, height",
        ),
        (
            {
                "request": "respond",
                "model": 1,
                "prompt": "?",
                "images": [{"attachment": 0, "width": 3, "height": 1, "bytes_per_row": 8, "format": "rgb"}],
            },
            "invalid_request",
            "bytes_per_row is 8, expected at least 9",
        ),
        (
            {
                "request": "respond",
                "model": 1,
                "prompt": "?",
                "images": [{"attachment": 0, "width": 3, "height": 5, "bytes_per_row": 9, "format": "rgb"}],
            },
            "invalid_request",
            "has 5 bytes, expected 45",
        ),
        ({"request": "session.ask", "session": 9, "prompt": "?"}, "closed", "no session 9"),
        ({"request": "load", "model": "/no/such/folder"}, "file_not_found", "/no/such/folder"),
        ({"request": "limits", "cache_bytes": -1}, "invalid_request", "cache_bytes is -1"),
        ({"request": "hello", "protocol": 2}, "incompatible", "protocol is 2, but"),
        ({"request": "sing"}, "invalid_request", "request is 'sing'"),
        ({"request": "captions", "model": 1, "prompt": "?", "window_s": 0}, "invalid_request", "window is 0"),
    ],
)
def test_a_bad_request_is_one_error_and_the_next_one_is_answered(program, request_fields, kind, message):
    fields = dict(request_fields)
    number = program.send(fields.pop("request"), b"12345", **fields)
    *others, event = program.events(number)
    assert [other["event"] for other in others] in ([], ["progress"])
    assert (event["event"], event["kind"]) == ("error", kind) and message in event["message"], event
    assert event["message"].isprintable()
    assert program.ask("ping")[-1]["event"] == "end"


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", "nonsense", '{"request": "ping", "id": NaN}', "[" * 5000, '{"request": "ping"}', "\ud800"],
)
def test_what_is_no_request_is_an_error_of_nobody(program, message):
    program.engine.submit(message, [])
    (event,) = program.events(None)
    assert event["event"] == "error" and event["kind"] == "invalid_request"


def test_a_number_that_is_in_use_does_not_end_the_request_that_has_it(program):
    number = program.send("respond", model=1, prompt=QUESTION, images=[{"path": str(PICTURE)}])
    program.send("ping", id=number)
    assert program.events(None)[-1]["message"] == f"there is a request {number} already; choose another id"
    assert text_of(program.events(number))


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), SystemExit(3), MemoryError(), KeyboardInterrupt(), RecursionError]
)
@pytest.mark.parametrize("place", ["handler", "job", "rows"])
def test_whatever_python_raises_is_one_error(demo, monkeypatch, error, place):
    program = Program(Engine())
    program.ask("load", dtype="float32")
    talk = program.ask("session.create", model=1)[-1]["id"]

    def fail(*_, **__):
        raise error

    target = {
        "handler": "mlx_smolvlm.bridge.handlers.resolve_options",
        "job": "mlx_smolvlm.bridge.jobs.response_token",
        "rows": "mlx_smolvlm.engine.rows.Rows.step",
    }[place]
    with monkeypatch.context() as broken:
        broken.setattr(target, fail)
        if place == "job":
            event = program.ask("session.ask", session=talk, prompt=QUESTION)[-1]
        else:
            event = program.ask("respond", model=1, prompt=QUESTION)[-1]
    assert event["event"] == "error"
    assert event["kind"] == ("out_of_memory" if isinstance(error, MemoryError) else "python")
    assert text_of(program.ask("respond", model=1, prompt=QUESTION))
    program.ask("unload", model=1)


def test_a_lost_gpu_is_told(monkeypatch):
    def lose(*_, **__):
        raise RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory (00000008)")

    program = Program(Engine())
    program.ask("load", dtype="float32")
    monkeypatch.setattr("mlx_smolvlm.bridge.handlers.generate_text", lose)
    assert program.error("warm_up", model=1)[0] == "out_of_memory"
    assert program.engine.is_broken
