"""`config.json` of the released checkpoints, with the fields that they leave out left out.

Fields of the training code that mean nothing to the model are shortened away but for a few.
"""

SMOLLM2_135M = {
    "head_dim": 64,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pixel_shuffle_factor": 4,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000,
    "vocab_size": 49280,
}
SMOLLM2_360M = SMOLLM2_135M | {
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_attention_heads": 15,
    "num_hidden_layers": 32,
    "num_key_value_heads": 5,
}
SMOLLM2_1_7B = {
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 16384,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 24,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-05,
    "rope_theta": 273768.0,
    "vocab_size": 49155,
}
SMOLLM2_1_7B_VIDEO = {
    key: value
    for key, value in (
        SMOLLM2_1_7B | {"max_position_embeddings": 8192, "rope_theta": 130000.0, "vocab_size": 49280}
    ).items()
    if key != "num_attention_heads"  # as released
}
LLAMA3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 10240,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "vocab_size": 128259,
}
SIGLIP_BASE = {  # without num_hidden_layers and intermediate_size, as released
    "hidden_size": 768,
    "image_size": 512,
    "max_image_size": {"longest_edge": 512},
    "num_attention_heads": 12,
    "patch_size": 16,
    "size": {"longest_edge": 2048},
    "tie_word_embeddings": False,
    "use_base_siglip": True,
}
SIGLIP_SO400M = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}


def config(model_type: str, image_token_id: int, scale_factor: int, text: dict, vision: dict) -> dict:
    """The whole file."""
    return {
        "image_token_id": image_token_id,
        "model_type": model_type,
        "scale_factor": scale_factor,
        "text_config": text,
        "tie_word_embeddings": False,
        "transformers_version": "4.47.1",
        "use_cache": False,
        "vision_config": vision,
        "vocab_size": text["vocab_size"],
    }


RELEASED = {
    "SmolVLM-256M": config("idefics3", 49190, 4, SMOLLM2_135M, SIGLIP_BASE),
    "SmolVLM2-500M": config("smolvlm", 49190, 4, SMOLLM2_360M, SIGLIP_BASE),
    "SmolVLM-2.2B": config("idefics3", 49153, 3, SMOLLM2_1_7B, SIGLIP_SO400M),
    "SmolVLM2-2.2B": config("smolvlm", 49190, 3, SMOLLM2_1_7B_VIDEO, SIGLIP_SO400M),
    "Idefics3-8B": config("idefics3", 128257, 2, LLAMA3_8B, SIGLIP_SO400M | {"image_size": 364}),
}
NUM_PARAMETERS = {  # as published
    "SmolVLM-256M": 256_484_928,
    "SmolVLM2-500M": 507_482_304,
    "SmolVLM-2.2B": 2_246_272_880,
    "SmolVLM2-2.2B": 2_246_784_880,
}
IMAGE_SEQ_LEN = {"SmolVLM-256M": 64, "SmolVLM2-500M": 64, "SmolVLM-2.2B": 81, "SmolVLM2-2.2B": 81, "Idefics3-8B": 169}
