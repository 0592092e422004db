"""Prompts equal those of VLMEvalKit's own code, through the command line."""

import csv
import gzip
import json

import pytest
from support.command_lines import assert_refused, run
from support.layout import ROOT

from mlx_smolvlm.evaluate.data.table_cells import as_pandas_reads
from mlx_smolvlm.evaluate.prompts.row_prompts import WrapperChoice, wrapper_of_checkpoint

GOLDEN = json.loads(gzip.decompress((ROOT / "tests" / "goldens" / "vlmeval_prompts.json.gz").read_bytes()))
SETS = {**GOLDEN["stills"], **GOLDEN["videos"]}


MADE = json.loads(gzip.decompress((ROOT / "tests" / "goldens" / "vlmeval_made_prompts.json.gz").read_bytes()))["rows"]


def as_jsonl(folder, name, records):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def as_tsv(folder, name, records):
    path = folder / f"{name}.tsv"
    columns = list(dict.fromkeys(column for record in records for column in record))
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(columns)
        for record in records:
            cells = [record.get(column) for column in columns]
            writer.writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in cells])
    return path


def listed(monkeypatch, capsys, *arguments):
    result = run(monkeypatch, capsys, "evaluate", *arguments, "--print-prompts")
    assert result.status == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


@pytest.mark.parametrize("write", [as_jsonl, as_tsv])
@pytest.mark.parametrize("wrapper", ["SmolVLM", "SmolVLM2"])
def test_prompts_equal_the_suites(monkeypatch, capsys, tmp_path, write, wrapper):
    paths = [write(tmp_path, name, [case["row"] for case in cases]) for name, cases in SETS.items()]
    found = iter(listed(monkeypatch, capsys, *paths, "--wrapper", wrapper.lower()))
    for name, cases in SETS.items():
        for case in cases:
            row = next(found)
            assert (row["dataset"], row["index"], row["wrapper"]) == (name, case["row"]["index"], wrapper)
            expected = case.get(wrapper, {})
            if "error" in expected:
                assert "the suite's code for this set fails" in row["error"]
            else:
                assert row["message"] == case["message"]
                assert {field: row[field] for field in expected} == expected


def test_a_table_of_several_sets_has_the_same_prompts(monkeypatch, capsys, tmp_path):
    """Columns with empty cells make numbers fractions, those of frames included."""
    rows = [{"dataset": name, **case["row"]} for name, cases in SETS.items() for case in cases]
    expected = [case["SmolVLM2"] for cases in SETS.values() for case in cases]
    for case, row in zip(expected, listed(monkeypatch, capsys, as_tsv(tmp_path, "all", rows)), strict=True):
        assert case.get("prompt") == row.get("prompt")
        assert case.get("frames") == row.get("frames")


def test_not_a_number_is_an_empty_field(monkeypatch, capsys, tmp_path):
    """As pandas' rows have it in JSON of Python's json."""
    nan = float("nan")
    row = {"question": "Q", "image": "1.png", "A": "x", "B": "y", "C": nan, "hint": nan, "answer": nan}
    (found,) = listed(monkeypatch, capsys, as_jsonl(tmp_path, "MMStar", [row]))
    assert ":<image>Question: Q\nChoices:\nA. x\nB. y\nAnswer" in found["prompt"]


def test_a_number_of_frames_beside_a_video(monkeypatch, capsys, tmp_path):
    """So many are sampled; a video that is not there is not needed for the listing."""
    clip = ROOT / "mlx_smolvlm" / "demo" / "clip.mp4"
    rows = [{"question": "Q", "video": str(video), "frames": 3} for video in (clip, "gone.mp4")]
    for row in listed(monkeypatch, capsys, as_jsonl(tmp_path, "TempCompass_YorN", rows)):
        assert (row["frames"], row["marks"]) == ([0, 1, 2], 3)


def test_what_a_listing_does_not_use_is_named(monkeypatch, capsys, tmp_path):
    path = as_jsonl(tmp_path, "POPE", [{"question": "Q", "image": "1.png"}])
    found = run(monkeypatch, capsys, "evaluate", path, "--print-prompts", "--out", tmp_path / "x", "--scorer", "anls")
    assert found.err == "note: --print-prompts asks no model; not used: --scorer, --out\n"


@pytest.mark.parametrize("wrapper", ["SmolVLM", "SmolVLM2"])
def test_prompts_of_made_up_rows_equal_the_suites(monkeypatch, capsys, tmp_path, wrapper):
    """Rows of odd texts: marks, words of the builders, letters with gaps, subtitles."""
    records = [{**case["row"], "index": number, "dataset": case["dataset"]} for number, case in enumerate(MADE)]
    path = as_jsonl(tmp_path, "made", records)
    for case, row in zip(MADE, listed(monkeypatch, capsys, path, "--wrapper", wrapper.lower()), strict=True):
        if "error" in case[wrapper]:
            assert "prompt" not in row, case
        else:
            images = row["images"] if "images" in row else [f"F{number}" for number in row["frames"]]
            assert {"prompt": row["prompt"], "images": images} == case[wrapper]


def test_the_model_chooses_the_wrapper(monkeypatch, capsys, tmp_path):
    cases = SETS["Video-MME"][:1]
    path = as_jsonl(tmp_path, "Video-MME", [case["row"] for case in cases])
    for model, wrapper, edge in [
        ("HuggingFaceTB/SmolVLM-500M-Instruct", "SmolVLM", None),
        ("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "SmolVLM2", 512),
        ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "SmolVLM2", 384),
        (ROOT / "mlx_smolvlm" / "demo" / "model", "SmolVLM2", 512),
    ]:
        (row,) = listed(monkeypatch, capsys, path, "--model", model)
        assert row["wrapper"] == wrapper
        assert row.get("image_processor", {}).get("size", {}).get("longest_edge") == edge


