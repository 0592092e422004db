"""Ollama's interface, with its Python client, and with the chat interface's answers."""

import base64
import json

import pytest
from support.server import DEMO, data_url, question

ollama = pytest.importorskip("ollama", reason="needs Ollama's client: pip install ollama")

PICTURE = DEMO / "picture.png"
ENCODED = base64.b64encode(PICTURE.read_bytes()).decode()
ASK = "What do you see?"
HELLO = {"role": "user", "content": "Hello"}
CHAT = question(ASK, {"type": "image_url", "image_url": {"url": data_url(PICTURE)}})
COLOR = {"color": {"enum": ["red", "green"]}}
SCHEMA = {"type": "object", "properties": COLOR, "required": ["color"], "additionalProperties": False}


@pytest.fixture(scope="module")
def client(server):
    client = ollama.Client(host=server.url, trust_env=False)
    yield client
    client._client.close()


def refused(server, path, **body):
    response = server.http.post(f"/api/{path}", json=body)
    return response.status_code, response.json()["error"]


def test_names_and_capabilities(server, client):
    assert server.http.get("/api/version").json()["version"].count(".") == 2
    (model,) = client.list().models
    assert model.model == "smolvlm-demo:latest" and model.size > 1_000_000 and len(model.digest) == 64
    assert model.details.family == "smolvlm" and model.details.parameter_size.endswith("M")
    shown = client.show(model.model)
    assert shown.capabilities == ["completion", "vision"]
    assert shown.modelinfo["smolvlm.context_length"] == server.engine.processor.config.context_length
    with pytest.raises(ollama.ResponseError, match="there is no model 'llama3'") as refusal:
        client.show("llama3")
    assert refusal.value.status_code == 404


@pytest.mark.parametrize("image", [PICTURE, str(PICTURE), PICTURE.read_bytes(), ENCODED])
def test_the_answer_is_that_of_the_chat_interface(server, client, image):
    wanted = server.chat(CHAT)
    answer = client.chat("smolvlm-demo", messages=[{"role": "user", "content": ASK, "images": [image]}])
    assert answer.message.content == wanted["choices"][0]["message"]["content"] != ""
    assert (answer.model, answer.done, answer.done_reason) == ("smolvlm-demo", True, "stop")
    assert answer.prompt_eval_count == wanted["usage"]["prompt_tokens"]
    assert answer.eval_count == wanted["usage"]["completion_tokens"]
    assert answer.total_duration >= answer.eval_duration + answer.prompt_eval_duration > 0


def test_data_urls_are_taken_too(server):
    message = {"role": "user", "content": ASK, "images": [data_url(PICTURE)]}
    response = server.http.post("/api/chat", json={"messages": [message], "stream": False})
    assert response.json()["message"]["content"] == server.text(CHAT)


def test_lines_add_up_to_the_answer(server, client):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ASK, "images": [PICTURE]},
        {"role": "assistant", "content": "A red circle.", "thinking": ""},
        {"role": "user", "content": "Where is it?"},
    ]
    lines = list(client.chat("smolvlm-demo:latest", messages=messages, stream=True))
    chat = [{"role": "system", "content": "Be brief."}, *CHAT, *messages[2:]]
    assert "".join(line.message.content for line in lines) == server.text(chat)
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert all(line.message.content and line.eval_count is None for line in lines[:-1])
    assert lines[-1].eval_count > 0 and lines[-1].message.role == "assistant"


def test_without_a_word_about_it_lines_come(server):
    response = server.http.post("/api/chat", json={"messages": [{"role": "user", "content": "Hello"}]})
    assert response.headers["content-type"] == "application/x-ndjson"
    *parts, last = [json.loads(line) for line in response.text.splitlines()]
    assert "".join(part["message"]["content"] for part in parts) == server.text("Hello")
    assert last["model"] == "smolvlm-demo" and last["created_at"].endswith("Z")


def test_generate_takes_a_prompt(server, client):
    wanted = server.text([{"role": "system", "content": "Be brief."}, *CHAT])
    answer = client.generate("smolvlm-demo", ASK, images=[PICTURE], system="Be brief.", keep_alive="5m", think=False)
    assert answer.response == wanted
    lines = client.generate("smolvlm-demo", ASK, images=[PICTURE], system="Be brief.", stream=True, context=[])
    assert "".join(line.response for line in lines) == wanted


def test_options_are_those_of_the_chat_interface(server, client):
    messages = [{"role": "user", "content": ASK, "images": [ENCODED]}]
    options = {"temperature": 1.5, "seed": 7, "top_k": 50, "top_p": 0.9, "repeat_penalty": 1.2, "num_ctx": 4096}
    answer = client.chat("smolvlm-demo", messages=messages, options={**options, "num_predict": 6})
    wanted = {"temperature": 1.5, "seed": 7, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.2, "max_tokens": 6}
    assert answer.message.content == server.text(CHAT, **wanted)
    cut = client.chat("smolvlm-demo", messages=messages, options={"num_predict": 1})
    assert (cut.eval_count, cut.done_reason) == (1, "length")
    whole = client.chat("smolvlm-demo", messages=messages, options={"num_predict": -1}, tools=[])
    assert whole.message.content == server.text(CHAT)
    stopped = client.chat("smolvlm-demo", messages=messages, options={"stop": ["red"]})
    assert stopped.message.content == server.text(CHAT, stop="red") != whole.message.content


def test_a_format_is_kept_to(client):
    messages = [{"role": "user", "content": ASK, "images": [PICTURE]}]
    assert json.loads(client.chat("smolvlm-demo", messages=messages, format=SCHEMA).message.content) == {"color": "red"}
    cut = client.generate("smolvlm-demo", ASK, format="json", options={"num_predict": 20})
    assert isinstance(json.loads(cut.response), dict)


