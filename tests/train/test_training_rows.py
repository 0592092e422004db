"""Files of rows, whatever their form: what is read, and what is refused by name."""

import json
import os

import pytest

from mlx_smolvlm.train.dataset.training_row import RowError
from mlx_smolvlm.train.dataset.training_rows import read_rows

QUESTION, ANSWER = [{"type": "text", "text": "What is it?"}], [{"type": "text", "text": "A cat."}]


@pytest.fixture
def read(tmp_path):
    """Write a file and read its rows, as (role, content) with names of images in place of paths."""

    def read(content, name="rows.jsonl", **options):
        if not isinstance(content, str | bytes):
            content = "".join(json.dumps(entry) + "\n" for entry in content)
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return [[shown(message, tmp_path) for message in row.messages] for row in read_rows(path, **options)]

    return read


def shown(message, folder):
    content = [
        {key: value.replace(f"{folder}/", "") if isinstance(value, str) else value for key, value in item.items()}
        for item in message["content"]
    ]
    return message["role"], content


def image(name):
    return {"type": "image", "image": name}


ASKED, SAID = {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A cat."}
HUMAN, GPT = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}
LISTED = {"role": "assistant", "content": ANSWER}


@pytest.mark.parametrize(
    "entry",
    [
        {"messages": [ASKED, SAID], "images": ["a.png"]},
        {"messages": json.dumps([ASKED, SAID]), "image": "a.png"},
        {"messages": [{"role": "user", "content": [image("a.png"), *QUESTION]}, LISTED]},
        {"messages": [{"role": "user", "content": [{"type": "image"}, *QUESTION]}, LISTED], "images": ["a.png"]},
        {
            "messages": [{"role": "user", "content": [{"type": "image", "index": 0, "text": None}, *QUESTION]}, LISTED],
            "images": ["a.png"],
        },
        {"conversations": [HUMAN, GPT], "image": "a.png", "id": 3},
        {"conversations": [ASKED, SAID], "image": "a.png"},
        {"prompt": "What is it?", "completion": "A cat.", "image": "a.png"},
        {"prompt": [ASKED], "completion": [SAID], "images": ["a.png"]},
        {"question": "What is it?", "answer": "A cat.", "images": "a.png", "video": None},
    ],
)
def test_every_form_gives_the_same_conversation(read, entry):
    assert read([entry]) == [[("user", [image("a.png"), *QUESTION]), ("assistant", ANSWER)]]


def test_several_images_keep_their_places(read):
    entry = {"question": "<image>\nOr\n<image>?", "answer": "", "images": ["a.png", "b.png"], "system": "Be brief."}
    text = {"type": "text", "text": ""}
    question = [image("a.png"), {**text, "text": "Or"}, image("b.png"), {**text, "text": "?"}]
    system = ("system", [{**text, "text": "Be brief."}])
    assert read([entry]) == [[system, ("user", question), ("assistant", [text])]]


def test_tables_lists_marks_and_line_ends(read):
    expected = [[("user", [image("a.png"), *QUESTION]), ("assistant", [{"type": "text", "text": "A\ncat."}])]]
    table = '\ufeffimage,question,answer\r\na.png,What is it?,"A\ncat."\r\n'
    assert read(table, "rows.csv") == expected
    assert read(table.replace(",", ";"), "rows.csv") == expected
    assert read(table.replace(",", "\t"), "rows.tsv") == expected
    entry = {"question": "What is it?", "answer": "A\ncat.", "image": "a.png"}
    assert read("\ufeff" + json.dumps(entry) + "\r\n\r\n") == expected
    assert read(json.dumps([entry]), "rows.json") == expected
    assert read("question,answer,image\nOne?,1,\n", "rows.csv")[0][0] == ("user", [{"type": "text", "text": "One?"}])


def test_a_completion_is_trained_alone(tmp_path):
    turns = [{"role": role, "content": "?"} for role in ("user", "assistant", "user", "assistant")]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": turns[:3], "completion": turns[3:]}))
    assert read_rows(path)[0].first == 3


GOOD = {"question": "What is it?", "answer": "A cat."}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answer": None}, "has no answer, which belongs to question"),
        ({"question": None, "answer": None}, "expected the fields messages, or conversations, or prompt"),
        ({"messages": []}, "expected the fields messages"),
        ({"answr": "A dog."}, "the field 'answr' is not known; did you mean 'answer'?"),
        (
            {"difficulty": 3},
            "expected question, answer, image, images, file_name, video, videos, system; --ignore-fields ",
        ),
        ({"question": 3}, "message 0 has the content 3, expected text"),
        ({"question": "<image>?"}, "places for images .*: 1; images of the row: 0"),
        ({"question": "<image>?", "images": ["a.png", "b.png"]}, "places for images .*: 1; images of the row: 2"),
        ({"image": "a.png", "images": ["b.png"]}, "image and images are both given"),
        ({"image": "https://example.com/a.png?token=x"}, "https://example.com/a.png is on the web; .* --allow-urls"),
        ({"image": "../a.png"}, "'../a.png' leads out of"),
        ({"image": 3}, "image is 3, expected the name of a file"),
        ({"system": 3}, "message 0 has the content 3"),
    ],
)
def test_bad_fields_are_refused_by_name(read, change, problem):
    with pytest.raises(RowError, match=f"rows.jsonl:2: .*{problem}"):
        read([GOOD, {**GOOD, **change}])


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        (["user"], "no turn of the assistant"),
        (["assistant", "user"], "begins with the assistant"),
        (["user", "user", "assistant"], "two turns of the user in a row"),
        (["user", "model"], "the role 'model', expected one of"),
        (["user", 3], "the role 3, expected one of"),
    ],
)
def test_turns_that_are_none_are_refused(read, roles, problem):
    with pytest.raises(RowError, match=problem):
        read([{"messages": [{"role": role, "content": "?"} for role in roles]}])


