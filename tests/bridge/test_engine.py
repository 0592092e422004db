"""The engine that other languages drive: answers are those of `stream_generate`, and nothing raises."""

import os
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from support.bridge import Program, answer_of, bgra, text_of
from support.editing import copied
from support.layout import PACKAGE
from support.made_adapters import write_peft

from mlx_smolvlm import DEMO_MODEL, SampledVideo, Session, load, stream_generate
from mlx_smolvlm.bridge import Engine

PICTURE = PACKAGE / "demo" / "picture.png"
SECOND = PACKAGE / "demo" / "second.png"
CLIP = PACKAGE / "demo" / "clip.mp4"
QUESTION = "What color is the shape?"


# Answers


def test_loading_says_how_far_it_is():
    *progress, loaded = Program(Engine()).ask("load", dtype="float32")
    assert {event["event"] for event in progress} == {"progress"}
    assert loaded == {"event": "loaded", "id": 1, "model": 1, "context_length": 2048, "dtype": "float32"}


def test_a_program_is_told_what_it_talks_to():
    (ready,) = Program(Engine()).ask("hello", protocol=1)
    assert ready["event"] == "ready" and ready["protocol"] == 1 and ready["device"] in ("cpu", "gpu")
    assert set(ready["versions"]) == {"mlx_smolvlm", "mlx", "python"}


@pytest.mark.parametrize("kind", ["file", "encoded", "rgb", "bgra"])
def test_an_image_may_come_in_any_way(program, expected, kind):
    pixels = np.asarray(Image.open(PICTURE).convert("RGB"))
    camera, layout = bgra(pixels, padding=12)
    plain = {"width": pixels.shape[1], "height": pixels.shape[0], "bytes_per_row": 3 * pixels.shape[1], "format": "rgb"}
    image, data = {
        "file": ({"path": str(PICTURE)}, []),
        "encoded": ({"attachment": 0}, [PICTURE.read_bytes()]),
        "rgb": ({"attachment": 0, **plain}, [pixels.tobytes()]),
        "bgra": ({"attachment": 0, **layout}, [camera]),
    }[kind]
    events = program.ask("respond", *data, model=1, prompt=QUESTION, images=[image])
    assert answer_of(events) == expected(QUESTION, images=[PICTURE])
    assert events[-2]["finish_reason"] == "stop" and events[-2]["statistics"]["completion_tokens"] == len(events) - 1


def test_transparent_pixels_are_those_of_the_same_png(program, expected):
    pixels = np.asarray(Image.open(PICTURE).convert("RGBA")).copy()
    pixels[:, 100:, 3] = 99
    layout = {"width": pixels.shape[1], "height": len(pixels), "bytes_per_row": 4 * pixels.shape[1], "format": "rgba"}
    image = {"attachment": 0, **layout}
    events = program.ask("respond", pixels.tobytes(), model=1, prompt=QUESTION, images=[image])
    assert answer_of(events) == expected(QUESTION, images=[Image.fromarray(pixels)])


def test_a_model_with_adapters_is_one_of_its_own(program, expected, tmp_path):
    demo = load(DEMO_MODEL, dtype="float32")
    text = demo[0].config.text
    shapes = {"model.text_model.layers.0.mlp.down_proj": (text.hidden_size, text.intermediate_size)}
    adapter = write_peft(tmp_path / "adapter", shapes, seed=3, lora_alpha=40)
    given = {"adapters": [{"path": str(adapter), "weight": 0.5}], "dtype": "float32"}
    loaded = program.ask("load", id=500, **given)[-1]
    assert (loaded["event"], loaded["model"]) == ("loaded", 500)
    images, options = [{"path": str(PICTURE)}], {"max_tokens": 6}
    asked = {number: {"model": number, "prompt": QUESTION, "images": images} for number in (1, 500)}
    numbers = [program.send("respond", **fields, options=options) for fields in asked.values()]
    adapted = load(DEMO_MODEL, dtype="float32", adapters=(adapter, 0.5))
    steps = list(stream_generate(*adapted, QUESTION, images=[PICTURE], max_tokens=6))
    wanted = "".join(step.text for step in steps), [step.token_id for step in steps]
    assert answer_of(program.events(numbers[0])) == expected(QUESTION, images=[PICTURE], max_tokens=6) != wanted
    assert answer_of(program.events(numbers[1])) == wanted
    assert program.ask("unload", model=500)[-1]["event"] == "end"
    assert program.error("load", adapters=[{"path": "/no/such"}])[0] == "file_not_found"
    assert "expected a number" in program.error("load", adapters=[{"path": "x", "weight": "1"}])[1]


