"""The labels of units."""

from __future__ import annotations

from dataclasses import dataclass

from storage.tables import ReadRow
from tasks.labelling import DissectionOptions
from tasks.result import StageResult


@dataclass(frozen=True)
class Dissection(StageResult):
    """Which unit detects which concept."""

    @property
    def options(self) -> DissectionOptions:
        """What it was made with."""
        return DissectionOptions.model_validate(self.parameters)

    def units(self, layer: str) -> list[ReadRow]:
        """The rows of a layer's units, by number."""
        return sorted(self.rows("units", layer=layer), key=lambda row: row["unit"])
