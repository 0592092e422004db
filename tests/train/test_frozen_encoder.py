"""Image features of a frozen encoder: the same bits, whatever stands beside a tile."""

import mlx.core as mx
import numpy as np

from mlx_smolvlm.train.learning.frozen_encoder import frozen_features, group_size, tiles_at_once
from mlx_smolvlm.train.learning.stored_features import StoredFeatures


class Drawn:
    """An example with some tiles of noise."""

    def __init__(self, seed, num_tiles):
        self.num_tiles = num_tiles
        self._tiles = np.random.RandomState(seed).randint(0, 256, (num_tiles, 32, 32, 3), np.uint8)

    def tiles(self):
        return self._tiles


def test_tiles_have_the_same_features_whatever_stands_beside_them(demo):
    model, _ = demo
    config = model.config.vision
    assert 1 < group_size(config) < tiles_at_once(config)
    tiles = Drawn(0, tiles_at_once(config) + 5).tiles()
    together = np.array(frozen_features(model, tiles))
    np.testing.assert_allclose(
        together.reshape(-1, together.shape[-1]), np.array(model.image_features(tiles)), atol=1e-5
    )
    order = np.random.RandomState(1).permutation(len(tiles))
    assert np.array_equal(np.array(frozen_features(model, tiles[order])), together[order])
    for number in (0, 7, len(tiles) - 1):
        assert np.array_equal(np.array(frozen_features(model, tiles[number : number + 1]))[0], together[number])


def test_features_are_read_or_computed_once_for_like_images(demo, tmp_path):
    model, _ = demo
    examples = [Drawn(0, 5), Drawn(1, 2), Drawn(0, 5)]  # two rows with one image
    wanted = [(number, example, None) for number, example in enumerate(examples)]
    store = StoredFeatures(model, tmp_path)
    assert store.open(0, examples[0]) is examples[0].tiles()
    first = store.of(wanted)
    assert (store.num_computed, len(list(tmp_path.iterdir()))) == (2, 2)
    assert mx.array_equal(first[0], first[2])
    assert store.open(2, examples[2]) is None
    again = store.of(wanted)
    assert store.num_computed == 2
    next(path for path in tmp_path.iterdir()).unlink()
    alone = StoredFeatures(model, tmp_path)
    for features in (again, alone.of(wanted), StoredFeatures(model, None).of(wanted)):
        assert all(mx.array_equal(own, known) for own, known in zip(features, first, strict=True))
    assert alone.num_computed == 1
