"""Arguments of the public functions: wrong ones are named, types know them, and what cannot be copied says so."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from support.layout import ROOT
from support.media import picture

from mlx_smolvlm import (
    BatchRequest,
    FeatureCache,
    GenerationOptions,
    MediaOptions,
    Rows,
    SampledVideo,
    Session,
    generate_batch,
    generate_text,
    load,
    stream_captions,
    stream_generate,
)
from mlx_smolvlm.api.loading import DEMO_MODEL
from mlx_smolvlm.model import forking


def ask(model, processor):
    return stream_generate(model, processor, "Hello")


ENTRIES = [
    ask,
    lambda model, processor: generate_text(model, processor, "Hello"),
    lambda model, processor: generate_batch(model, processor, []),
    lambda model, processor: stream_captions(model, processor, "lavfi:testsrc2", "What?"),
    Rows,
    Session,
    lambda model, processor: Session.load("x", model, processor),
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_wrong_model_or_processor_is_named(pair, entry):
    model, processor = pair
    for arguments, problem in (
        ((processor, model), "model and processor are swapped; pass both that load"),
        ((None, processor), "model is None, expected a SmolVLM"),
        ((model, None), "processor is None, expected a Processor"),
        (("folder", processor), "model is str, expected a SmolVLM"),
        ((pair, "Hello"), "model is tuple, expected a SmolVLM"),
    ):
        with pytest.raises(TypeError, match=f"^{problem}"):
            entry(*arguments)


@pytest.mark.parametrize("media", ["a.png", b"x", np.zeros((4, 4, 3), np.uint8)])
def test_a_single_path_is_no_list_of_media(pair, media):
    """`BatchRequest("q", "a.png")` opened each letter."""
    asked = Session(*pair, max_tokens=1)
    list(asked.ask("Hello"))
    for refused in (
        lambda: BatchRequest("What?", media),
        lambda: stream_generate(*pair, "What?", images=media),
        lambda: Session(*pair).ask("What?", images=media),
        lambda: asked.edit("What?", images=media),
        lambda: pair[1]("What?", media),
    ):
        with pytest.raises(
            ValueError, match=r"^images is (b?'.*'|array.*), expected a list; pass a single one as images=\[...\]"
        ):
            refused()


def test_caches_and_events_that_are_none_are_named(pair):
    """They failed at the first step, as attributes that there are not."""
    for refused, problem in (
        (
            lambda: stream_generate(*pair, "Hello", prompt_cache=FeatureCache()),
            "prompt_cache is FeatureCache, expected",
        ),
        (lambda: stream_generate(*pair, "Hello", feature_cache={}), "feature_cache is dict, expected a FeatureCache"),
        (lambda: stream_generate(*pair, "Hello", cancel=True), "cancel is bool, expected a threading.Event or None"),
        (lambda: generate_batch(*pair, [], cancel=True), "cancel is bool"),
        (lambda: Rows(*pair).add(BatchRequest("Hello"), cancel=True), "cancel is bool"),
        (lambda: stream_captions(*pair, "lavfi:testsrc2", "What?", cancel=True), "cancel is bool"),
    ):
        with pytest.raises(TypeError, match=problem):
            refused()


def test_keywords_that_a_call_does_not_use_are_refused(pair):
    """They were dropped: how an answer is made by the processor, how media are read by `regenerate`."""
    session = Session(*pair, max_tokens=1)
    list(session.ask("Hello"))
    with pytest.raises(TypeError, match="max_tokens is 3, but a prompt is prepared here, and no answer made"):
        pair[1]("Hello", max_tokens=3)
    with pytest.raises(TypeError, match="max_frames is 3, but the media of the question stay as they were read"):
        session.regenerate(max_frames=3)


@pytest.mark.parametrize("max_bytes", [-1, 1.5, "x", None])
def test_a_feature_cache_refuses_other_sizes(pair, max_bytes):
    """Below 0, the first image ended in a KeyError."""
    for refused in (lambda: FeatureCache(max_bytes), lambda: Session(*pair, max_feature_bytes=max_bytes)):
        with pytest.raises(ValueError, match=r"max_bytes is .*, expected a whole number, 0 or more"):
            refused()


def test_numbers_of_numpy_can_be_saved_with_a_session(pair, tmp_path):
    session = Session(*pair, max_tokens=2, max_feature_bytes=np.int64(2**20))
    video = SampledVideo([picture("second")] * 2, np.array([0.5, 1], np.float32), np.float32(2))
    media = MediaOptions(longest_edge=np.int64(64), max_frames=np.int32(2))
    list(session.ask("What?", images=[picture("tiny")], videos=[video], media_options=media))
    session.save(tmp_path / "x")
    assert len(Session.load(tmp_path / "x", *pair).turns) == 1
    Rows(*pair, batch_size=np.int64(2)).close()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("abc", [1, 2, 3], 4), "frames 'abc', expected a list"),
        (([1], ["x"], 4), r"time stamps \['x'\] and a duration of 4, expected seconds"),
        (([1], [0], "long"), "a duration of 'long', expected seconds"),
        (([1], 0.0, 4), "timestamps_s 0.0, expected a list"),
    ],
)
def test_frames_and_times_that_are_none_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        SampledVideo(*arguments)


def test_processor_and_session_say_what_they_are(demo):
    session = Session(*demo, max_tokens=2)
    assert repr(session) == "<Session: 0 questions, 0 images, 0 videos; 0 tokens read>"
    list(session.ask("What?", images=[picture("tiny")]))
    assert repr(session).startswith("<Session: 1 questions, 1 images, 0 videos; ")
    assert repr(demo[1]).startswith("<Processor: ")
    assert "tokens" in repr(demo[1])
    assert len(repr(demo[1])) < 200


def test_models_and_sessions_cannot_be_pickled(pair):
    model, processor = pair
    with pytest.raises(TypeError, match=r"a model cannot be pickled; call load\(\) in each process"):
        pickle.dumps(model)
    session = Session(model, processor, max_tokens=2)
    for refused in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"neither pickled nor copied; use Session\.save"):
            refused(session)
    answer = generate_text(model, processor, "Hello", max_tokens=2)
    assert generate_text(copy.deepcopy(model), processor, "Hello", max_tokens=2) == answer
    assert generate_text(model, pickle.loads(pickle.dumps(processor)), "Hello", max_tokens=2) == answer


def test_a_forked_process_is_refused(pair, monkeypatch, tmp_path):
    """It would hang. Told by the process's number, so without a fork here."""
    steps, begun, rows, session = (*(stream_generate(*pair, "Hello") for _ in range(2)), Rows(*pair), Session(*pair))
    answers = generate_batch(*pair, [BatchRequest("Hello", options=GenerationOptions(max_tokens=n)) for n in (1, 9)])
    rows.add(BatchRequest("Hello"))
    next(begun), rows.step(), next(answers), list(session.ask("Hello", max_tokens=2))
    monkeypatch.setattr(os, "getpid", lambda: forking._user + 1)
    for entry in (
        *(lambda entry=entry: entry(*pair) for entry in ENTRIES),
        lambda: next(steps),
        lambda: load(DEMO_MODEL),
        lambda: rows.add(BatchRequest("Hello")),
        rows.step,
        lambda: next(begun),
        lambda: next(answers),
        lambda: session.save(tmp_path / "session"),
        lambda: pair[0]([1]),
        lambda: pair[0].image_features(np.zeros((1, 64, 64, 3), np.uint8)),
    ):
        with pytest.raises(RuntimeError, match=r"was forked from \d+, which had a model already: MLX would hang here"):
            entry()
    rows.close()


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")
import mlx_smolvlm
pair = mlx_smolvlm.load(mlx_smolvlm.DEMO_MODEL)
child = os.fork()
if child == 0:
    try:
        mlx_smolvlm.generate_text(*pair, "Hello", max_tokens=2)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_forked_child_ends_with_the_reason():
    result = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "MLX would hang here" in result.stdout


