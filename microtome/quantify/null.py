"""The permutation null of a dissection: the IoU of units whose pictures and annotations do not belong together.

In every category the annotations are permuted among the images that carry it, within strata (source, scene, video) or
across them. A and L stay as they are; only I has to be counted again, exactly, once per permutation. The statistic is a
unit's best IoU over all concepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.dissection import iou

PlaneReader = Callable[[int, int], NDArray[np.uint16]]


class NullCounts:
    """I of every unit and concept under each permutation, streamed over the images.

    Args:
        plans: per category (permutations, images), from `permutation_plan`.
        units: number of units.
        concepts: number of concepts.
    """

    def __init__(self, plans: Sequence[NDArray[np.int64]], units: int, concepts: int) -> None:
        self._plans, self._units, self._concepts = plans, units, concepts
        self.intersection = np.zeros((len(plans[0]), units, concepts + 1), np.int32)

    def update(self, first: int, lit: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], read: PlaneReader) -> None:
        """Take a run of images.

        Args:
            first: index of the first image.
            lit: per image, unit and pixel of everything lit.
            read: (category, image) -> (planes, pixels) of that image's annotation in the category, 0 for none, else
                1 + index into the concept table.
        """
        width = self._concepts + 1
        rows = [unit * width for unit, _ in lit]
        for category, plan in enumerate(self._plans):
            for permutation, source in enumerate(plan[:, first : first + len(lit)]):
                keys = [
                    row + plane[pixel]
                    for row, (_, pixel), image in zip(rows, lit, source, strict=True)
                    for plane in read(category, int(image))
                ]
                if keys:
                    counted = np.bincount(np.concatenate(keys), minlength=self._units * width)
                    self.intersection[permutation] += counted.reshape(self._units, width).astype(np.int32)

    def update_whole(
        self, activated: NDArray[np.integer], whole: Sequence[tuple[int, NDArray[np.int64], NDArray[np.int64]]]
    ) -> None:
        """Take the labels of whole pictures: I is a product of lit pixels and permuted labels.

        Args:
            activated: (images, units) lit pixels of all images.
            whole: per label its category, the pictures and the concepts: parallel arrays.
        """
        for category, images, concepts in whole:
            labelled = np.zeros((len(activated), self._concepts))
            labelled[images, concepts] = 1
            for permutation, source in enumerate(self._plans[category]):
                counted = activated.T.astype(np.float64) @ labelled[source]
                self.intersection[permutation, :, 1:] += counted.astype(np.int32)

    def best(self, activation: NDArray[np.int64], label_pixels: NDArray[np.int64]) -> NDArray[np.float64]:
        """(permutations, units) best IoU over all concepts.

        Args:
            activation: (units, concepts), A.
            label_pixels: (concepts,), L.
        """
        return np.stack(
            [iou(counts[:, 1:].astype(np.int64), activation, label_pixels).max(1) for counts in self.intersection]
        )
