"""What keeps its inputs alone for the way back has the gradients that MLX finds."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlx_smolvlm.train.learning.head_losses import cross_entropies, losses_of_frozen_head
from mlx_smolvlm.train.learning.lean_operations import causal_mask, lean_attention, lean_swiglu
from mlx_smolvlm.train.learning.recomputing import recomputed


def random(*shape):
    return mx.array(np.random.RandomState(sum(shape)).standard_normal(shape).astype(np.float32))


def check(lean, plain, arrays):
    """Equal outputs and gradients, with a different slope for each output."""
    weights = random(*plain(*arrays).shape)
    numbers = tuple(range(len(arrays)))
    found, expected = (
        mx.value_and_grad(lambda *own, function=function: (function(*own) * weights).sum(), numbers)(*arrays)
        for function in (lean, plain)
    )
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5, abs=1e-4)
    for own, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(
            np.array(own), np.array(other), rtol=1e-5, atol=1e-6 + 2e-6 * float(mx.abs(other).max())
        )


@pytest.mark.parametrize("length", [5, 65, 300])
def test_attention(length):
    """Of fewer keys than queries; short rows are left to MLX, the longest is cut into blocks."""
    arrays = [random(1, heads, length, 8) for heads in (6, 2, 2)]
    attention = partial(mx.fast.scaled_dot_product_attention, scale=0.3, mask="causal")
    check(lambda q, k, v: lean_attention(q, k, v, 0.3, causal_mask), attention, arrays)


def test_swiglu():
    check(lean_swiglu, lambda gate, up: gate * mx.sigmoid(gate) * up, [4 * random(1, 7, 40), random(1, 7, 40)])


@pytest.mark.parametrize("size", [3, 100])
def test_losses_of_a_frozen_head(size):
    """In chunks and at once."""
    head, targets = random(50, 8), mx.arange(10) * 4

    def plain(hidden):
        return cross_entropies(hidden @ head.T, targets)

    check(lambda hidden: losses_of_frozen_head(lambda x: x @ head.T, hidden, targets, size), plain, [random(10, 8)])


def test_what_is_computed_again_stays_in_its_stream():
    def block(x, weight):
        return mx.sin(x @ weight)

    arrays = [random(3, 4), random(4, 4)]
    with mx.stream(mx.new_stream(mx.cpu)):
        check(recomputed(block), block, arrays)
