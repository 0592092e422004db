"""Processor files: both styles, contradictions, and where the chat template comes from."""

import json

import pytest
from support.editing import copied, set_field

from mlx_smolvlm.model.config import read_model_config
from mlx_smolvlm.processor.processor_config import ImageConfig, VideoConfig, read_processor_config

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of the checkpoint with released-style files."""
    return copied(checkpoint("smolvlm_256m"), tmp_path / "model")


def read(folder):
    return read_processor_config(folder, read_model_config(folder))


def test_released_files_are_read(folder):
    config = read(folder)
    assert config.image == ImageConfig(longest_edge=512, tile_size=128, do_image_splitting=True)
    assert config.video == VideoConfig(fps=1.0, max_frames=8, longest_edge=512)
    assert (config.image_seq_len, config.context_length) == (4, 8192)
    assert config.special_tokens["bos_token"] == "<|im_start|>"


def test_files_of_transformers_5_are_read(checkpoint):
    folder = checkpoint("smolvlm2_2b")
    assert not (folder / PREPROCESSOR).exists()
    config = read(folder)
    assert config.image == ImageConfig(longest_edge=768, tile_size=384, do_image_splitting=True)
    assert config.video == VideoConfig(fps=1.0, max_frames=64, longest_edge=768)


def test_a_separate_video_file_is_read(folder):
    """transformers 4.52 to 4.57 wrote one."""
    sampling = {"fps": 2, "max_frames": 5, "video_size": {"longest_edge": 64}}
    (folder / "video_preprocessor_config.json").write_text(json.dumps({"video_sampling": sampling}), encoding="utf-8")
    assert read(folder).video == VideoConfig(fps=2.0, max_frames=5, longest_edge=64)


def test_the_size_beside_video_sampling_wins_over_video_size(folder):
    raw = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
    assert raw["video_sampling"]["video_size"] != raw["size"]
    assert read(folder).video.longest_edge == raw["size"]["longest_edge"]


def test_a_checkpoint_without_video_sampling_has_no_video(checkpoint):
    assert read(checkpoint("idefics3")).video is None


@pytest.mark.parametrize(
    ("file", "value", "keys", "problem"),
    [
        (PREPROCESSOR, ..., ("size",), "has no 'size'"),
        (PREPROCESSOR, 512, ("size",), "'size' is 512, expected dict"),
        (PREPROCESSOR, {"height": 512}, ("size",), "size has no 'longest_edge'"),
        (PREPROCESSOR, 0, ("size", "longest_edge"), "expected a positive number"),
        (PREPROCESSOR, ..., ("max_image_size",), "has no 'max_image_size'"),
        (PREPROCESSOR, {"longest_edge": 256}, ("max_image_size",), "tiles of 256 pixels are 16 patches wide"),
        (PREPROCESSOR, 3, ("resample",), "'resample' is 3, only 1 is supported"),
        (PREPROCESSOR, [0.48, 0.45, 0.4], ("image_mean",), "'image_mean' is"),
        (PREPROCESSOR, False, ("do_rescale",), "'do_rescale' is False"),
        (PREPROCESSOR, "yes", ("do_image_splitting",), "expected bool"),
        (PREPROCESSOR, [1], ("video_sampling",), "'video_sampling' is .*, expected dict"),
        (PREPROCESSOR, float("nan"), ("video_sampling", "fps"), "video_sampling: 'fps' is nan"),
        (PREPROCESSOR, ..., ("video_sampling", "max_frames"), "video_sampling has no 'max_frames'"),
        (PROCESSOR, 64, ("image_seq_len",), "image_seq_len is 64, but config.json gives 4"),
        (PROCESSOR, [], ("image_processor",), "'image_processor' is .*, expected dict"),
        (PROCESSOR, "x", ("video_processor",), "'video_processor' is 'x', expected dict"),
    ],
)
def test_a_contradiction_or_gap_names_file_and_field(folder, file, value, keys, problem):
    set_field(folder / file, value, *keys)
    with pytest.raises(ValueError, match=rf"{file}.*{problem}"):
        read(folder)


def test_a_faulty_video_section_is_named_by_its_own_file(checkpoint, tmp_path):
    folder = copied(checkpoint("smolvlm2_2b"), tmp_path / "model")
    set_field(folder / PROCESSOR, 0, "video_processor", "video_sampling", "fps")
    with pytest.raises(ValueError, match=r"processor_config\.json, video_processor, video_sampling: 'fps' is 0"):
        read(folder)


def test_a_folder_without_processor_files_is_refused(folder):
    (folder / PREPROCESSOR).unlink()
    with pytest.raises(FileNotFoundError, match=r"no preprocessor_config\.json"):
        read(folder)


def test_chat_templates_are_found_in_the_order_of_transformers(folder):
    (folder / "chat_template.json").unlink()
    assert read(folder).chat_template is None  # a base model
    sources = [
        ("tokenizer_config.json", "tokenizer"),
        (PROCESSOR, "processor"),
        ("chat_template.json", "separate"),
    ]
    for file, template in sources:  # each hides those before it
        set_field(folder / file, template, "chat_template")
        assert read(folder).chat_template == template
    (folder / "chat_template.jinja").write_text("jinja", encoding="utf-8")
    assert read(folder).chat_template == "jinja"


def test_of_several_named_templates_the_default_counts(folder):
    named = [{"name": "tools", "template": "other"}, {"name": "default", "template": "chosen"}, "stray"]
    set_field(folder / "chat_template.json", named, "chat_template")
    assert read(folder).chat_template == "chosen"


def test_a_template_that_is_not_text_is_named(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"chat_template\.jinja is not UTF-8"):
        read(folder)


def test_special_tokens_may_be_objects(folder):
    set_field(folder / "tokenizer_config.json", {"content": "<s>", "lstrip": False}, "bos_token")
    set_field(folder / "tokenizer_config.json", None, "unk_token")
    tokens = read(folder).special_tokens
    assert tokens["bos_token"] == "<s>"
    assert "unk_token" not in tokens
