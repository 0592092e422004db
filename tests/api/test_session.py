"""A conversation that goes on: nothing is done twice, nothing is lost, and answers stay those of a fresh start.

One file, though long: each test plays turns of one conversation with the helpers at its top.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Event

import mlx.core as mx
import numpy as np
import pytest
from support.media import picture, sized_picture, video_path

import mlx_smolvlm.media.images
import mlx_smolvlm.processor.processor
import mlx_smolvlm.processor.prompt_media
from mlx_smolvlm import GenerationOptions, MediaOptions, SampledVideo, Session, stream_generate
from mlx_smolvlm.api.session import Turn
from mlx_smolvlm.processor.prompt_media import Clip

OPTIONS = GenerationOptions(max_tokens=6)


@pytest.fixture
def pair(loaded):
    return loaded("smolvlm_256m")


@pytest.fixture
def work(pair, monkeypatch):
    """Counts of pictures and videos opened, cut and decoded, of tiles encoded and prompt tokens read."""
    counts = {}

    def counting(module, name, key, amount=lambda *_: 1):
        original = getattr(module, name)

        def wrapper(*args, **options):
            counts[key] = counts.get(key, 0) + amount(*args)
            return original(*args, **options)

        monkeypatch.setattr(module, name, wrapper)

    counting(mlx_smolvlm.processor.processor, "open_image", "opened")
    counting(mlx_smolvlm.processor.processor, "open_clip", "opened")
    counting(mlx_smolvlm.processor.prompt_media, "read_frames", "decoded")
    counting(mlx_smolvlm.processor.prompt_media, "cut_grid", "cut")
    counting(mlx_smolvlm.processor.prompt_media, "_digest", "digested")
    counting(type(pair[0]), "image_features", "encoded", lambda _, pixels: len(pixels))
    counting(type(pair[0]), "input_embeddings", "tokens", lambda _, ids, features: len(ids))
    return counts


@pytest.fixture
def session(pair):
    return Session(*pair, options=OPTIONS)


def ids(steps) -> list[int]:
    return [step.token_id for step in steps]


def media_item(kind: str, source) -> dict:
    return {"type": kind, kind: source}


def from_scratch(pair, session, question: str, *media: dict, turns=None) -> list[int]:
    """What a call without any memory answers to a question at the end of a session's turns.

    `media` are those of the whole conversation, in order.
    """
    unused = list(media)

    def raw(item):
        return item if item["type"] == "text" else unused.pop(0)

    messages = [{"role": "system", "content": session.system}] if session.system else []
    for turn in session.turns if turns is None else turns:
        messages += [
            {"role": "user", "content": [raw(item) for item in turn.content]},
            {"role": "assistant", "content": [{"type": "text", "text": turn.answer}]},
        ]
    messages.append({"role": "user", "content": [*unused, {"type": "text", "text": question}]})
    return ids(stream_generate(*pair, messages, max_tokens=OPTIONS.max_tokens))


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


def test_media_may_come_at_any_turn(pair, session, work):
    """A video changes the template that some checkpoints use, so that all is read again, pixels included."""
    image, clip = media_item("image", picture("landscape")), media_item("video", str(video_path("short")))
    list(session.ask("Hello"))
    expected = from_scratch(pair, session, "A picture", image)
    assert ids(session.ask("A picture", images=[picture("landscape")])) == expected
    expected = from_scratch(pair, session, "A video", image, clip)
    assert ids(session.ask("A video", videos=[str(video_path("short"))])) == expected
    expected = from_scratch(pair, session, "Both?", image, clip)
    assert ids(session.ask("Both?")) == expected


def test_markers_place_the_media(pair, session):
    sources = [picture("landscape"), picture("second")]
    expected = ids(stream_generate(*pair, "Is <image> like <image>?", images=sources, max_tokens=6))
    assert ids(session.ask("Is <image> like <image>?", images=sources)) == expected
    with pytest.raises(ValueError, match="2 <image> markers"):
        session.ask("Is <image> like <image>?", images=sources[:1])


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


def test_an_edit_may_bring_other_pictures(pair, session):
    list(session.ask("What is this?", images=[picture("landscape")]))
    other = media_item("image", picture("second"))
    expected = from_scratch(pair, session, "What is this?", other, turns=[])
    assert ids(session.edit("What is this?", images=[picture("second")])) == expected


def test_a_regenerated_answer_is_the_same_if_greedy_and_another_if_sampled(session, work):
    first = ids(session.ask("What is this?", images=[picture("landscape")]))
    work.clear()
    assert ids(session.regenerate()) == first
    assert work == {"tokens": 1}
    sampled = ids(session.regenerate(options=GenerationOptions(max_tokens=6, temperature=2, seed=1)))
    assert sampled != first
    assert len(session.turns) == 1


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


def test_a_new_system_prompt_needs_pixels_but_no_encoder(pair, session, work):
    """What comes before the picture changes, so it is read again; its features are still there."""
    image = media_item("image", picture("landscape"))
    session.system = "Be brief."
    list(session.ask("What is this?", images=[picture("landscape")]))
    session.system = "Be exact."
    expected = from_scratch(pair, session, "And then?", image)
    work.clear()
    assert ids(session.ask("And then?")) == expected
    assert work["cut"] == 1
    assert "encoded" not in work


def test_a_system_prompt_is_read_once(session, work):
    session.system = "You are a helpful assistant. " * 20
    list(session.ask("Hello"))
    session.undo()
    work.clear()
    list(session.ask("Who are you?"))
    assert work["tokens"] < 30


def test_media_are_recognised_by_content(session, work, tmp_path):
    path = tmp_path / "copy.png"
    picture("landscape").save(path)
    buffer = io.BytesIO()
    picture("landscape").save(buffer, "png")
    list(session.ask("What is this?", images=[path]))
    work.clear()
    list(session.ask("And this?", images=[buffer.getvalue()]))  # in another place, so its tokens are read
    assert "encoded" not in work
    session.undo(), session.undo()
    work.clear()
    list(session.ask("What is that?", images=[np.asarray(picture("landscape"))]))
    assert work["tokens"] < 30


def test_features_stay_within_their_bytes(pair):
    session = Session(*pair, options=OPTIONS, max_feature_bytes=3000)
    list(session.ask("What is this?", images=[picture("landscape")]))
    assert 0 < session.feature_cache.size_bytes <= 3000


def test_pictures_from_files_leave_their_pixels_in_the_file(session, tmp_path):
    path = tmp_path / "a.png"
    picture("landscape").save(path)
    list(session.ask("What is this?", images=[path, picture("second")]))
    from_file, from_memory = (item["image"] for item in session.turns[0].content[:2])
    assert from_file.source == str(path)
    assert from_memory.source.tobytes() == picture("second").tobytes()


@pytest.mark.parametrize("change", ["other picture", "gone"])
def test_a_file_that_has_changed_is_noticed_when_its_pixels_are_needed(session, tmp_path, change):
    path = tmp_path / "a.png"
    picture("landscape").save(path)
    list(session.ask("What is this?", images=[path]))
    path.unlink() if change == "gone" else picture("landscape").transpose(0).save(path)
    list(session.ask("And then?"))  # nothing of it is needed
    session.system = "Be brief."
    with pytest.raises(FileNotFoundError if change == "gone" else ValueError, match=r"no such file|has changed"):
        list(session.ask("And now?"))
    assert len(session.turns) == 2


def test_what_came_from_an_address_is_downloaded_once(pair, session, monkeypatch):
    """But for a video whose pixels are needed again: its file is gone."""
    buffer, fetched = io.BytesIO(), []
    picture("second").save(buffer, "png")
    image, clip = "http://example.com/a.png", "http://example.com/clip.mp4"

    def fetch(url, *_, **__):
        fetched.append(url)
        return buffer.getvalue()

    def stream(url, *_, **__):
        fetched.append(url)
        yield video_path("short").read_bytes()

    monkeypatch.setattr(mlx_smolvlm.media.images, "fetch", fetch)
    monkeypatch.setattr(mlx_smolvlm.processor.prompt_media, "stream", stream)
    list(session.ask("What is this?", images=[image], videos=[clip]))
    list(session.ask("And then?"))
    assert fetched == [image, clip]
    session.system = "Be brief."
    media = media_item("image", picture("second")), media_item("video", str(video_path("short")))
    assert ids(session.ask("And now?")) == from_scratch(pair, session, "And now?", *media, turns=session.turns[:2])
    assert fetched == [image, clip, clip]


def test_a_video_that_breaks_off_stays_as_long_as_it_was(session, work, monkeypatch):
    def two_frames(clip, check_cancelled, original=Clip.tiles):
        yield from islice(original(clip, check_cancelled), 2)

    monkeypatch.setattr(Clip, "tiles", two_frames)
    with pytest.warns(UserWarning, match="breaks off: 2 of"):
        steps = list(session.ask("What happens?", videos=[str(video_path("long"))]))
    assert steps[-1].media[0].num_tiles == 2
    work.clear()
    steps = list(session.ask("And then?"))
    assert steps[-1].media[0].num_tiles == 2
    assert work.keys() == {"tokens"}
    session.system = "Be brief."
    steps = list(session.ask("And now?"))  # made again, without a warning
    assert steps[-1].media[0].num_tiles == 2


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
        ({"text": "hi", "images": "a.png"}, "images is str, expected a list"),
        ({"text": "hi <video>"}, "1 <video> markers but 0 videos"),
    ],
)
def test_faulty_questions_are_refused_at_once(session, question, problem):
    with pytest.raises(ValueError, match=problem):
        session.ask(**question)


# Saving and loading


@pytest.fixture
def saved(session, tmp_path):
    """A session of three turns with media of every kind, and its file."""
    path = tmp_path / "picture.png"
    picture("portrait").save(path)
    frames = SampledVideo([picture("second"), picture("second").transpose(0)], [0.5, 1], 2, name="camera")
    session.system = "Be brief."
    smaller = MediaOptions(longest_edge=256)
    list(session.ask("What is this?", images=[path, picture("landscape")], media_options=smaller))
    list(session.ask("And this?", videos=[str(video_path("clip")), frames]))
    list(session.ask("So?"))
    session.save(tmp_path / "file.session")
    return tmp_path / "file.session"


def test_a_loaded_session_goes_on_where_it_was_left(pair, session, saved, work, tmp_path):
    loaded = Session.load(saved, *pair)
    loaded.options = OPTIONS
    assert loaded.system == session.system
    assert [(turn.answer, turn.finish_reason) for turn in loaded.turns] == [
        (turn.answer, turn.finish_reason) for turn in session.turns
    ]
    (tmp_path / "picture.png").unlink()  # not needed to go on
    work.clear()
    follow_up = ids(loaded.ask("And then?"))
    assert work.keys() == {"tokens"}
    assert work["tokens"] < 60
    assert follow_up == ids(session.ask("And then?"))
    loaded.undo(), session.undo()
    assert ids(loaded.edit("Why?")) == ids(session.edit("Why?"))


def test_an_end_that_an_answer_spells_out_is_not_doubled(pair, session):
    end = pair[1].tokenizer.id_to_token(min(pair[1].stop_token_ids))
    session.turns = [Turn([{"type": "text", "text": "Hello"}], f"Hi.{end}", "stop")]
    (prompt_ids,) = {tuple(step.prompt_ids) for step in session.ask("And now?")}
    text = pair[1].decode(prompt_ids, skip_special_tokens=False)
    assert f"Hi.{end}" in text
    assert f"{end}{end}" not in text


def test_a_session_loaded_in_one_thread_goes_on_in_another(pair, saved):
    def load_and_ask(ask):
        session = Session.load(saved, *pair)
        return ask(lambda: ids(session.ask("And now?")))

    with ThreadPoolExecutor(1) as thread:
        assert load_and_ask(lambda answer: thread.submit(answer).result()) == load_and_ask(lambda answer: answer())


def test_a_loaded_session_can_make_all_pixels_again(pair, session, saved, work):
    loaded = Session.load(saved, *pair)
    loaded.options = OPTIONS
    loaded.system = session.system = "Be exact."
    assert ids(loaded.ask("And then?")) == ids(session.ask("And then?"))
    assert (work["decoded"], work["cut"]) == (2, 4)  # each made the pixels of a video and of two pictures


def test_a_session_without_a_question_can_be_saved(pair, session, tmp_path):
    session.system = "Be brief."
    session.save(tmp_path / "x")
    loaded = Session.load(tmp_path / "x", *pair)
    assert (loaded.system, loaded.turns) == ("Be brief.", [])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_types_of_numbers_are_saved_bit_by_bit(checkpoint, tmp_path, dtype):
    pair = mlx_smolvlm.load(checkpoint("smolvlm_256m"), dtype=dtype)
    session = Session(*pair, options=OPTIONS)
    list(session.ask("What is this?", images=[picture("tiny")]))
    session.save(tmp_path / "x")
    loaded = Session.load(tmp_path / "x", *pair)
    held, restored = session.prompt_cache.arrays(), loaded.prompt_cache.arrays()
    assert held.keys() == restored.keys()
    for name, array in held.items():
        assert array.dtype == restored[name].dtype == getattr(mx, dtype)
        assert mx.array_equal(array, restored[name])


def test_a_session_of_another_model_is_refused(loaded, checkpoint, saved, tmp_path):
    bfloat16 = mlx_smolvlm.load(checkpoint("smolvlm_256m"), dtype="bfloat16")
    other = mlx_smolvlm.load(checkpoint("smolvlm_256m"), dtype="float32")
    norm = other[0].language_model.norm
    norm.weight = norm.weight + 1e-3  # as fine-tuning would
    for pair in (loaded("tied"), bfloat16, other):
        with pytest.raises(ValueError, match="saved with another model"):
            Session.load(saved, *pair)


def test_the_model_loaded_again_is_the_same_model(checkpoint, saved):
    again = mlx_smolvlm.load(checkpoint("smolvlm_256m"), dtype="float32")
    assert len(Session.load(saved, *again).turns) == 3


def test_damaged_files_are_refused_with_the_reason(pair, saved, checkpoint, tmp_path):
    whole = saved.read_bytes()
    path = tmp_path / "damaged"
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a session, or cut short"):
            Session.load(path, *pair)
    for place in np.linspace(len(whole) // 2, len(whole) - 1, 20).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            Session.load(path, *pair)
    with pytest.raises(ValueError, match="but not a session"):
        Session.load(checkpoint("smolvlm_256m") / "model.safetensors", *pair)
    mx.save_safetensors(str(tmp_path / "bfloat16.safetensors"), {"x": mx.zeros(3, mx.bfloat16)})
    with pytest.raises(ValueError, match="not a session"):
        Session.load(tmp_path / "bfloat16.safetensors", *pair)
    with pytest.raises(FileNotFoundError, match="no file"):
        Session.load(tmp_path / "nowhere", *pair)


def test_saving_is_whole_or_not_at_all(session, saved, monkeypatch, tmp_path):
    before, files = saved.read_bytes(), sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            session.save(saved)
    assert saved.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files
    with pytest.raises(IsADirectoryError, match="is a folder"):
        session.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        session.save(tmp_path / "nowhere" / "x")


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
