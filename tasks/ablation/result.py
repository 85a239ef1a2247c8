"""What the network loses without its units."""

from __future__ import annotations

from dataclasses import dataclass

from storage.tables import ReadRow
from tasks.result import StageResult


@dataclass(frozen=True)
class Ablation(StageResult):
    """Which units the network uses."""

    def units(self, layer: str) -> list[ReadRow]:
        """The rows of a layer's units, by number."""
        return sorted(self.rows("ablation_units", layer=layer), key=lambda row: row["unit"])
