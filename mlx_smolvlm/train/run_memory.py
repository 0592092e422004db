"""The memory of a run, from what is trained and on what."""

from typing import Any

from mlx.utils import tree_flatten

from ..api.loading import DTYPES, default_dtype
from .learning.step_memory import MemoryNeeds, MemoryPlan, plan_memory
from .learning.targets import TEXT
from .learning.trainable import Trainable
from .recipe import Recipe
from .run_data import RunData


def memory_of(trainable: Trainable, recipe: Recipe, image_seq_len: int, data: RunData, num_ranks: int) -> MemoryPlan:
    """How the rows of a run are computed.

    Args:
        trainable, recipe, data: of the run.
        image_seq_len: tokens of a tile.
        num_ranks: processes of `mlx.launch`.

    Raises:
        ValueError: it does not fit in `--max-memory`.
    """
    arrays: Any = tree_flatten(trainable.model.parameters())
    sizes = {name: array.nbytes for name, array in arrays}
    whole = sum(sizes.values())
    decoder = sum(size for name, size in sizes.items() if name.startswith(TEXT))
    has_images = any(row.num_tiles for row in data.examples)
    is_released = trainable.encoder_is_frozen and (not has_images or num_ranks == 1)
    reads_decoder_early = trainable.method in ("dora", "full") or trainable.init_folder is not None
    both = not is_released or reads_decoder_early or data.num_held  # answers to held rows need both again
    needs = MemoryNeeds(
        trainable.model.config,
        image_seq_len,
        DTYPES[recipe.dtype or default_dtype()].size,
        (decoder if is_released else whole) + 4 * trainable.num_parameters * recipe.preference,  # the reference's
        0 if not has_images else whole if both else whole - decoder,
        trainable.num_parameters,
        not trainable.encoder_is_frozen,
        max(data.lengths),
        max(int(row.trained.sum()) for row in data.examples) * data.rows_per_unit,
        max(row.num_tiles for row in data.examples) * data.rows_per_unit,
        sum(sorted(data.lengths[: data.num_trained])[-recipe.batch_size * recipe.accumulate :]),
    )
    max_bytes = None if recipe.max_memory_gb is None else recipe.max_memory_gb * 1e9
    return plan_memory(needs, recipe.grad_checkpoint, max_bytes)
