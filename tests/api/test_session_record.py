"""Session files that were changed on purpose, with a checksum that fits: refused in one line, or harmless."""

import copy
import json
import random

import numpy as np
import pytest
from safetensors.numpy import load, save_file
from support.media import picture, video_path
from support.sessions import OPTIONS

from mlx_smolvlm import SampledVideo, Session
from mlx_smolvlm.api.session_file import _checksum


@pytest.fixture(scope="module")
def written(loaded, tmp_path_factory):
    """The record and the tensors of a session with media of every kind."""
    folder = tmp_path_factory.mktemp("sessions")
    picture("portrait").save(folder / "picture.png")
    session = Session(*loaded("smolvlm_256m"), options=OPTIONS, system="Be brief.")
    frames = SampledVideo([picture("second"), picture("second").transpose(0)], [0.5, 1], 2, name="camera")
    list(session.ask("What is this?", images=[str(folder / "picture.png"), picture("tiny")]))
    list(session.ask("And this?", videos=[str(video_path("short")), frames]))
    session.save(folder / "file.session")
    tensors = load((folder / "file.session").read_bytes())
    del tensors["checksum"]
    return json.loads(tensors.pop("record").tobytes()), tensors


@pytest.fixture
def resealed(written, pair, tmp_path):
    """A function from (record, tensors) to the session that is read from them."""

    def read(record, tensors=None):
        tensors = dict(written[1] if tensors is None else tensors)
        stored = record if isinstance(record, bytes) else json.dumps(record).encode()
        tensors["record"] = np.frombuffer(stored, np.uint8)
        tensors["checksum"] = np.frombuffer(_checksum(tensors), np.uint8)
        save_file(tensors, tmp_path / "file.session")
        return Session.load(tmp_path / "file.session", *pair)

    return read


