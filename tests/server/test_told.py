"""What is told of an answer beside its text, if asked for: its tokens, how far its prompt is read, and timings."""

import pytest
from support.server import read_events

MESSAGES = [{"role": "user", "content": "Tell me of " * 60}]
PATHS = {"/v1/chat/completions": {"messages": MESSAGES}, "/v1/completions": {"prompt": "Tell me of " * 60}}


def asked(server, path, **fields):
    response = server.http.post(path, json={**PATHS[path], "max_tokens": 9, **fields})
    assert response.status_code == 200, response.text
    return response


def chunks_of(server, path, **fields):
    return read_events(asked(server, path, stream=True, **fields).text)


@pytest.mark.parametrize("path", PATHS)
def test_tokens_of_a_stream_are_those_of_the_answer_at_once(server, path):
    fields = {"n": 2, "temperature": 1.2, "seed": 4, "logprobs": True if "chat" in path else 0}
    plain = asked(server, path, **fields).json()
    whole = asked(server, path, return_token_ids=True, **fields).json()
    processor = server.engine.processor
    streamed, prompts = [[], []], []
    for chunk in chunks_of(server, path, return_token_ids=True, **fields):
        choice = chunk["choices"][0]
        streamed[choice["index"]] += choice["token_ids"]
        prompts += [holder["prompt_token_ids"] for holder in (chunk, choice) if "prompt_token_ids" in holder]
    for plain_choice, choice, token_ids in zip(plain["choices"], whole["choices"], streamed, strict=True):
        own = {**choice}
        assert own.pop("token_ids") == token_ids
        prompts.append(own.pop("prompt_token_ids", None) or whole["prompt_token_ids"])
        assert {**own, "logprobs": None} == {**plain_choice, "logprobs": None}  # nothing else is different
        text = choice["message"]["content"] if "chat" in path else choice["text"]
        kept = [token_id for token_id in token_ids if token_id not in processor.stop_token_ids]
        assert processor.decode(kept).removeprefix(" ") == text.removeprefix(" ")
    assert whole["usage"]["completion_tokens"] == sum(len(token_ids) for token_ids in streamed)
    assert all(prompt == prompts[0] for prompt in prompts) and len(prompts[0]) == whole["usage"]["prompt_tokens"]


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_tells_how_much_of_the_prompt_is_read(server, path):
    server.text("Hello", max_tokens=1)
    *_, total = [chunk["usage"] for chunk in chunks_of(server, path, stream_options={"include_usage": True})]
    chunks = chunks_of(server, path, return_progress=True, n=2, timings_per_token=True)
    told = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert [set(progress) for progress in told] == [{"total", "cache", "processed", "time_ms"}] * len(told)
    assert {progress["total"] for progress in told} == {total["prompt_tokens"]}
    done = [progress["processed"] for progress in told]
    assert done[0] == told[0]["cache"] > 0 and done == sorted(set(done)) and done[-1] == total["prompt_tokens"]
    contents = [chunk for chunk in chunks if (chunk["choices"][0].get("delta") or chunk["choices"][0]).get("content")]
    contents += [chunk for chunk in chunks if chunk["choices"][0].get("text")]
    assert contents and all(chunk["timings"]["predicted_n"] > 0 for chunk in contents)
    assert chunks.index(contents[0]) > max(n for n, chunk in enumerate(chunks) if "prompt_progress" in chunk)


@pytest.mark.parametrize("name", ["return_token_ids", "return_progress", "timings_per_token"])
def test_who_cannot_be_told_is_refused(server, name):
    bodies = {
        "/v1/responses": {"input": "Hello"},
        "/api/chat": {"messages": MESSAGES},
        "/api/generate": {"prompt": "Hello"},
    }
    for path, body in bodies.items():
        refused = server.http.post(path, json={**body, name: True})
        assert refused.status_code == 400 and f"{name} is not supported" in refused.text
        assert server.http.post(path, json={**body, name: False, "max_output_tokens": None}).status_code == 200
    for path, body in PATHS.items():
        assert server.http.post(path, json={**body, name: "yes"}).status_code == 400
        if name != "return_token_ids":
            refused = server.http.post(path, json={**body, name: True}).json()["error"]
            assert refused["param"] == name and "stream" in refused["message"]
