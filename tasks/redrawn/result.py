"""What is detected where thresholds are estimated anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.result import StageResult


@dataclass(frozen=True)
class RedrawnDetectors(StageResult):
    """Counts of detectors in resamples with thresholds of their own."""

    def counts(self, layer: str) -> NDArray[np.float64]:
        """(3, resamples): detectors, unique per category, unique per unit."""
        names = ["detectors", "unique_per_category", "unique_per_unit"]
        table = self.shards("redrawn", ["layer", *names])
        mine = table.filter(pc.equal(table.column("layer"), layer))
        return np.array([mine.column(name).to_numpy() for name in names], np.float64)
