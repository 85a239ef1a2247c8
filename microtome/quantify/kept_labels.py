"""Whether detectors still detect their own label on other pictures of the same scenes: changed ones, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.dissection import iou
from microtome.quantify.intervals import share_ends
from microtome.quantify.upsample import Lit

RESAMPLES = 1000


@dataclass(frozen=True)
class OwnCounts:
    """Pixels of each picture, for each detector and its own label: all arrays are (pictures, detectors).

    Args:
        intersection: lit and labelled.
        activation: lit, where anything of the label's category is annotated.
        label: labelled.
    """

    intersection: NDArray[np.int64]
    activation: NDArray[np.int64]
    label: NDArray[np.int64]

    def detecting(self, min_iou: float) -> NDArray[np.bool_]:
        """(detectors,) whether the IoU of each with its own label lies above `min_iou` over these pictures."""
        sums = [part.sum(0) for part in (self.intersection, self.activation, self.label)]
        return iou(*sums) > min_iou

    def of(self, chosen: NDArray[np.bool_]) -> OwnCounts:
        """Of some detectors: (detectors,) whether each is among them."""
        return OwnCounts(*(part[:, chosen] for part in (self.intersection, self.activation, self.label)))

    def kept(self, weight: NDArray[np.int64], min_iou: float) -> float:
        """Share of the detectors whose IoU with their own label lies above `min_iou` over weighted pictures."""
        sums = [weight @ part for part in (self.intersection, self.activation, self.label)]
        return float((iou(*sums) > min_iou).mean())

    def kept_interval(self, min_iou: float) -> tuple[float, float, float]:
        """That share over the pictures, and its 95 % interval: share, low, high."""
        images = len(self.label)
        weights = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
        kept = self.kept(np.ones(images, np.int64), min_iou)
        variance = float(np.var([self.kept(weight, min_iou) for weight in weights]))
        return kept, *share_ends(kept, variance, images)


def own_counts(
    lit: Lit, units: NDArray[np.int64], labels: Sequence[NDArray[np.bool_]], annotated: Sequence[NDArray[np.bool_]]
) -> OwnCounts:
    """Counts of a batch.

    Args:
        lit: the lit pixels of all units.
        units: (detectors,) which of them count.
        labels: per picture (detectors, pixels), each detector's own label.
        annotated: per picture (detectors,) whether anything of the label's category is annotated.
    """
    dense = np.zeros((len(labels), lit.units, lit.pixels), bool)
    dense.reshape(-1, lit.pixels)[lit.map.cpu().numpy(), lit.pixel.cpu().numpy()] = True
    mine, label = dense[:, units], np.stack(labels)
    return OwnCounts(
        (mine & label).sum(2, dtype=np.int64),
        mine.sum(2, dtype=np.int64) * np.stack(annotated),
        label.sum(2, dtype=np.int64),
    )


def joined_counts(parts: Sequence[OwnCounts]) -> OwnCounts:
    """Counts of several batches."""
    columns = zip(*((part.intersection, part.activation, part.label) for part in parts), strict=True)
    return OwnCounts(*(np.concatenate(column) for column in columns))
