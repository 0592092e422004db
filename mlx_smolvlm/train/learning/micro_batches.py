"""Examples -> micro-batches: rows side by side, their tiles or features, and for pairs what the reference thinks."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from ..dataset.examples import Example
from .forward import MicroBatch
from .preferences import as_it_began, log_ratios
from .stored_features import StoredFeatures
from .trainable import Trainable


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
        self._references: dict[int, float] = {}

    def of(self, rows: Sequence[int], name: str) -> MicroBatch:
        """Some rows; `name` and a row's number choose its dropout.

        Raises:
            RowError: an image has changed, or cannot be read.
        """
        reference = None
        if self._are_pairs:
            reference = mx.array([self._reference(row) for row in rows[::2]])
        return self._of(rows, name, reference)

    def _of(self, rows: Sequence[int], name: str, reference: mx.array | None) -> MicroBatch:
        examples = [self._examples[row] for row in rows]
        trained = np.concatenate([_predictable(example.trained) for example in examples])
        with_tiles = [(row, example) for row, example in zip(rows, examples, strict=True) if example.num_tiles]
        tiles = features = None
        if with_tiles and self._features is not None:
            features = mx.concatenate([self._features.of(row, example) for row, example in with_tiles])
        elif with_tiles:
            tiles = np.concatenate([example.tiles() for _, example in with_tiles])
        return MicroBatch(
            names=[f"{name} {row}" for row in rows],
            input_ids=np.concatenate([example.input_ids for example in examples]),
            lengths=[len(example.input_ids) for example in examples],
            predicted=np.flatnonzero(trained).astype(np.int32),
            tiles=tiles,
            tile_counts=[example.num_tiles for example in examples],
            features=features,
            reference=reference,
        )

    def _reference(self, row: int) -> float:
        """What `log_ratios` was when training began: of a pair by itself, so that it is the same in every batch."""
        if row not in self._references:
            with as_it_began(self._trainable, self._initial):
                ratio = log_ratios(self._trainable, self._of([row, row + 1], "", None))
                self._references[row] = ratio.item()  # type: ignore[assignment]
        return self._references[row]


def _predictable(trained: np.ndarray) -> np.ndarray:
    """What of a row counts: its first token has none before it that could predict it."""
    counted = trained.copy()
    counted[:1] = False
    return counted
