"""Examples -> micro-batches: rows side by side, their tiles or features, and for pairs what the reference thinks."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext

import mlx.core as mx
import numpy as np

from ...media.prefetch import Prefetched
from ..dataset.examples import Example
from .batches import by_tokens
from .forward import MicroBatch
from .frozen_encoder import tiles_at_once
from .preferences import as_it_began, log_probabilities
from .stored_features import StoredFeatures
from .trainable import Trainable

_BATCHES_AHEAD = 2

Tiles = dict[int, np.ndarray | None]
"""Of rows with images, by number: (num_tiles, tile_size, tile_size, 3) uint8; None where features are stored."""


class MicroBatches:
    """Makes them, by the numbers of rows."""

    def __init__(
        self,
        trainable: Trainable,
        examples: Sequence[Example],
        features: StoredFeatures | None,
        *,
        are_pairs: bool = False,
    ):
        """
        Args:
            trainable: the model.
            examples: the rows; with `are_pairs` a chosen and a rejected answer in turn.
            features: of frozen encoders; None if the encoder or the connector is trained.
            are_pairs: whether rows are compared by two.
        """
        self._trainable = trainable
        self._examples = examples
        self._features = features
        self._are_pairs = are_pairs
        self._initial = dict(trainable.parameters) if are_pairs else {}  # made before a run goes on from its state
        self._references: dict[int, list[float]] = {}

    def encode(self, rows: Iterable[int], is_cancelled: Callable[[], bool], on_encoded: Callable[[int], None]) -> None:
        """Store the features of rows, and release the weights of the encoder: training then has their memory.

        Args:
            rows: their numbers.
            is_cancelled: asked before each few rows; if it says so, the rest is left.
            on_encoded: told how many rows more are done.

        Raises:
            RowError: an image has changed, or cannot be read.
        """
        features = self._features
        if features is None or not features.can_release:
            return
        sizes = [example.num_tiles for example in self._examples]
        config = self._trainable.model.config.vision
        groups = by_tokens([row for row in rows if sizes[row]], sizes, tiles_at_once(config))
        with closing(Prefetched(map(self.open, groups), _BATCHES_AHEAD)) as opened:
            for group in groups:
                if is_cancelled():
                    return
                tiles = next(opened)
                features.of([(row, self._examples[row], tiles[row]) for row in group])
                on_encoded(len(group))
        features.release_encoder()

    def encoder(self) -> AbstractContextManager[None]:
        """Within, the weights of the encoder are in memory."""
        return nullcontext() if self._features is None else self._features.encoder()

    def open(self, rows: Sequence[int]) -> Tiles:
        """The tiles of those of the rows whose images are to be encoded. For any thread.

        Raises:
            RowError: an image has changed, or cannot be read.
        """
        examples = [(row, self._examples[row]) for row in rows if self._examples[row].num_tiles]
        if self._features is None:
            return {row: example.tiles() for row, example in examples}
        return {row: self._features.open(row, example) for row, example in examples}

    def of(self, rows: Sequence[int], name: str, tiles: Tiles | None = None) -> MicroBatch:
        """Some rows; `name` and a row's number choose its dropout.

        Args:
            rows: their numbers.
            name: of the batch.
            tiles: what `open` gave for these rows; None to open them now.

        Raises:
            RowError: an image has changed, or cannot be read.
        """
        tiles = self.open(rows) if tiles is None else tiles
        references = None
        if self._are_pairs:
            references = mx.array([value for row in rows[::2] for value in self._reference(row, tiles)])
        return self._of(rows, name, references, tiles)

    def _of(self, rows: Sequence[int], name: str, references: mx.array | None, opened: Tiles) -> MicroBatch:
        examples = [self._examples[row] for row in rows]
        trained = np.concatenate([_predictable(example.trained) for example in examples])
        with_tiles = [(row, example) for row, example in zip(rows, examples, strict=True) if example.num_tiles]
        tiles = features = None
        if with_tiles and self._features is not None:
            wanted = [(row, example, opened[row]) for row, example in with_tiles]
            features = mx.concatenate(self._features.of(wanted))
            mx.eval(features)  # its parts may be computed in several streams
        elif with_tiles:
            tiles = np.concatenate([opened[row] for row, _ in with_tiles])
        return MicroBatch(
            names=[f"{name} {row}" for row in rows],
            input_ids=np.concatenate([example.input_ids for example in examples]),
            lengths=[len(example.input_ids) for example in examples],
            predicted=np.flatnonzero(trained).astype(np.int32),
            tiles=tiles,
            tile_counts=[example.num_tiles for example in examples],
            features=features,
            references=references,
        )

    def _reference(self, row: int, tiles: Tiles) -> list[float]:
        """What `log_probabilities` was when training began: of a pair by itself, so it is the same in every batch."""
        if row not in self._references:
            with as_it_began(self._trainable, self._initial):
                pair = self._of([row, row + 1], "", None, tiles)
                self._references[row] = log_probabilities(self._trainable, pair).tolist()  # type: ignore[assignment]
        return self._references[row]


def _predictable(trained: np.ndarray) -> np.ndarray:
    """What of a row counts: its first token has none before it that could predict it."""
    counted = trained.copy()
    counted[:1] = False
    return counted
