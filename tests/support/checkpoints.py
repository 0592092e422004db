"""Write tiny random checkpoints of the SmolVLM family's geometries in Hugging Face layout.

Offline and without torch: the weights come from numpy's frozen `RandomState` stream, so that they need not be
committed, and what the reference implementation makes of them is in goldens/ (see make_goldens.py).
"""

import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from support.checkpoint_configs import (
    CHECKPOINTS,
    SEEDS,
    TOKENIZERS,
    chat_template,
    generation_config,
    model_config,
    processor_files,
    tokenizer_config,
)

TOKENIZER_FOLDER = Path(__file__).parent.parent / "goldens" / "tokenizers"
SHARDED = "smolvlm2_2b"  # its weights are in two files; its other files are as transformers 5 saves them


def write_checkpoint(name: str, folder: str | Path) -> Path:
    """Write the checkpoint `name`, one of CHECKPOINTS, into `folder`, made if missing; return the folder.

    The bytes are the same each time and on every machine.
    """
    if name not in CHECKPOINTS:
        raise ValueError(f"no test checkpoint is called {name!r}; there are {', '.join(CHECKPOINTS)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_text = (TOKENIZER_FOLDER / TOKENIZERS[name]).read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_str(tokenizer_text)
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    config = model_config(name, vocab)

    (folder / "tokenizer.json").write_text(tokenizer_text, encoding="utf-8")
    files = {
        "config.json": config,
        "generation_config.json": generation_config(name, vocab),
        **processor_files(name),
        **tokenizer_files(name, tokenizer),
    }
    if name == SHARDED:
        (folder / "chat_template.jinja").write_text(chat_template(name), encoding="utf-8")
    else:
        files["chat_template.json"] = {"chat_template": chat_template(name)}
    for file_name, content in files.items():
        (folder / file_name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    save_weights(random_weights(config, SEEDS[name]), folder, num_files=2 if name == SHARDED else 1)
    return folder


def tokenizer_files(name: str, tokenizer: Tokenizer) -> dict[str, dict]:
    """tokenizer_config.json and, but for the files as transformers 5 saves them, special_tokens_map.json."""
    config = tokenizer_config(name)
    if name == SHARDED:
        return {"tokenizer_config.json": config}
    config["added_tokens_decoder"] = {
        str(token_id): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for token_id, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    specials = {key: config[key] for key in ("bos_token", "eos_token", "pad_token", "unk_token") if key in config}
    specials["additional_special_tokens"] = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    config["additional_special_tokens"] = specials["additional_special_tokens"]
    return {"tokenizer_config.json": config, "special_tokens_map.json": specials}


def weight_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Every weight's Hugging Face name and shape, (out, in) for linear layers, OIHW for the patch embedding."""
    text, vision = config["text_config"], config["vision_config"]
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    num_kv_heads = text.get("num_key_value_heads", text["num_attention_heads"])
    key_value = hidden // text["num_attention_heads"] * num_kv_heads
    shapes = {"model.text_model.embed_tokens.weight": (text["vocab_size"], hidden)}
    for i in range(text["num_hidden_layers"]):
        layer = f"model.text_model.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = (hidden,)
        shapes[f"{layer}.self_attn.q_proj.weight"] = (hidden, hidden)
        shapes[f"{layer}.self_attn.k_proj.weight"] = (key_value, hidden)
        shapes[f"{layer}.self_attn.v_proj.weight"] = (key_value, hidden)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{layer}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, inner)
    shapes["model.text_model.norm.weight"] = (hidden,)

    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    num_patches = (vision["image_size"] // patch) ** 2
    embeddings = "model.vision_model.embeddings"
    shapes[f"{embeddings}.patch_embedding.weight"] = (width, 3, patch, patch)
    shapes[f"{embeddings}.patch_embedding.bias"] = (width,)
    shapes[f"{embeddings}.position_embedding.weight"] = (num_patches, width)
    for i in range(vision["num_hidden_layers"]):
        layer = f"model.vision_model.encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            shapes[f"{layer}.{norm}.weight"] = shapes[f"{layer}.{norm}.bias"] = (width,)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{layer}.self_attn.{projection}.weight"] = (width, width)
            shapes[f"{layer}.self_attn.{projection}.bias"] = (width,)
        shapes[f"{layer}.mlp.fc1.weight"], shapes[f"{layer}.mlp.fc1.bias"] = (inner, width), (inner,)
        shapes[f"{layer}.mlp.fc2.weight"], shapes[f"{layer}.mlp.fc2.bias"] = (width, inner), (width,)
    for kind in ("weight", "bias"):
        shapes[f"model.vision_model.post_layernorm.{kind}"] = (width,)
    connector_in = width * config["scale_factor"] ** 2
    shapes["model.connector.modality_projection.proj.weight"] = (hidden, connector_in)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (text["vocab_size"], hidden)
    return shapes


def random_weights(config: dict, seed: int) -> dict[str, np.ndarray]:
    """Random float32 weights; uniform, because numpy's normal numbers pass through the platform's logarithm."""
    random = np.random.RandomState(seed)
    weights = {}
    for name, shape in weight_shapes(config).items():
        mean, std = distribution(name, shape, config["tie_word_embeddings"])
        unit = (2 * random.random_sample(shape) - 1) * math.sqrt(3)  # mean 0, standard deviation 1
        weights[name] = (mean + std * unit).astype(np.float32)
    return weights


def distribution(name: str, shape: tuple[int, ...], tied: bool) -> tuple[float, float]:
    """Mean and standard deviation of a weight.

    No parameter is trivial, so that a missing bias or a wrong position shows; queries and keys are strong enough for
    attention to be far from uniform, and the head for the best token to stand well clear of the second.
    """
    if name.endswith(".bias"):
        return 0.0, 0.2
    if "norm" in name:
        return 1.0, 0.2
    fan_in = math.prod(shape[1:])
    if name == "lm_head.weight" or (tied and "embed_tokens" in name):
        return 0.0, 4 / math.sqrt(fan_in)
    if "embed_tokens" in name:
        return 0.0, 1.0
    if "position_embedding" in name:
        return 0.0, 0.5
    if "q_proj" in name or "k_proj" in name or "patch_embedding" in name:
        return 0.0, 2 / math.sqrt(fan_in)
    return 0.0, 1.4 / math.sqrt(fan_in)


def save_weights(weights: dict[str, np.ndarray], folder: Path, num_files: int) -> None:
    """One `model.safetensors`, or several with their index."""
    metadata = {"format": "pt"}
    if num_files == 1:
        save_file(weights, folder / "model.safetensors", metadata=metadata)
        return
    names = list(weights)
    weight_map = {}
    for i in range(num_files):
        shard = names[i * len(names) // num_files : (i + 1) * len(names) // num_files]
        file_name = f"model-{i + 1:05d}-of-{num_files:05d}.safetensors"
        save_file({name: weights[name] for name in shard}, folder / file_name, metadata=metadata)
        weight_map |= dict.fromkeys(shard, file_name)
    index = {"metadata": {"total_size": sum(w.nbytes for w in weights.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
