"""What a conversion did, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .plan import PARTS, Plan


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    `plan` holds every layer that could be quantized with its format or None, `reasons` why a layer has none.
    """

    folder: Path
    size_bytes: int
    num_weights: int
    plan: Plan = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the files per weight of the model, scales included."""
        return 8 * self.size_bytes / self.num_weights

    @property
    def quantized(self) -> list[str]:
        """Paths of the quantized layers."""
        return [path for path, layer_format in self.plan.items() if layer_format]

    @property
    def not_quantized(self) -> dict[str, str]:
        """Layers that were asked for but keep full precision, and why; not those of parts that were not asked for."""
        whole = {f"{part} keeps full precision" for part in PARTS}
        return {path: reason for path, reason in self.reasons.items() if reason not in whole}
