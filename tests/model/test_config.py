"""Model and processor configuration: what is read, what may be missing, what is refused."""

import copy
import json
import math

import pytest
from mlx.utils import tree_flatten
from support.editing import copied, set_field
from support.released_configs import IMAGE_SEQ_LEN, NUM_PARAMETERS, RELEASED

from mlx_smolvlm.model.config import RopeScaling, read_model_config
from mlx_smolvlm.model.smolvlm import SmolVLM

LLAMA3 = RELEASED["Idefics3-8B"]["text_config"]["rope_scaling"]


@pytest.fixture
def released(tmp_path):
    """A function from a checkpoint's name, a value and the keys of a field to the configuration so changed."""

    def read(name, value=..., *keys):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(RELEASED[name]), encoding="utf-8")
        if keys:
            set_field(path, value, *keys)
        return read_model_config(tmp_path)

    return read


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_networks_of_released_checkpoints_have_the_published_size(released, name):
    model = SmolVLM(released(name))  # lazy: nothing is allocated
    assert sum(array.size for _, array in tree_flatten(model.parameters())) == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", RELEASED)
def test_tokens_per_tile_of_released_checkpoints(released, name):
    assert released(name).image_seq_len == IMAGE_SEQ_LEN[name]


def test_fields_that_released_files_omit_come_from_the_family(released):
    vision, text = released("SmolVLM-256M").vision, released("SmolVLM2-2.2B").text
    assert (vision.num_hidden_layers, vision.intermediate_size, vision.layer_norm_eps) == (12, 3072, 1e-6)
    assert (text.num_attention_heads, text.head_dim) == (32, 64)


def test_hidden_sizes_that_equal_a_class_default_are_known_from_the_mlp(released):
    """transformers leaves such fields out when it saves: 1152 of SO400M, 4096 of Llama 3 8B."""
    assert released("SmolVLM-2.2B", ..., "vision_config", "hidden_size").vision.hidden_size == 1152
    assert released("Idefics3-8B", ..., "text_config", "hidden_size").text.hidden_size == 4096


def test_a_stated_field_wins_over_the_family(released):
    assert released("SmolVLM-256M", 3, "vision_config", "num_hidden_layers").vision.num_hidden_layers == 3


@pytest.mark.parametrize(
    "keys",
    [
        ("scale_factor",),
        ("image_token_id",),
        ("text_config",),
        ("vision_config",),
        ("text_config", "hidden_size"),
        ("text_config", "vocab_size"),
        ("text_config", "rope_theta"),
        ("text_config", "max_position_embeddings"),
        ("vision_config", "hidden_size"),
        ("vision_config", "image_size"),
        ("vision_config", "patch_size"),
    ],
)
@pytest.mark.parametrize("absent", [..., None], ids=["absent", "null"])
def test_a_field_without_a_safe_default_is_asked_for_by_file_and_name(released, keys, absent):
    with pytest.raises(ValueError, match=rf"config\.json.* has no '{keys[-1]}'"):
        released("SmolVLM-256M", absent, *keys)


def test_an_unknown_width_has_no_defaults(released):
    with pytest.raises(ValueError, match=r"config\.json, vision_config has no 'intermediate_size'"):
        released("SmolVLM-256M", 780, "vision_config", "hidden_size")


