"""Sessions in files: they go on where they were left, and what is damaged or of another model is refused."""

from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
from support.media import picture, video_path
from support.sessions import OPTIONS, ids

import mlx_smolvlm
from mlx_smolvlm import MediaOptions, SampledVideo, Session


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


def test_only_sessions_are_replaced(session, tmp_path):
    """Once `save` replaced any file: a README, a thesis, the image just shown."""
    list(session.ask("What is this?"))
    image, text, weights, empty = (tmp_path / name for name in ("a.png", "README.md", "a.safetensors", "empty"))
    picture("tiny").save(image)
    text.write_text("My thesis")
    mx.save_safetensors(str(weights), {"record": mx.zeros(3)})
    empty.touch()
    for path in (image, text, weights, empty):
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match=r"exists already and is no saved session; choose another name"):
            session.save(path)
        assert path.read_bytes() == before
    link = tmp_path / "link"
    link.symlink_to(text)
    with pytest.raises(FileExistsError, match="link exists already and is no saved session"):
        session.save(link)
    session.save(tmp_path / "x")
    session.save(tmp_path / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "a.png",
        "a.safetensors",
        "empty",
        "link",
        "x",
    ]


@pytest.mark.parametrize("saved_with", [{}, {"kv_bits": 4, "kv_group_size": 32}, {"max_kv_size": 64}])
@pytest.mark.parametrize("asked_with", [{}, {"kv_bits": 4, "kv_group_size": 32}, {"max_kv_size": 64}])
def test_a_saved_session_goes_on_with_any_kind_of_cache(demo, tmp_path, saved_with, asked_with):
    """It was bound to a plain cache, even if nothing was kept: `chat --kv-bits 4 --load FILE` could ask nothing."""
    session = Session(*demo, max_tokens=2, **saved_with)
    list(session.ask("What is this?"))
    session.save(tmp_path / "file.session")
    loaded = Session.load(tmp_path / "file.session", *demo)
    fresh = Session(*demo, max_tokens=2, **asked_with)
    fresh.turns = session.turns
    assert ids(loaded.ask("And now?", max_tokens=2, **asked_with)) == ids(fresh.ask("And now?"))


def test_limits_as_large_as_one_likes_can_be_saved(pair, tmp_path):
    """Numbers from 2**31 on were refused when the session was loaded."""
    session = Session(*pair, max_tokens=1, max_pixels=2**40)
    list(session.ask("What is this?", images=[picture("tiny")]))
    session.save(tmp_path / "file.session")
    (turn,) = Session.load(tmp_path / "file.session", *pair).turns
    assert turn.content[0]["image"].options.max_pixels == 2**40
