"""The results file: lines are whole, kept, mended at the end alone, and written by one process at a time."""

import json
from dataclasses import replace

import pytest

from mlx_smolvlm.batch.record import Result, parse_line
from mlx_smolvlm.batch.results import BeingWritten, ResultsFile

RESULT = Result("a.png", None, "What?", "Ein Bär\nund", None, "stop", 10, 5, 3, 0.5, "demo", "1-2-3")
ERROR = replace(RESULT, path="b.png", text=None, error="no such file", finish_reason=None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def write(path, *results):
    with ResultsFile(path) as file:
        for result in results:
            file.write(result)


@pytest.mark.parametrize("name", ["a.png", "Bär.png", "\udce9.png", 'a"\n.png'])
def test_a_line_is_one_line_of_json_and_is_read_back(name):
    result = replace(RESULT, path=name)
    line = result.line()
    assert line.count(b"\n") == 1
    assert json.loads(line)["path"] == name
    assert parse_line(line) == result


def test_lines_are_there_when_they_are_written(path):
    with ResultsFile(path) as file:
        file.write(RESULT)
        assert [json.loads(line)["path"] for line in path.read_text().splitlines()] == ["a.png"]
        file.write(ERROR)
    with ResultsFile(path) as file:
        assert file.errors == {RESULT.key: False, ERROR.key: True}
        assert file.runs == {"1-2-3": RESULT}
        assert list(file.lines()) == [RESULT, ERROR]


def test_the_same_picture_with_another_question_is_another_line():
    assert len({RESULT.key, replace(RESULT, prompt="Why?").key, ERROR.key}) == 3
    assert replace(RESULT, text="other").key == RESULT.key


@pytest.mark.parametrize("left", [1, 5, 30, -1, -2])
def test_half_a_line_at_the_end_is_cut_off(path, left):
    half = ERROR.line()[:left]
    path.write_bytes(RESULT.line() + half)
    with ResultsFile(path) as file:
        if left == -1:  # all but the line break
            assert (file.repaired, file.errors) == (b"", {RESULT.key: False, ERROR.key: True})
        else:
            assert (file.repaired, file.errors) == (half, {RESULT.key: False})
        file.write(replace(ERROR, path="c.png"))
    assert next(map(parse_line, path.read_bytes().splitlines())) == RESULT


@pytest.mark.parametrize("end", [b"\0" * 100, b"garbage\n", b"{}\n", b"\xff"])
def test_a_damaged_end_is_cut_off(path, end):
    path.write_bytes(RESULT.line() + end)
    with ResultsFile(path) as file:
        assert file.repaired == end
    assert path.read_bytes() == RESULT.line()


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (b"my own notes", 1),
        (b'{"name": "x"}\n', 1),
        (b"\0\0\0", 1),
        (RESULT.line() + b"oops\n" + ERROR.line(), 2),
        (b'{"path": "x"}\n' + RESULT.line(), 1),
        (RESULT.line() + RESULT.line().replace(b"1-2-3", b"1"), None),
    ],
)
def test_what_this_command_has_not_written_is_left_as_it_is(path, content, number):
    path.write_bytes(content)
    if number is None:  # stands at the end of our own
        with ResultsFile(path) as file:
            assert file.repaired
        return
    with pytest.raises(ValueError, match=f"line {number} is not a result of this command"):
        ResultsFile(path)
    assert path.read_bytes() == content


def test_two_cannot_write_at_a_time(path):
    with ResultsFile(path) as file:
        with pytest.raises(BeingWritten, match="another process is writing"):
            ResultsFile(path)
        file.write(RESULT)
        assert file.drop_errors([ERROR.key]) == 0
    write(path, ERROR)
    with ResultsFile(path) as file:
        assert file.drop_errors([RESULT.key]) == 0
        assert file.drop_errors([ERROR.key]) == 1
        with pytest.raises(BeingWritten, match="another process is writing"):
            ResultsFile(path)
        file.write(replace(RESULT, path="c.png"))
    assert [parse_line(line).path for line in path.read_bytes().splitlines()] == ["a.png", "c.png"]
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


def test_a_link_to_the_file_stays_one(path, tmp_path):
    write(path, RESULT, ERROR)
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    with ResultsFile(link) as file:
        assert file.drop_errors([ERROR.key]) == 1
        file.write(replace(RESULT, path="c.png"))
    assert link.is_symlink()
    assert [parse_line(line).path for line in path.read_bytes().splitlines()] == ["a.png", "c.png"]


def test_a_file_that_a_list_names_is_known_by_its_place():
    assert replace(RESULT, source="/one/a.png").key != replace(RESULT, source="/two/a.png").key != RESULT.key


def test_merging_adds_what_is_not_there(path):
    write(path, RESULT)
    with ResultsFile(path) as file:
        file.merge(replace(RESULT, text="other"))
        file.merge(ERROR)
        assert list(file.lines()) == [RESULT, ERROR]


def test_a_file_without_a_line_is_not_left_behind(path):
    write(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("place", "problem"), [("/dev/full", "not a file"), (".", "is a folder"), ("no/such/x.jsonl", "no folder")]
)
def test_places_that_hold_no_file_are_refused(tmp_path, place, problem):
    with pytest.raises((ValueError, OSError), match=problem):
        ResultsFile(tmp_path / place)
