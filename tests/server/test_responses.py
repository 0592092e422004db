"""`/v1/responses`: as OpenAI's client reads it, and with the chat interface's answers."""

import json
from typing import Literal

import openai
import pydantic
import pytest
from support.server import DEMO, data_url, question

PICTURE = data_url(DEMO / "picture.png")
ASKED = [
    {
        "role": "user",
        "content": [
            {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
            {"type": "input_text", "text": "What do you see?"},
        ],
    }
]
CHAT = question("What do you see?", {"type": "image_url", "image_url": {"url": PICTURE}})


class Seen(pydantic.BaseModel):
    color: Literal["red", "green", "blue"]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def refused(server, **body):
    """Status, code, param and message of a refusal."""
    response = server.http.post("/v1/responses", json=body)
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"], error["message"]


def test_the_answer_is_that_of_the_chat_interface(server, client):
    wanted = server.chat(CHAT)
    response = client.responses.create(model="smolvlm-demo", input=ASKED)
    assert response.output_text == wanted["choices"][0]["message"]["content"] != ""
    assert (response.status, response.object, response.error) == ("completed", "response", None)
    assert response.incomplete_details is None and response.store is False
    assert response.usage.input_tokens == wanted["usage"]["prompt_tokens"]
    assert response.usage.output_tokens == wanted["usage"]["completion_tokens"]
    assert response.usage.total_tokens == wanted["usage"]["total_tokens"]
    assert response.usage.input_tokens_details.cached_tokens > 0  # the second time
    assert response.output[0].id.startswith("msg-") and response.output[0].status == "completed"


def test_a_conversation_with_instructions_and_earlier_output_goes_on(server, client):
    first = client.responses.create(model="smolvlm-demo", input=ASKED, instructions="Be brief.")
    assert first.instructions == "Be brief."
    items = [*ASKED, *(item.to_dict() for item in first.output), {"role": "user", "content": "Where is it?"}]
    second = client.responses.create(model="smolvlm-demo", input=items, instructions="Be brief.", metadata={"a": "b"})
    chat = [
        {"role": "system", "content": "Be brief."},
        *CHAT,
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "Where is it?"},
    ]
    assert second.output_text == server.text(chat) and second.metadata == {"a": "b"}


def test_text_alone_is_a_message_of_the_user(server, client):
    assert client.responses.create(model="smolvlm-demo", input="Hello").output_text == server.text("Hello")


def test_events_come_in_order_and_add_up(client):
    events = list(client.responses.create(model="smolvlm-demo", input=ASKED, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    done = events[-1].response
    assert "".join(event.delta for event in deltas) == done.output_text == events[-4].text
    assert all(event.delta for event in deltas) and len(deltas) > 1
    assert events[0].response.id == done.id and events[0].response.status == "in_progress"
    assert done.usage.output_tokens > 0


def test_the_clients_own_streams_and_parsing_work(client):
    with client.responses.stream(model="smolvlm-demo", input=ASKED) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text != ""
    parsed = client.responses.parse(model="smolvlm-demo", input=ASKED, text_format=Seen)
    assert parsed.output_parsed == Seen(color="red")
    assert parsed.text.format.type == "json_schema"


def test_events_have_names_and_no_mark_at_the_end(server):
    response = server.http.post("/v1/responses", json={"input": "Hello", "stream": True})
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    for name, data in blocks:
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    assert response.headers["content-type"].startswith("text/event-stream") and "[DONE]" not in response.text


def test_an_answer_that_is_cut_says_so(client):
    response = client.responses.create(model="smolvlm-demo", input=ASKED, max_output_tokens=2)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.output[0].status == "incomplete" and response.max_output_tokens == 2
    *_, last = client.responses.create(model="smolvlm-demo", input=ASKED, max_output_tokens=2, stream=True)
    assert last.type == "response.incomplete" and last.response.output_text == response.output_text


def test_log_probabilities_come_where_they_are_asked_for(client):
    asked = {"model": "smolvlm-demo", "input": ASKED, "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    part = client.responses.create(**asked).output[0].content[0]
    assert "".join(entry.token for entry in part.logprobs).strip() == part.text
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
    events = list(client.responses.create(**asked, stream=True))
    streamed = [entry for event in events if event.type == "response.output_text.delta" for entry in event.logprobs]
    assert [entry.token for entry in streamed] == [entry.token for entry in part.logprobs]


@pytest.mark.parametrize(
    ("fields", "param", "part"),
    [
        ({}, "input", "expected text or a list"),
        ({"input": []}, "input", "expected text or a list"),
        ({"input": "x", "messages": []}, "messages", "here it is input"),
        ({"input": "x", "max_tokens": 5}, "max_tokens", "here it is max_output_tokens"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens", "max_output_tokens is 0"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id", "whole conversation"),
        ({"input": "x", "conversation": {"id": "1"}}, "conversation", "whole conversation"),
        ({"input": "x", "background": True}, "background", "stream it"),
        ({"input": "x", "truncation": "auto"}, "truncation", "shorten it"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools", "tools is not supported"),
        ({"input": "x", "temperature": 3}, "temperature", "from 0 to 2"),
        ({"input": "x", "instructions": ["y"]}, "instructions", "expected text"),
        ({"input": "x", "include": "y"}, "include", "a list of names"),
        ({"input": "x", "text": {"form": {}}}, "text.form", "expected format"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type", "text.format has type 'xml'"),
        ({"input": [{"type": "item_reference", "id": "1"}]}, "input[0]", "whole conversation"),
        ({"input": [{"type": "function_call_output"}]}, "input[0].type", "expected message"),
        ({"input": ["x"]}, "input[0]", "input[0] is 'x'"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}], "instructions": "y"},
            "input[0].content[0]",
            "input[0].content[0] has type",
        ),
        (
            {
                "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,x"}]}],
                "instructions": "y",
            },
            "input[0].content[0]",
            "input[0].content[0]: ",
        ),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input[0]", "the assistant's"),
    ],
)
def test_refusals_use_the_words_of_the_interface(server, fields, param, part):
    status, _, found, message = refused(server, **fields)
    assert (status, found) == (400, param) and part in message and "messages[" not in message


def test_other_models_are_refused(server):
    assert refused(server, input="x", model="gpt-5")[:3] == (404, "model_not_found", "model")


def test_an_error_in_the_middle_raises_in_the_client(server, client, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr("mlx_smolvlm.server.endpoints.answers._token", fail)
    asked = {"model": "smolvlm-demo", "input": "Hello", "include": ["message.output_text.logprobs"]}
    stream = iter(client.responses.create(**asked, stream=True))
    assert next(stream).type == "response.created"
    with pytest.raises(openai.APIError, match="the server failed"):
        list(stream)
    server.wait_idle()
