"""What the rules of a tree weigh: filters as a whole, or each of their cells; chosen by training pictures alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.rationales import FilterScale, RawRationales
from microtome.disentangle.rules import Evidence, Numbers, left_out

Images = NDArray[np.int64]
Features = Literal["cells", "weighted", "uniform"]
CELL_BYTES = 1e9  # of x and g of all cells, of which fitting takes some copies; beyond, only whole filters


class FeatureChoice:
    """The candidates: cells of each filter; a filter's sum and its gradient's mean over positions, weighted or plain.

    Args:
        raw: rationales of all pictures.
        scale: of the filters; its way to average does not count here.
        kept: pictures with a gradient.
        cells: (pictures, filters of the layer, cells) x and g; None where they are too many.
    """

    def __init__(
        self, raw: RawRationales, scale: FilterScale, kept: Images, cells: tuple[Numbers, Numbers] | None
    ) -> None:
        self._raw, self._scale, self._kept, self._cells = raw, scale, kept, cells
        self._made: dict[Features, Evidence] = {}

    def evidence(self, features: Features) -> Evidence:
        """What rules of these features are fitted to, of the kept pictures."""
        if features not in self._made:
            self._made[features] = self._evidence(features)
        return self._made[features]

    def _evidence(self, features: Features) -> Evidence:
        raw, scale, kept = self._raw, self._scale, self._kept
        filters, size = scale.filters, scale.size[scale.filters]
        own, y = raw.product[kept][:, filters], raw.y[kept]
        if features == "cells":
            if self._cells is None:
                raise ValueError("features: must be weighted or uniform where the cells are not kept, got 'cells'")
            x, g = (value[kept][:, filters] for value in self._cells)
            by = size.astype(x.dtype)[:, None]
            return Evidence((x / by).reshape(len(kept), -1), (g * by).reshape(len(kept), -1), y, own)
        x, g = replace(scale, positions=features).sums(raw.of(kept))
        return Evidence(x, g, y, own)

    def best(self, inside: Images, seed: int) -> Features:
        """Those that tell most of training pictures which a rule was not fitted to.

        Args:
            inside: places among the kept pictures to choose by.
            seed: of the folds.
        """
        names: tuple[Features, ...] = ("weighted", "uniform")
        if self._cells is not None:
            names = ("cells", *names)
        losses = {name: left_out(self.evidence(name).of(inside), seed) for name in names}
        return min(names, key=lambda name: losses[name])