def test_log_probabilities_come_with_the_lines(client):
    lines = list(client.generate("smolvlm-demo", ASK, images=[PICTURE], logprobs=True, top_logprobs=2, stream=True))
    entries = [entry for line in lines for entry in line.logprobs or []]
    assert "".join(entry.token for entry in entries).strip() == "".join(line.response for line in lines)
    assert all(len(entry.top_logprobs) == 2 for entry in entries)


def test_an_empty_request_loads_the_model(server, client):
    assert client.generate("smolvlm-demo").done_reason == "load"
    assert client.chat("smolvlm-demo", keep_alive=0).done_reason == "unload"
    assert refused(server, "generate", model="llama3") == (
        404,
        "there is no model 'llama3' here; this server has smolvlm-demo",
    )


@pytest.mark.parametrize(
    ("path", "fields", "part"),
    [
        ("chat", {"messages": "x"}, "messages is 'x'"),
        ("chat", {"messages": [3]}, "messages[0] is 3"),
        ("chat", {"messages": [{"role": "user", "images": "x"}]}, "messages[0].images is 'x'"),
        ("chat", {"messages": [{"role": "user", "images": [4]}]}, "messages[0].images[0] is 4"),
        (
            "chat",
            {"messages": [{"role": "user", "content": "x", "images": ["/etc/passwd"]}]},
            "messages[0].images[0]: ",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": "x", "images": ["http://127.0.0.1/"]}]},
            "fetches no addresses",
        ),
        ("chat", {"messages": [{"role": "user", "content": "x", "images": ["AAAA", 4]}]}, "messages[0].images[1] is 4"),
        ("chat", {"messages": [{"role": "robot", "content": "x"}]}, "role 'robot'"),
        ("generate", {"prompt": 3}, "prompt is 3"),
        ("generate", {"prompt": "x", "images": ["AAAA"]}, "images[0]: "),
        ("generate", {"prompt": "x", "raw": True}, "/v1/completions takes raw prompts"),
        ("generate", {"prompt": "x", "suffix": "y"}, "suffix is not supported"),
        ("generate", {"prompt": "x", "template": "y"}, "template is not supported"),
        ("generate", {"prompt": "x", "context": [1, 2]}, "/api/chat"),
        ("generate", {"prompt": "x", "think": True}, "does not think"),
        ("generate", {"prompt": "x", "think": "high"}, "does not think"),
        ("generate", {"prompt": "x", "tools": [{}]}, "calls no tools"),
        ("generate", {"prompt": "x", "stream": "yes"}, "stream is 'yes'"),
        ("generate", {"prompt": "x", "format": "xml"}, "format is 'xml'"),
        ("generate", {"prompt": "x", "format": {"type": "nothing"}}, "nothing"),
        ("generate", {"prompt": "x", "options": {"temperature": 3}}, "options.temperature is 3"),
        ("generate", {"prompt": "x", "options": {"num_predict": 0}}, "options.num_predict is 0"),
        ("generate", {"prompt": "x", "options": {"mirostat": 2}}, "options.mirostat is not supported"),
        ("generate", {"prompt": "x", "options": {"presence_penalty": 1}}, "options.presence_penalty is not supported"),
        ("generate", {"prompt": "x", "options": {"repeat_penalty": 1.1, "repeat_last_n": 64}}, "repeat_last_n is 64"),
        ("generate", {"prompt": "x", "options": []}, "options is []"),
        ("generate", {"prompt": "x", "n": 2}, "n is not supported: a response has one answer"),
        ("chat", {"messages": [HELLO], "options": {"n": 2}}, "options.n is not supported"),
        ("chat", {"messages": [HELLO], "options": {"messages": [HELLO]}}, "options.messages is no option"),
        ("generate", {"prompt": "x", "messages": [HELLO]}, "messages would stand beside prompt"),
        ("generate", {"prompt": "x", "format": "json", "response_format": {"type": "text"}}, "beside format"),
        ("generate", {"prompt": "x", "top_logprobs": 2}, "top_logprobs needs logprobs"),
    ],
)
def test_refusals_are_text_in_the_words_of_the_interface(server, path, fields, part):
    status, text = refused(server, path, **fields)
    assert status == 400 and part in text and "content[" not in text


def test_refusals_of_the_guards_are_text_too(server):
    foreign = {"sec-fetch-site": "cross-site"}
    response = server.http.post("/api/chat", content=b"{}", headers=foreign)
    assert response.status_code == 415 and response.json()["error"].startswith("Content-Type is missing")
    assert isinstance(server.http.get("/api/pull").json()["error"], str)
    assert server.http.post("/api/chat", content=b"{", headers={"content-type": "application/json"}).status_code == 400


def test_clients_that_leave_out_the_content_type_are_answered_unless_they_are_browsers(server):
    """As litellm does. A page can leave it out, too, but its browser says where it comes from."""
    body = json.dumps({"prompt": "Hello", "stream": False})
    assert server.http.post("/api/generate", content=body).json()["response"] == server.text("Hello")
    for headers in ({"content-type": "text/plain"}, {"sec-fetch-site": "same-site"}, {"origin": server.url}):
        assert server.http.post("/api/generate", content=body, headers=headers).status_code == 415
    assert server.http.post("/v1/completions", content=body).status_code == 415


def test_an_error_in_the_middle_is_a_line(client, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr("mlx_smolvlm.server.endpoints.ollama._Answer.last", fail)
    with pytest.raises(ollama.ResponseError, match="the server failed"):
        list(client.generate("smolvlm-demo", "Hello", stream=True))