def test_columns_of_messages_that_do_not_fit_are_refused(read):
    """The longer ones were cut, and their turns were not trained."""
    columns = {"role": ["user", "assistant"] * 2, "content": ["a", "b"]}
    with pytest.raises(RowError, match="messages has columns of different lengths"):
        read([{"messages": columns}])
    assert [role for role, _ in read([{"messages": {**columns, "role": ["user", "assistant"]}}])[0]] == [
        "user",
        "assistant",
    ]


def test_several_answers_in_a_row_are_taken(read):
    roles = ["user", "assistant", "assistant"]
    rows = read([{"messages": [{"role": role, "content": "?"} for role in roles]}])
    assert [role for role, _ in rows[0]] == roles


def test_one_broken_line_is_named_and_can_be_skipped(read):
    lines = "\n".join([json.dumps(GOOD)] * 9_998 + ['{"question": "What', json.dumps(GOOD)])
    bad = []
    assert len(read(lines, on_bad_row=bad.append)) == 9_999
    assert [str(error)[:25] for error in bad] == ["rows.jsonl:9999: not JSON"]
    with pytest.raises(RowError, match=r"rows.jsonl:2: not UTF-8"):
        read(json.dumps(GOOD).encode() + b'\n{"question": "\xff"}\n')
    with pytest.raises(RowError, match=r"rows.csv:4: has 2 values, expected 3"):
        read('image,question,answer\n,"What\nis it?",a\n,b\n', "rows.csv")


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        ("", "rows.jsonl", "has no rows to train on"),
        ("\n\n", "rows.jsonl", "has no rows to train on"),
        ("{}", "rows.json", "expected a list of rows"),
        ("[", "rows.json", "is not a JSON file"),
        ("a,b\n1,2\n", "rows.csv", "begins with the columns 'a, b'; expected image, question and answer"),
        ("image,caption\na.png,A dog\n", "rows.csv", "answer in the first line; a caption is the answer to a question"),
        ('question,answer\n"a,b\n', "rows.csv", "rows.csv:2: not CSV"),
        ("question,answer,answer\n1,2,3\n", "rows.csv", "rows.csv: two columns are called 'answer'"),
        (",question,answer\n0,a,b\n", "rows.csv", "column 1 has no name; .*index=False"),
        ("é,question,answer\n".encode("latin-1"), "rows.csv", "not UTF-8 text; save the file"),
        ("{}\n{}\n", "rows.json", "if it has an object on each line, name it .jsonl"),
        ("x", "rows.xlsx", "is no file of rows; expected .jsonl"),
    ],
)
def test_files_that_are_none_are_refused(read, content, name, problem):
    with pytest.raises(ValueError, match=problem):
        read(content, name)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("state.json", '{"_data_files": [{}]}', "'_data_files' is .* expected names of what lies beside it"),
        ("state.json", '{"_data_files": 3}', "'_data_files' is 3, expected names"),
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', "expected names of what lies beside it"),
        ("state.json", '{"_data_files": [{"filename": "x.bin"}]}', "x.bin is no file of rows"),
        ("dataset_dict.json", '{"splits": null}', "'splits' is None, expected names"),
        ("dataset_dict.json", '{"splits": ["."]}', "expected names of what lies beside it"),
        ("dataset_dict.json", '{"splits": "train"}', "no such folder|No such file"),
    ],
)
def test_folders_that_say_something_else_than_datasets_does_are_refused(tmp_path, name, content, problem):
    """Names led to other folders, and without end to the same one."""
    (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=problem):
        read_rows(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="not a regular file"):
        read_rows(tmp_path / "rows.jsonl")


def test_files_of_one_name_are_refused(read, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(json.dumps(GOOD))
    with pytest.raises(ValueError, match="files of one name in several folders"):
        read_rows(tmp_path / "*" / "rows.jsonl")


def test_fields_can_be_ignored_and_images_lie_elsewhere(read, tmp_path):
    entry = {**GOOD, "difficulty": 3, "image": "a.png"}
    (tmp_path / "images").mkdir()
    rows = read([entry], ignored_fields=["difficulty"], image_folder=tmp_path / "images")
    assert rows[0][0][1][0] == image("images/a.png")
