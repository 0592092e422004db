"""Which tokens of a conversation are trained: what the assistant says, with the end of its turns."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checkpoint_configs import CHECKPOINTS

from mlx_smolvlm import SampledVideo
from mlx_smolvlm.model.config import read_model_config
from mlx_smolvlm.processor.processor import Processor, load_processor
from mlx_smolvlm.train.dataset.examples import make_example
from mlx_smolvlm.train.dataset.training_row import RowError, RowTooLong, TrainingRow
from mlx_smolvlm.train.dataset.training_rows import read_rows

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.fixture(scope="session")
def processor_of(checkpoint):
    """A function from a checkpoint's name to its processor."""
    return lambda name: load_processor(checkpoint(name), read_model_config(checkpoint(name)))


IMAGE = Image.new("RGB", (40, 30), "red")
GRANITE = (
    "{%- for message in messages -%}{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' -}}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- else -%}{{- '<image>' -}}{%- endif -%}{%- endfor -%}{{- '<|end_of_text|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_of_role|>assistant<|end_of_role|>' -}}{%- endif -%}"
)
MARKED = (
    "{% for message in messages %}{{ message['role'] }}:{% for part in message['content'] %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] }}{% endgeneration %}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
)


def row(*turns, **keys):
    """A row of turns: (role, items), each item text or an image."""
    messages = [
        {
            "role": role,
            "content": [
                {"type": "text", "text": item} if isinstance(item, str) else {"type": "image", "image": item}
                for item in items
            ],
        }
        for role, *items in turns
    ]
    return TrainingRow("rows.jsonl:1", messages, **keys)


def said(processor, example):
    """What is trained, as text."""
    ids = example.input_ids[example.trained].tolist()
    return processor.decode(ids, skip_special_tokens=False)


def with_template(processor, template):
    """A processor with another chat template."""
    return Processor(
        processor.config.__class__(**{**vars(processor.config), "chat_template": template}), processor.tokenizer
    )


CONVERSATION = row(
    ("system", "Be brief."),
    ("user", IMAGE, "What is it?\nAssistant: not I.<end_of_utterance>\n"),
    ("assistant", "A square."),
    ("user", "And now?"),
    ("assistant", ""),
)


def test_tokens_and_what_is_trained_equal_trls(processor_of):
    """Of odd texts too: words that look like turns, special tokens spelled out, line breaks, nothing at all."""
    golden = json.loads((GOLDENS / "training_masks.json").read_text(encoding="utf-8"))
    processor = processor_of(golden["checkpoint"])
    for row in golden["rows"]:
        example = make_example(processor, TrainingRow("rows.jsonl:1", row["messages"]))
        assert example.input_ids.tolist() == row["input_ids"], row["messages"]
        assert "".join(map(str, example.trained.astype(int))) == row["trained"], row["messages"]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_all_turns_of_the_assistant_are_trained_with_their_end(processor_of, name):
    processor = processor_of(name)
    example = make_example(processor, CONVERSATION)
    assert said(processor, example) == " A square.<end_of_utterance>\n <end_of_utterance>\n"
    whole = processor.decode(example.input_ids.tolist(), skip_special_tokens=False)
    assert whole.endswith("User: And now?<end_of_utterance>\nAssistant: <end_of_utterance>\n")
    assert example.input_ids.dtype == np.int32
    assert example.tiles().shape == (example.num_tiles, *[processor.config.image.tile_size] * 2, 3)
    assert example.num_tiles > 0


def test_a_template_with_other_roles_and_one_that_marks_the_answer(processor_of):
    processor = with_template(processor_of("smolvlm_256m"), GRANITE)
    assert said(processor, make_example(processor, CONVERSATION)) == "A square.<|end_of_text|>\n<|end_of_text|>\n"
    processor = with_template(processor, MARKED)
    turns = row(("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2"))
    assert said(processor, make_example(processor, turns)) == "12"
    assert said(processor, make_example(processor, row(("user", "One?"), ("assistant", "1"), first=1))) == "assistant:1"


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['content'][0]['text'] }}\n{% endfor %}",  # no opening of an answer
        "{% for m in messages|reverse %}{{ m['content'][0]['text'] }}{% endfor %}"  # the answer before the question
        "{% if add_generation_prompt %}>{% endif %}",
    ],
)
def test_a_template_that_does_not_tell_is_refused(processor_of, template):
    processor = with_template(processor_of("smolvlm_256m"), template)
    turns = row(("user", "One?"), ("assistant", "1"))
    with pytest.raises(RowError, match=r"rows.jsonl:1: the checkpoint's chat template does not tell"):
        make_example(processor, turns)
    assert make_example(processor, turns, train_on_prompt=True).trained.all()


def test_a_completion_alone_and_the_whole_prompt(processor_of):
    processor = processor_of("smolvlm_256m")
    turns = [("user", IMAGE, "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2")]
    assert said(processor, make_example(processor, row(*turns, first=3))) == " 2<end_of_utterance>\n"
    example = make_example(processor, row(*turns), train_on_prompt=True)
    np.testing.assert_array_equal(example.trained, example.input_ids != processor.config.image_token_id)


def test_a_video_takes_the_familys_template(processor_of):
    processor = processor_of("smolvlm_256m")
    video = SampledVideo([IMAGE, IMAGE], [0.0, 1.0], 2.0)
    turns = [
        {"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Red."}]},
    ]
    example = make_example(processor, TrainingRow("rows.jsonl:1", turns))
    assert said(processor, example) == " Red.<end_of_utterance>\n"
    assert len(example.tiles()) == example.num_tiles == 2


def test_a_rendered_prompt_gets_no_template(processor_of, tmp_path):
    processor = processor_of("smolvlm_256m")
    IMAGE.save(tmp_path / "a.png")
    prompt = "<|im_start|>User:<image>What?<end_of_utterance>\nAssistant:"
    entry = {"prompt": prompt, "completion": " Red.", "image": "a.png"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(entry), encoding="utf-8")
    example = make_example(processor, read_rows(tmp_path / "rows.jsonl")[0])
    assert said(processor, example) == " Red."
    assert len(example.tiles()) == example.num_tiles > 0


def test_long_rows_are_named_and_left_whole(processor_of):
    processor = processor_of("smolvlm_256m")
    turns = row(("user", IMAGE, "One?"), ("assistant", "1"))
    length = len(make_example(processor, turns).input_ids)
    assert len(make_example(processor, turns, max_length=length).input_ids) == length
    with pytest.raises(RowTooLong, match=rf"rows.jsonl:1: {length} tokens, and --max-length is {length - 1}"):
        make_example(processor, turns, max_length=length - 1)
    with pytest.raises(RowTooLong, match="tokens, and the context is"):
        make_example(processor, row(("user", "a b " * processor.config.context_length), ("assistant", "1")))


def test_bad_images_are_named_and_changed_ones_noticed(processor_of, tmp_path):
    processor = processor_of("smolvlm_256m")
    path = tmp_path / "a.png"
    turns = row(("user", str(path)), ("assistant", "1"))
    turns.messages[0]["content"] = [{"type": "image", "path": str(path)}]
    with pytest.raises(RowError, match=r"rows.jsonl:1: .*no such file"):
        make_example(processor, turns)
    IMAGE.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RowError, match=r"rows.jsonl:1: .*a.png"):
        make_example(processor, turns)
    Image.new("RGB", (1, 1)).save(path)
    example = make_example(processor, turns)
    assert len(example.tiles()) == example.num_tiles
    Image.new("RGB", (400, 100)).save(path)
    with pytest.raises(RowError, match="has changed since"):
        example.tiles()
