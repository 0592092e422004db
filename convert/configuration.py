"""`config.json` of a converted folder."""

from typing import Any

from ..model.config import ModelConfig


def converted_config(
    raw: dict[str, Any], config: ModelConfig, quantization: dict[str, Any] | None, dtype: str | None = None
) -> dict[str, Any]:
    """`config.json` of the new folder: the original's, with what it left to defaults written out.

    Other readers fill gaps differently (mlx-vlm takes rope_theta 1e6 where only `rope_parameters` is given) or not at
    all (mlx-swift-lm), and look for `quantization`, see `config_entry`, under two names. The `dtype` of the
    weights is stated wherever the original states its own, because mlx-vlm converts to it.
    """
    raw = {key: value for key, value in raw.items() if key not in ("quantization", "quantization_config")}
    text, vision = config.text, config.vision
    out = {
        **raw,
        "tie_word_embeddings": config.tie_word_embeddings,
        "text_config": {
            **raw["text_config"],
            "model_type": raw["text_config"].get("model_type", "llama"),
            "hidden_size": text.hidden_size,
            "vocab_size": text.vocab_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "intermediate_size": text.intermediate_size,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": text.rope_theta,
            "tie_word_embeddings": config.tie_word_embeddings,  # where mlx-vlm looks for it
        },
        "vision_config": {
            **raw["vision_config"],
            "model_type": raw["vision_config"].get("model_type", f"{config.model_type}_vision"),
            "hidden_size": vision.hidden_size,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "intermediate_size": vision.intermediate_size,
            "num_channels": vision.num_channels,
            "layer_norm_eps": vision.layer_norm_eps,
        },
    }
    for section in (out, out["text_config"], out["vision_config"]) if dtype else ():
        section.update({name: dtype for name in ("dtype", "torch_dtype") if name in section})
    return out | ({"quantization": quantization, "quantization_config": quantization} if quantization else {})
