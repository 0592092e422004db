"""Image features of a frozen encoder: the same bits, whatever stands beside a tile."""

from functools import partial

import mlx.core as mx
import numpy as np
from support.training import examples_of, write_rows

from mlx_smolvlm.api.loading import load_model
from mlx_smolvlm.model.config import read_model_config
from mlx_smolvlm.train.learning.frozen_encoder import frozen_features, group_size, tiles_at_once
from mlx_smolvlm.train.learning.micro_batches import MicroBatches
from mlx_smolvlm.train.learning.stored_features import StoredFeatures
from mlx_smolvlm.train.learning.trainable import Trainable
from mlx_smolvlm.train.recipe import Recipe


class Drawn:
    """An example with some tiles of noise."""

    def __init__(self, seed, num_tiles, side=32):
        self.num_tiles = num_tiles
        self._tiles = np.random.RandomState(seed).randint(0, 256, (num_tiles, side, side, 3), np.uint8)

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


def test_a_released_encoder_is_read_again_for_the_same_features(checkpoint, tmp_path):
    base = checkpoint("smolvlm_256m")
    load = partial(load_model, base, read_model_config(base), "float32", fuse=False, is_lazy=True)
    model, examples = load(), [Drawn(0, 3, 128), Drawn(1, 1, 128)]
    store = StoredFeatures(model, tmp_path / "features", load)
    first = store.of([(0, examples[0], None)])
    tower = model.vision_model
    store.release_encoder()
    released = model.vision_model
    assert released is not tower
    again = StoredFeatures(model, None).of([(0, examples[0], None)])
    assert mx.array_equal(first[0], again[0])
    store.of([(1, examples[1], None)])
    assert model.vision_model is not released  # and released once more
    kept = StoredFeatures(model, None, load)
    kept.release_encoder()
    assert not kept.can_release


def test_images_are_encoded_before_training_unless_it_is_cancelled(checkpoint, tmp_path):
    base = checkpoint("smolvlm_256m")
    load = partial(load_model, base, read_model_config(base), "float32", fuse=False, is_lazy=True)
    trainable = Trainable(load(), Recipe())
    examples = examples_of(base, write_rows(tmp_path))
    store = StoredFeatures(trainable.model, tmp_path / "features", load)
    batches, done = MicroBatches(trainable, examples, store), []
    batches.encode([4, 1, 3], lambda: True, done.append)
    assert (done, store.num_computed) == ([], 0)
    batches.encode([4, 1, 3], lambda: False, done.append)
    assert (sum(done), store.num_computed) == (2, 2)
    assert batches.open([4, 3]) == {4: None, 3: None}