@pytest.mark.parametrize(
    ("value", "keys", "expected"),
    [
        ("576", ("text_config", "hidden_size"), "expected int"),
        (True, ("text_config", "hidden_size"), "expected int"),
        (576.5, ("text_config", "hidden_size"), "expected int"),
        (-576, ("text_config", "hidden_size"), "expected a positive number"),
        (2**40, ("text_config", "hidden_size"), "expected a positive number"),
        (0, ("text_config", "num_hidden_layers"), "expected a positive number"),
        (math.nan, ("text_config", "rope_theta"), "expected a positive number"),
        (math.inf, ("text_config", "rms_norm_eps"), "expected a positive number"),
        (10**400, ("text_config", "rope_theta"), "expected float"),
        ([], ("text_config",), "expected dict"),
        ([512, 384], ("vision_config", "image_size"), "only square tiles"),
        ("yes", ("tie_word_embeddings",), "expected bool"),
        ("relu", ("text_config", "hidden_act"), "only 'silu' is supported"),
        (True, ("text_config", "attention_bias"), "only False is supported"),
        (7, ("vision_config", "num_attention_heads"), "not divisible by num_attention_heads 7"),
        (2, ("text_config", "num_key_value_heads"), "not divisible by num_key_value_heads 2"),
        (5, ("scale_factor",), "32 patches per side cannot be folded by scale_factor 5"),
        (1024, ("vision_config", "patch_size"), "0 patches per side"),
        ("linear", ("text_config", "rope_scaling"), "expected dict"),
        ([1], ("text_config", "rope_parameters"), "expected dict"),
        ({"rope_type": "yarn"}, ("text_config", "rope_scaling"), "rope_type is 'yarn'"),
        ({"rope_type": "llama3"}, ("text_config", "rope_scaling"), "has no 'low_freq_factor'"),
        (LLAMA3 | {"low_freq_factor": 4.0}, ("text_config", "rope_scaling"), "is not below high_freq_factor"),
        ("</s>", ("eos_token_id",), "expected a number or a list"),
        ([2, None], ("eos_token_id",), "expected a number or a list"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_with_its_value(released, value, keys, expected):
    with pytest.raises(ValueError, match=rf"config\.json.*{expected}"):
        released("SmolVLM-256M", value, *keys)


@pytest.mark.parametrize("model_type", ["llava", None, ["smolvlm"], ...])
def test_another_kind_of_model_is_refused(released, model_type):
    with pytest.raises(ValueError, match=r"config\.json: model_type is .*, supported are smolvlm and idefics3"):
        released("SmolVLM-256M", model_type, "model_type")


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json (is not valid JSON|holds a JSON)"):
        read_model_config(tmp_path)


def test_a_folder_without_configuration_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        read_model_config(tmp_path)


def test_rope_of_transformers_4_and_5_reads_the_same(released):
    old = released("Idefics3-8B").text
    new = released("Idefics3-8B", LLAMA3 | {"rope_theta": 500000.0}, "text_config", "rope_parameters").text
    assert old == new
    assert old.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)


def test_rope_parameters_win_over_a_stale_rope_theta(released):
    parameters = {"rope_type": "default", "rope_theta": 5}
    text = released("SmolVLM-256M", parameters, "text_config", "rope_parameters").text
    assert (text.rope_theta, text.rope_scaling) == (5.0, None)


def test_the_head_is_tied_only_where_the_file_says_so(released):
    assert not released("SmolVLM-256M").tie_word_embeddings
    assert released("SmolVLM-256M", True, "tie_word_embeddings").tie_word_embeddings
    assert not released("SmolVLM-256M", ..., "tie_word_embeddings").tie_word_embeddings


def test_tying_may_be_stated_in_the_text_section_alone(tmp_path):
    config = copy.deepcopy(RELEASED["SmolVLM-256M"])
    del config["tie_word_embeddings"]
    config["text_config"]["tie_word_embeddings"] = True
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_model_config(tmp_path).tie_word_embeddings


@pytest.mark.parametrize(("stated", "read"), [(7, (7,)), ([7, 9], (7, 9)), (..., ()), (None, ())])
def test_end_tokens_are_a_number_a_list_or_absent(tmp_path, released, stated, read):
    entry = {} if stated is ... else {"eos_token_id": stated}
    (tmp_path / "generation_config.json").write_text(json.dumps(entry), encoding="utf-8")
    assert released("SmolVLM-256M").eos_token_ids == read


def test_end_tokens_of_generation_config_win(tmp_path, released):
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}', encoding="utf-8")
    assert released("SmolVLM-256M", 8, "eos_token_id").eos_token_ids == (7,)
    (tmp_path / "generation_config.json").unlink()
    assert released("SmolVLM-256M", 8, "text_config", "eos_token_id").eos_token_ids == (8,)


def test_weights_quantized_in_another_format_are_refused_by_its_name(released):
    entry = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    with pytest.raises(ValueError, match="quantized by 'bitsandbytes' cannot be read"):
        released("SmolVLM-256M", entry, "quantization_config")


@pytest.mark.parametrize(
    "entry", ["4bit", True, {"group_size": 0, "bits": 4}, {"group_size": 64, "bits": "4"}, {"group_size": 64}]
)
def test_a_malformed_quantization_entry_is_refused(released, entry):
    """A group size of 0 used to end the process: MLX divides by it."""
    with pytest.raises(ValueError, match=r"config\.json"):
        released("SmolVLM-256M", entry, "quantization")


def test_quantization_of_one_layer_is_checked_too(released):
    entry = {"group_size": 64, "bits": 4, "language_model.lm_head": {"group_size": 0, "bits": 8}}
    with pytest.raises(ValueError, match=r"language_model\.lm_head: 'group_size' is 0"):
        released("SmolVLM-256M", entry, "quantization")


def test_reading_the_test_checkpoints_leaves_their_files_alone(checkpoint, tmp_path):
    folder = copied(checkpoint("idefics3"), tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    read_model_config(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
