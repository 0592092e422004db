"""`train` with held rows: the best step is kept, runs end early, and go on as if nothing had happened."""

import json

import pytest
from PIL import Image
from safetensors.numpy import load_file
from support.command_lines import assert_refused, run
from support.slow_cases import slow

from mlx_smolvlm.train.run_folder import RunFolder
from mlx_smolvlm.train.validation import Validation

COLORS = ("red", "green", "blue", "black")


@pytest.fixture
def rows(tmp_path):
    """Rows whose answers the demo model does not give yet."""
    lines = []
    for number in range(10):
        color = COLORS[number % 4]
        Image.new("RGB", (40, 30), color).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"question": "Label it.", "answer": f"It is {color}.", "image": f"{number}.png"}))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def train(monkeypatch, capsys, rows, trained_checkpoint, tmp_path):
    """Run the command with small steps; gives its result and the folder that it makes."""

    def train(name, *options):
        words = ["--model", trained_checkpoint, "--data", rows, "--adapter-out", tmp_path / name, "--batch-size", 2]
        words += ["--rank", 4, "--save-every", 2, "--no-split", "--validate-every", 2, *options]
        return run(monkeypatch, capsys, "train", *words), tmp_path / name

    return train


def records_of(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [{key: value for key, value in record.items() if key in TOLD} for record in records]


TOLD = ("step", "loss", "validation_loss", "answers")


def test_the_best_step_is_kept_and_a_run_that_got_no_better_ends(train, tmp_path):
    options = ("--validation-share", 0.3, "--steps", 20, "--learning-rate", 0.5, "--patience", 1)
    shown, folder = train("a", *options, "--plot", tmp_path / "losses.png")
    assert shown.status == 0, shown.err
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    validations = [record for record in records_of(folder) if "validation_loss" in record]
    losses = [record["validation_loss"] for record in validations]
    best = json.loads((folder / "training.json").read_text())["best_step"]
    assert best == validations[losses.index(min(losses))]["step"]
    told = f"loss on held rows: {losses[0]:.4f} before, {min(losses):.4f} after step {best}, which is kept\n"
    assert told in shown.err
    assert validations[-1]["step"] == best + 2 < 20  # a rate of 0.5 leads astray at once
    trained = load_file(folder / "adapter_model.safetensors")
    assert best > 0 or all(not array.any() for name, array in trained.items() if "lora_B" in name)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "validation</text>" in page
    assert page.count("data:image/jpeg") == len(validations[0]["answers"]) == 3
    assert "It is " in page


@pytest.mark.parametrize("place", [slow("record"), "save_best"])
def test_a_run_that_was_stopped_while_it_validated_ends_the_same(train, monkeypatch, place):
    options = ("--validation-share", 0.2, "--steps", 3, "--learning-rate", 0.01, "--dropout", 0.2)
    _, whole = train("whole", *options)
    owner = Validation if place == "record" else RunFolder
    method = getattr(owner, place)

    def stopped(self, step, *rest):
        if step == 2:
            raise KeyboardInterrupt
        return method(self, step, *rest)

    monkeypatch.setattr(owner, place, stopped)
    assert train("again", *options)[0].status == 130
    monkeypatch.setattr(owner, place, method)
    assert '"step": 2, "validation_loss"' not in (whole.parent / "again.training" / "metrics.jsonl").read_text()
    shown, again = train("again", *options, "--resume")
    assert shown.status == 0, shown.err
    assert records_of(again) == records_of(whole)
    assert [name for name in ("adapter_model.safetensors",) if differ(whole / name, again / name)] == []


def differ(one, other):
    return one.read_bytes() != other.read_bytes()


@pytest.mark.slow  # tests/train/test_preferences.py is quick
def test_preferences_from_the_command_line(train, rows):
    entries = [json.loads(line) for line in rows.read_text().splitlines()]
    for entry in entries[:4]:
        entry |= {"chosen": entry.pop("answer"), "rejected": "Red."}
    rows.write_text("\n".join(map(json.dumps, entries[:4])))
    options = ("--preference", "--steps", 2, "--learning-rate", 0.02, "--validation", rows)
    shown, folder = train("a", *options)
    assert shown.status == 0, shown.err
    records = records_of(folder)
    first, last = (record["validation_loss"] for record in (records[0], records[-1]))
    assert first == pytest.approx(0.6931, abs=1e-3)  # the model is the base: log 2
    assert last < first
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")
    assert all(name in record for record in records if "loss" in record for name in names)
    assert records[0]["validation_rewards/margins"] == pytest.approx(0, abs=1e-3)
    assert records[-1]["validation_rewards/margins"] > 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--patience", 1], "--validate-every has no effect without --validation"),
        (["--validation-share", 1.5], "--validation-share is 1.5, expected a number between 0 and 1"),
        (["--validation-share", 0.99], "leaves none of 10 rows to train"),
        (["--validation-share", 0.1, "--validation", "a"], "--validation and --validation-share exclude each other"),
        (["--validation", "none.jsonl"], "no file 'none.jsonl' with rows"),
        (["--validation-share", 0.1, "--preference"], "rows.jsonl:1: has no chosen"),
        (["--validation-share", 0.1, "--plot", "losses.abc"], "no image format is called '.abc'"),
        (["--validation-share", 0.1, "--beta", 0.2], "--beta has no effect without --preference"),
        (["--validation-share", 0.1, "--preference", "--method", "full"], "--preference compares an adapter"),
    ],
)
def test_what_contradicts_is_refused(train, options, problem):
    assert_refused(train("a", *options)[0], problem)
