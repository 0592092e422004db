"""Rows of several adapters on one base: each answer is the one of its adapters alone, within bounds of all of them."""

import gc
from functools import cache
from threading import Event
from types import SimpleNamespace
from weakref import ref

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from support.made_adapters import write_decoder_adapter, write_peft
from support.row_events import finished
from support.slow_cases import slow
from tokenizers import Tokenizer

from mlx_smolvlm import DEMO_MODEL, AdapterSet, BatchRequest, Rows, generate_batch, load, stream_generate
from mlx_smolvlm.engine.pacing import Pace
from mlx_smolvlm.model.adapters.attaching import dense_weight

DEMO = DEMO_MODEL.parent
QUESTION = "What do you see?"
SHOWN = (str(DEMO / "picture.png"),)
VISION = "model.vision_model.encoder.layers.0.self_attn.q_proj"
OPTIONS = {"max_tokens": 5, "skip_special_tokens": False, "do_image_splitting": False}


@pytest.fixture(scope="module")
def adapters(demo, tmp_path_factory):
    """The demo model, and adapters of its decoder, of its encoder, and with a chat template."""
    folder = tmp_path_factory.mktemp("adapters")
    model, _ = demo
    for seed in (1, 2, 3):
        write_decoder_adapter(folder / str(seed), model, seed)
    width = model.config.vision.hidden_size
    write_peft(folder / "eyes", {VISION: (width, width)}, lora_alpha=40)
    (folder / "3" / "chat_template.jinja").write_text(
        "{% for message in messages %}Q: {{ message['content'][-1]['text'] }}{% endfor %} A:", encoding="utf-8"
    )
    sources = {"a": folder / "1", "b": folder / "2", "own template": folder / "3", "eyes": folder / "eyes"}
    return AdapterSet(DEMO_MODEL, sources, dtype="float32")


def request_to(adapters, name, text=QUESTION, images=()):
    return BatchRequest(text, images, pair=adapters.pair(name))


def tokens(events):
    return [event.token_id for event in events if event.token_id is not None]


@cache
def alone(adapters, name, text=QUESTION, images=()):
    """The answer of the name's adapters."""
    return [step.token_id for step in stream_generate(*adapters.pair(name), text, images=list(images), **OPTIONS)]


def no_step_before(num_rows, rows):
    """However slow the machine is, the first token comes when so many prompts have been read."""
    step = rows._decoder.step

    def later():
        if len(rows._decoder) < num_rows:
            return []
        rows._decoder.step = step
        return step()

    rows._decoder.step = later


def test_each_answer_is_that_of_its_adapters_alone(adapters, demo, tmp_path):
    """Eight at a time, in five lanes, texts and images mixed."""
    asked = [(name, SHOWN) for name in ("a", None, "b", "eyes")]
    asked += [(name, ()) for name in ("own template", "a", None, "b")]
    with Rows(*adapters.pair()) as rows:
        for number, (name, images) in enumerate(asked):
            rows.add(request_to(adapters, name, images=images), key=number, **OPTIONS)
        no_step_before(len(asked), rows)
        events = finished(rows)
        answers = [tokens(events[number]) for number in range(len(asked))]
    assert answers == [alone(adapters, name, images=images) for name, images in asked]
    assert len({str(answer) for answer in answers}) >= 7
    folder = write_decoder_adapter(tmp_path / "a", demo[0], 1)
    steps = stream_generate(*load(DEMO_MODEL, adapters=folder, dtype="float32"), QUESTION, images=SHOWN, **OPTIONS)
    assert answers[0] == [step.token_id for step in steps]


def test_batches_may_mix_adapters(adapters):
    requests = [request_to(adapters, "a"), BatchRequest(QUESTION), request_to(adapters, "b")]
    answers = {x.index: x.token_ids for x in generate_batch(*adapters.pair(), requests, batch_size=3, **OPTIONS)}
    assert [answers[number] for number in range(3)] == [alone(adapters, name) for name in ("a", None, "b")]


def test_kept_prefixes_never_cross_adapters(adapters):
    """The same prompt with A, none, B, none again, A again, in one `Rows`."""
    with Rows(*adapters.pair()) as rows:
        cached, answers, num_encoded = [], [], []
        for name in ("a", None, "b", None, "a"):
            key = rows.add(request_to(adapters, name, images=SHOWN), **OPTIONS)
            events = finished(rows)[key]
            cached.append(events[0].cached_tokens > 0)
            answers.append(tokens(events))
            num_encoded.append(rows.feature_cache.num_encoded)
        key = rows.add(request_to(adapters, "eyes", images=SHOWN), **OPTIONS)
        assert finished(rows)[key][0].cached_tokens == 0
        assert rows.feature_cache.num_encoded == 2 * num_encoded[0]  # by an encoder of its own
    assert num_encoded == num_encoded[:1] * 5  # an encoder that adapters leave as it is sees an image once
    assert cached == [False, False, False, True, True]
    assert answers[:3] == [alone(adapters, name, images=SHOWN) for name in ("a", None, "b")]
    assert answers[3:] == [answers[1], answers[0]]


