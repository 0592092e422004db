"""`/v1/chat/completions`: answers equal those of `stream_generate`, in the form that clients read."""

import asyncio
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import openai
import pytest
from PIL import Image
from support.server import DEMO, data_url, image_part, question

import mlx_smolvlm

PICTURE, FIRST, SECOND, CLIP = (DEMO / name for name in ("picture.png", "first.png", "second.png", "clip.mp4"))
COMPARE = "Is the second image different from the first?"
SCHEMA = {"type": "object", "properties": {"color": {"type": "string"}}, "required": ["color"]}


def spoken(demo, messages, **options):
    """Text, prompt tokens and answer tokens of `stream_generate`."""
    steps = list(mlx_smolvlm.stream_generate(*demo, messages, max_tokens=40, **options))
    return "".join(step.text for step in steps), list(steps[0].prompt_ids), [step.token_id for step in steps]


CASES = {
    "picture": (
        question("What do you see?", image_part(PICTURE)),
        [
            {
                "role": "user",
                "content": [{"type": "image", "path": str(PICTURE)}, {"type": "text", "text": "What do you see?"}],
            }
        ],
        {},
    ),
    "two pictures": (
        question(COMPARE, image_part(FIRST), image_part(SECOND)),
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "path": str(FIRST)},
                    {"type": "image", "path": str(SECOND)},
                    {"type": "text", "text": COMPARE},
                ],
            }
        ],
        {},
    ),
    "video": (
        question("Which way does it move?", {"type": "video_url", "video_url": {"url": data_url(CLIP, "video/mp4")}}),
        [
            {
                "role": "user",
                "content": [{"type": "video", "path": str(CLIP)}, {"type": "text", "text": "Which way does it move?"}],
            }
        ],
        {},
    ),
    "turns": (
        [
            *question("What do you see?", image_part(PICTURE)),
            {"role": "assistant", "content": "A red circle."},
            {"role": "user", "content": "Where is it?"},
        ],
        [
            {
                "role": "user",
                "content": [{"type": "image", "path": str(PICTURE)}, {"type": "text", "text": "What do you see?"}],
            },
            {"role": "assistant", "content": "A red circle."},
            {"role": "user", "content": "Where is it?"},
        ],
        {},
    ),
    "system": (
        [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Be kind."}, *question("Hello")],
        [{"role": "system", "content": "Be brief.\n\nBe kind."}, {"role": "user", "content": "Hello"}],
        {},
    ),
    "schema": (
        question("What do you see?", image_part(PICTURE)),
        [
            {
                "role": "user",
                "content": [{"type": "image", "path": str(PICTURE)}, {"type": "text", "text": "What do you see?"}],
            }
        ],
        {"json_schema": SCHEMA},
    ),
}


def fields_of(options):
    schema = options.get("json_schema")
    format_of_it = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    return {"max_tokens": 40, "return_token_ids": True, **({"response_format": format_of_it} if schema else {})}


@pytest.mark.parametrize("name", CASES)
def test_answers_and_usage_equal_those_of_stream_generate(server, demo, name):
    sent, messages, options = CASES[name]
    answer = server.chat(sent, **fields_of(options))
    text, prompt_ids, token_ids = spoken(demo, messages, **options)
    assert told(answer) == (text, prompt_ids, token_ids)
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(prompt_ids), len(token_ids))
    assert server.engine.is_idle


def told(answer):
    choice = answer["choices"][0]
    return choice["message"]["content"], answer["prompt_token_ids"], choice["token_ids"]


def test_answers_are_the_same_beside_others(server, demo):
    names = [*CASES, "picture", "video"]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: told(server.chat(CASES[name][0], **fields_of(CASES[name][2]))), names))
    assert answers == [spoken(demo, CASES[name][1], **CASES[name][2]) for name in names]


def test_streamed_text_is_that_of_the_answer_at_once(server):
    messages = CASES["picture"][0]
    whole = server.chat(messages, max_tokens=40)
    chunks = server.chunks(messages, max_tokens=40, stream_options={"include_usage": True})
    *parts, last = chunks
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [chunk["choices"][0]["delta"] for chunk in parts[1:-1]]
    assert all(list(delta) == ["content"] and delta["content"] for delta in deltas)
    assert "".join(delta["content"] for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert parts[-1]["choices"][0]["delta"] == {} and parts[-1]["choices"][0]["finish_reason"] == "stop"
    assert all(chunk["usage"] is None for chunk in parts)
    assert last["choices"] == [] and last["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_usage_is_streamed_only_if_asked_for(server):
    chunks = server.chunks("Hello", max_tokens=2)
    assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)


def test_a_second_turn_reads_only_what_is_new(server):
    first = CASES["picture"][0]
    text = server.text(first, max_tokens=40)
    second = [*first, {"role": "assistant", "content": text}, {"role": "user", "content": "Where is it?"}]
    details = server.chat(second, max_tokens=5)["usage"]["prompt_tokens_details"]
    assert details["image_tokens"] == 20 and details["cached_tokens"] > 50
    with Image.open(PICTURE) as picture, io.BytesIO() as file:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file, "PNG")
        flipped = image_part(file.getvalue())
    other = server.chat(question("What do you see?", flipped), max_tokens=5)["usage"]
    assert other["prompt_tokens_details"]["cached_tokens"] < 20  # another image, as large