def places(value, path=()):
    """The path of every value in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(record, path, value):
    record = copy.deepcopy(record)
    if not path:
        return value
    *above, last = path
    place = record
    for key in above:
        place = place[key]
    place[last] = value
    return record


WRONG = [  # path, value, what the line says
    (("system",), 5, "system is 5, expected text or null"),
    (("turns",), {}, "turns is {}, expected a list"),
    (("turns", 0, "answer"), None, "answer is None, expected text"),
    (("turns", 0, "finish_reason"), "done", "finish_reason is 'done', expected stop, length"),
    (("turns", 0, "content", 0, "medium"), 99, "expected text, or the number of an image or video"),
    (("turns", 0, "content", 0, "medium"), 2, "expected text, or the number of an image or video"),
    (("turns", 0, "content", 0, "medium"), -1, "expected text, or the number of an image or video"),
    (("turns", 0, "content"), [], "content is [], expected at least one item"),
    (("token_ids", 0), -1, "token_ids is -1, expected tokens of the model"),
    (("token_ids", 0), 2**40, "expected tokens of the model"),
    (("token_ids", 0), True, "token_ids is True, expected tokens of the model"),
    (("token_ids",), [1, 2, 3], "layers.0 is"),
    (("dtypes", "0"), "complex64", "dtypes is 'complex64', expected one of float32"),
    (("dtypes", "1"), "bfloat16", "expected the same for all layers"),
    (("dtypes",), {}, "dtypes is []"),
    (("read_media", 0), [0, 10**9, "00" * 16], "read_media is"),
    (("read_media", 0), [5, 5, "00" * 16], "a start, an end after it"),
    (("media", 0, "kind"), "sound", "kind is 'sound', expected image or video"),
    (("media", 0, "layout", "rows"), 2**31, "media 0: layout is [2147483648"),
    (("media", 0, "layout", "rows"), 0, "expected rows and columns of fewer than"),
    (("media", 0, "layout", "fitted"), [0, 5], "media 0: fitted is [0, 5], expected a width and a height"),
    (("media", 0, "layout", "grid"), [2**31, 2**31], "media 0: grid is"),
    (("media", 0, "digest"), "zz", "digest is 'zz', expected 32 hexadecimal digits"),
    (("media", 0, "name"), 3, "name is 3, expected text"),
    (("media", 0, "source"), "http://10.0.0.1/a.png", "source is 'http://10.0.0.1/a.png', expected"),
    (("media", 0, "source"), None, "source is None, expected"),
    (("media", 1, "source"), "/etc/passwd", "expected null with pixels"),
    (("media", 0, "options", "longest_edge"), 10**9, "longest_edge is 1000000000, expected 1 to"),
    (("media", 0, "options", "trust"), True, "trust"),
    (("media", 2, "timestamps_s"), [1, 0], "expected ascending seconds"),
    (("media", 2, "timestamps_s"), [0.0] * 10**5, "expected a list of at most"),
    (("media", 2, "timestamps_s"), [], "expected ascending seconds"),
    (("media", 2, "duration_s"), 1e300, "expected ascending seconds"),
    (("media", 2, "duration_s"), float("nan"), "expected ascending seconds"),
    (("media", 3, "sampled", "are_tiles"), 1, "are_tiles is 1, expected true or false"),
    (("media", 3, "sampled", "timestamps_s"), [0.5], "pixels is"),
    (("more",), 1, "the record is"),
    ((), [], "not a session as this version writes them"),
]


@pytest.mark.parametrize(
    ("path", "value", "problem"), WRONG, ids=[f"{path}-{number}" for number, (path, *_) in enumerate(WRONG)]
)
def test_each_field_is_checked(written, resealed, path, value, problem):
    with pytest.raises(ValueError, match=r"file\.session is not a session as this version writes them: ") as refusal:
        resealed(changed(written[0], path, value))
    assert problem in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_each_tensor_is_checked(written, resealed):
    record, tensors = written
    wrong = {
        "layers.0": [np.zeros((1, 2, 3, 4), np.float32), tensors["layers.0"].astype(np.float16)],
        "layers.99": [np.zeros(3, np.float32)],
        "media.1.pixels": [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3), np.float32), np.zeros((0, 5, 3), np.uint8)],
        "media.1.more": [np.zeros((5, 5, 3), np.uint8)],
        "media.3.frames.0": [np.zeros((5,), np.uint8)],
        "media.9.pixels": [np.zeros((5, 5, 3), np.uint8)],
    }
    for name, arrays in wrong.items():
        for array in arrays:
            with pytest.raises(ValueError, match="not a session as this version writes them"):
                resealed(record, {**tensors, name: array})
    for name in ("layers.0", "media.1.pixels", "media.3.frames.0"):
        with pytest.raises(ValueError, match="not a session as this version writes them"):
            resealed(record, {other: array for other, array in tensors.items() if other != name})


@pytest.mark.parametrize("stored", [b"", b"{", b"[" * 100_000, b"\xff", b"null", b"5", b'"x"'])
def test_a_record_that_is_no_json_object_is_refused(resealed, stored):
    with pytest.raises(ValueError, match=r"file\.session (is not a session|has a record that is not JSON)"):
        resealed(stored)


def test_a_file_larger_than_any_session_is_not_read(pair, tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"more than the \d+ of any session with this model"):
        Session.load(tmp_path / "sparse", *pair)


HOSTILE = [None, True, -1, 0, 2**31, 2**70, 0.5, 1e308, float("nan"), float("inf"), "", "x" * 10**5, "../../etc/passwd"]
HOSTILE += [[], {}, [[]], [0] * 10**5, {"a": {}}, "\ud800", "<image>" * 1000, "http://[::1"]


@pytest.mark.parametrize("count", [120, pytest.param(10_000, marks=pytest.mark.slow)])
def test_changed_sessions_are_refused_or_answer(written, resealed, count):
    chance, paths = random.Random(7), list(places(written[0]))
    answered = 0
    for number in range(count):
        record = changed(written[0], chance.choice(paths), chance.choice(HOSTILE))
        try:
            session = resealed(record)
            for step in session.ask("So?", max_tokens=1):
                answered += step.finish_reason is not None
        except (ValueError, OSError) as error:
            assert len(str(error)) < 2000, number
    assert answered


@pytest.mark.parametrize("options", [{"kv_bits": 8, "kv_group_size": 32}, {"max_kv_size": 32}])
def test_a_session_whose_cache_is_not_written_is_read_again(demo, tmp_path, options):
    session = Session(*demo)
    list(session.ask("What shape is it?", images=[picture("tiny")], max_tokens=3, **options))
    session.save(tmp_path / "x")
    loaded = Session.load(tmp_path / "x", *demo)
    assert loaded.turns[0].answer == session.turns[0].answer
    assert list(loaded.ask("And?", max_tokens=2))
