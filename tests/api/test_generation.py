"""Streaming, stopping and cancelling."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import mlx.core as mx
import pytest
from support.golden_cases import golden_cases, with_media

from mlx_smolvlm import BatchRequest, generate_batch, generate_text, stream_generate
from mlx_smolvlm.engine.answer import TextStream


class Scripted:
    """A processor whose tokenizer is real and whose stop token is 0."""

    def __init__(self, processor):
        self.tokenizer = processor.tokenizer
        self.decode = processor.decode
        self.special_tokens = processor.special_tokens
        self.stop_token_ids = frozenset([0])


def streamed(processor, text: str, stop: list[str]) -> tuple[list[str], bool]:
    """What a stream hands out, token by token and at the end."""
    stream = TextStream(Scripted(processor), stop, True)
    parts = []
    for token in processor.tokenizer.encode(text).ids:
        parts.append(stream.add(token))
        if stream.stopped:
            break
    return [*parts, stream.flush()], stream.stopped


@pytest.mark.parametrize("text", ["naïve café — 東京 🐝🇯🇵 done", "one two three", "🐝", " leading", "   indented"])
def test_characters_of_several_tokens_come_out_whole(loaded, text):
    parts, _ = streamed(loaded("smolvlm_256m")[1], text, [])
    assert "".join(parts) == text.removeprefix(" ")
    assert all("\ufffd" not in part for part in parts)


def test_a_character_that_never_completes_is_marked_as_the_reference_marks_it(loaded):
    processor = loaded("smolvlm_256m")[1]
    stream = TextStream(Scripted(processor), [], True)
    ids = processor.tokenizer.encode("a🐝").ids[:-1]
    assert "".join([*(stream.add(token) for token in ids), stream.flush()]) == processor.decode(ids)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [(["three"], "one two "), (["two", "three"], "one "), (["e t"], "on"), (["absent"], "one two three four")],
)
def test_stop_strings_end_the_text_before_them(loaded, stop, expected):
    parts, stopped = streamed(loaded("smolvlm_256m")[1], "one two three four", stop)
    assert "".join(parts) == expected
    assert stopped == (stop != ["absent"])


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one<row_1_col_2>two", "<row_1_col_2>", "one"),
        ("one<row_1_col_2>two", "e<row_1_col_2>t", "on"),
        ("one<row_1_col_2><row_1_col_3>two", "<row_1_col_2><row_1_col_3>", "one"),
        ("<row_1_col_2> two", "<row_1_col_2> t", ""),
        ("one<row_1_col_2>two", "<row_1_col_2>x", "one<row_1_col_2>two"),
        ("one two<end_of_utterance>", "two<end_of_utterance>", "one "),
        ("<row_1_col_2>", "<row_1_col_2>", ""),
    ],
)
def test_stop_strings_may_be_special_tokens(loaded, skips, text, stop, expected):
    """They never came where special tokens are skipped, which is the default."""
    processor = loaded("smolvlm_256m")[1]
    stream = TextStream(Scripted(processor), [stop], skips)
    shown = ""
    for token in processor.tokenizer.encode(text).ids:
        shown += stream.add(token)
    assert shown + stream.flush() == (expected.replace("<row_1_col_2>", "") if skips else expected)
    assert stream.stopped == (expected != text)


def test_generation_stops_on_a_special_token(loaded, monkeypatch):
    """In a stream and in a batch: the answer ends at the token, with its reason."""
    model, processor = loaded("smolvlm_256m")
    free = [step.token_id for step in stream_generate(model, processor, "Hello", max_tokens=8)]
    spelled = {token: f"<special {token}>" for token in free}
    monkeypatch.setitem(vars(processor), "special_tokens", spelled)
    place = next(place for place in range(2, 8) if free[place] not in free[:place])
    options = {"max_tokens": 8, "stop": [spelled[free[place]]]}
    steps = list(stream_generate(model, processor, "Hello", **options))
    (answer,) = generate_batch(model, processor, [BatchRequest("Hello")], **options)
    assert [step.token_id for step in steps] == answer.token_ids == free[: place + 1]
    assert steps[-1].finish_reason == answer.finish_reason == "stop"
    assert "".join(step.text for step in steps) == answer.text


def test_the_beginning_of_a_stop_string_is_not_shown_before_it_is_certain(loaded):
    processor = loaded("smolvlm_256m")[1]
    stream = TextStream(Scripted(processor), ["xyz!"], True)
    shown = ""
    for token in processor.tokenizer.encode("axyzb").ids:
        shown += stream.add(token)
        assert not any(shown.endswith(part) for part in ("x", "xy", "xyz"))
    assert shown + stream.flush() == "axyzb"


def test_a_stop_string_ends_generation(loaded):
    model, processor = loaded("smolvlm_256m")
    case = golden_cases("smolvlm_256m")["text"]
    text = case["text"].lstrip(" ")
    stop = next(text[i : i + 2] for i in range(4, 20) if text[i : i + 2].isascii() and text[i : i + 2].strip())
    steps = list(stream_generate(model, processor, case["messages"], max_tokens=32, stop=[stop]))
    assert "".join(step.text for step in steps) == text[: text.index(stop)]
    assert steps[-1].finish_reason == "stop"
    assert len(steps) < len(case["generated_ids"])


@pytest.mark.parametrize("name", ["smolvlm_256m", "smolvlm2_2b", "idefics3"])
def test_prefill_in_chunks_gives_the_same_tokens(loaded, name):
    model, processor = loaded(name)
    case = golden_cases(name)["turns"]
    messages = with_media(case["messages"])
    for chunk in (17, 100_000):
        steps = list(stream_generate(model, processor, messages, max_tokens=8, prefill_chunk=chunk))
        assert [step.token_id for step in steps] == case["generated_ids"][:8]


def test_the_same_seed_gives_the_same_text_and_another_seed_another(loaded):
    model, processor = loaded("smolvlm_256m")

    def text(seed):
        return generate_text(model, processor, "Tell me.", max_tokens=16, temperature=1.0, seed=seed)

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_cancelling_between_tokens_keeps_the_text_so_far(loaded):
    model, processor = loaded("smolvlm_256m")
    cancel = threading.Event()
    steps = []
    for step in stream_generate(model, processor, "Count.", max_tokens=30, cancel=cancel):
        steps.append(step)
        if len(steps) == 3:
            cancel.set()
    assert steps[-1].finish_reason == "cancelled"
    assert steps[-1].completion_tokens == 3
    assert len(steps) == 4


def test_cancelling_before_the_start_does_no_work(loaded):
    model, processor = loaded("smolvlm_256m")
    cancel = threading.Event()
    cancel.set()
    case = golden_cases("smolvlm_256m")["landscape"]
    steps = list(stream_generate(model, processor, with_media(case["messages"]), cancel=cancel))
    assert [step.finish_reason for step in steps] == ["cancelled"]
    assert steps[0].token_id is None
    assert steps[0].timing.vision == 0


def test_closing_the_generator_ends_it(loaded):
    model, processor = loaded("smolvlm_256m")
    stream = stream_generate(model, processor, "Count.", max_tokens=30)
    next(stream)
    stream.close()
    assert list(stream) == []


def test_several_threads_generate_at_once_without_mixing(loaded):
    model, processor = loaded("smolvlm_256m")
    cases = [golden_cases("smolvlm_256m")[name] for name in ("text", "tiny", "turns", "no_split")]
    results: dict[int, list] = {}

    def work(number):
        case = cases[number]
        prompt = with_media(case["messages"])
        steps = stream_generate(model, processor, prompt, max_tokens=32, **case["options"])
        results[number] = [step.token_id for step in steps]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: case["generated_ids"] for number, case in enumerate(cases)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.8, "seed": 3, "top_p": 0.9},
        {"repetition_penalty": 1.3},
        {"prompt_lookup_tokens": 4},
        {"regex": "[a-z ]{1,90}"},
    ],
)
def test_every_token_may_be_asked_for_by_another_thread(loaded, options):
    """As servers do that hand a generator to a pool of threads."""

    def steps():
        return stream_generate(*loaded("smolvlm_256m"), "Red red red red red.", max_tokens=12, **options)

    stream, token_ids = steps(), []
    while True:
        with ThreadPoolExecutor(1) as thread:  # a new one each time
            step = thread.submit(next, stream, None).result()
        if step is None:
            break
        token_ids.append(step.token_id)
    assert token_ids == [step.token_id for step in steps()]


@pytest.mark.parametrize("options", [{}, {"regex": "[a-z ]{1,90}"}])
def test_a_token_is_enqueued_before_the_step_after_it(loaded, monkeypatch, options):
    """What MLX enqueues together is ready together: the first token would wait for the second one's step."""
    model, processor = loaded("smolvlm_256m")
    enqueued = []
    evaluate, read = mx.async_eval, type(model.language_model).__call__
    monkeypatch.setattr(mx, "async_eval", lambda *arrays: (enqueued.append("token"), evaluate(*arrays)))
    monkeypatch.setattr(
        type(model.language_model), "__call__", lambda self, *given: (enqueued.append("step"), read(self, *given))[1]
    )
    next(stream_generate(model, processor, "Count.", max_tokens=5, **options))
    first_step = len(enqueued) - 1 - enqueued[::-1].index("step")
    assert enqueued[first_step - 1] == "token"