def test_models_of_the_same_files_share_their_weights(tmp_path):
    """An app that chooses between adapters, or none, would need memory for the base as often."""
    engine, folder = Engine(), copied(DEMO_MODEL, tmp_path / "model")
    program = Program(engine)
    shapes = {"model.text_model.layers.0.mlp.down_proj": (192, 448)}
    adapter = write_peft(tmp_path / "adapter", shapes, seed=3)

    def embeddings(number, **fields):
        loaded = program.ask("load", id=number, model=str(folder), **fields)[-1]
        assert loaded["event"] == "loaded", loaded
        model = engine._handlers._models[number].model
        return model.language_model.embed_tokens.weight

    first = embeddings(1)
    assert embeddings(2, adapters=[{"path": str(adapter)}]) is first
    assert program.ask("unload", model=1)[-1]["event"] == "end"
    assert embeddings(3) is first
    assert embeddings(4, dtype="float16") is not first
    os.utime(folder / "model.safetensors", (1, 1))
    assert embeddings(5) is not first  # it may have been converted anew


def test_two_images_a_video_and_frames(program, expected):
    question = "What is different between the two pictures?"
    images = [{"path": str(PICTURE)}, {"path": str(SECOND)}]
    both = program.send("respond", model=1, prompt=question, images=images)
    way = "Which way does the shape move?"
    video = program.send("respond", model=1, prompt=way, videos=[{"path": str(CLIP)}], options={"max_frames": 4})
    frame = {"attachment": 0}
    frames = program.send(
        "respond",
        PICTURE.read_bytes(),
        model=1,
        prompt=way,
        videos=[{"frames": [frame, frame], "times_s": [0, 1], "duration_s": 2}],
    )
    shown = Image.open(PICTURE).convert("RGB")
    sampled = SampledVideo([shown, shown], [0, 1], 2)
    assert answer_of(program.events(both)) == expected(question, images=[PICTURE, SECOND])
    assert answer_of(program.events(video)) == expected(way, videos=[CLIP], max_frames=4)
    assert answer_of(program.events(frames)) == expected(way, videos=[sampled])


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"json_schema": {"type": "object", "properties": {"a": {"enum": ["red", "blue"]}}, "required": ["a"]}},
            marks=pytest.mark.slow,
        ),  # the grammar of a first schema takes seconds
        {"temperature": 0.9, "seed": 7, "max_tokens": 6},
        {"prompt_lookup_tokens": 4},  # what answers made together cannot have
        {"kv_bits": 8, "kv_group_size": 32, "logprobs": 2},
    ],
)
def test_options_are_those_of_python(program, expected, options):
    events = program.ask("respond", model=1, prompt=QUESTION, images=[{"path": str(PICTURE)}], options=options)
    assert answer_of(events) == expected(QUESTION, images=[PICTURE], **options)
    assert ("logprobs" in options) == (events[0]["logprob"] is not None)


