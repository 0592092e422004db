"""`train`: the folder that it makes, going on after a stop, and what it refuses."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import pytest
from mlx.optimizers import AdamW
from safetensors.numpy import load_file, save_file
from support.command_lines import assert_refused, run
from support.training import write_rows

import mlx_smolvlm
from mlx_smolvlm.command_line.waiting import Waiting
from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint
from mlx_smolvlm.train.learning.optimization import Optimization
from mlx_smolvlm.train.learning.stored_features import StoredFeatures
from mlx_smolvlm.train.run_folder import RunFolder
from mlx_smolvlm.train.training_command import _what_was_learned

SPLIT = ("--no-split",)


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path)


@pytest.fixture
def train(monkeypatch, capsys, checkpoint, rows, tmp_path):
    """A function that trains into a folder, five rows in each step unless told otherwise."""

    def call(out, *options, model=None):
        given = ("--model", model or checkpoint("smolvlm_256m"), "--data", rows, "--adapter-out", tmp_path / out)
        plain = ("--rank", 2, "--learning-rate", 0.01, *SPLIT)
        return run(monkeypatch, capsys, "train", *given, *plain, *options)

    return call


def adapter(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def test_a_run_leaves_an_adapter_of_pefts(train, tmp_path, checkpoint):
    result = train("out", "--steps", 2, "--batch-size", 5, "--merge")
    assert (result.status, result.out) == (0, ""), result
    out = tmp_path / "out"
    names = {"adapter_model.safetensors", "adapter_config.json", "metrics.jsonl", "training.json", "report.html"}
    assert {path.name for path in out.iterdir()} == names
    assert not (tmp_path / "out.training").exists()
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_dora"]) == (2, 2, False)
    assert config["base_model_name_or_path"] == str(checkpoint("smolvlm_256m"))
    shapes = {name: array.shape for name, array in load_file(out / "adapter_model.safetensors").items()}
    assert shapes["base_model.model.model.text_model.layers.0.self_attn.q_proj.lora_A.weight"] == (2, 96)
    assert len(shapes) == 2 * len(config["target_modules"])
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert records[1]["loss"] < records[0]["loss"]
    assert records[0]["learning_rate"] == 0.01
    assert f"loss: {records[0]['loss']:.4f} in the first step, {records[1]['loss']:.4f} in the last\n" in result.err
    assert f"wrote {out}; report.html in it shows how it went\n" in result.err
    ids = [1, 5, 9, 12]
    unmerged = mlx_smolvlm.load(checkpoint("smolvlm_256m"), adapters=out, dtype="float32")[0](ids)
    merged = mlx_smolvlm.load(tmp_path / "out-merged", dtype="float32")[0](ids)
    assert mx.abs(unmerged - merged).max().item() < 1e-4


def test_the_bar_has_its_line_alone(train, monkeypatch):
    told = []  # in the line that says what goes on, which would be drawn over the bar
    monkeypatch.setattr(Waiting, "tell", lambda _, what, *numbers: told.append(what))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    result = train("out", "--steps", 1)
    assert result.status == 0, result
    assert told[-1] == "loading the model"


def test_accumulating_is_a_large_batch_to_the_byte(train, tmp_path):
    for out, options in (("large", (5, 1)), ("small", (1, 5)), ("again", (5, 1, "--grad-checkpoint"))):
        batch_size, accumulate, *others = options
        train(out, "--steps", 2, "--batch-size", batch_size, "--accumulate", accumulate, "--dropout", 0.2, *others)
    assert adapter(tmp_path / "large") == adapter(tmp_path / "small") == adapter(tmp_path / "again")


def test_a_stopped_run_goes_on_to_the_same_bytes(train, rows, tmp_path, monkeypatch):
    options = ("--steps", 4, "--batch-size", 2, "--dropout", 0.2, "--schedule", "cosine", "--warmup", 1)
    assert train("whole", *options).status == 0
    update = Optimization.update

    def stopped(self, gradients):
        if self.step == 2:
            raise OSError(28, "No space left on device", "somewhere")
        update(self, gradients)

    with monkeypatch.context() as patched:
        patched.setattr(Optimization, "update", stopped)
        result = train("out", *options)
    assert result.status == 2
    assert "No space left" in result.err
    assert not (tmp_path / "out").exists()
    assert_refused(train("out", *options), "add --resume to go on")
    assert_refused(train("out", *options, "--resume", "--seed", 3), "--seed is 3, but the run in")
    assert_refused(train("out", *options, "--resume", "--no-shuffle"), "--no-shuffle is given, but the run in")
    assert_refused(train("out", *options[:-2], "--resume", "--alpha", 3), "--alpha is 3.0, but the run in")
    content = rows.read_text()
    rows.write_text(content.replace("A red dot", "A red cat"))
    assert_refused(train("out", *options, "--resume"), "rows, images, or how they are read changed")
    rows.write_text(content)
    result = train("out", *options, "--resume", "--save-every", 1)
    assert result.status == 0, result
    assert "from step 3 on" in result.err
    assert adapter(tmp_path / "out") == adapter(tmp_path / "whole")
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    result = train("out", *options, "--resume")
    assert (result.status, "nothing is left to do" in result.err) == (0, True)
    assert_refused(train("out", *options, "--resume", "--epochs", 2), "exclude each other")
    assert_refused(train("out", *options), "exists already")


def test_features_are_computed_once(train, tmp_path, monkeypatch):
    computed = []
    compute = StoredFeatures._compute
    monkeypatch.setattr(StoredFeatures, "_compute", lambda self, tiles: computed.extend(tiles) or compute(self, tiles))
    cache = tmp_path / "features"
    for out in ("first", "second"):
        assert train(out, "--epochs", 2, "--feature-cache", cache).status == 0
    assert len(computed) == len(list(cache.iterdir())) == 2
    assert adapter(tmp_path / "first") == adapter(tmp_path / "second")
    assert_refused(train("third", "--train-vision", "--feature-cache", cache), "so its features change")
    assert_refused(train("third", "--feature-cache", tmp_path / "rows.jsonl"), "rows.jsonl is a file; name a folder")
    cut, changed = cache.iterdir()
    cut.write_bytes(b"damaged")
    content = changed.read_bytes()
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert train("fourth", "--epochs", 2, "--feature-cache", cache).status == 0
    assert len(computed) == 4
    assert adapter(tmp_path / "fourth") == adapter(tmp_path / "first")


def test_full_training_writes_a_checkpoint_like_its_base(train, tmp_path, checkpoint, rows, monkeypatch, capsys):
    base = checkpoint("smolvlm_256m")
    paths = ("--model", base, "--data", rows, "--adapter-out", tmp_path / "full")
    result = run(monkeypatch, capsys, "train", *paths, "--method", "full", "--steps", 1, *SPLIT, "--train-connector")
    assert result.status == 0, result
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "full" / "model.safetensors")
    assert {name: array.shape for name, array in before.items()} == {name: a.shape for name, a in after.items()}
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert not any("vision_model" in name for name in changed)
    assert {"lm_head.weight", "model.text_model.norm.weight"} <= changed
    assert any("connector" in name for name in changed)
    mlx_smolvlm.load(tmp_path / "full")
    convert_checkpoint(tmp_path / "full", tmp_path / "mlx", quantization=QuantizationOptions(bits=8, group_size=32))


@pytest.mark.parametrize(
    "options, problem",
    [
        (("--rank", 0), "--rank is 0"),
        (("--alpha", 0), "--alpha is 0"),
        (("--dropout", 1), "--dropout is 1"),
        (("--image-folder", ""), "--image-folder is empty"),
        (("--feature-cache", ""), "--feature-cache is empty"),
        (("--learning-rate", "nan"), "--learning-rate is nan"),
        (("--method", "full"), "--rank is for adapters"),
        (("--target", "q_proj", "--train-vision"), "--target and --train-vision exclude each other"),
        (("--steps", 2, "--epochs", 2), "--steps and --epochs exclude each other"),
        (("--save-every", 0), "--save-every is 0"),
        (("--vision-learning-rate", 1e-3), "--vision-learning-rate has no effect"),
        (("--max-memory", 0.001), "one row at a time can take"),
        (("--target", "norm"), "has no low-rank change"),
        (("--init-adapter", "."), "not an adapter"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_step(train, tmp_path, options, problem):
    assert_refused(train("out", *options), problem)
    assert not list(tmp_path.glob("out*"))


def test_a_result_that_is_not_finite_is_not_written(train, tmp_path):
    result = train("out", "--steps", 1, "--learning-rate", "1e300")
    assert result.status == 2 and "after the last step the loss is not finite" in result.err
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_something_are_left_alone(train, tmp_path):
    for name in ("out", "out-merged"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
        assert_refused(train("out", "--merge"), f"{tmp_path / name} exists already")
        (tmp_path / name / "notes.txt").unlink()
    assert train("out", "--steps", 1).status == 0


def test_places_where_nothing_can_be_merged_are_refused_before_any_step(train, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    within = "it is the adapter's own folder, around it or within it"
    for place, problem in {
        tmp_path / "notes.txt" / "merged": "notes.txt is a file, so there is no folder in it; choose another --merge",
        tmp_path / "out" / "merged": within.removeprefix("it "),
        tmp_path: within.removeprefix("it "),
        tmp_path / "out.training": "is where the run keeps its state",
    }.items():
        assert_refused(train("out", "--steps", 1, "--merge", place), problem)
    assert not list(tmp_path.glob("out*"))


def test_a_result_that_is_worse_than_the_beginning_is_named(train, tmp_path):
    result = train("large", "--steps", 1, "--batch-size", 5, "--learning-rate", 1e6)
    assert result.status == 0, result
    assert "\n1 step; " in result.err
    assert "note: the result holds numbers as large as 1e+06; --learning-rate may be too high" in result.err
    rose = SimpleNamespace(records=[{"step": 1, "loss": 2.0}], last_loss=5.5, largest_number=3.0)
    assert [line[:48] for line in _what_was_learned(rose)] == ["note: the loss rose from 2 in the first step to "]
    result = train("wide", "--steps", 1, "--batch-size", 5, "--learning-rate", 1e30)
    assert result.status == 2, result
    assert "after the last step the loss is not finite; the learning rate may be too high" in result.err
    assert not (tmp_path / "wide").exists()


@pytest.mark.parametrize("name", ["notes.txt", "metrics.jsonl"])
def test_a_folder_where_the_state_would_be_is_left_alone(train, tmp_path, name):
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training" / name).write_text("mine")
    assert_refused(train("out", "--steps", 1), f"it holds {name!r}, which is of no run")
    assert (tmp_path / "out.training" / name).read_text() == "mine"


@pytest.mark.parametrize("cache", ["out", "out/features", "out.training"])
def test_features_are_not_kept_where_the_output_will_be(train, tmp_path, cache):
    """That was said when all was trained."""
    assert_refused(train("out", "--steps", 1, "--feature-cache", tmp_path / cache), "is a folder of this run")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo])
def test_what_is_no_folder_where_the_state_would_be_is_refused(train, tmp_path, make):
    make(tmp_path / "out.training")
    assert_refused(train("out", "--steps", 1), "where the run would keep its state, but it is no folder")


def test_the_state_may_lie_behind_a_link(train, tmp_path):
    """The output was there, and the command ended with status 2."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.training").symlink_to("elsewhere")
    assert train("out", "--steps", 1).status == 0
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_is_put_beside_the_state_meanwhile_stays(train, tmp_path, monkeypatch):
    folder = tmp_path / "out.training"
    folder.mkdir()
    (folder / ".DS_Store").touch()  # of macOS
    save = RunFolder.save

    def save_and_put(self, *state):
        save(self, *state)
        (folder / "notes.txt").write_text("mine")

    monkeypatch.setattr(RunFolder, "save", save_and_put)
    assert train("out", "--steps", 1).status == 0
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert "nothing is left to do" in train("out", "--steps", 1, "--resume").err


def test_a_step_that_is_broken_off_is_not_kept(train, tmp_path, monkeypatch):
    options = ("--steps", 3, "--batch-size", 2, "--train-connector")
    assert train("whole", *options).status == 0
    apply, calls = AdamW.apply_gradients, []

    def broken_off(self, gradients, parameters):
        changed = apply(self, gradients, parameters)
        calls.append(changed)
        if len(calls) == 3:  # the first part of the second step: a second Ctrl-C ends the process at once
            raise SystemExit(130)
        return changed

    with monkeypatch.context() as patched:
        patched.setattr(AdamW, "apply_gradients", broken_off)
        assert train("out", *options).status == 130
    assert train("out", *options, "--resume").status == 0
    assert adapter(tmp_path / "out") == adapter(tmp_path / "whole")


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_state(train, tmp_path, checkpoint):
    weights = load_file(checkpoint("smolvlm_256m") / "model.safetensors")
    base = tmp_path / "base"
    base.mkdir()
    for file in checkpoint("smolvlm_256m").iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    weights["lm_head.weight"][3, 3] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    result = train("out", "--steps", 2, model=base)
    assert result.status == 2
    assert "step 1: the loss is nan" in result.err
    assert not (tmp_path / "out").exists()
