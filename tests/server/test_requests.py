"""Fields of a request are honoured, refused with `param` and code, or ignored; none is mistaken."""

import pytest
from support.server import DEMO, image_part, question, running_server

ASKED = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
REFUSED = {
    "tools": [{"type": "function"}],
    "tool_choice": "required",
    "functions": [{}],
    "logit_bias": {"5": 1},
    "presence_penalty": 0.5,
    "frequency_penalty": -1,
    "modalities": ["text", "audio"],
    "prediction": {},
    "web_search_options": {},
    "best_of": 2,
    "ignore_eos": True,
    "min_tokens": 4,
    "stop_token_ids": [1],
    "guided_json": {},
    "chat_template": "x",
    "truncate_prompt_tokens": 9,
    "priority": 1,
    "n_predict": 5,
    "return_tokens_as_token_ids": True,
    "include_stop_str_in_output": True,
    "echo_": None,
}
WRONG = {
    "temperature": [3, -1, "0", True, [1]],
    "top_p": [0, 2, "x"],
    "top_k": [1.5, -2, "x"],
    "min_p": [2],
    "repetition_penalty": [0, -1],
    "max_tokens": [0, -1, 1.5, "7"],
    "max_completion_tokens": [0, False],
    "seed": ["x", 1.5, 2**64],
    "stop": ["", [""], ["a"] * 5, [1], {}],
    "n": [0, 5, "2"],
    "stream": ["true", 1],
    "logprobs": [1, "true"],
    "top_logprobs": [21, -1],
    "response_format": ["json", {"type": "xml"}, {"type": "json_schema", "json_schema": 3}],
    "skip_special_tokens": ["no"],
    "continue_final_message": [1],
    "media_io_kwargs": [3, {"image": {}}, {"video": {"num_frames": "x"}}, {"video": {"frames": 1}}],
    "structured_outputs": [{"choice": ["a"]}, {"regex": 3}, {"regex": "("}],
    "stream_options": [{"include_usage": True}, 3],
    "return_progress": [1, True],
    "return_token_ids": ["true"],
    "messages": [
        [],
        "x",
        None,
        [3],
        [{"role": "x", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": "x", "images": ["a"]}],
        [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:,", "fps": 2}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}, "max_pixels": 9}]}],
    ],
}


def refused(server, **fields):
    response = server.http.post("/v1/chat/completions", json={**ASKED, **fields})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]
    return error


@pytest.mark.parametrize("name", [name for name, value in REFUSED.items() if value is not None])
def test_what_would_change_the_answer_is_refused_by_name(server, name):
    error = refused(server, **{name: REFUSED[name]})
    assert error["param"] == name and error["code"] == "unsupported_parameter"


@pytest.mark.parametrize("name", WRONG)
def test_wrong_types_and_ranges_are_refused_by_name(server, name):
    for value in WRONG[name]:
        error = refused(server, **{name: value})
        assert error["param"].partition(".")[0].partition("[")[0] == name, (value, error)


def test_options_of_streams_are_honoured_or_refused(server):
    """`continuous_usage_stats`, which some servers have, was taken and not followed."""
    error = refused(server, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert error["param"] == "stream_options.continuous_usage_stats" and error["code"] == "unsupported_parameter"
    harmless = {"include_usage": True, "continuous_usage_stats": False, "include_obfuscation": False}
    assert server.chunks("Hello", max_tokens=2, stream_options=harmless)[-1]["usage"]["completion_tokens"] == 2


def test_what_changes_nothing_is_ignored(server):
    plain = server.text("Hello", max_tokens=3)
    ignored = {
        "user": "me",
        "metadata": {"a": 1},
        "store": True,
        "service_tier": "auto",
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "verbosity": "low",
        "prompt_cache_key": "x",
        "keep_alive": "5m",
        "tools": [],
        "tool_choice": "auto",
        "logit_bias": {},
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "unheard_of": {"x": 1},
        "return_progress": False,
        "typical_p": 1.0,
        "priority": 0,
        "response_format": {"type": "text"},
        "top_k": -1,
        "max_completion_tokens": None,
        "seed": -5,
        **dict.fromkeys(("stop", "n", "stream", "temperature", "logprobs", "media_io_kwargs"), None),
    }
    assert server.text("Hello", max_tokens=3, **ignored) == plain
    for model in (None, "smolvlm-demo", ""):
        assert server.text("Hello", max_tokens=3, model=model) == plain


def test_unknown_fields_are_refused_when_strict_and_any_model_served_when_told(demo):
    with running_server(demo, strict=True, any_model=True, aliases=["eyes"]) as server:
        assert refused(server, max_token=3)["message"] == "there is no field 'max_token'; did you mean 'max_tokens'?"
        assert refused(server, max_token=3)["param"] == "max_token"
        assert server.chat("Hello", max_tokens=3, model="gpt-4o", user="me")["model"] == "smolvlm-demo"
        assert server.http.get("/v1/models/eyes").json()["aliases"] == ["eyes"]


def test_models(server):
    listed = server.http.get("/v1/models").json()
    assert listed == server.http.get("/models").json()
    (card,) = listed["data"]
    assert card["id"] == "smolvlm-demo" and card["max_model_len"] == 2048 and card["object"] == "model"
    assert card["architecture"]["input_modalities"] == ["text", "image", "video"]
    assert server.http.get("/v1/models/other").status_code == 404
    error = server.http.post("/v1/chat/completions", json={**ASKED, "model": "other"})
    assert error.status_code == 404 and error.json()["error"]["code"] == "model_not_found"


def test_prompts_that_do_not_fit_are_refused_before_a_stream_begins(server):
    for stream in (False, True):
        error = refused(server, messages=[{"role": "user", "content": "word " * 3000}], stream=stream)
        assert error["code"] == "context_length_exceeded" and "2048" in error["message"]


def test_parts_that_are_not_known_are_refused_with_their_place(server):
    for part in (
        {"type": "input_audio", "input_audio": {}},
        {"type": "file", "file": {"file_id": "x"}},
        {"type": "image", "path": "/etc/passwd"},
        {"type": "image_url", "image_url": {"url": "data:,", "file_id": "x"}},
        {"type": "image_url", "image_url": {"url": 3}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,", "detail": "best"}},
        {"type": "text", "text": 3},
        {"type": "video_url"},
        3,
    ):
        error = refused(server, messages=[{"role": "user", "content": ["look:", part]}])
        assert error["param"].startswith("messages[0].content[1]"), error
    picture = image_part(DEMO / "picture.png")
    for role in ("system", "assistant", "tool"):
        error = refused(server, messages=[{"role": role, "content": [picture]}, *ASKED["messages"]])
        assert error["param"] == "messages[0].content[0]"
    assert refused(server, messages=[{"role": "assistant", "content": "Hi"}])["param"] == "messages[0]"
    assert refused(server, continue_final_message=True)["param"] == "messages[0]"


def test_ways_to_write_messages(server):
    plain = server.text("Hello", max_tokens=3)
    for content in (["Hello"], [{"type": "text", "text": "Hello"}], [{"type": "input_text", "text": "Hello"}]):
        assert server.text([{"role": "user", "content": content}], max_tokens=3) == plain
    assert server.text([{"role": "tool", "content": "Hello", "tool_call_id": "x"}], max_tokens=3) == plain
    url = image_part(DEMO / "picture.png")["image_url"]["url"]
    expected = server.text(question("What do you see?", image_part(DEMO / "picture.png")))
    for part in ({"type": "image_url", "image_url": url}, {"type": "input_image", "image_url": url, "detail": "auto"}):
        assert server.text(question("What do you see?", part)) == expected


def test_raw_prompts_place_their_images(server):
    picture = image_part(DEMO / "picture.png")
    prompt = "<|im_start|>User:<image>What do you see?<end_of_utterance>\nAssistant:"
    expected = server.chat(question("What do you see?", picture), max_tokens=40)
    for images in ([picture], [picture["image_url"]["url"]]):
        answer = server.http.post("/v1/completions", json={"prompt": prompt, "images": images, "max_tokens": 40}).json()
        assert answer["choices"][0]["text"].strip() == expected["choices"][0]["message"]["content"]
        assert answer["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]
    streamed = server.http.post(
        "/v1/completions", json={"prompt": prompt, "images": [picture], "max_tokens": 4, "stream": True, "logprobs": 1}
    )
    assert streamed.text.endswith("data: [DONE]\n\n") and '"text_offset"' in streamed.text
    for body in ({"prompt": prompt}, {"prompt": "x", "images": [picture]}, {"prompt": ""}, {"prompt": ["a", "b"]}):
        response = server.http.post("/v1/completions", json=body)
        assert response.status_code == 400 and response.json()["error"]["param"] == "prompt", response.text