def test_a_session_goes_on_where_it_was_even_after_it_was_saved(program, demo, tmp_path):
    session = Session(*demo)
    first, second = (
        "".join(step.text for step in session.ask(text, **media))
        for text, media in (("Which way does the shape move?", {"videos": [CLIP]}), (QUESTION, {}))
    )
    number = program.send("session.create", model=1)
    assert program.events(number)[-1]["event"] == "end"
    videos = [{"path": str(CLIP)}]
    asked = program.ask("session.ask", session=number, prompt="Which way does the shape move?", videos=videos)
    assert text_of(asked) == first
    saved = str(tmp_path / "talk.session")
    assert program.ask("session.save", session=number, path=saved)[-1]["event"] == "end"
    again = program.send("session.load", model=1, path=saved)
    program.events(again)
    for talk in (number, again):
        followed = program.ask("session.ask", session=talk, prompt=QUESTION)
        statistics = followed[-2]["statistics"]
        assert text_of(followed) == second
        assert statistics["image_tokens"] == 24
        assert 0 < statistics["prompt_tokens"] - statistics["cached_tokens"] < 24
        turns = program.ask("session.turns", session=talk)[-1]["result"]
        assert [turn["answer"] for turn in turns] == [first, second] and turns[1]["question"] == QUESTION
    assert text_of(program.ask("session.regenerate", session=again)) == second
    assert text_of(program.ask("session.edit", session=again, prompt=QUESTION)) == second
    program.ask("session.undo", session=again)
    assert len(program.ask("session.turns", session=again)[-1]["result"]) == 1
    program.ask("session.close", session=again)
    assert program.error("session.turns", session=again)[0] == "closed"


def test_warming_up_pinging_and_limits_end_without_a_word(program):
    for request in ({"request": "warm_up", "model": 1}, {"request": "ping"}, {"request": "limits"}):
        assert [event["event"] for event in program.ask(**request)] == ["end"]


# Cancelling


def test_a_cancelled_answer_ends_within_a_step(program):
    long = {"max_tokens": 900, "temperature": 1000, "seed": 3}  # takes seconds: no end comes soon
    number = program.send("respond", model=1, prompt=QUESTION, options=long)
    while program.next_event()["event"] != "token":
        pass
    program.engine.cancel(number)
    events = program.events(number)
    assert [event["event"] for event in events] == ["token", "end"]
    assert events[0]["finish_reason"] == "cancelled"


def test_what_is_cancelled_before_it_has_begun_does_not_begin(program, expected):
    number = program.send("respond", model=1, prompt=QUESTION, images=[{"path": str(PICTURE)}])
    following = program.send("respond", model=1, prompt=QUESTION, images=[{"path": str(PICTURE)}])
    program.engine.cancel(number)
    program.engine.cancel(987654)  # is nobody's
    events = program.events(number)
    assert [event.get("finish_reason") for event in events] == ["cancelled", None]
    assert answer_of(program.events(following)) == expected(QUESTION, images=[PICTURE])


def test_unloading_ends_what_is_in_flight(program):
    (*_, loaded) = program.ask("load", dtype="float32")
    model = loaded["model"]
    talk = program.ask("session.create", model=model)[-1]["id"]
    long = {"max_tokens": 900, "temperature": 1000, "seed": 3}  # takes seconds: no end comes soon
    asked = [
        program.send("respond", model=model, prompt=QUESTION, options=long),
        program.send("session.ask", session=talk, prompt=QUESTION, options=long),
        program.send("captions", model=model, prompt=QUESTION),
    ]
    while program.next_event()["event"] != "token":
        pass
    program.ask("unload", model=model)
    for number in asked:
        assert program.events(number)[-1]["kind"] == "closed"
    assert program.error("respond", model=model, prompt=QUESTION)[0] == "closed"
    assert program.error("session.turns", session=talk)[0] == "closed"
    assert program.engine.step(0.0) is None


# Many at once


def test_requests_of_many_threads_are_all_answered(program, expected):
    wanted = expected(QUESTION, images=[PICTURE])
    numbers = list(range(1000, 1040))

    def ask(number):
        program.send("respond", id=number, model=1, prompt=QUESTION, images=[{"path": str(PICTURE)}])

    threads = [Thread(target=ask, args=[number]) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in numbers:
        assert answer_of(program.events(number)) == wanted
