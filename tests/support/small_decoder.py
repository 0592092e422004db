"""A small decoder, what is computed with it, and where its layers are."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_smolvlm.model.config import TextConfig
from mlx_smolvlm.model.language import LanguageModel
from mlx_smolvlm.model.layers.fusing import Fusible

CONFIG = TextConfig(128, 64, 96, 2, 4, 2, 16, 8192, 1e-5, 1e5)
IDS = [3, 1, 4, 1, 5]
ATTENTION = ["layers.1.self_attn.q_proj", "layers.1.self_attn.k_proj", "layers.1.self_attn.v_proj"]
MATRICES = [*ATTENTION, "layers.1.self_attn.o_proj", *(f"layers.0.mlp.{name}_proj" for name in ("gate", "up", "down"))]
NORMS = ["layers.0.input_layernorm", "layers.1.post_attention_layernorm", "norm"]
PATHS = [*MATRICES, *NORMS, "embed_tokens", "lm_head"]


def built(fused: bool = True, bits: int = 0) -> LanguageModel:
    """Always the same small decoder; the weights of its norms differ from one."""
    mx.random.seed(7)
    model = LanguageModel(CONFIG, tie_word_embeddings=False)
    model.update(tree_map(lambda array: array + 0.1 * mx.random.normal(array.shape), model.parameters()))
    if bits:
        nn.quantize(model, 32, bits)
    mx.eval(model.parameters())
    if fused:
        model.fuse()
    return model


def logits(model: LanguageModel, single_tokens: bool = False) -> mx.array:
    """Of all positions, (num_tokens, vocab_size), read at once or token by token."""
    cache = model.make_cache()
    parts = [[token] for token in IDS] if single_tokens else [IDS]
    hidden = [model(model.embed_tokens(mx.array(part))[None], cache) for part in parts]
    return model.logits(mx.concatenate(hidden, axis=1))[0]


def assert_alike(model: LanguageModel, other: LanguageModel, tolerance: float = 1e-4) -> None:
    """The same logits, however they are read; these are of about 3, and sums have other orders in float32."""
    for single_tokens in (False, True):
        assert mx.abs(logits(model, single_tokens) - logits(other, single_tokens)).max().item() < tolerance


def at(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """(holder, name) of a dotted path."""
    *parents, name = path.split(".")
    for parent in parents:
        model = model[int(parent)] if isinstance(model, list) else getattr(model, parent)
    return model, name


def layer_at(model: LanguageModel, path: str) -> nn.Module:
    """What is at a dotted path."""
    return getattr(*at(model, path))


def blocks(model: LanguageModel) -> list[Fusible]:
    """Those whose layers can be joined: the attention and the MLP of each layer, in MLX's order (the last first)."""
    return [module for module in model.modules() if isinstance(module, Fusible)]
