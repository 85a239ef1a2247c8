"""What chance alone reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.result import StageResult


@dataclass(frozen=True)
class Null(StageResult):
    """Best IoUs with annotations exchanged among pictures."""

    def best(self, layer: str, units: int, *, across: bool = False) -> NDArray[np.float64]:
        """(permutations, units) best IoU of a layer, annotations exchanged within strata or across them."""
        column = "best_iou_across" if across else "best_iou"
        table = self.shards("null", ["layer", column])
        values: NDArray[np.float64] = table.filter(pc.equal(table.column("layer"), layer)).column(column).to_numpy()
        return values.reshape(-1, units)