def test_several_answers_have_seeds_in_turn_and_read_the_prompt_once(server):
    fields = {"temperature": 1.5, "max_tokens": 12}
    alone = [server.text("Tell me something", seed=seed, **fields) for seed in (7, 8, 9)]
    before = server.engine.gauges().tiles_encoded
    answer = server.chat("Tell me something", seed=7, n=3, **fields)
    assert [choice["message"]["content"] for choice in answer["choices"]] == alone
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(alone)) > 1
    assert server.engine.gauges().tiles_encoded == before
    chunks = server.chunks("Tell me something", seed=7, n=3, **fields)
    streamed = ["", "", ""]
    for chunk in chunks:
        streamed[chunk["choices"][0]["index"]] += chunk["choices"][0]["delta"].get("content", "")
    assert streamed == alone
    assert server.text("Hello", temperature=0, seed=None, max_tokens=5) == server.text("Hello", max_tokens=5)


def test_log_probabilities_are_those_of_the_tokens_of_the_text(server):
    choice = server.chat("Hello", max_tokens=6, logprobs=True, top_logprobs=2)["choices"][0]
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries).removeprefix(" ") == choice["message"]["content"]
    for entry in entries:
        assert entry["top_logprobs"][0]["logprob"] == entry["logprob"] <= 0  # greedy
        assert bytes(entry["bytes"]).decode() == entry["token"] and len(entry["top_logprobs"]) == 2
    chunks = server.chunks("Hello", max_tokens=6, logprobs=True, top_logprobs=2)
    listed = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [entry for logprobs in listed if logprobs for entry in logprobs["content"]] == entries


def test_structured_answers_are_whole_however_few_tokens_there_are(server):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for max_tokens in (20, 24, 40):
        content = server.text("Hello", max_tokens=max_tokens, temperature=2, seed=3, response_format=wanted)
        assert set(json.loads(content)) == {"a", "b"}
    assert json.loads(server.text("Hello", max_tokens=30, response_format={"type": "json_object"})) is not None
    assert server.text("Hello", max_tokens=30, structured_outputs={"regex": "(red|blue) (one|two)"}).split()[0] in (
        "red",
        "blue",
    )
    refused = server.post("Hello", max_tokens=1, response_format=wanted)
    assert refused.status_code == 400 and "max_tokens" in refused.json()["error"]["message"]


def test_stop_strings_end_answers(server):
    assert server.text(CASES["picture"][0], max_tokens=40, stop=" at").endswith("circle")
    chunks = server.chunks(CASES["picture"][0], max_tokens=40, stop=["circle at", "zzz"])
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks).endswith("red ")


@pytest.mark.parametrize(
    "spelled",
    [
        "<image>",
        "<video>",
        "<end_of_utterance>",
        "<fake_token_around_image>",
        "<|im_end|>",
        "\ue0011\ue002",
        "<row_1_col_1>",
    ],
)
def test_spelled_out_tokens_are_text_everywhere(server, demo, spelled):
    _, processor = demo
    text = f"What is {spelled}?"
    messages = [
        {"role": "system", "content": text},
        *question(text, image_part(PICTURE)),
        {"role": "assistant", "content": text},
        {"role": "user", "content": text},
    ]
    answer = server.chat(messages, max_tokens=3)
    assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == 20
    ids = processor([{"role": "user", "content": processor.literal(text)}]).input_ids
    assert f"User: {text}<end_of_utterance>" in processor.decode(ids, skip_special_tokens=False)
    assert processor.config.image_token_id not in ids


def test_the_last_message_of_the_assistant_is_continued(server, demo):
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "A large"}]
    text, prompt_ids, _ = spoken(demo, messages, continue_final_message=True)
    answer = server.chat(messages, max_tokens=40, continue_final_message=True, add_generation_prompt=False)
    assert answer["choices"][0]["message"]["content"] == text
    assert answer["usage"]["prompt_tokens"] == len(prompt_ids)


def test_tokens_are_counted_without_an_answer(server):
    messages = CASES["two pictures"][0]
    counted = server.post(messages, "/v1/chat/completions/input_tokens").json()
    usage = server.chat(messages, max_tokens=1)["usage"]
    assert counted["input_tokens"] == usage["prompt_tokens"]
    assert counted["image_tokens"] == usage["prompt_tokens_details"]["image_tokens"] == 40


def test_openai_client(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model
    messages = CASES["picture"][0]
    answer = client.chat.completions.create(model=model, messages=messages, max_completion_tokens=40)
    expected = server.text(messages, max_tokens=40)
    assert answer.choices[0].message.content == expected
    stream = client.chat.completions.create(model=model, messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected
    with client.chat.completions.stream(model=model, messages=messages) as events:
        assert events.get_final_completion().choices[0].message.content == expected
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "word " * 3000}])
    assert refused.value.code == "context_length_exceeded" and refused.value.param == "messages"
    with pytest.raises(openai.NotFoundError, match="smolvlm-demo"):
        client.chat.completions.create(model="gpt-4o", messages=messages)
    client.close()


def test_openai_client_parses_and_works_asynchronously(server):
    import pydantic

    class Seen(pydantic.BaseModel):
        color: Literal["red", "blue"]

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            parsed = await client.chat.completions.parse(
                model="smolvlm-demo", messages=CASES["picture"][0], response_format=Seen, max_tokens=40
            )
            stream = await client.chat.completions.create(
                model="smolvlm-demo", messages=CASES["picture"][0], stream=True, stream_options={"include_usage": True}
            )
            return parsed.choices[0].message.parsed, [chunk async for chunk in stream]

    parsed, chunks = asyncio.run(ask())
    assert isinstance(parsed, Seen)
    assert chunks[-1].usage.prompt_tokens == 48
