"""The JSON files of the tiny test checkpoints, in the style of the released ones; checkpoints.py writes them.

Sizes are tiny, geometry is the family's: grids of 8, 26 and 27 patches a side, scale factors 4, 3 and 2, learned and
plain layout markers, grouped and full attention. Fields that released files leave out are left out here too wherever
the tiny value is the family's default (vision `hidden_act`, `layer_norm_eps`, `num_channels`; text `head_dim` and, with
full attention, `num_key_value_heads`).
"""

CHECKPOINTS = ("smolvlm_256m", "smolvlm2_2b", "smolvlm_2b_v1", "idefics3", "tied")
SEEDS = {"smolvlm_256m": 10, "smolvlm2_2b": 3, "smolvlm_2b_v1": 1, "idefics3": 2, "tied": 9}  # see SMALLEST_MARGIN
TOKENIZERS = {  # name -> file in goldens/tokenizers
    "smolvlm_256m": "learned.json",
    "smolvlm2_2b": "learned.json",
    "smolvlm_2b_v1": "strings.json",
    "idefics3": "llama3.json",
    "tied": "learned.json",
}

ITEMS = (
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}VIDEO{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
HEAD = (
    "{% for message in messages %}CAPITALIZED"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
)


def chat_template(name: str) -> str:
    """The checkpoint's chat template; only smolvlm2_2b's own has a `<video>` branch."""
    first = "<|begin_of_text|>" if name == "idefics3" else "<|im_start|>"
    capitalized = "{{message['role'].capitalize()}}" if name == "idefics3" else "{{message['role'] | capitalize}}"
    video = "{% elif line['type'] == 'video' %}{{ '<video>' }}" if name == "smolvlm2_2b" else ""
    return first + HEAD.replace("CAPITALIZED", capitalized) + ITEMS.replace("VIDEO", video)


def model_config(name: str, vocab: dict[str, int]) -> dict:
    """config.json; `vocab` maps the tokenizer's tokens to their ids."""
    is_smolvlm = name not in ("smolvlm_2b_v1", "idefics3")
    model_type = "smolvlm" if is_smolvlm else "idefics3"
    pad_token = "<|finetune_right_pad_id|>" if name == "idefics3" else "<|im_end|>"
    text = {"model_type": "llama", "rms_norm_eps": 1e-05, "vocab_size": len(vocab), "pad_token_id": vocab[pad_token]}
    config = {
        "architectures": ["SmolVLMForConditionalGeneration" if is_smolvlm else "Idefics3ForConditionalGeneration"],
        "image_token_id": vocab["<image>"],
        "model_type": model_type,
        "scale_factor": {"smolvlm2_2b": 3, "smolvlm_2b_v1": 3, "idefics3": 2}.get(name, 4),
        "text_config": text | TEXT[name],
        "tie_word_embeddings": name == "tied",
        "transformers_version": "4.47.1",
        "use_cache": True,
        "vision_config": {"model_type": f"{model_type}_vision"} | VISION[name],
    }
    return config | ({"dtype": "float32"} if name == "smolvlm2_2b" else {"torch_dtype": "float32"})


SMALL_TEXT = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "max_position_embeddings": 8192,
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rope_theta": 100000,
}
TEXT = {
    # The released files carry leftovers of the training code such as these; they mean nothing to the model.
    "smolvlm_256m": SMALL_TEXT
    | {
        "head_dim": 16,
        "is_llama_config": True,
        "pixel_shuffle_factor": 4,
        "qk_layer_norms": False,
        "use_resampler": False,
    },
    "tied": SMALL_TEXT | {"tie_word_embeddings": True},
    "smolvlm2_2b": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "max_position_embeddings": 8192,
        "num_attention_heads": 8,
        "num_hidden_layers": 2,
        "rope_parameters": {"rope_theta": 130000.0, "rope_type": "default"},
    },
    "smolvlm_2b_v1": {
        "hidden_size": 64,
        "intermediate_size": 112,
        "max_position_embeddings": 16384,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "rope_theta": 273768.0,
    },
    "idefics3": {
        "hidden_size": 64,
        "intermediate_size": 112,
        "max_position_embeddings": 10240,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        # original_max_position_embeddings is small so that kept, blended and scaled frequencies all occur
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
    },
}

SMALL_VISION = {
    "hidden_size": 32,
    "image_size": 128,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "patch_size": 16,
}
VISION = {
    "smolvlm_256m": SMALL_VISION
    | {"max_image_size": {"longest_edge": 128}, "size": {"longest_edge": 512}, "use_base_siglip": True},
    "tied": SMALL_VISION,
    "smolvlm2_2b": {
        "hidden_size": 48,
        "image_size": 384,
        "intermediate_size": 76,  # as 4304 in the released one: no multiple of a quantization group
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "patch_size": 14,
    },
    "smolvlm_2b_v1": {
        "hidden_size": 40,
        "image_size": 384,
        "intermediate_size": 56,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "patch_size": 14,
    },
    "idefics3": {
        "hidden_size": 32,
        "image_size": 364,
        "intermediate_size": 68,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "patch_size": 14,
    },
}
LONGEST_EDGE = {"smolvlm_256m": 512, "smolvlm2_2b": 768, "smolvlm_2b_v1": 768, "idefics3": 728, "tied": 512}
MAX_FRAMES = {"smolvlm_256m": 8, "smolvlm2_2b": 64, "tied": 64}  # 8: long.mp4 then skips a second at both ends


