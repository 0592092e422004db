"""Rows with quantized keys and values: each answer is the one that its prompt gets alone with the same options."""

import pytest
from support.row_events import finished

from mlx_smolvlm import BatchRequest, GenerationOptions, Rows, generate_batch, stream_generate
from mlx_smolvlm.api.loading import DEMO_MODEL

IMAGE = str(DEMO_MODEL.parent / "picture.png")
REQUESTS = [
    BatchRequest("What shape is it?", [IMAGE]),
    BatchRequest("Hello"),
    BatchRequest("Tell me of " * 20),
    BatchRequest("a b c d " * 30),
]


def alone(pair, request, options):
    return list(stream_generate(*pair, request.messages_or_prompt, images=list(request.images), options=options))


@pytest.mark.parametrize(("bits", "start"), [(8, 0), (4, 30)])  # the second begins within answers and prompts
def test_answers_are_those_that_prompts_get_alone(demo, bits, start):
    cache = {"kv_bits": bits, "kv_group_size": 32, "quantized_kv_start": start}
    options = GenerationOptions(max_tokens=16, temperature=1.0, seed=3, logprobs=1, **cache)
    answers = {answer.index: answer for answer in generate_batch(*demo, REQUESTS, options=options)}
    for index, request in enumerate(REQUESTS):
        steps = alone(demo, request, options)
        assert answers[index].error is None
        assert answers[index].token_ids == [step.token_id for step in steps]
        # Sums are added in another order: the largest difference that was seen is 4e-5.
        assert answers[index].logprobs == pytest.approx([step.logprob for step in steps], abs=5e-4)


@pytest.mark.parametrize("start", [0, 60])
def test_what_was_read_is_kept_quantized_and_copied(demo, start):
    options = GenerationOptions(max_tokens=8, kv_bits=8, kv_group_size=32, quantized_kv_start=start)
    talk = [{"role": "user", "content": "Name a colour and a shape, and count the circles."}]
    with Rows(*demo, kv_bits=8, kv_group_size=32, quantized_kv_start=start) as rows:
        for turn in range(2):
            key = rows.add(BatchRequest(talk), max_tokens=8)  # options of the cache need not be given again
            events = finished(rows)[key]
            steps = alone(demo, BatchRequest(talk), options)
            assert [event.token_id for event in events] == [step.token_id for step in steps]
            assert (events[0].cached_tokens > 0) == (turn > 0)
            said = "".join(event.text for event in events)
            talk += [{"role": "assistant", "content": said}, {"role": "user", "content": "And a small one?"}]


def test_quantized_rows_take_the_memory_of_their_bits(demo):
    with Rows(*demo) as plain, Rows(*demo, kv_bits=4, kv_group_size=32) as packed:
        sizes = []
        for rows in (plain, packed):
            rows.add(BatchRequest("Tell me of " * 40), max_tokens=2)
            while not rows.usage[0]:
                rows.step()
            sizes.append((rows.usage[0], rows.prefix_cache.size_bytes))
    assert all(small < large / 4 for large, small in zip(*sizes, strict=True))


def test_all_rows_have_one_kind_of_cache(demo):
    with pytest.raises(ValueError, match="head_dim, 32; use 32"):
        Rows(*demo, kv_bits=8)
    with pytest.raises(ValueError, match="kv_group_size has no effect without kv_bits"):
        Rows(*demo, kv_group_size=32)
    with Rows(*demo, kv_bits=8, kv_group_size=32) as rows:
        rows.add(BatchRequest("Hello"), key="same", kv_bits=8, kv_group_size=32, max_tokens=1)
        with pytest.raises(ValueError, match="kv_bits is 4, but these rows were made with kv_bits=8; it is the same"):
            rows.add(BatchRequest("Hello"), kv_bits=4, kv_group_size=32)
    requests = [BatchRequest("Hello"), BatchRequest("Hello", options=GenerationOptions(kv_bits=8, kv_group_size=32))]
    answers = sorted(generate_batch(*demo, requests, max_tokens=2), key=lambda answer: answer.index)
    assert answers[0].error is None
    assert "kv_bits is 8, but these rows were made with kv_bits=None" in str(answers[1].error)
