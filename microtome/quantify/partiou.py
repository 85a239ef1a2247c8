"""Part interpretability (arXiv 1710.00935, 5.2.1): how often a filter's lit fields coincide with a part's mask.

S_f = union of disks around the cells above T_f, P(x > T_f) = 0.005 over the category's images
P_{f,k} = share of the images showing part k with IoU(S_f, mask_k) > 0.2          P_f = max_k P_{f,k}
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.networks.geometry import LayerGeometry
from microtome.quantify.accumulate import rank
from microtome.quantify.stability import cell_centres

TAIL, FIT = 0.005, 0.2


class PartFit:
    """Counts, image by image, in how many a filter fits each part.

    Args:
        layer: geometry of the layer.
        size: (height, width) of the network's input.
        masks: (height, width) of the part masks.
        parts: their number.
        radius: of a disk, in input pixels; the layer's jump by default. The theoretical receptive field of a deep
            layer covers most of the picture, and would fit no part.
    """

    def __init__(
        self,
        layer: LayerGeometry,
        size: tuple[int, int],
        masks: tuple[int, int],
        parts: int,
        *,
        radius: float | None = None,
    ) -> None:
        y, x = ((np.arange(count) + 0.5) * whole / count for count, whole in zip(masks, size, strict=True))
        centre = cell_centres(layer)
        away = np.hypot(x[None, None, :] - centre[:, 0, None, None], y[None, :, None] - centre[:, 1, None, None])
        reach = max(layer.jump) if radius is None else radius
        self._disks = (away <= reach).reshape(len(centre), -1).astype(np.float32)
        self._fits = np.zeros((layer.units, parts), np.int64)
        self._seen = np.zeros(parts, np.int64)
        self._limit = np.full(layer.units, np.inf, np.float32)

    def threshold(self, maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Set T_f from all maps of the category: the (floor(0.005 n) + 1)-th largest value. Gives (filters,)."""
        together = np.concatenate([part.reshape(*part.shape[:2], -1) for part in maps])
        flat = np.sort(together.swapaxes(0, 1).reshape(together.shape[1], -1), axis=1)
        self._limit = flat[:, -1 - rank(TAIL, flat.shape[1])]
        return self._limit

    def update(self, maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> None:
        """Take one image.

        Args:
            maps: (filters, rows, columns).
            masks: (parts, pixels); a part with no pixel is not shown.
        """
        shown = masks.any(1)
        if not shown.any():
            return
        above = (maps.reshape(len(maps), -1) > self._limit[:, None]).astype(np.float32)
        lit = (above @ self._disks > 0).astype(np.float32)
        part = masks[shown].astype(np.float32)
        both = lit @ part.T
        union = lit.sum(1)[:, None] + part.sum(1) - both
        self._fits[:, shown] += both / union > FIT
        self._seen[shown] += 1

    def compute(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(filters, parts) P_{f,k}, and (parts,) images that show each part."""
        return self._fits / np.maximum(self._seen, 1), self._seen
