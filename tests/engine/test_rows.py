"""Rows: requests come and go, and every answer is the one that its prompt gets alone."""

import gc
import threading
import time
from threading import Event

import numpy as np
import pytest
from PIL import Image
from support.media import picture, video_path
from support.row_events import finished

from mlx_smolvlm import DEMO_MODEL, BatchRequest, GenerationOptions, MediaOptions, Rows, load, stream_generate
from mlx_smolvlm.benchmark.generated_inputs import write_picture
from mlx_smolvlm.benchmark.geometries import GEOMETRIES, make_checkpoint
from mlx_smolvlm.engine import row_decoding

DEMO = DEMO_MODEL.parent


@pytest.fixture(scope="module")
def demo():
    """The demo model, whose answers differ in length and end by themselves."""
    return load(DEMO_MODEL, dtype="float32")


def told(events):
    """Text, tokens and the reason of the end, of one row."""
    tokens = [event.token_id for event in events if event.token_id is not None]
    return "".join(event.text for event in events), tokens, events[-1].finish_reason


def alone(pair, request, options=None, media_options=None, **keywords):
    steps = list(
        stream_generate(
            *pair,
            request.messages_or_prompt,
            images=list(request.images),
            videos=list(request.videos),
            options=request.options or options,
            media_options=request.media_options or media_options,
            **keywords,
        )
    )
    return told(steps)


def user(text, *images):
    content = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*content, {"type": "text", "text": text}]}


