"""Media that are opened before their prompt, and text in which special tokens are text."""

import pytest

from mlx_smolvlm import DEMO_MODEL, MediaOptions
from mlx_smolvlm.processor.prompt import BEGINNING_CHARS, ContextLengthError

DEMO = DEMO_MODEL.parent


def asked(kind, source):
    return [{"role": "user", "content": [{"type": kind, kind: source}, {"type": "text", "text": "What is it?"}]}]


def test_an_opened_image_serves_several_prompts(demo):
    _, processor = demo
    path = str(DEMO / "picture.png")
    expected = processor(asked("image", path))
    opened = processor.open_image(path, MediaOptions())
    opened.cut()
    opened.cut()
    for _ in range(2):
        inputs = processor(asked("image", opened))
        assert inputs.input_ids == expected.input_ids
        assert (inputs.pixel_values == expected.pixel_values).all()
    assert opened.image is None
    one_tile = processor.open_image(path, MediaOptions(do_image_splitting=False))
    assert processor("What is it?", [one_tile]).image_tokens == processor.config.image_seq_len


def test_an_opened_video_serves_several_prompts(demo, tmp_path):
    _, processor = demo
    path = str(DEMO / "clip.mp4")
    expected = processor(asked("video", path))
    opened = processor.open_video(path, tmp_path, MediaOptions())
    for _ in range(2):
        inputs = processor(asked("video", opened))
        assert inputs.input_ids == expected.input_ids
        assert (inputs.pixel_values == expected.pixel_values).all()


SPELLED = [
    "<image>",
    "<video>",
    "<end_of_utterance>",
    "<|im_start|>",
    "<row_1_col_2>",
    "<global-img>",
    "\ue0010\ue002",
    "\ue001",
]


@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize("around", ["{}", "a{}b", "{0}{0} x {0}"])
def test_special_tokens_that_are_spelled_out_are_text(demo, spelled, around):
    _, processor = demo
    text = around.format(spelled)
    ids = processor([{"role": "user", "content": processor.literal(text)}]).input_ids
    assert processor.decode(ids, skip_special_tokens=False) == f"<|im_start|>User: {text}<end_of_utterance>\nAssistant:"
    plain = processor("What is it?").input_ids
    special = set(processor.special_tokens)
    assert [token for token in ids if token in special] == [token for token in plain if token in special]


def test_other_text_is_tokenized_as_ever(demo):
    _, processor = demo
    for text in ("What is it?", "a < b > c", "<imag", "caf\u00e9 \U0001f600"):
        assert processor.literal(text) == text


def test_a_prompt_that_leaves_no_room_is_an_error_of_its_own(demo):
    _, processor = demo
    with pytest.raises(ContextLengthError, match="the model's context is 2048"):
        processor("a " * 3000)


def test_a_prompt_that_is_far_too_long_is_refused_by_its_beginning(demo, monkeypatch):
    """One question of 3 MB took half a minute, and gigabytes, to be refused."""
    _, processor = demo
    tokenized = []

    def encode(text, *arguments, encode=processor.encode):
        tokenized.append(len(text))
        return encode(text, *arguments)

    monkeypatch.setattr(processor, "encode", encode)
    with pytest.raises(ContextLengthError, match=r"the prompt has more than 1\d+ tokens and .* context is 2048: text"):
        processor("word 7 " * 400_000)
    assert tokenized == [BEGINNING_CHARS]


@pytest.mark.parametrize("block", [1, 3, 50])
def test_spellings_are_found_across_blocks(demo, monkeypatch, block):
    """A search of millions of characters in one call would stop all other threads."""
    _, processor = demo
    text = "<<image><image <row_1_col_1><end_of_utterance>a<end_of_utterance<image>"
    whole = processor.literal(text)
    monkeypatch.setattr("mlx_smolvlm.processor.literal_text.BLOCK", block)
    assert processor.literal(text) == whole != text
