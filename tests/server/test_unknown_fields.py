"""Fields that nobody knows, at any depth, by any interface: logged once each, refused by a strict server."""

import logging

import pytest
from support.server import DEMO, image_part, running_server

from mlx_smolvlm.server.errors import ApiError
from mlx_smolvlm.server.intake import unknown_fields
from mlx_smolvlm.server.intake.unknown_fields import UnknownFields

PICTURE = image_part(DEMO / "picture.png")
URL = PICTURE["image_url"]["url"]
TEXT = {"type": "text", "text": "What do you see?"}
HELLO = {"role": "user", "content": "Hello"}
SCHEMA = {"type": "object", "properties": {"color": {"enum": ["red", "green"]}}, "required": ["color"]}
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def saying(*content, **more):
    """The body of a chat request of one message."""
    return {"messages": [{"role": "user", "content": list(content), **more}], "max_tokens": 2}


def formatted(**response_format):
    return {"messages": [HELLO], "response_format": response_format, "max_tokens": 9}


# Path, body, and the place that the error names.
UNKNOWN = [
    (CHAT, {"messages": [HELLO], "foo": 1}, "foo"),
    (CHAT, {"messages": [HELLO, {"role": "assistant", "content": "Hi"}, {**HELLO, "foo": 1}]}, "messages[2].foo"),
    (CHAT, saying(TEXT, {**TEXT, "foo": 1}), "messages[0].content[1].foo"),
    (CHAT, saying({**PICTURE, "foo": 1}, TEXT), "messages[0].content[0].foo"),
    (CHAT, saying({"type": "image_url", "image_url": {"url": URL, "foo": 0}}), "messages[0].content[0].image_url.foo"),
    (
        CHAT,
        saying({"type": "input_video", "input_video": {"data": "AAAA", "foo": []}}),
        "messages[0].content[0].input_video.foo",
    ),
    (CHAT, {"messages": [HELLO], "stream": True, "stream_options": {"foo": True}}, "stream_options.foo"),
    (CHAT, formatted(type="text", foo=1), "response_format.foo"),
    (CHAT, formatted(type="json_object", foo=1), "response_format.foo"),
    (CHAT, formatted(type="json_schema", schema=SCHEMA, foo=1), "response_format.foo"),
    (CHAT, formatted(type="json_schema", json_schema={"schema": SCHEMA}, strict=True), "response_format.strict"),
    (
        CHAT,
        formatted(type="json_schema", json_schema={"schema": SCHEMA, "foo": 1}),
        "response_format.json_schema.foo",
    ),
    (f"{CHAT}/input_tokens", {"messages": [{**HELLO, "foo": 1}]}, "messages[0].foo"),
    ("/v1/completions", {"prompt": "x", "foo": 1}, "foo"),
    ("/v1/completions", {"prompt": "<image>", "images": [{**PICTURE, "foo": 1}]}, "images[0].foo"),
    (RESPONSES, {"input": [{**HELLO, "foo": 1}], "instructions": "Be brief."}, "input[0].foo"),
    (RESPONSES, {"input": [{"role": "user", "content": [{**TEXT, "foo": 1}]}]}, "input[0].content[0].foo"),
    (RESPONSES, {"input": "x", "stream_options": {"foo": 1}}, "stream_options.foo"),
    (RESPONSES, {"input": "x", "text": {"format": {"type": "text", "foo": 1}}}, "text.format.foo"),
    ("/api/chat", {"messages": [{**HELLO, "foo": 1}]}, "messages[0].foo"),
    ("/api/chat", {"messages": [HELLO], "options": {"foo": 1}}, "options.foo"),
    ("/api/generate", {"prompt": "x", "foo": 1}, "foo"),
    ("/api/generate", {"prompt": "x", "options": {"foo": 1}}, "options.foo"),
    ("/api/show", {"model": "smolvlm-demo", "foo": 1}, "foo"),
]
# They change nothing, and clients send them.
HARMLESS = [
    (
        CHAT,
        {
            "messages": [
                {"role": "system", "content": "Be brief.", "name": "x", "cache_control": {"type": "ephemeral"}},
                HELLO,
                {
                    "role": "assistant",
                    "content": "Hi",
                    "refusal": None,
                    "annotations": [],
                    "audio": None,
                    "function_call": None,
                    "tool_calls": [],
                    "reasoning_content": "Hm",
                    "parsed": None,
                    "prefix": False,
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": URL, "detail": "low", "format": "image/png"}},
                        {
                            **TEXT,
                            "cache_control": {"type": "ephemeral"},
                            "annotations": [],
                            "image_url": None,
                            "foo": None,
                        },
                    ],
                },
            ],
            "stream": True,
            "stream_options": {"include_usage": True, "include_obfuscation": False, "continuous_usage_stats": False},
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "description": "y", "strict": True, "schema": SCHEMA},
            },
            "media_io_kwargs": {"video": {"fps": 1}},
            "max_tokens": 20,
        },
    ),
    (
        RESPONSES,
        {
            "input": [
                {**HELLO, "type": "message"},
                {
                    "type": "message",
                    "id": "msg-1",
                    "status": "completed",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
                },
                {"role": "user", "content": [{"type": "input_image", "image_url": URL, "detail": "auto"}]},
            ],
            "text": {"format": {"type": "text"}, "verbosity": "low"},
            "stream": True,
            "stream_options": {"include_obfuscation": False},
            "max_output_tokens": 2,
        },
    ),
    (
        "/api/chat",
        {
            "messages": [HELLO, {"role": "assistant", "content": "Hi", "thinking": "Hm", "tool_calls": []}, HELLO],
            "options": {"num_ctx": 4096, "num_predict": 2},
            "tools": [],
            "keep_alive": "5m",
        },
    ),
    ("/api/show", {"model": "smolvlm-demo", "verbose": True}),
]
# They would be lost, strict or not.
LOST = [
    (CHAT, saying({**TEXT, "image_url": {"url": URL}}), "messages[0].content[0].image_url"),
    (CHAT, saying({**PICTURE, "text": "What is it?"}), "messages[0].content[0].text"),
    (CHAT, saying({**PICTURE, "input_image": URL}), "messages[0].content[0].input_image"),
    (
        CHAT,
        saying({**PICTURE, "detail": "low", "image_url": {"url": URL, "detail": "high"}}),
        "messages[0].content[0].detail",
    ),
    (CHAT, saying({**TEXT, "file_id": "x"}), "messages[0].content[0].file_id"),
    (CHAT, saying({**PICTURE, "image_url": {"url": URL, "data": "AAAA"}}), "messages[0].content[0].image_url.data"),
    (
        CHAT,
        saying({"type": "video_url", "video_url": {"url": "data:,", "fps": 2}}),
        "messages[0].content[0].video_url.fps",
    ),
    (CHAT, saying(TEXT, image=URL), "messages[0].image"),
    (CHAT, saying(TEXT, refusal="No."), "messages[0].refusal"),
    (CHAT, {"messages": [HELLO, {"role": "assistant", "content": "Hi", "prefix": True}, HELLO]}, "messages[1].prefix"),
    (CHAT, {"messages": [HELLO], "media_io_kwargs": {"video": {"foo": 1}}}, "media_io_kwargs.video.foo"),
    (CHAT, {"messages": [HELLO], "media_io_kwargs": {"image": {"mode": "L"}}}, "media_io_kwargs.image"),
    (CHAT, formatted(type="text", json_schema={"schema": SCHEMA}), "response_format.json_schema"),
    (CHAT, formatted(type="json_object", json_schema={"schema": SCHEMA}), "response_format.json_schema"),
    (RESPONSES, {"input": [{"role": "user", "content": [{**TEXT, "data": "AAAA"}]}]}, "input[0].content[0].data"),
    ("/api/chat", {"messages": [HELLO], "options": {"max_completion_tokens": 3, "num_predict": 4}}, "num_predict"),
]