def assistant(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def test_each_row_has_options_of_its_own(demo):
    requests = {
        "greedy": BatchRequest("Hello", options=GenerationOptions(max_tokens=9)),
        "sampled": BatchRequest("Hello", options=GenerationOptions(temperature=1.3, seed=5, top_p=0.9, max_tokens=9)),
        "other seed": BatchRequest("Hello", options=GenerationOptions(temperature=1.3, seed=6, max_tokens=5)),
        "penalty": BatchRequest("Hello", options=GenerationOptions(repetition_penalty=1.4, max_tokens=12)),
        "regex": BatchRequest("Hello", options=GenerationOptions(regex="(yes|no)", temperature=1, seed=1)),
        "stop": BatchRequest("Hello", options=GenerationOptions(stop=["e"])),
        "one tile": BatchRequest(
            "What is it?", [picture("landscape")], media_options=MediaOptions(do_image_splitting=False)
        ),
        "video": BatchRequest("What?", videos=[str(video_path("short"))], media_options=MediaOptions(max_frames=2)),
        "raw": BatchRequest(
            "Assistant: <image>", [picture("tiny")], options=GenerationOptions(apply_chat_template=False)
        ),
        "continued": BatchRequest(
            [user("What shape is it?"), assistant("It is")], options=GenerationOptions(continue_final_message=True)
        ),
    }
    with Rows(*demo) as rows:
        for key, request in requests.items():
            assert rows.add(request, key=key, max_tokens=8) == key
        events = finished(rows)
    for key, request in requests.items():
        assert told(events[key]) == alone(demo, request, max_tokens=8), key


def test_a_row_may_come_at_any_time_and_go_at_any_time(demo):
    options = GenerationOptions(max_tokens=40, stop=["never to be said"])
    with Rows(*demo) as rows:
        first = rows.add(BatchRequest("Repeat: red circle, blue square"), options)
        gone = rows.add(BatchRequest("Hello"), options)
        events = {}
        while first not in events:
            for event in rows.step():
                events.setdefault(event.key, []).append(event)
        rows.remove(gone)
        late = rows.add(BatchRequest("What shape is it?", [str(DEMO / "first.png")]), options)
        finished(rows, events)
    assert told(events[first]) == alone(demo, BatchRequest("Repeat: red circle, blue square"), options)
    assert told(events[late]) == alone(demo, BatchRequest("What shape is it?", [str(DEMO / "first.png")]), options)
    assert all(event.finish_reason is None for event in events.get(gone, []))


def test_a_cancelled_row_ends_by_itself(demo):
    cancel = Event()
    with Rows(*demo) as rows:
        rows.add(BatchRequest("Hello"), key="cancelled", cancel=cancel, max_tokens=200)
        rows.add(BatchRequest("Hello"), key="goes on", max_tokens=6)
        events = {}
        while "cancelled" not in events:
            for event in rows.step():
                events.setdefault(event.key, []).append(event)
        cancel.set()
        finished(rows, events)
    assert events["cancelled"][-1].finish_reason == "cancelled"
    assert told(events["goes on"]) == alone(demo, BatchRequest("Hello"), max_tokens=6)


@pytest.mark.parametrize("moment", ["waiting", "preparing", "reading"])
def test_removing_a_row_leaves_nothing_behind(demo, moment):
    before = threading.active_count()
    with Rows(*demo, max_pause_s=1e-6) as rows:
        rows.add(BatchRequest("Hello"), key="goes on", max_tokens=30)
        for number in range(8 if moment == "waiting" else 1):
            rows.add(BatchRequest("What is it?", [picture("landscape")]), key=number)
        events = {}
        while moment == "reading" and rows.num_unread:
            for event in rows.step():
                events.setdefault(event.key, []).append(event)
        rows.remove(7 if moment == "waiting" else 0)
        finished(rows, events)
    assert told(events["goes on"]) == alone(demo, BatchRequest("Hello"), max_tokens=30)
    assert threading.active_count() == before


def test_what_answers_made_together_cannot_have_is_refused_with_the_reason(demo):
    with Rows(*demo) as rows:
        with pytest.raises(ValueError, match=r"prompt_lookup_tokens is 4, but answers that are made together"):
            rows.add(BatchRequest("Hello"), prompt_lookup_tokens=4)
        with pytest.raises(ValueError, match="caches that do not rotate"):
            rows.add(BatchRequest("Hello"), max_kv_size=64)
        with pytest.raises(ValueError, match="kv_bits is 8, but these rows were made with kv_bits=None"):
            rows.add(BatchRequest("Hello"), kv_bits=8)
        with pytest.raises(TypeError, match="did you mean 'temperature'"):
            rows.add(BatchRequest("Hello"), temprature=1)
        rows.add(BatchRequest("Hello"), key="a")
        with pytest.raises(ValueError, match="there is a row 'a' already"):
            rows.add(BatchRequest("Hello"), key="a")
        with pytest.raises(ValueError, match="there is no row 'b'"):
            rows.remove("b")


def test_rows_that_outgrow_their_buffer_move_and_answer_the_same(demo, monkeypatch):
    monkeypatch.setattr(row_decoding, "GROUP_LENGTHS", (24, 32, 64, 10**9))
    requests = [BatchRequest("Hello"), BatchRequest("What shape is it? " * 4), BatchRequest("Tell me of " * 9)]
    options = GenerationOptions(max_tokens=40, temperature=1.0, seed=3, logprobs=2)
    with Rows(*demo) as rows:
        keys = [rows.add(request, options) for request in requests]
        events = finished(rows)
    for key, request in zip(keys, requests, strict=True):
        assert told(events[key]) == alone(demo, request, options)


@pytest.fixture(scope="module")
def overhead(tmp_path_factory):
    """A model that is nothing but overhead, as small ones are on GPUs."""
    folder = tmp_path_factory.mktemp("overhead") / "model"
    return load(make_checkpoint(GEOMETRIES["overhead"], "float32", folder), dtype="float32")


@pytest.mark.parametrize("num_words", [300, pytest.param(2950, marks=pytest.mark.slow)])
def test_a_long_prompt_and_a_picture_hold_nobody_up(overhead, tmp_path, num_words):
    """Eight rows are decoded while a picture of 13 tiles, a long text and a short one are added."""
    options = GenerationOptions(max_tokens=20 if num_words < 1000 else 60)
    requests = {number: BatchRequest(f"Tell me about number {number}.") for number in range(8)}
    late = {
        "picture": BatchRequest("What is it?", [str(write_picture(tmp_path / "p.png", (1600, 1200), 1))]),
        "long": BatchRequest("a " * num_words),
        "short": BatchRequest("Hi"),
    }
    events, order, times = {}, [], []
    with Rows(*overhead) as rows:
        for key, request in requests.items():
            rows.add(request, options, key=key)
        while rows:
            for event in rows.step():
                assert event.error is None
                if event.key not in events:
                    order.append(event.key)
                events.setdefault(event.key, []).append(event)
            times.append(time.perf_counter())
            if len(order) == 8 and len(events[order[-1]]) == 5:
                for key, request in late.items():
                    rows.add(request, options, key=key)
                since = len(times)
    gaps = np.diff(times[since:])
    assert order.index("short") < order.index("long")
    assert events["picture"][0].image_tokens == 13 * overhead[1].config.image_seq_len
    print(f"longest gap between two steps {max(gaps):.3f} s, median {np.median(gaps):.3f} s")
    assert len(events[0]) >= 5 + 3  # the first rows went on while the others were read
    for key in (0, "picture", "short"):
        assert told(events[key]) == alone(overhead, {**requests, **late}[key], options)


def test_conversations_that_alternate_reuse_what_was_read(demo):
    """Each goes on from its own beginning; a picture of the same size with other pixels is another one."""
    pictures = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    talks = [[user("What color is the shape?", image)] for image in pictures]
    with Rows(*demo) as rows:
        for turn in range(3):
            for talk in talks:
                key = rows.add(BatchRequest(talk), max_tokens=5)
                events = finished(rows)[key]
                text, tokens, _ = told(events)
                assert (text, tokens) == alone(demo, BatchRequest(talk), max_tokens=5)[:2]
                if turn:
                    assert events[0].cached_tokens > events[0].prompt_tokens / 2
                else:
                    assert events[0].cached_tokens == 0
                talk += [assistant(text), user("And what shape is it?")]


def test_kept_beginnings_stay_within_their_bound(demo):
    bound = 2_000_000
    sizes = []
    with Rows(*demo, max_prefix_bytes=bound, max_feature_bytes=100_000) as rows:
        for number in range(40):
            image = Image.new("RGB", (48, 48), (number, 90, 9))
            rows.add(BatchRequest("What is it?", [image]), max_tokens=2)
            if number % 4 == 3:
                finished(rows)
            sizes.append(rows.prefix_cache.size_bytes)
        assert 0 < max(sizes) <= bound
        assert len(rows.prefix_cache) > 1
        assert rows.feature_cache.size_bytes <= 100_000


def test_log_probabilities_are_those_of_the_model(demo):
    request, options = BatchRequest("What is it?", [picture("tiny")]), GenerationOptions(max_tokens=6, logprobs=3)
    steps = list(stream_generate(*demo, request.messages_or_prompt, images=list(request.images), options=options))
    inputs = demo[1](request.messages_or_prompt, request.images)
    ids = [*inputs.input_ids, *(step.token_id for step in steps)]
    logits = np.array(demo[0](ids, inputs.pixel_values))[0, len(inputs.input_ids) - 1 : -1].astype(np.float64)
    expected = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    with Rows(*demo) as rows:
        rows.add(request, options, key=0)
        rows.add(BatchRequest("Hello"), key=1)
        events = finished(rows)
    assert events[1][0].logprob is None
    for step, event, row in zip(steps, events[0], expected, strict=True):
        for reported in (step, event):
            assert reported.logprob == pytest.approx(row[reported.token_id], abs=1e-4)
            best = np.argsort(-row)[:3]
            assert [token for token, _ in reported.top_logprobs] == best.tolist()
            assert [value for _, value in reported.top_logprobs] == pytest.approx(row[best].tolist(), abs=1e-4)


def test_rows_let_go_of_what_they_held(demo):
    with Rows(*demo) as rows:
        rows.add(BatchRequest("Hello"), max_tokens=2)
        finished(rows)
    gc.collect()
    assert len(rows) == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mlx_smolvlm")]