def image_seq_len(name: str) -> int:
    """Image tokens per tile."""
    scale_factor = {"smolvlm2_2b": 3, "smolvlm_2b_v1": 3, "idefics3": 2}.get(name, 4)
    return (VISION[name]["image_size"] // VISION[name]["patch_size"] // scale_factor) ** 2


def image_processor_config(name: str) -> dict:
    """preprocessor_config.json without its video part, or the nested `image_processor` of transformers 5."""
    is_smolvlm = name in MAX_FRAMES
    return {
        "do_convert_rgb": True,
        "do_image_splitting": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SmolVLMImageProcessor" if is_smolvlm else "Idefics3ImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": VISION[name]["image_size"]},
        "resample": 1,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": LONGEST_EDGE[name]},
    }


def processor_files(name: str) -> dict[str, dict]:
    """preprocessor_config.json and processor_config.json as released, or the latter alone as transformers 5 saves."""
    image_processor = image_processor_config(name)
    processor_class = "SmolVLMProcessor" if name in MAX_FRAMES else "Idefics3Processor"
    processor = {"image_seq_len": image_seq_len(name), "processor_class": processor_class}
    video_size = {"longest_edge": VISION[name]["image_size"]}
    if name == "smolvlm2_2b":
        shared = {k: v for k, v in image_processor.items() if k not in ("do_image_splitting", "image_processor_type")}
        video_processor = shared | {
            "do_sample_frames": False,
            "fps": 1,
            "num_frames": MAX_FRAMES[name],
            "return_metadata": False,
            "video_processor_type": "SmolVLMVideoProcessor",
            "video_sampling": {"fps": 1, "max_frames": MAX_FRAMES[name], "video_size": shared["size"]},
        }
        return {
            "processor_config.json": processor
            | {"image_processor": image_processor, "video_processor": video_processor}
        }
    if name in MAX_FRAMES:
        image_processor["video_sampling"] = {"fps": 1, "max_frames": MAX_FRAMES[name], "video_size": video_size}
    return {
        "preprocessor_config.json": image_processor | {"processor_class": processor_class},
        "processor_config.json": processor,
    }


def generation_config(name: str, vocab: dict[str, int]) -> dict:
    """generation_config.json; `eos_token_id` is a list for idefics3 and a number elsewhere."""
    end = vocab["<end_of_utterance>"]
    if name == "idefics3":
        tokens = {
            "bos_token_id": vocab["<|begin_of_text|>"],
            "eos_token_id": [vocab["<|end_of_text|>"], vocab["<|eot_id|>"], end],
            "pad_token_id": vocab["<|finetune_right_pad_id|>"],
        }
    else:
        # 0 is <|endoftext|>: the released files disagree with the template, which writes <|im_start|> itself
        tokens = {"bos_token_id": 0, "eos_token_id": end, "pad_token_id": vocab["<|im_end|>"]}
    return {"_from_model_config": True, **tokens, "transformers_version": "4.47.1"}


def tokenizer_config(name: str) -> dict:
    """tokenizer_config.json, without the list of added tokens."""
    if name == "idefics3":
        special = {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|end_of_text|>",
            "pad_token": "<|finetune_right_pad_id|>",
        }
        return special | {"model_max_length": 131072, "tokenizer_class": "PreTrainedTokenizerFast"}
    special = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
    special["unk_token"] = "<|endoftext|>"
    markers = {
        "end_of_utterance_token": "<end_of_utterance>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "image_token": "<image>",
    }
    if name == "smolvlm2_2b":
        extra = {"extra_special_tokens": [], "tokenizer_class": "TokenizersBackend", "backend": "tokenizers"}
        return special | markers | extra | {"model_max_length": 8192, "processor_class": "SmolVLMProcessor"}
    if name == "smolvlm_2b_v1":
        # Released as "GPT2Tokenizer", for which transformers 5 replaces tokenizer.json's pre-tokenizer by its own, no
        # longer splits digits. It corrects that for model_type smolvlm, not for idefics3; the file is what is right.
        return special | {"model_max_length": 16384, "tokenizer_class": "PreTrainedTokenizerFast"}
    markers["extra_special_tokens"] = dict(markers)
    return special | markers | {"model_max_length": 8192, "tokenizer_class": "GPT2Tokenizer"}
