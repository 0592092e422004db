"""The report of a conversion, layer by layer."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .plan import PARTS, Plan, part_of

REPORT_FILE = "quantization_report.json"


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion.

    `plan` holds every layer that can be quantized with its format or None, `reasons` why a layer has none, `shapes`
    those of the weights, (out, in). `source` is the folder or Hub id converted. `part_sizes` are bytes and weights of
    each of PARTS. `notes` say what the conversion cannot give. `adapters` were merged, each with its weight.
    """

    folder: Path
    source: str
    size_bytes: int
    num_weights: int
    plan: Plan = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    part_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    adapters: Sequence[tuple[str, float]] = ()

    @property
    def bits_per_weight(self) -> float:
        """Bits of the files per weight of the model, scales included."""
        return 8 * self.size_bytes / self.num_weights

    def bits_of(self, *parts: str) -> float:
        """Bits of the files per weight of some of PARTS, scales and norms included."""
        sizes = [self.part_sizes[part] for part in parts if part in self.part_sizes]
        return 8 * sum(size for size, _ in sizes) / max(1, sum(count for _, count in sizes))

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
        adapters = [{"name": name, "weight": weight} for name, weight in self.adapters]
        for path, layer_format in self.plan.items():
            how = layer_format.entry() if layer_format else {"reason": self.reasons.get(path, "full precision")}
            layers[path] = {"shape": list(self.shapes[path])} | how
        return {
            "size_bytes": self.size_bytes,
            "num_weights": self.num_weights,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "bits_per_weight_of_parts": {part: round(self.bits_of(part), 4) for part in self.part_sizes},
            **({"adapters": adapters} if adapters else {}),
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
