"""A conversation that goes on: nothing is done twice, nothing is lost, and answers stay those of a fresh start."""

from threading import Event

import numpy as np
import pytest
from support.media import picture, sized_picture, video_path
from support.sessions import from_scratch, ids, media_item

import mlx_smolvlm
from mlx_smolvlm import GenerationOptions, SampledVideo, Session
from mlx_smolvlm.api.session import Turn


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("image", picture("landscape")),
        ("image", "file"),
        ("video", str(video_path("clip"))),
        ("video", SampledVideo([np.asarray(picture("tiny")), np.asarray(picture("tiny"))[::-1]], [0, 1], 2)),
    ],
    ids=["picture", "picture file", "video", "sampled video"],
)
def test_follow_ups_open_nothing_and_read_only_what_is_new(pair, session, work, tmp_path, kind, source):
    if source == "file":
        source = str(tmp_path / "picture.png")
        picture("landscape").save(source)
    item = media_item(kind, source)
    expected = from_scratch(pair, session, "What is this?", item)
    assert ids(session.ask("What is this?", **{f"{kind}s": [source]})) == expected
    for question in ("And then?", "Which colours are there?"):
        expected = from_scratch(pair, session, question, item)
        work.clear()
        assert ids(session.ask(question)) == expected
        assert work.keys() == {"tokens"}
        assert work["tokens"] < 60


def test_the_last_question_can_be_edited(pair, session, work):
    image = media_item("image", picture("landscape"))
    list(session.ask("What is this?", images=[picture("landscape")]))
    work.clear()
    assert ids(session.edit("What is that?")) == from_scratch(pair, session, "What is that?", image, turns=[])
    assert [turn.content[-1]["text"] for turn in session.turns] == ["What is that?"]
    list(session.ask("And now?"))
    expected = from_scratch(pair, session, "And then?", image, turns=session.turns[:1])
    work.clear()
    assert ids(session.edit("And then?")) == expected
    assert work.keys() == {"tokens"}


def test_a_regenerated_answer_is_the_same_if_greedy_and_another_if_sampled(session, work):
    first = ids(session.ask("What is this?", images=[picture("landscape")]))
    work.clear()
    assert ids(session.regenerate()) == first
    assert work == {"tokens": 1}
    sampled = ids(session.regenerate(options=GenerationOptions(max_tokens=6, temperature=2, seed=1)))
    assert sampled != first
    assert len(session.turns) == 1


def test_an_answer_that_is_begun_late_replaces_no_other_question(session):
    """The question that was asked meanwhile was lost."""
    list(session.ask("First?"))
    again, edited = session.regenerate(), session.edit("Or so?")
    list(session.ask("Second?"))
    for late in (again, edited):
        with pytest.raises(ValueError, match="the conversation has changed since; call edit or regenerate again"):
            next(late)
    assert [turn.content[0]["text"] for turn in session.turns] == ["First?", "Second?"]


def test_undo_takes_back_the_last_turn(pair, session, work):
    image = media_item("image", picture("landscape"))
    list(session.ask("What is this?", images=[picture("landscape")]))
    list(session.ask("And then?"))
    undone = session.undo()
    assert undone.content == [{"type": "text", "text": "And then?"}]
    expected = from_scratch(pair, session, "Which colours?", image)
    work.clear()
    assert ids(session.ask("Which colours?")) == expected
    assert work.keys() == {"tokens"}
    session.undo(), session.undo()
    with pytest.raises(ValueError, match="no question yet"):
        session.undo()
    with pytest.raises(ValueError, match="no question yet"):
        session.regenerate()


def test_a_system_prompt_is_read_once(session, work):
    session.system = "You are a helpful assistant. " * 20
    list(session.ask("Hello"))
    session.undo()
    work.clear()
    list(session.ask("Who are you?"))
    assert work["tokens"] < 30


def test_an_answer_that_is_closed_early_stays_as_far_as_it_came(pair, session):
    image = media_item("image", picture("landscape"))
    steps = session.ask("What is this?", images=[picture("landscape")])
    begun = next(steps).text + next(steps).text
    steps.close()
    assert [(turn.answer, turn.finish_reason) for turn in session.turns] == [(begun, "closed")]
    expected = from_scratch(pair, session, "And then?", image)
    assert ids(session.ask("And then?")) == expected


def test_a_cancelled_answer_stays_as_far_as_it_came(session):
    cancel = Event()
    for step in session.ask("What is this?", images=[picture("landscape")], cancel=cancel):
        if step.completion_tokens == 3:
            cancel.set()
    assert (step.completion_tokens, step.finish_reason) == (3, "cancelled")
    assert session.turns[0].finish_reason == "cancelled"
    assert session.turns[0].answer