@pytest.fixture(scope="module")
def strict(demo):
    with running_server(demo, strict=True) as server:
        yield server


@pytest.fixture
def logged(monkeypatch, caplog):
    """Messages of the log, where nothing has been logged before."""
    monkeypatch.setattr(unknown_fields, "_logged", set())
    caplog.set_level(logging.INFO, logger="mlx_smolvlm.server")
    return lambda: [record.getMessage() for record in caplog.records if "unknown field" in record.getMessage()]


def refusal(response):
    assert response.status_code == 400, response.text
    return response.json()["error"]


@pytest.mark.parametrize(("path", "body", "place"), UNKNOWN)
def test_a_strict_server_names_the_exact_place(strict, path, body, place):
    error = refusal(strict.http.post(path, json=body))
    if path.startswith("/api/"):
        assert error.startswith(f"there is no field '{place}'; ")
    else:
        assert (error["param"], error["code"]) == (place, "unknown_field")
        assert error["message"].startswith(f"there is no field '{place}'; ")


@pytest.mark.parametrize(("path", "body"), HARMLESS, ids=[path for path, _ in HARMLESS])
def test_what_clients_send_is_known(strict, path, body):
    response = strict.http.post(path, json=body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("path", "body", "place"), LOST)
def test_what_would_be_lost_is_refused_in_any_case(server, path, body, place):
    error = refusal(server.http.post(path, json=body))
    assert place in error if isinstance(error, str) else error["param"] == place


def test_misspelt_names_are_recognised(strict):
    error = refusal(strict.post([{**HELLO, "contents": "x"}]))
    assert error["message"] == "there is no field 'messages[0].contents'; did you mean 'content'?"


def test_each_is_logged_once_without_numbers_and_values(server, logged):
    wanted = server.text([HELLO], max_tokens=2)
    part = {"type": "text", "text": "Hello", "foo": "secret"}
    for content in ([part], [part, {**part, "text": ""}]):
        assert server.text([{**HELLO, "content": content, "bar": 1}], max_tokens=2) == wanted
    body = {"input": [{"role": "user", "content": [part]}], "max_output_tokens": 2}
    assert server.http.post(RESPONSES, json=body).status_code == 200
    assert (
        server.http.post("/api/generate", json={"prompt": "x", "options": {"foo": 1, "num_predict": 2}}).status_code
        == 200
    )
    assert logged() == [
        f"ignored the unknown field '{path}' of a request"
        for path in ("messages[].bar", "messages[].content[].foo", "input[].content[].foo", "options.foo")
    ]


def test_what_is_remembered_of_them_is_bounded(logged):
    for number in range(2 * unknown_fields.MAX_LOGGED):
        UnknownFields(strict=False).check({f"x{number}": 1, "y": None, "z\n": 1}, "a[7]", (), ("z\n",))
    *lines, last = logged()
    assert len(lines) == len(unknown_fields._logged) == unknown_fields.MAX_LOGGED
    assert lines[0] == "ignored the unknown field 'a[].x0' of a request" and "no more" in last
    with pytest.raises(ApiError, match="there is no field") as refused:
        UnknownFields(strict=True).check({"x" * 10_000: 1}, "", ())
    assert len(refused.value.param) == 100 and len(refused.value.message) < 200
