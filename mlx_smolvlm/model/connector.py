"""Pixel shuffle and projection: patch hidden states -> image tokens in the decoder's space."""

import math

import mlx.core as mx
import mlx.nn as nn

from .config import ModelConfig


def pixel_shuffle(x: mx.array, scale_factor: int) -> mx.array:
    """Fold each scale_factor x scale_factor block of patches into channels.

    (num_tiles, num_patches, hidden_size) -> (num_tiles, num_patches / s**2, hidden_size * s**2), blocks
    row-major, and within a block row by row. Port of `pixel_shuffle` in transformers,
    `models/smolvlm/modeling_smolvlm.py`.

    Raises:
        ValueError: the patches are not a square grid that `scale_factor` divides.
    """
    tiles, patches, hidden_size = x.shape
    side = math.isqrt(patches)
    if side**2 != patches or side % scale_factor:
        raise ValueError(f"need a square grid of patches divisible by {scale_factor}, got {patches} patches")
    blocks = side // scale_factor
    x = x.reshape(tiles, blocks, scale_factor, blocks, scale_factor, hidden_size)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(tiles, blocks**2, scale_factor**2 * hidden_size)


class ModalityProjection(nn.Module):
    """The projection, under the name that checkpoints give it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.proj = nn.Linear(config.vision.hidden_size * config.scale_factor**2, config.text.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.proj(x)


class Connector(nn.Module):
    """Patch hidden states -> (num_tiles, image_seq_len, text hidden_size)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self._scale_factor = config.scale_factor
        self.modality_projection = ModalityProjection(config)

    def __call__(self, x: mx.array) -> mx.array:
        return self.modality_projection(pixel_shuffle(x, self._scale_factor))
