"""SigLIP vision encoder: square tiles -> one hidden state per patch.

Port of the vision transformer in transformers, `models/smolvlm/modeling_smolvlm.py`. Every tile is a full
square here, so position ids are 0..n-1 in row-major order and no patch is ever masked.
"""

import mlx.core as mx
import mlx.nn as nn

from .config import VisionConfig
from .layers.activations import compiled_on_gpu, gelu_tanh


class PatchEmbeddings(nn.Module):
    """The convolution whose stride is its kernel, computed as one matrix product.

    `weight` is (hidden_size, patch_size, patch_size, num_channels), MLX's order for convolutions.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        self._patch_size = config.patch_size
        self._per_side = config.patches_per_side
        self.weight = mx.zeros((config.hidden_size, config.patch_size, config.patch_size, config.num_channels))
        self.bias = mx.zeros((config.hidden_size,))

    def __call__(self, pixels: mx.array) -> mx.array:
        """(num_tiles, image_size, image_size, channels) -> (num_tiles, num_patches, hidden_size)."""
        tiles, size, patch = pixels.shape[0], self._per_side, self._patch_size
        whole = pixels[:, : size * patch, : size * patch]  # 384 is 27 patches of 14 and 6 pixels
        blocks = whole.reshape(tiles, size, patch, size, patch, -1).transpose(0, 1, 3, 2, 4, 5)
        return blocks.reshape(tiles, size * size, -1) @ self.weight.reshape(self.weight.shape[0], -1).T + self.bias


class VisionEmbeddings(nn.Module):
    """Patch embeddings plus learned positions, row-major."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.patch_embedding = PatchEmbeddings(config)
        self.position_embedding = nn.Embedding(config.patches_per_side**2, config.hidden_size)

    def __call__(self, pixels: mx.array) -> mx.array:
        patches = self.patch_embedding(pixels)
        return patches + self.position_embedding(mx.arange(patches.shape[1]))  # which may be quantized


class VisionAttention(nn.Module):
    """Bidirectional attention among the patches of one tile."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self._heads = config.num_attention_heads
        self._scale = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        tiles, patches, hidden_size = x.shape

        def heads(projected: mx.array) -> mx.array:  # -> (num_tiles, num_heads, num_patches, head_dim)
            return projected.reshape(tiles, patches, self._heads, -1).transpose(0, 2, 1, 3)

        out = mx.fast.scaled_dot_product_attention(
            heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x)), scale=self._scale
        )
        return self.out_proj(out.transpose(0, 2, 1, 3).reshape(tiles, patches, hidden_size))


class VisionMLP(nn.Module):
    """Two layers with the tanh approximation of GELU between them."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc2(compiled_on_gpu(gelu_tanh)(self.fc1(x)))


class VisionEncoderLayer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMLP(config)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.layers = [VisionEncoderLayer(config) for _ in range(config.num_hidden_layers)]

    def __call__(self, x: mx.array) -> mx.array:
        for layer in self.layers:
            x = layer(x)
        return x


class VisionModel(nn.Module):
    """Tiles -> patch hidden states."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def __call__(self, pixel_values: mx.array) -> mx.array:
        """Encode tiles.

        Args:
            pixel_values: (num_tiles, image_size, image_size, 3), uint8, 0..255.

        Returns:
            (num_tiles, num_patches, hidden_size) in the type of the weights, patches row-major.
        """
        return self.post_layernorm(self.encoder(self.embed(pixel_values)))

    def embed(self, pixel_values: mx.array) -> mx.array:
        """What the layers read of tiles: patches with their positions, (num_tiles, num_patches, hidden_size)."""
        dtype = self.embeddings.patch_embedding.weight.dtype
        pixels = pixel_values.astype(mx.float32) / 127.5 - 1  # x / 255, then mean 0.5 and deviation 0.5
        return self.embeddings(pixels.astype(dtype))