@pytest.mark.parametrize("batch_size", [6, slow(3)])
def test_bounds_are_of_all_lanes(adapters, batch_size):
    """Rows and their buffers, keys and values, kept prefixes and features; and all is released at the end."""
    names = ("a", "b", None, "own template")
    bounds = {"batch_size": batch_size, "max_prefix_bytes": 1_000_000, "max_feature_bytes": 20_000}
    if batch_size == 6:  # rows of which only four fit
        with Rows(*adapters.pair()) as rows:
            rows.add(BatchRequest("Hello"), max_tokens=6)
            while not rows.usage[0]:
                rows.step()
            bounds["max_cache_bytes"] = 4 * rows.usage[0]
    with Rows(*adapters.pair(), **bounds) as rows:
        for number in range(7):
            images = [Image.new("RGB", (32, 32), (number, 9, 9))] if number % 4 == 0 else []
            rows.add(request_to(adapters, names[number % 4], f"Hello {number}", images), max_tokens=6)
        no_step_before(min(batch_size, 4), rows)
        most_rows = 0
        while rows:
            rows.step()
            lanes = rows._decoder._lanes.values()
            num_buffers = sum(group.cache.num_rows for lane in lanes for group in lane._groups)
            most_rows = max(most_rows, len(rows._decoder))
            assert len(rows._decoder) <= num_buffers <= batch_size
            assert rows.usage[0] <= bounds.get("max_cache_bytes", 2**40)
            assert rows.prefix_cache.size_bytes <= 1_000_000 and rows.feature_cache.size_bytes <= 20_000
        assert not rows._decoder._lanes and rows.usage[0] == 0
        assert len(rows.prefix_cache) and rows.feature_cache.size_bytes
    assert most_rows == min(batch_size, 4)


def test_a_lane_ends_with_its_last_row(adapters):
    cancel = Event()
    with Rows(*adapters.pair()) as rows:
        rows.add(request_to(adapters, "a"), key="cancelled", cancel=cancel, max_tokens=300)
        rows.add(request_to(adapters, "b"), key="removed", max_tokens=300)
        rows.add(request_to(adapters, None), key="goes on", max_tokens=30)
        events = {}
        while rows._decoder.num_lanes < 3:
            rows.step()
        cancel.set()
        rows.remove("removed")
        events = finished(rows, events)
        assert [event.finish_reason for event in events["cancelled"]][-1] == "cancelled"
        assert "removed" not in events and events["goes on"][-1].error is None
        assert not rows._decoder._lanes


def test_a_model_that_is_no_longer_used_is_let_go(adapters, demo, tmp_path):
    """What is kept of its prompts does not keep it alive, nor is it found by another one."""
    others = AdapterSet(DEMO_MODEL, {"a": write_decoder_adapter(tmp_path, demo[0], 1)}, dtype="float32")
    with Rows(*others.pair()) as rows:
        key = rows.add(request_to(others, "a", images=SHOWN), **OPTIONS)
        answer = tokens(finished(rows)[key])
        model = ref(others.pair("a")[0])
        others.remove("a")
        gc.collect()
        assert model() is None
        others.add("a", tmp_path)
        key = rows.add(request_to(others, "a", images=SHOWN), **OPTIONS)
        events = finished(rows)[key]
    assert events[0].cached_tokens == 0 and tokens(events) == answer


def test_more_lanes_allow_no_longer_pause(adapters, monkeypatch):
    """Steps of all lanes are made in turn, and prompts may be read for the time of two steps of one lane."""
    measured = []
    with Rows(*adapters.pair()) as rows:
        for name in ("a", "b", None):
            rows.add(request_to(adapters, name), max_tokens=2)
        no_step_before(3, rows)
        step = rows._pace.step
        monkeypatch.setattr(rows._pace, "step", lambda num_lanes: measured.append(num_lanes) or step(num_lanes))
        finished(rows)
    assert measured[-1] == 3  # all of them end in the step that they make together
    clock = iter([0.0, 0.3, 1.0, 1.1])
    monkeypatch.setattr("mlx_smolvlm.engine.pacing.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    paces = [Pace(0.01), Pace(0.01)]
    for pace, num_lanes in zip(paces, (3, 1), strict=True):
        with pace.step(num_lanes):
            pass
    assert paces[0].pause_s == pytest.approx(paces[1].pause_s) == pytest.approx(0.2)


def test_an_adapter_with_more_tokens_of_its_own(adapters, demo, tmp_path):
    """A lane's logits are as wide as its own vocabulary."""
    from safetensors.numpy import load_file, save_file

    folder = write_decoder_adapter(tmp_path / "adapter", demo[0], 1)
    tensors = load_file(folder / "adapter_model.safetensors")
    for path, layer in (("model.text_model.embed_tokens", "embed_tokens"), ("lm_head", "lm_head")):
        weight = np.array(dense_weight(demo[0].language_model[layer]).astype(mx.float32))
        tensors[f"base_model.model.{path}.weight"] = np.concatenate([weight, 3 * weight[:2]])
    save_file(tensors, folder / "adapter_model.safetensors")
    tokenizer = Tokenizer.from_file(str(DEMO_MODEL / "tokenizer.json"))
    tokenizer.add_tokens(["<point>", "<box>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    adapters.add("more tokens", folder)
    text = "<box> or <point>?"
    with Rows(*adapters.pair()) as rows:
        for key in ("more tokens", "a"):
            rows.add(request_to(adapters, key, text), key=key, **OPTIONS)
        events = finished(rows)
    adapters_pair = adapters.pair("more tokens")
    adapters.remove("more tokens")
    assert len(events["more tokens"][0].prompt_ids) < len(events["a"][0].prompt_ids)
    steps = stream_generate(*adapters_pair, text, **OPTIONS)
    assert tokens(events["more tokens"]) == [step.token_id for step in steps]
    assert tokens(events["a"]) == alone(adapters, "a", text)


def test_what_is_no_pair_is_refused(adapters):
    model, processor = adapters.pair()
    for pair in ("a", [model, processor], (model,), 3):
        with pytest.raises(TypeError, match=r"pair is .*, expected \(model, processor\), as load\(\) returns them"):
            BatchRequest("Hello", pair=pair)
    with pytest.raises(TypeError, match="model and processor are swapped"):
        BatchRequest("Hello", pair=(processor, model))
