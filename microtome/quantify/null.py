"""The permutation null of a dissection: the IoU of units whose pictures and annotations do not belong together.

In every category the annotations are permuted among the images that carry it, within strata (source, scene, video) or
across them. A and L stay as they are; only I has to be counted again, exactly, once per permutation. The statistic is a
unit's best IoU over all concepts.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from microtome.compiling import compiled
from microtome.quantify.dissection import iou
from microtome.quantify.words import WHOLE, LitWords


@intrinsic
def _ones(typing, word):  # type: ignore[no-untyped-def]
    """Bits that are set in a word: one instruction."""

    def generated(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.trunc(builder.ctpop(arguments[0]), context.get_value_type(signature.return_type))

    return types.int32(types.uint64), generated


ones = cast("Callable[[object], int]", _ones)  # in compiled code it takes the word alone


@compiled
def _count(counts, plan, lit, annotations):  # type: ignore[no-untyped-def]
    """Add the pixels that units light and permuted annotations label. Compiled when it is first called.

    Args:
        counts: (permutations, concepts, units), added to.
        plan: (categories, permutations, images) whose annotation each image of the run gets.
        lit: where the lit words of each of the run's cells begin, and where they end; unit and word of each;
            (images, units) lit pixels.
        annotations: LABEL records, and where those of each image and category begin, and end.
    """
    start, unit, word, activated = lit
    labels, label_start = annotations
    categories, permutations, images = plan.shape
    tiles = (len(start) - 1) // images
    for permutation in range(permutations):
        for image in range(images):
            if start[image * tiles] == start[(image + 1) * tiles]:
                continue
            for category in range(categories):
                source = plan[category, permutation, image] * categories + category
                for at in range(label_start[source], label_start[source + 1]):
                    label = labels[at]
                    row = counts[permutation, label.concept]
                    if label.tile == WHOLE:
                        row += activated[image]
                        continue
                    cell = image * tiles + label.tile
                    for place in range(start[cell], start[cell + 1]):
                        row[unit[place]] += ones(word[place] & label.word)


@dataclass(frozen=True)
class AllLabels:
    """The annotations of all images, sorted by image, then category.

    Args:
        labels: LABEL records.
        start: (images, categories) where those of an image in a category begin; each ends where the next begins.
    """

    labels: NDArray[np.void]
    start: NDArray[np.int64]


class NullCounts:
    """I of every unit and concept under each permutation, streamed over the images.

    Args:
        plan: (categories, permutations, images), as of `permutation_plan`.
        annotations: of all images.
        shape: units, concepts and tiles.
    """

    def __init__(self, plan: NDArray[np.int32], annotations: AllLabels, shape: tuple[int, int, int]) -> None:
        units, concepts, self._tiles = shape
        self._plan = plan
        # As an array of its own class: a memory map, which is a class below, would not be told apart from an object.
        labels = np.asarray(annotations.labels).view(np.ndarray)
        self._annotations = (labels, np.append(annotations.start.ravel(), len(labels)))
        # Units last: those that light a tile lie side by side in what a label's row is.
        self.intersection = np.zeros((plan.shape[1], concepts, units), np.int32)

    def update(self, first: int, count: int, lit: LitWords, *, pool: Executor, parts: int) -> None:
        """Take a run of images.

        Args:
            first: index of the first image.
            count: of images.
            lit: what the units light in them.
            pool: of threads, among which permutations are divided: the counts of each are its own.
            parts: into how many.
        """
        units = self.intersection.shape[2]
        start = np.searchsorted(lit.cell, np.arange(count * self._tiles + 1))
        pixels = np.bincount(lit.cell // self._tiles * units + lit.unit, np.bitwise_count(lit.word), count * units)
        shown = (start, lit.unit.astype(np.int32), lit.word, pixels.astype(np.int32).reshape(count, units))
        plan = self._plan[:, :, first : first + count]

        def counted(span: slice) -> None:
            _count(self.intersection[span], np.ascontiguousarray(plan[:, span]), shown, self._annotations)

        bounds = np.linspace(0, plan.shape[1], parts + 1).astype(int)
        list(pool.map(counted, (slice(low, high) for low, high in pairwise(bounds))))

    def best(self, activation: NDArray[np.int64], label_pixels: NDArray[np.int64]) -> NDArray[np.float64]:
        """(permutations, units) best IoU over all concepts.

        Args:
            activation: (units, concepts), A.
            label_pixels: (concepts,), L.
        """
        return np.stack(
            [iou(counts.T.astype(np.int64), activation, label_pixels).max(1) for counts in self.intersection]
        )