TYPED = """
from io import BytesIO
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_smolvlm import BatchRequest, Session, generate_batch, generate_text, load, stream_captions, stream_generate

model, processor = load("x")
paths: list[str] = []
generate_text(model, processor, "hi", images=paths)
generate_text(model, processor, "hi", images=(Path("a"), b"", BytesIO(), np.zeros(3), mx.zeros(3)), temperature=1)
BatchRequest("hi", ["a.png"])
generate_text(model, processor, "hi", temprature=1)  # error: call-arg
stream_generate(model, processor, "hi", temprature=1)  # error: call-arg
generate_batch(model, processor, [], temprature=1)  # error: call-arg
stream_captions(model, processor, "camera", "hi", temprature=1)  # error: call-arg
Session(model, processor, temprature=1)  # error: call-arg
Session(model, processor).ask("hi", temprature=1)  # error: call-arg
processor("hi", temprature=1)  # error: call-arg
generate_text(model, processor, "hi", images="a.png")  # error: arg-type
Session(model, processor).ask("hi", images="a.png")  # error: arg-type
BatchRequest("hi", "a.png")  # error: arg-type
processor("hi", "a.png")  # error: arg-type
generate_text(processor, model, "hi")  # error: arg-type
"""


@pytest.mark.slow
def test_type_checkers_find_misspelt_options_and_single_paths(tmp_path):
    pytest.importorskip("mypy")
    path = tmp_path / "typed.py"
    path.write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", path]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    expected = [number for number, line in enumerate(TYPED.splitlines(), 1) if "# error" in line]
    lines = sorted({int(line.split(":")[1]) for line in found if "error:" in line and "typed.py" in line})
    assert lines == expected, found
