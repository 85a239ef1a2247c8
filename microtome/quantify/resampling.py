"""How sure a dissection is: bootstrap over images, a held-out half, and a permutation null.

All three weigh the same per-image counts: a resample is a vector of image weights, and every count under it is the
weighted sum. Thresholds stay fixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from microtome.quantify.dissection import Best, detectors, iou


@dataclass(frozen=True)
class ImageCounts:
    """Counts of a run of consecutive images.

    Args:
        first: index of the first image.
        image, unit, concept, intersection: sparse counts; `image` counts over the whole data set.
        activated: (images, units) lit pixels.
        label_pixels: (images, concepts).
        annotated: (images, categories) whether anything of the category is annotated.
    """

    first: int
    image: NDArray[np.int64]
    unit: NDArray[np.int64]
    concept: NDArray[np.int64]
    intersection: NDArray[np.int64]
    activated: NDArray[np.int64]
    label_pixels: NDArray[np.int64]
    annotated: NDArray[np.bool_]


def bootstrap_weights(images: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """How often each image is drawn in each resample: (resamples, images); every row sums to `images`."""
    return np.stack(
        [np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(resamples)]
    ).astype(np.int32)


def halves(images: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Two random halves of the images as weights: (2, images), ones and zeros."""
    first = np.zeros(images, np.int32)
    first[rng.permutation(images)[: images // 2]] = 1
    return np.stack([first, 1 - first])


class WeightedCounts:
    """I, A and L under many weightings of the images at once, streamed over the images.

    Args:
        weights: (weightings, images) integers.
        units: number of units.
        category: (concepts,) number of each concept's category.
        all_images: A over all images instead of those in which the category is annotated.
    """

    def __init__(
        self, weights: NDArray[np.int32], units: int, category: NDArray[np.int64], *, all_images: bool = False
    ) -> None:
        self._weights, self._units, self._category = weights, units, category
        self._all_images = all_images
        concepts, categories = len(category), int(category.max()) + 1
        self.intersection = np.zeros((units * concepts, len(weights)), np.int32)
        self.activation = np.zeros((categories, len(weights), units), np.int64)
        self.label_pixels = np.zeros((len(weights), concepts), np.int64)

    def update(self, counts: ImageCounts) -> None:
        """Take a run of images."""
        images = len(counts.activated)
        weights = self._weights[:, counts.first : counts.first + images].astype(np.int64)
        key = counts.unit * len(self._category) + counts.concept
        rows, row = np.unique(key, return_inverse=True)
        matrix = scipy.sparse.csr_matrix(
            (counts.intersection.astype(np.int32), (row, counts.image - counts.first)), shape=(len(rows), images)
        )
        self.intersection[rows] += matrix @ np.ascontiguousarray(weights.T.astype(np.int32))
        self.label_pixels += weights @ counts.label_pixels
        for number, seen in enumerate(counts.annotated.T):
            chosen = np.ones_like(seen) if self._all_images else seen
            # float64 holds these integers exactly, and its product is the fast one
            product = weights[:, chosen].astype(np.float64) @ counts.activated[chosen].astype(np.float64)
            self.activation[number] += product.astype(np.int64)

    def scores(self, weighting: int) -> NDArray[np.float64]:
        """(units, concepts) IoU under one weighting."""
        counts, activation, pixels = self.at(weighting)
        return iou(counts, activation, pixels)

    def at(self, weighting: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """I (units, concepts), A (units, concepts) and L (concepts,) under one weighting."""
        counts = self.intersection[:, weighting].reshape(self._units, -1).astype(np.int64)
        return counts, self.activation[self._category, weighting].T, self.label_pixels[weighting]


@dataclass(frozen=True)
class Interval:
    """Percentile interval, 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class BootstrapResult:
    """Intervals of each unit's own label's IoU, how often that label wins, and intervals of the layer's counts."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    label_stability: NDArray[np.float64]
    detectors: Interval
    unique_per_category: Interval
    unique_per_unit: Interval


def bootstrap(blocks: Iterable[WeightedCounts], labels: Best, min_iou: float) -> BootstrapResult:
    """Summarise resamples. Labels stay those of the data set: an interval says how sure the IoU of that label is.

    Were every resample labelled anew, its counts would all lie above the data set's own: the best of many concepts
    gains from every repeated image. How often another label wins is `label_stability`.

    Args:
        blocks: weighted counts whose weightings are the resamples, in blocks that fit memory.
        labels: of the data set.
        min_iou: of a detector.
    """
    own: list[NDArray[np.float64]] = []
    wins = np.zeros(len(labels.concept))
    layer: list[tuple[int, int, int]] = []
    for block in blocks:
        for weighting in range(block.label_pixels.shape[0]):
            scores = block.scores(weighting)
            own.append(scores[np.arange(len(wins)), labels.concept])
            wins += scores.argmax(1) == labels.concept
            counted = detectors(scores, labels, min_iou)
            layer.append((counted.units, counted.per_category, counted.per_unit))
    low, high = np.quantile(own, (0.025, 0.975), axis=0)
    bounds = [Interval(float(a), float(b)) for a, b in np.quantile(layer, (0.025, 0.975), axis=0).T]
    return BootstrapResult(low, high, wins / len(own), *bounds)


def mean_interval(values: NDArray[np.float64], *, resamples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """A mean over images, and its 95 % percentile interval under resampling of the images.

    Args:
        values: (images,).
        resamples: how many.
        seed: of the resamples: the same ones for equal numbers of images, so that differences are paired.

    Returns:
        mean, low, high.
    """
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def p_values(observed: NDArray[np.float64], null: NDArray[np.float64]) -> NDArray[np.float64]:
    """p = (1 + b) / (1 + permutations), b permutations at least as large as observed.

    Args:
        observed: (units,).
        null: (permutations, units).
    """
    return (1 + (null >= observed).sum(0)) / (1 + len(null))


def q_values(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini-Hochberg adjusted p-values: min over j >= i of p_(j) m / j, at most 1."""
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); never outside [0, 1], sound at 0 and at all hits."""
    z = 1.959963984540054
    share, z2 = hits / trials, z * z / trials
    half = z * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials))
    return max(0.0, float((share + z2 / 2 - half) / (1 + z2))), min(1.0, float((share + z2 / 2 + half) / (1 + z2)))


def permutations_needed(p: NDArray[np.float64], permutations: int, level: float = 0.05) -> int:
    """Permutations with which the units that no permutation reached could pass `level` under Benjamini-Hochberg.

    Returns:
        the number given if it suffices, or if no unit is at the floor; else the smallest that does.
    """
    at_floor = int((p <= 1 / (1 + permutations)).sum())
    if not at_floor or len(p) / ((1 + permutations) * at_floor) <= level:
        return permutations
    return int(np.ceil(len(p) / (level * at_floor))) - 1


def permutation_plan(
    annotated: NDArray[np.bool_], permutations: int, rng: np.random.Generator
) -> Sequence[NDArray[np.int64]]:
    """Per category, whose annotation each image gets: (permutations, images); itself where none is annotated.

    Args:
        annotated: (images, categories).
        permutations: how many.
        rng: the source of chance.
    """
    plans = []
    for seen in annotated.T:
        members = np.flatnonzero(seen)
        plan = np.broadcast_to(np.arange(len(seen)), (permutations, len(seen))).copy()
        for row in plan:
            row[members] = rng.permutation(members)
        plans.append(plan)
    return plans
