"""Parquet files and folders as `datasets` saves them; images are read when they are needed."""

import io
import json

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from mlx_smolvlm.train.dataset.training_rows import read_rows


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = [png(colour) for colour in ("red", "green", "blue")]
TABLE = pyarrow.table(
    {
        "question": ["What?"] * 3,
        "answer": ["Red.", "Green.", "Blue."],
        "image": [{"bytes": image, "path": None} for image in IMAGES],
    }
)
TURNS = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]}]
SAID = {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}
CHATS = pyarrow.table({"messages": [[*TURNS, SAID]], "images": [[{"bytes": IMAGES[0], "path": "a.png"}]]})


def images_of(rows):
    return [row.messages[0]["content"][0]["image"].read() for row in rows]


def write_arrow(table, folder):
    folder.mkdir(parents=True)
    path = str(folder / "data-00000-of-00001.arrow")
    with pyarrow.OSFile(path, "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


def test_parquet_files_of_several_groups(tmp_path):
    parquet.write_table(TABLE, tmp_path / "train-0.parquet", row_group_size=2)
    for path in (tmp_path / "train-0.parquet", tmp_path, tmp_path / "train-*"):
        rows = read_rows(path)
        assert [row.name for row in rows] == [f"train-0.parquet:{number}" for number in (1, 2, 3)]
        assert images_of(rows) == IMAGES
        assert [row.messages[1]["content"][0]["text"] for row in rows] == ["Red.", "Green.", "Blue."]


def test_folders_that_datasets_has_saved(tmp_path):
    write_arrow(CHATS, tmp_path / "data" / "train")
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    for path in (tmp_path / "data", tmp_path / "data" / "train"):
        (row,) = read_rows(path)
        assert row.messages[0]["content"][1:] == [{"type": "text", "text": "What?"}]
        assert images_of([row]) == IMAGES[:1]
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(ValueError, match="has the splits train, test; name one of them"):
        read_rows(tmp_path / "data")


def test_a_folder_of_images_with_metadata(tmp_path):
    entry = {"file_name": "a.png", "question": "What?", "answer": "Red."}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(entry))
    assert read_rows(tmp_path)[0].messages[0]["content"][0]["image"] == str(tmp_path / "a.png")


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rows.csv").write_text("image,question,answer\n")
    with pytest.raises(ValueError, match=r"has no rows: expected .*; or name the file itself, such as .*rows\.csv$"):
        read_rows(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"has no rows: expected .parquet files.*metadata.jsonl$"):
        read_rows(tmp_path)
    for name in ("a.parquet", "a.arrow"):
        (tmp_path / name).write_bytes(b"PAR1 but no more")
        with pytest.raises(ValueError, match=f"{name} is no "):
            read_rows(tmp_path / name)


def test_columns_of_one_name_and_of_bytes_are_refused(tmp_path):
    """The first ended in an error of pyarrow's."""
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table([["q"], ["r"], ["a"]], names=["question", "question", "answer"]), path)
    with pytest.raises(ValueError, match=r"a\.parquet: two columns are called 'question'; leave one out"):
        read_rows(path)
    parquet.write_table(pyarrow.table({"question": [b"q"], "answer": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"message 0 has the content <bytes in b\.parquet>, expected text"):
        read_rows(tmp_path / "b.parquet")
