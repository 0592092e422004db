"""What mlx-swift-lm and mlx-vlm need of a folder: every parameter by its name, and fields they have no default for.

mlx-swift-lm checks that a file's names are exactly its classes' parameters, each quantized if it has scales and
`quantization` does not say false (Libraries/MLXVLM/Models/Idefics3.swift, Libraries/MLXLMCommon/Load.swift).
"""

import mlx.core as mx
import pytest
from support.editing import WEIGHTS, copied, read_config, set_field
from support.golden_cases import CHECKPOINT_NAMES

from mlx_smolvlm.convert import LayerFormat, QuantizationOptions, convert_checkpoint

DECODER_LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
DECODER_LAYERS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
DECODER_NORMS = ("input_layernorm", "post_attention_layernorm")
ENCODER_LAYERS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
    "mlp.fc1",
    "mlp.fc2",
)
ENCODER_NORMS = ("layer_norm1", "layer_norm2")

# Fields that the Swift classes decode without a default.
TEXT_FIELDS = {"model_type", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"}
TEXT_FIELDS |= {"num_hidden_layers", "rms_norm_eps", "vocab_size", "rope_theta", "tie_word_embeddings"}
VISION_FIELDS = {"model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads"}
VISION_FIELDS |= {"patch_size", "image_size", "num_channels", "layer_norm_eps"}


def parameters(config):
    """Every parameter's name -> whether its layer can be quantized."""
    names = {"connector.modality_projection.proj.weight": True, "language_model.norm.weight": False}
    names["language_model.embed_tokens.weight"] = True
    if not config["text_config"]["tie_word_embeddings"]:
        names["language_model.lm_head.weight"] = True
    for index in range(config["text_config"]["num_hidden_layers"]):
        layer = f"language_model.layers.{index}"
        names |= {f"{layer}.{name}.weight": True for name in DECODER_LAYERS}
        names |= {f"{layer}.{name}.weight": False for name in DECODER_NORMS}
    for kind in ("weight", "bias"):
        names[f"vision_model.embeddings.patch_embedding.{kind}"] = False
        names[f"vision_model.post_layernorm.{kind}"] = False
    names["vision_model.embeddings.position_embedding.weight"] = True
    for index in range(config["vision_config"]["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{index}"
        names |= {f"{layer}.{name}.weight": True for name in ENCODER_LAYERS}
        names |= {f"{layer}.{name}.bias": False for name in ENCODER_LAYERS}
        names |= {f"{layer}.{name}.{kind}": False for name in ENCODER_NORMS for kind in ("weight", "bias")}
    return names


def verify(folder):
    """As mlx-swift-lm: each layer quantized as `quantization` says if it has scales, and nothing else in the file."""
    config = read_config(folder)
    assert config["text_config"].keys() >= TEXT_FIELDS
    assert config["vision_config"].keys() >= VISION_FIELDS
    assert {"model_type", "image_token_id", "scale_factor"} <= config.keys()
    entry = config.get("quantization")
    assert entry == config.get("quantization_config")
    tensors = dict(mx.load(str(folder / WEIGHTS)))
    expected = set()
    for name, can_be_quantized in parameters(config).items():
        expected.add(name)
        path = name.removesuffix(".weight")
        if not can_be_quantized or f"{path}.scales" not in tensors:
            assert mx.issubdtype(tensors[name].dtype, mx.floating)
            continue
        own = entry.get(path, entry)
        assert isinstance(own, dict)  # `false` would leave the module as it is
        assert set(own) >= {"group_size", "bits", "mode"}
        width = tensors[name].shape[1] * 32 // own["bits"]
        assert tensors[f"{path}.scales"].shape[1] == width // own["group_size"]
        expected |= {f"{path}.scales"} | ({f"{path}.biases"} if own["mode"] == "affine" else set())
    assert tensors.keys() == expected


@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
@pytest.mark.parametrize(
    "quantization",
    [
        None,
        QuantizationOptions(4, 32),
        QuantizationOptions(
            group_size=32,
            recipe="mixed_4_6",
            parts={"vision": LayerFormat(4, 16, "nvfp4"), "connector": LayerFormat(8, 32, "mxfp8")},
            skip=["*.layers.1.mlp.*"],
        ),
    ],
    ids=["plain", "4 bits", "mixed"],
)
def test_the_file_is_what_swift_classes_verify(checkpoint, tmp_path, name, quantization):
    convert_checkpoint(checkpoint(name), tmp_path / "out", quantization=quantization, allow_unquantized=True)
    verify(tmp_path / "out")


def test_fields_that_the_original_leaves_out_are_written(checkpoint, tmp_path):
    """As released files do; what `config.py` fills in, other readers do not know."""
    source = copied(checkpoint("smolvlm_256m"), tmp_path / "source")
    for section, field in (("text_config", "model_type"), ("vision_config", "model_type")):
        set_field(source / "config.json", ..., section, field)
    set_field(source / "config.json", [128, 128], "vision_config", "image_size")
    convert_checkpoint(source, tmp_path / "out")
    verify(tmp_path / "out")
    config = read_config(tmp_path / "out")
    assert config["vision_config"]["image_size"] == 128