def test_a_prompt_beyond_the_context_is_refused_before_any_work(loaded):
    model, processor = loaded("smolvlm_256m")
    from support.media import picture

    pictures = [picture("square")] * 200
    with pytest.raises(ValueError, match=r"model's context is \d+") as error:
        next(stream_generate(model, processor, "What?", images=pictures))
    assert str(error.value).count("68 tokens (4 x 4 tiles and the global image)") == 200


def test_generation_ends_where_the_context_ends(loaded, monkeypatch):
    model, processor = loaded("smolvlm_256m")
    monkeypatch.setattr(processor, "config", replace(processor.config, context_length=100))
    room = 5
    filler = processor.config.context_length - len(processor("a").input_ids)
    prompt = "a" + "1" * (filler - room)  # digits are tokens of their own
    steps = list(stream_generate(model, processor, prompt, max_tokens=50))
    assert steps[-1].prompt_tokens == processor.config.context_length - room
    assert len(steps) <= room


def test_times_and_counts_add_up(loaded):
    model, processor = loaded("smolvlm_256m")
    case = golden_cases("smolvlm_256m")["landscape"]
    last = list(stream_generate(model, processor, with_media(case["messages"]), max_tokens=6))[-1]
    stages = last.timing.processing + last.timing.vision + last.timing.prefill
    assert 0 < stages <= last.timing.time_to_first_token
    assert last.timing.decode > 0
    assert last.completion_tokens == 6
    assert last.image_tokens == case["input_ids"].count(processor.config.image_token_id)
    assert last.prompt_tokens == len(case["input_ids"])
    assert last.peak_memory_bytes > 0


def test_weights_that_compute_nonsense_are_an_error(checkpoint):
    import mlx.core as mx

    import mlx_smolvlm

    model, processor = mlx_smolvlm.load(checkpoint("smolvlm_256m"), dtype="float32")
    model.language_model.norm.weight = mx.full((96,), float("nan"))
    with pytest.raises(ValueError, match="not finite in float32"):
        next(stream_generate(model, processor, "Hello."))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 1.5}, "max_tokens is 1.5"),
        ({"stop": [1]}, "expected a list of strings"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"prefill_chunk": 0}, "prefill_chunk is 0"),
        ({"stop": "text"}, "expected a list of strings"),
        ({"stop": [""]}, "not empty"),
        ({"images": "cat.jpg"}, "images is 'cat.jpg', expected a list"),
        ({"temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_options_are_checked_when_called_not_at_the_first_token(loaded, options, message):
    with pytest.raises(ValueError, match=message):
        stream_generate(*loaded("smolvlm_256m"), "Hello.", **options)