def test_a_checkpoint_tells_its_wrapper_whatever_it_is_called(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "idefics3"}', encoding="utf-8")
    assert wrapper_of_checkpoint("someone/of-my-own", tmp_path, None) == WrapperChoice("smolvlm", 512)
    assert wrapper_of_checkpoint("x/SmolVLM2-2.2B-mine", tmp_path, "smolvlm2") == WrapperChoice("smolvlm2", 384)


def test_an_unknown_set_has_the_default_builder_and_says_so(monkeypatch, capsys, tmp_path):
    path = as_jsonl(tmp_path, "mine", [{"question": "Q?", "A": "x", "B": "y", "images": ["1.png"]}])
    result = run(monkeypatch, capsys, "evaluate", path, "--print-prompts")
    assert "note: mine is not the name of a set" in result.err
    assert "default builder" in result.err
    assert (
        "did you mean 'MMStar'?"
        in run(monkeypatch, capsys, "evaluate", path, "--print-prompts", "--dataset", "MMStr").err
    )
    assert json.loads(result.out)["prompt"] == (
        "<|im_start|>User:<image>Question: Q?\nOptions:\nA. x\nB. y\n"
        "Please select the correct answer from the options above.<end_of_utterance>\nAssistant:"
    )
    (row,) = listed(monkeypatch, capsys, path, "--dataset", "MMStar")
    assert row["prompt"].endswith("Answer with the letter.<end_of_utterance>\nAssistant: Answer:")


def test_what_a_message_does_not_show_is_named(monkeypatch, capsys, tmp_path):
    row = {"question": "Q", "images": ["1.png"], "hint": "H", "source": "somewhere", "A": "only one"}
    result = run(monkeypatch, capsys, "evaluate", as_jsonl(tmp_path, "POPE", [row]), "--print-prompts")
    assert result.err == "note: not used in prompts or scores: hint, options, source\n"


def test_numbers_in_tables_come_out_as_pandas_writes_them(monkeypatch, capsys, tmp_path):
    rows = [{"index": 1, "question": "Q", "image_path": "1.png", "A": "007", "B": "1", "C": "None"}]
    rows.append({"index": 2, "question": "Q", "image_path": "1.png", "A": "2", "B": "", "C": "x"})
    first, second = listed(monkeypatch, capsys, as_tsv(tmp_path, "MMStar", rows))
    assert "Choices:\nA. 7\nB. 1.0\nAnswer" in first["prompt"]
    assert "Choices:\nA. 2\nC. x\nAnswer" in second["prompt"]
    assert as_pandas_reads(["\uff11", ""]) == ["\uff11", None]  # a full-width figure
    assert as_pandas_reads(["075", "", str(2**64)]) == ["75", None, str(2**64)]
    assert as_pandas_reads(["9" * 5000, "1"]) == ["9" * 5000, "1"]  # more digits than Python reads


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "MMStar.tsv is empty"),
        ("index\timage\n1\tx\n", "has no column question"),
        ("question\timage_path\nQ\tx.png\n", "has no column index"),
        ("\0i\0n\0\xff", "the names of the columns: has the only column"),
        ("index\tquestion\n1\n", "row 1: has 1 cells, expected 2"),
        ("index\tquestion\tquestion\n1\ta\tb\n", "'question' stands there twice"),
        ('index\tquestion\n1\t"a\nb\n', "row 1: a cell's quote is never closed"),
        ("index\tquestion\timage_path\n1\ta\tx.png\n1\tb\tx.png\n", "row 2: the index 1 is that of"),
        ("index\tquestion\n", "hold no rows"),
    ],
)
def test_tables_that_are_not_understood(monkeypatch, capsys, tmp_path, text, problem):
    path = tmp_path / "MMStar.tsv"
    path.write_text(text, encoding="utf-8")
    assert_refused(run(monkeypatch, capsys, "evaluate", path, "--print-prompts"), problem)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"question": "Q"}, "has no image and no video"),
        ({"question": "Q", "images": ["1.png"], "frames": 2}, "has images and frames; expected one of them"),
        ({"images": ["1.png"]}, "has no question"),
        ({"question": "Q", "image": "1.png", "video": "x.mp4"}, "has images and a video"),
        ({"question": "Q", "frames": 0}, "its video has no frames"),
        ({"question": "Q", "image": "1.png", "scorer": "relax"}, "no scorer 'relax'"),
        ({"question": "Q", "image": "1.png", "candidates": "[{[]: 1}]"}, "is no list"),
        ({"question": "Q", "video": "v" * 300}, "name too long"),
        ({"question": "Q", "frames": 2, "subtitles": "none"}, "subtitles is 'none', expected a list"),
        ({"question": "Q", "video": "gone.mp4"}, "gone.mp4: no such video"),
        ({"question": "Q", "candidates": "one", "frames": 2}, "is no list"),
        ({"question": "Q", "frames": 2, "dataset": "MLVU_8frame"}, "has no candidates"),
        ({"question": "<image 3>", "images": ["1.png"], "dataset": "MMMU_TEST"}, "names <image 3>"),
    ],
)
def test_a_row_that_cannot_be_asked_says_why(monkeypatch, capsys, tmp_path, record, problem):
    (row,) = listed(monkeypatch, capsys, as_jsonl(tmp_path, "mine", [record]))
    assert problem.lower() in row["error"].lower()
