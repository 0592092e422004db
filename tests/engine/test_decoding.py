"""Drafts from the text itself: the answers stay what they are, in fewer steps where the text repeats."""

import random
import threading

import pytest
from support.golden_cases import CHECKPOINT_NAMES, golden_cases, with_media
from support.planted import Planted

from mlx_smolvlm import GenerationOptions, PromptCache, stream_generate
from mlx_smolvlm.engine.prompt_lookup import PromptLookup

PROMPT = "Copy: 3141592653589793 and 2718281828459045."


@pytest.fixture
def pair(loaded):
    return loaded("smolvlm_256m")


def tokens_of(steps) -> list[int]:
    return [step.token_id for step in steps if step.token_id is not None]


def copied(pair) -> tuple[int, list[int]]:
    """(prompt tokens, an answer that says the prompt's numbers again, twice)."""
    ids = pair[1](PROMPT).input_ids
    text = pair[1].tokenizer.encode("3141592653589793 and 2718281828459045", add_special_tokens=False).ids
    return len(ids), text + text


def varied(count: int) -> list[int]:
    return [random.Random(number).randrange(50, 200) for number in range(count)]


@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
@pytest.mark.parametrize("drafts", [1, 12])
def test_greedy_tokens_stay_those_of_the_reference(loaded, name, drafts):
    case = golden_cases(name)["text"]
    prompt = with_media(case["messages"])
    steps = stream_generate(*loaded(name), prompt, max_tokens=32, prompt_lookup_tokens=drafts, **case["options"])
    assert tokens_of(steps) == case["generated_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
def test_long_answers_to_every_golden_case_stay_the_same(loaded, name):
    """Several tokens at a time sum in another order than one by one: no choice of 200 turns on that."""
    for case in golden_cases(name).values():
        if "prompt_text" not in case:
            prompt, options = with_media(case["messages"]), {"max_tokens": 200, **case["options"]}
            singly = tokens_of(stream_generate(*loaded(name), prompt, **options))
            assert tokens_of(stream_generate(*loaded(name), prompt, prompt_lookup_tokens=8, **options)) == singly


def test_copied_text_takes_a_fraction_of_the_steps(pair, monkeypatch):
    length, answer = copied(pair)
    model = Planted(monkeypatch, length, answer)
    last = None
    steps = []
    for last in stream_generate(*pair, PROMPT, max_tokens=len(answer), prompt_lookup_tokens=7):
        steps.append(last)
    assert tokens_of(steps) == answer
    assert last.finish_reason == "length"
    assert len(model.steps) - 1 < len(answer) / 2
    assert last.accepted_tokens > len(answer) / 2
    assert last.accepted_tokens <= last.drafted_tokens < 1.3 * len(answer)


def test_text_that_does_not_repeat_takes_the_steps_it_takes_without(pair, monkeypatch):
    answer = varied(120)
    model = Planted(monkeypatch, copied(pair)[0], answer)
    steps = list(stream_generate(*pair, PROMPT, max_tokens=120, prompt_lookup_tokens=7))
    assert tokens_of(steps) == answer
    assert model.steps[1:] == [1] * 119
    assert steps[-1].drafted_tokens == 0


def test_text_that_only_begins_to_repeat_is_soon_drafted_no_more():
    """Runs of four tokens that recur, each time followed by another: drafts fail, and are tried ever more rarely."""
    tokens = [token for number in range(60) for token in (1, 2, 3, 4, 5, 6, 100 + number, 300 + number)]
    lookup, position = PromptLookup([], 8), 0
    drafts = []
    while position < len(tokens):
        if lookup.is_sure:
            lookup.add(tokens[position])
            draft = lookup.draft(8)
            right = next(
                (i for i, token in enumerate(draft) if tokens[position + 1 + i : position + 2 + i] != [token]), 0
            )
            if draft:
                lookup.judge(len(draft), right)
                drafts.append(position)
            for token in tokens[position + 1 : position + 1 + right]:
                lookup.add(token)
            position += 1 + right
        else:
            lookup.add(tokens[position])
            position += 1
    assert lookup.drafted < len(tokens) / 2


def test_a_run_of_one_token_and_a_short_period_are_continued():
    assert PromptLookup([5, 9, 9, 9], 6).draft(6) == [9] * 6
    assert PromptLookup([1, 2, 3, 1, 2, 3, 1, 2], 5).draft(5) == [3, 1, 2, 3, 1]
    assert PromptLookup([1, 2, 3, 4], 5).draft(5) == []


@pytest.mark.parametrize("count", [1, 2, 5, *range(8, 16), 29])
def test_max_tokens_is_kept_wherever_it_falls_within_a_draft(pair, monkeypatch, count):
    length, answer = copied(pair)
    Planted(monkeypatch, length, answer)
    steps = list(stream_generate(*pair, PROMPT, max_tokens=count, prompt_lookup_tokens=7))
    assert tokens_of(steps) == answer[:count]
    assert [step.completion_tokens for step in steps] == list(range(1, count + 1))
    assert steps[-1].finish_reason == "length"


@pytest.mark.parametrize("place", range(9, 18))
def test_an_end_token_within_a_draft_ends_the_answer(pair, monkeypatch, place):
    length, answer = copied(pair)
    end = next(iter(pair[1].stop_token_ids))
    answer[place] = end
    Planted(monkeypatch, length, answer)
    steps = list(stream_generate(*pair, PROMPT, max_tokens=60, prompt_lookup_tokens=7))
    assert tokens_of(steps) == answer[: place + 1]
    assert steps[-1].finish_reason == "stop"


def test_a_stop_string_within_a_draft_ends_the_text_before_it(pair, monkeypatch):
    length, answer = copied(pair)
    Planted(monkeypatch, length, answer)
    steps = list(stream_generate(*pair, PROMPT, max_tokens=60, prompt_lookup_tokens=7, stop=["9793"]))
    assert "".join(step.text for step in steps) == "314159265358"
    assert steps[-1].finish_reason == "stop"


@pytest.mark.parametrize("after", [1, 12, 17])
@pytest.mark.parametrize("way", ["cancel", "close", "stop"])
def test_a_cache_can_go_on_wherever_an_answer_was_left(pair, monkeypatch, after, way):
    """The next question, planted nothing, is answered as by a fresh cache."""
    length, answer = copied(pair)
    cache, cancel = PromptCache(), threading.Event()
    with monkeypatch.context() as patch:
        Planted(patch, length, answer)
        limit = after if way == "stop" else 60
        steps = stream_generate(
            *pair, PROMPT, max_tokens=limit, prompt_lookup_tokens=7, prompt_cache=cache, cancel=cancel
        )
        seen = [next(steps) for _ in range(after)]
        if way == "cancel":
            cancel.set()
            assert next(steps).finish_reason == "cancelled"
        steps.close()
    assert tokens_of(seen) == answer[:after]
    assert {layer.offset for layer in cache.layers} == {len(cache.token_ids)}
    assert cache.token_ids[:length] == pair[1](PROMPT).input_ids
    said = pair[1].tokenizer.decode(tokens_of(seen))
    messages = [
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "And now?"},
    ]
    fresh = tokens_of(stream_generate(*pair, messages, max_tokens=12))
    assert tokens_of(stream_generate(*pair, messages, max_tokens=12, prompt_cache=cache)) == fresh


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_lookup_tokens": 0}, "prompt_lookup_tokens is 0"),
        ({"prompt_lookup_tokens": 1.5}, r"prompt_lookup_tokens is 1\.5"),
        ({"prompt_lookup_tokens": 4, "temperature": 0.5}, "needs greedy answers"),
        ({"prompt_lookup_tokens": 4, "repetition_penalty": 1.1}, "needs greedy answers"),
        ({"prompt_lookup_tokens": 4, "max_kv_size": 64}, "cannot be combined"),
    ],
)
def test_drafts_that_cannot_be_checked_are_refused(pair, options, message):
    with pytest.raises(ValueError, match=message):
        stream_generate(*pair, "Hello.", **options)


def test_drafts_do_not_go_with_a_cache_that_begins_to_round_later():
    """A rejected draft beyond that point would leave what stays before it rounded."""
    with pytest.raises(ValueError, match="quantized from the start"):
        GenerationOptions(prompt_lookup_tokens=4, kv_bits=8, quantized_kv_start=9)
    GenerationOptions(prompt_lookup_tokens=4, kv_bits=8)


def test_a_copy_goes_on_where_it_was_right():
    """Rows of a table begin alike: the latest beginning is not the one that is being copied."""
    rows = [[1, 2, 3, 100 + number, 4, 200 + number, 5] for number in range(6)]
    table = [token for row in rows for token in row]
    lookup = PromptLookup([*table, 7], 6)
    for count, token in enumerate(table[:-6], 1):
        lookup.add(token)
        if count > 5:
            assert lookup.draft(6) == table[count : count + 6]
