"""Tiles -> image features, where the encoder and the connector are not trained."""

import os
from contextlib import nullcontext
from functools import partial

import mlx.core as mx
import numpy as np

from ...model.config import VisionConfig
from ...model.layers.streams import each_side_by_side
from ...model.smolvlm import SmolVLM
from .blas_threads import one_blas_thread

_PATCHES = 128  # of a group: with fewer, small products would take longer to begin than to compute
_GROUPS_AT_ONCE = 4


def group_size(config: VisionConfig) -> int:
    """How many tiles are computed as one batch."""
    return max(1, _PATCHES // config.patches_per_side**2)


def tiles_at_once(config: VisionConfig) -> int:
    """How many tiles are held while they are computed."""
    return _GROUPS_AT_ONCE * group_size(config)


def frozen_features(model: SmolVLM, tiles: np.ndarray) -> mx.array:
    """Image features, (num_tiles, image_seq_len, hidden_size), evaluated.

    Small tiles are computed in groups, all of one size, the last one filled up with black tiles: products of one shape
    treat each of their rows alike, so a tile has the same features to the bit whatever tiles stand beside it. A tile of
    the usual size is a group by itself.

    Args:
        model: whose encoder is asked.
        tiles: (num_tiles, tile_size, tile_size, 3) uint8, 0..255.
    """
    size = group_size(model.config.vision)
    groups = []
    for start in range(0, len(tiles), size):
        group = np.zeros((size, *tiles.shape[1:]), np.uint8)
        some = tiles[start : start + size]
        group[: len(some)] = some
        groups.append(group)
    parts = []
    for start in range(0, len(groups), _GROUPS_AT_ONCE):
        own = [partial(_features, model, group) for group in groups[start : start + _GROUPS_AT_ONCE]]
        with one_blas_thread() if _has_few_cores() else nullcontext():  # however many groups: it may change bits
            computed = each_side_by_side(own)
            mx.eval(computed)
        parts += computed
    features = mx.concatenate(parts)[: len(tiles)]
    mx.eval(features)
    return features


def _has_few_cores() -> bool:
    """Whether the groups that are held are enough for all cores."""
    return (os.cpu_count() or 1) <= _GROUPS_AT_ONCE


def _features(model: SmolVLM, group: np.ndarray) -> mx.array:
    return model.connector(model.vision_model(mx.array(group)))
