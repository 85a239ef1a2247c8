"""Thresholds at any tail, and the pictures in which units are highest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.quantify.accumulate import rank
from tasks.activations.result import Maps
from tasks.index.result import Index
from tasks.result import StageResult


@dataclass(frozen=True)
class Thresholds(StageResult):
    """Tails, extremes and top images of every unit."""

    def at(self, layer: str, tail: float) -> NDArray[np.float32]:
        """(units,) thresholds of a layer at any tail that is kept.

        Args:
            layer: dotted name.
            tail: share of values that may lie strictly above.
        """
        rows = self.table("thresholds", ["layer", "unit", "tail", "threshold", "samples"])
        rows = rows.filter(pc.equal(rows.column("layer"), layer))
        level = rows.filter(pc.equal(rows.column("tail"), tail))
        if level.num_rows:  # without a look into the tails, which are large
            named: NDArray[np.float32] = level.sort_by("unit").column("threshold").to_numpy().copy()
            return named
        samples = rows.column("samples")[0].as_py()
        table = self.table("tails")
        values = table.filter(pc.equal(table.column("layer"), layer)).column("values").combine_chunks()
        tails: NDArray[np.float32] = values.flatten().to_numpy().reshape(len(values), -1)
        found: NDArray[np.float32] = tails[:, rank(tail, samples)].copy()
        return found

    def extremes(self, layer: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(units,) each unit's smallest and largest value."""
        rows = self.table("thresholds", ["layer", "unit", "min", "max"])
        mine = rows.filter(pc.equal(rows.column("layer"), layer))
        unit = mine.column("unit").to_numpy()
        low, high = np.empty(unit.max() + 1, np.float32), np.empty(unit.max() + 1, np.float32)
        low[unit], high[unit] = mine.column("min").to_numpy(), mine.column("max").to_numpy()
        return low, high

    def top_images(self, layer: str) -> dict[int, list[tuple[int, float]]]:
        """unit -> (image, peak), the highest first."""
        found: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for row in self.rows("top_images", layer=layer):
            found[row["unit"]].append((row["image"], row["peak"]))
        return found


@dataclass(frozen=True)
class SeenPictures:
    """What a network made of indexed pictures; `Inputs` of stages that read all three begin with it.

    Args:
        index: the pictures.
        activations: the network's maps of them.
        thresholds: of these maps.
    """

    index: Index
    activations: Maps
    thresholds: Thresholds
