"""What quality is measured on: the built-in samples, a user's folder, and the answers that are scored."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.document_checkpoint import write_document_checkpoint
from support.made_pdfs import MadePage, write_pdf

from mlx_smolvlm import generate_text, load
from mlx_smolvlm.convert.calibration_data import (
    DEFAULT_QUESTION,
    MAX_TEXT_TOKENS,
    Sample,
    read_samples,
    score_samples,
)
from mlx_smolvlm.convert.synthetic_samples import built_in_samples


def pictures_of(samples):
    return [np.asarray(sample.messages[0]["content"][0]["image"]) for sample in samples if sample.messages]


def texts_of(samples):
    return [sample.text or sample.messages[0]["content"][1]["text"] for sample in samples]


def test_built_in_samples_are_fixed_by_their_seed():
    one, again, other = (built_in_samples(seed, 6, 4) for seed in ("a", "a", "b"))
    assert len(one) == 10
    assert texts_of(one) == texts_of(again)
    assert all(np.array_equal(a, b) for a, b in zip(pictures_of(one), pictures_of(again), strict=True))
    assert texts_of(one) != texts_of(other)
    assert not any(a.shape == b.shape and (a == b).all() for a in pictures_of(one) for b in pictures_of(other))


@pytest.fixture
def folder(tmp_path):
    """A folder with a picture."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "cat.jpg")
    return tmp_path


def test_pictures_take_question_and_answer_from_files_of_their_name(folder):
    Image.new("RGB", (40, 30)).save(folder / "dog.PNG")
    (folder / "cat.txt").write_text("Which color?\n", encoding="utf-8")
    (folder / "cat.answer.txt").write_text("Red.\n", encoding="utf-8")
    (folder / "notes.md").write_text("not a sample", encoding="utf-8")
    with pytest.warns(UserWarning, match="skipped 1 file: 1 MD"):
        cat, dog = read_samples(folder)
    assert (cat.messages[0]["content"][1]["text"], cat.answer) == ("Which color?", "Red.")
    assert (dog.messages[0]["content"][1]["text"], dog.answer) == (DEFAULT_QUESTION, None)


def test_pictures_are_told_by_their_content(folder):
    (folder / "cat.jpg").rename(folder / "cat")
    Image.new("RGB", (40, 30)).save(folder / "dog.jfif", "JPEG")
    assert [sample.name for sample in read_samples(folder)] == ["cat", "dog.jfif"]


def test_conversations_are_read_with_their_answers_and_paths(folder):
    question = {"role": "user", "content": [{"type": "image", "path": "cat.jpg"}, {"type": "text", "text": "Color?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}
    online = {"role": "user", "content": [{"type": "image", "url": "https://x.org/a.png"}]}
    lines = [{"messages": [question, answer]}, [question], [{"role": "user", "content": "Hello"}], [online]]
    (folder / "chats.jsonl").write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8")
    _, first, second, third, fourth = read_samples(folder)
    assert first.answer == "Red."
    assert [message["role"] for message in first.messages] == ["user"]
    assert first.messages[0]["content"][0]["path"] == str(folder / "cat.jpg")
    assert (second.answer, third.answer) == (None, None)
    assert third.messages == [{"role": "user", "content": "Hello"}]
    assert fourth.messages == [online]


def test_lines_end_where_json_lines_do(tmp_path):
    """A line separator within a string, which JSON allows, was taken for the end of the line."""
    line = json.dumps([{"role": "user", "content": "one\u2028two"}], ensure_ascii=False)
    (tmp_path / "chats.jsonl").write_text(f"{line}\r\n{line}", encoding="utf-8-sig", newline="")
    assert [sample.messages[0]["content"] for sample in read_samples(tmp_path)] == ["one\u2028two"] * 2


def test_a_question_that_is_no_text_is_named(folder):
    (folder / "cat.txt").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match=r"cat\.txt is not UTF-8 text"):
        read_samples(folder)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", r"chats.jsonl:1 is not JSON"),
        ("{}", r"chats.jsonl:1 has no list of messages"),
        ('["text"]', r"chats.jsonl:1 has no list of messages"),
        ('[{"role": "user", "content": "x"}, {"role": "assistant", "content": 7}]', "the answer is 7"),
        ('[{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "image"}]}]', "the answer is"),
    ],
)
def test_lines_that_are_no_conversations_are_refused(tmp_path, content, problem):
    (tmp_path / "chats.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=problem):
        read_samples(tmp_path)


def test_a_folder_without_samples_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no images"):
        read_samples(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_samples(tmp_path / "missing")


def test_samples_without_answers_are_scored_on_the_greedy_one(trained):
    sample = built_in_samples("test", 1, 0)[0]
    (scored,) = score_samples(*trained, [sample])
    assert trained[1].decode(scored.answer_ids).strip() == generate_text(*trained, sample.messages).strip()
    assert scored.pixel_values.shape[0] > 1


def test_given_answers_end_as_the_model_would_end_them(trained):
    (scored,) = score_samples(*trained, [Sample("given", [{"role": "user", "content": "Count"}], answer="Two.")])
    assert trained[1].decode(scored.answer_ids, skip_special_tokens=False) == " Two.<end_of_utterance>"


def test_texts_are_scored_from_their_second_token_and_cut(trained):
    (scored,) = score_samples(*trained, [Sample("text", text="The shape is red. " * 50)])
    assert (scored.first_scored, len(scored.input_ids), scored.pixel_values) == (1, MAX_TEXT_TOKENS, None)


def test_a_picture_that_cannot_be_read_is_named(trained, folder):
    (folder / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^broken\.jpg: "):
        score_samples(*trained, read_samples(folder))


def test_pages_of_a_pdf_are_samples(tmp_path):
    """A model for documents is asked what it was made for, and its answers end with its own token."""
    write_pdf(tmp_path / "report.pdf", [MadePage(["one"], width=60, height=40), MadePage(["two"], width=40, height=60)])
    samples = read_samples(tmp_path)
    assert [sample.name for sample in samples] == ["report.pdf, page 1", "report.pdf, page 2"]
    assert texts_of(samples) == ["Convert this page to docling."] * 2
    assert [image.shape for image in pictures_of(samples)] == [(80, 120, 3), (120, 80, 3)]
    pair = load(write_document_checkpoint(tmp_path / "model"), dtype="float32")
    greedy, given = score_samples(*pair, [samples[0], replace(samples[1], answer="<doctag></doctag>")])
    assert greedy.answer_ids and greedy.pixel_values is not None
    assert pair[1].decode(given.answer_ids, skip_special_tokens=False) == "<doctag></doctag><|end_of_text|>"
    (tmp_path / "report.txt").write_text("Convert table to OTSL.")
    assert texts_of(read_samples(tmp_path)) == ["Convert table to OTSL."] * 2