def test_a_question_that_is_cancelled_before_its_answer_is_taken_back(session):
    cancel = Event()
    cancel.set()
    steps = list(session.ask("What is this?", images=[picture("landscape")], cancel=cancel))
    assert [step.finish_reason for step in steps] == ["cancelled"]
    assert session.turns == []


@pytest.mark.parametrize("how", ["ask", "edit"])
def test_a_failure_leaves_the_conversation_as_it_was(pair, session, how):
    image = media_item("image", picture("landscape"))
    list(session.ask("What is this?", images=[picture("landscape")]))
    before = list(session.turns)
    with pytest.raises(FileNotFoundError):
        list(getattr(session, how)("And this?", images=["no such.png"]))
    assert session.turns == before
    expected = from_scratch(pair, session, "And then?", image)
    assert ids(session.ask("And then?")) == expected


def test_an_interruption_in_the_middle_leaves_the_conversation_as_it_was(pair, session, monkeypatch):
    list(session.ask("Hello"))
    model, original = type(pair[0].language_model), type(pair[0].language_model).logits
    calls = []

    def interrupted(self, hidden):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, hidden)

    monkeypatch.setattr(model, "logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(session.ask("And then?"))
    monkeypatch.setattr(model, "logits", original)
    assert len(session.turns) == 1
    assert ids(session.ask("And then?")) == from_scratch(pair, session, "And then?", turns=session.turns[:1])


def test_answers_are_made_one_at_a_time(session):
    steps = session.ask("What is this?", images=[picture("landscape")])
    next(steps)
    for attempt in (lambda: session.ask("And this?"), session.undo, lambda: session.save("x")):
        with pytest.raises(ValueError, match="still being made"):
            attempt()
    for step in steps:
        if step.finish_reason:
            break  # the stream is held, but the answer is whole
    assert ids(session.ask("And this?"))
    assert len(session.turns) == 2


def test_an_option_that_is_refused_late_leaves_the_session_free(session):
    with pytest.raises(ValueError, match="within 2 tokens; raise max_tokens"):
        list(session.ask("What is this?", options=GenerationOptions(max_tokens=2, regex="[a-z]{9}")))
    assert ids(session.ask("What is this?"))


def test_an_answer_that_was_never_begun_is_no_answer(session):
    unused = session.ask("What is this?")
    list(session.ask("And this?"))
    del unused
    assert [turn.content[0]["text"] for turn in session.turns] == ["And this?"]


def test_an_answer_that_spells_out_a_marker_asks_for_no_picture(session):
    list(session.ask("What is this?"))
    turn = session.turns[0]
    session.turns = [type(turn)(turn.content, "An <image> of a <video>", "stop")]
    assert ids(session.ask("And then?"))


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ({"text": ""}, "the prompt is empty"),
        ({"text": "hi", "images": "a.png"}, "images is 'a.png', expected a list"),
        ({"text": "hi <video>"}, "1 <video> marker but 0 videos"),
    ],
)
def test_faulty_questions_are_refused_at_once(session, question, problem):
    with pytest.raises(ValueError, match=problem):
        session.ask(**question)


def test_an_end_that_an_answer_spells_out_is_not_doubled(pair, session):
    end = pair[1].tokenizer.id_to_token(min(pair[1].stop_token_ids))
    session.turns = [Turn([{"type": "text", "text": "Hello"}], f"Hi.{end}", "stop")]
    (prompt_ids,) = {tuple(step.prompt_ids) for step in session.ask("And now?")}
    text = pair[1].decode(prompt_ids, skip_special_tokens=False)
    assert f"Hi.{end}" in text
    assert f"{end}{end}" not in text


@pytest.mark.slow
def test_a_follow_up_costs_at_most_3_percent(tmp_path, monkeypatch):
    """The released 256M geometry with few words; a picture of 13 tiles. Takes a minute or more on a CPU."""
    from support import checkpoint_configs
    from support.checkpoints import write_checkpoint

    text = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_hidden_layers": 30}
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    for table, values in (
        (checkpoint_configs.TEXT, text | {"num_key_value_heads": 3, "head_dim": 64}),
        (checkpoint_configs.VISION, vision | {"image_size": 512}),
    ):
        monkeypatch.setitem(table, "smolvlm_256m", table["smolvlm_256m"] | values)
    monkeypatch.setitem(checkpoint_configs.LONGEST_EDGE, "smolvlm_256m", 2048)
    path = tmp_path / "picture.png"
    sized_picture(1600, 1200).save(path)
    pair = mlx_smolvlm.load(write_checkpoint("smolvlm_256m", tmp_path / "model"), dtype="float32")
    session = Session(*pair, options=GenerationOptions(max_tokens=16))
    first = list(session.ask("Describe the picture.", images=[path]))[-1]
    follow_up = list(session.ask("Which colours are in it, and why?"))[-1]
    assert first.media[0].num_tiles == 13
    assert follow_up.timing.time_to_first_token <= 0.03 * first.timing.time_to_first_token
