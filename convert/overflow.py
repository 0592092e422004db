"""Whether float16 is wide enough for a checkpoint: the largest numbers that flow through it, measured in float32."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ..model.smolvlm import SmolVLM
from .calibration_data import ScoredSample, answer_logits
from .probes import probed

FLOAT16_MAX = 65504.0
MARGIN = 0.5  # share of FLOAT16_MAX that samples may reach: other images may go further


@dataclass(frozen=True)
class Risk:
    """`largest` absolute value seen at a layer, of its input or its output as `where` says."""

    path: str
    where: str
    largest: float


def largest_activations(model: SmolVLM, samples: Sequence[ScoredSample]) -> list[Risk]:
    """The largest absolute value at each layer, the largest first.

    What layers take in and give out covers all that could overflow: the residual stream enters the norms, attention's
    output the output projections, silu(gate) * up the down projections, GELU's output fc2.

    Args:
        model: in float32, so that nothing overflows while it is measured.
        samples: what it is run on.
    """
    largest: dict[tuple[str, str], float] = {}

    def observe(path: str, layer: nn.Module, method: str, x: mx.array, y: mx.array) -> mx.array:
        for where, array in (("input", x), ("output", y)):
            if mx.issubdtype(array.dtype, mx.floating):
                seen = float(mx.abs(array).max().item())  # type: ignore[arg-type]
                largest[path, where] = max(seen, largest.get((path, where), 0.0))
        return y

    with probed(model, observe):
        for sample in samples:
            mx.eval(answer_logits(model, sample))
    risks = [Risk(path, where, value) for (path, where), value in largest.items()]
    return sorted(risks, key=lambda risk: -risk.largest)


def overflow_warnings(risks: Sequence[Risk]) -> list[str]:
    """A line for each layer that comes near the end of float16, the worst first."""
    return [
        f"float16 may overflow: {risk.path} has {risk.where}s of up to {risk.largest:.0f}, and float16 ends at "
        f"{FLOAT16_MAX:.0f}; bfloat16 has no such limit"
        for risk in risks
        if not risk.largest < MARGIN * FLOAT16_MAX  # not a number, too
    ]
