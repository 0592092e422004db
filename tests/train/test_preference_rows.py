"""Rows of preferences in TRL's forms: the same prompt with two answers."""

import json

import pytest

from mlx_smolvlm.train.dataset.preference_rows import read_preference
from mlx_smolvlm.train.dataset.row_media import RowMedia

ASKED = {"role": "user", "content": "What?"}
RED, BLUE = ({"role": "assistant", "content": answer} for answer in ("Red.", "Blue."))


def read(fields, folder):
    return read_preference(fields, "rows.jsonl:1", RowMedia(folder), ())


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [ASKED], "chosen": [RED], "rejected": [BLUE]},
        {"prompt": "What?", "chosen": "Red.", "rejected": "Blue."},
        {"question": "What?", "chosen": "Red.", "rejected": "Blue."},
        {"chosen": [ASKED, RED], "rejected": json.dumps([ASKED, BLUE])},
    ],
)
def test_every_form_gives_two_conversations_with_one_prompt(tmp_path, fields):
    row = read({**fields, "image": "a.png"}, tmp_path)
    question = {"type": "text", "text": "What?"}
    for one, answer in ((row.chosen, "Red."), (row.rejected, "Blue.")):
        image = {"type": "image", "image": str(tmp_path / "a.png")}
        assert one.messages[0] == {"role": "user", "content": [image, question]}
        assert one.messages[1]["content"] == [{"type": "text", "text": answer}]
        assert one.first <= 1


def test_a_field_that_is_ignored_may_have_the_name_of_an_answer(tmp_path):
    fields = {"prompt": "What?", "completion": "x", "chosen": "Red.", "rejected": "Blue."}
    row = read_preference(fields, "rows.jsonl:1", RowMedia(tmp_path), ["completion"])
    assert row.chosen.messages[1]["content"] == [{"type": "text", "text": "Red."}]


def test_only_the_last_answer_of_a_conversation_counts(tmp_path):
    shared = [ASKED, BLUE, ASKED]
    assert read({"chosen": [*shared, RED], "rejected": [*shared, BLUE]}, tmp_path).chosen.first == 3


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"prompt": "What?", "chosen": "Red."}, "has no rejected"),
        ({"prompt": "What?", "chosen": "Red.", "rejected": "Red."}, "are the same"),
        ({"prompt": "What?", "chosen": "Red.", "rejected": 3}, "with its rejected answer: message 1 has the content 3"),
        (
            {"prompt": [ASKED], "chosen": [RED], "rejected": [ASKED]},
            "with its rejected answer: has no turn of the assist",
        ),
        ({"prompt": "What?", "completion": "x", "chosen": "Red.", "rejected": "Blue."}, "has completion beside chosen"),
        ({"prompt": "What?", "answer": "x", "chosen": "Red.", "rejected": "Blue."}, "prompt and completion"),
        ({"chosen": [ASKED, RED], "rejected": [{**ASKED, "content": "Who?"}, BLUE]}, "no common beginning"),
    ],
)
def test_what_is_no_preference_is_refused(tmp_path, fields, problem):
    with pytest.raises(ValueError, match=problem):
        read(fields, tmp_path)
