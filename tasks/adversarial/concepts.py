"""How the concepts that a dissection found fare on changed pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.networks.geometry import LayerGeometry
from microtome.quantify.dissection import Labels
from microtome.quantify.kept_labels import OwnCounts, own_counts
from tasks.dissection.result import Dissection
from tasks.index.result import Index
from tasks.tally.lighting import upsampler
from tasks.thresholds.result import Thresholds


class Annotated:
    """The annotations of some pictures, held at hand.

    Args:
        index: of the data set.
        images: numbers in it.
    """

    def __init__(self, index: Index, images: Sequence[int]) -> None:
        self.index = index
        self.labels: dict[int, Labels] = {}
        self.flags: dict[int, NDArray[np.bool_]] = {}
        wanted = set(images)
        for block in index.annotations():
            for offset in range(len(block.annotated)):
                image = block.first + offset
                if image in wanted:
                    self.labels[image] = block.labels.part(slice(offset, offset + 1))
                    self.flags[image] = block.annotated[offset]


class Detectors:
    """The detectors of a layer, with their labels and thresholds, beside the annotations of some pictures.

    Args:
        layer: geometry of the layer.
        dissection: that found them.
        thresholds: of the same units.
        annotated: the pictures' annotations.
        device: for computation.
    """

    def __init__(
        self, layer: LayerGeometry, dissection: Dissection, thresholds: Thresholds, *, annotated: Annotated, device: str
    ) -> None:
        rows = [row for row in dissection.units(layer.name) if row["detector"]]
        concepts, options = annotated.index.concepts, dissection.options
        self.min_iou = options.min_iou
        self.units = np.array([row["unit"] for row in rows], np.int64)
        self._concept = np.searchsorted(concepts.number, [row["concept_id"] for row in rows])
        self._category = concepts.category_index[self._concept] if rows else np.zeros(0, np.int64)
        self._limits = torch.from_numpy(thresholds.at(layer.name, options.tail)).to(device)
        self._upsample = upsampler(annotated.index.frame, layer, options, device)
        self._annotated = annotated

    def counts(self, maps: torch.Tensor, images: Sequence[int]) -> OwnCounts:
        """Counts of a batch of maps of these pictures.

        Args:
            maps: (pictures, units, rows, columns).
            images: numbers in the index.
        """
        lit = self._upsample(maps.float().contiguous(), self._limits)
        own, place = np.unique(self._concept, return_inverse=True)
        labels = [self._annotated.labels[image].masks(0, own.tolist())[place] for image in images]
        return own_counts(lit, self.units, labels, [self._annotated.flags[image][self._category] for image in images])
