"""The report of a conversion, layer by layer."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .plan import PARTS, Plan, part_of

REPORT_FILE = "quantization_report.json"


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion.

    `plan` holds every layer that can be quantized with its format or None, `reasons` why a layer has none, `shapes`
    those of the weights, (out, in). `source` is the folder or Hub id converted.
    """

    folder: Path
    source: str
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

    def summary(self) -> list[str]:
        """A line for each part and format or reason: how many layers, and which if it is one."""
        groups = defaultdict(list)
        for path, layer_format in self.plan.items():
            groups[part_of(path), str(layer_format or self.reasons.get(path, "full precision"))].append(path)
        lines = []
        for (part, what), paths in sorted(
            groups.items(), key=lambda group: (PARTS.index(group[0][0]), self.plan[group[1][0]] is None)
        ):
            layers = paths[0] if len(paths) == 1 else f"{len(paths)} layers"
            prefix = "" if self.plan[paths[0]] else "not quantized, "
            lines.append(f"{part}: {layers}: {prefix}{what}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """The content of REPORT_FILE: totals, and for each layer its shape and its format or the reason."""
        layers: dict[str, Any] = {}
        for path, layer_format in self.plan.items():
            how = layer_format.entry() if layer_format else {"reason": self.reasons.get(path, "full precision")}
            layers[path] = {"shape": list(self.shapes[path])} | how
        return {
            "size_bytes": self.size_bytes,
            "num_weights": self.num_weights,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "layers": layers,
        }

    def write(self, folder: Path) -> None:
        """Write REPORT_FILE, a line per layer."""
        content = self.as_json()
        lines = ",\n".join(
            f"    {json.dumps(path)}: {json.dumps(layer)}" for path, layer in content.pop("layers").items()
        )
        head = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in content.items())
        (folder / REPORT_FILE).write_text(f'{{\n{head}  "layers": {{\n{lines}\n  }}\n}}\n', encoding="utf-8")
