"""How sure a dissection is: bootstrap over images, a held-out half, and a permutation null.

All three weigh the same per-image counts: a resample is a vector of image weights, and every count under it is the
weighted sum. Thresholds stay fixed; microtome.quantify.redrawn lets go of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from microtome.quantify.dissection import Best, DetectorCount, detectors, iou
from microtome.quantify.intervals import Interval, expanded_ends, resampled_interval

RUN = 768  # images whose counts are weighted together


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


def long_runs(blocks: Iterable[ImageCounts]) -> Iterator[ImageCounts]:
    """Runs of at least RUN images, but for the last: what is added up is added as seldom.

    Args:
        blocks: consecutive.
    """
    held: list[ImageCounts] = []
    for block in blocks:
        held.append(block)
        if sum(len(one.activated) for one in held) >= RUN:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(blocks: Sequence[ImageCounts]) -> ImageCounts:
    names = [field.name for field in fields(ImageCounts) if field.name != "first"]
    return ImageCounts(
        blocks[0].first, **{name: np.concatenate([getattr(block, name) for block in blocks]) for name in names}
    )


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


def redrawn_halves(split: NDArray[np.int32], resamples: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Each half drawn anew from itself, so that no image is on both sides: (2 resamples, images), half after half.

    Args:
        split: from `halves`.
        resamples: how many.
        rng: the source of chance.
    """
    drawn = np.zeros((resamples, *split.shape), np.int32)
    for side, half in enumerate(split):
        members = np.flatnonzero(half)
        drawn[:, side, members] = bootstrap_weights(len(members), resamples, rng)
    return drawn.reshape(2 * resamples, -1)


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
        weights = self._weights[:, counts.first : counts.first + images]
        key = counts.unit * len(self._category) + counts.concept
        rows, row = np.unique(key, return_inverse=True)
        matrix = scipy.sparse.csr_matrix(
            (counts.intersection.astype(np.int32), (row, counts.image - counts.first)), shape=(len(rows), images)
        )
        self.intersection[rows] += matrix @ np.ascontiguousarray(weights.T)
        # float64 holds these integers exactly, and its product is the fast one
        exact = weights.astype(np.float64)
        self.label_pixels += (exact @ counts.label_pixels.astype(np.float64)).astype(np.int64)
        for number, seen in enumerate(counts.annotated.T):
            lit = counts.activated if self._all_images else counts.activated * seen[:, None]
            self.activation[number] += (exact @ lit.astype(np.float64)).astype(np.int64)

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self._weights.shape[1])

    def scores(self, weighting: int) -> NDArray[np.float64]:
        """(units, concepts) IoU under one weighting."""
        counts, activation, pixels = self.at(weighting)
        return iou(counts, activation, pixels)

    def at(self, weighting: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """I (units, concepts), A (units, concepts) and L (concepts,) under one weighting."""
        counts = self.intersection[:, weighting].reshape(self._units, -1).astype(np.int64)
        return counts, self.activation[self._category, weighting].T, self.label_pixels[weighting]


@dataclass(frozen=True)
class BootstrapResult:
    """Intervals of the IoU of each unit's nearest concepts, how often its label wins, intervals of the layer's counts.

    Args:
        low, high: (units, nearest), the label first.
        label_stability: (units,).
        mean_iou: (resamples,) mean IoU of the units' labels in each resample.
        detectors, unique_per_category, unique_per_unit: of the layer.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    label_stability: NDArray[np.float64]
    mean_iou: NDArray[np.float64]
    detectors: Interval
    unique_per_category: Interval
    unique_per_unit: Interval


@dataclass(frozen=True)
class Draws:
    """What is kept of resamples.

    Args:
        own: (resamples, units, nearest) IoU of each unit's nearest concepts.
        wins: (units,) in how many of them the unit's label wins.
        layer: (resamples, 3) detectors, unique per category, unique per unit.
    """

    own: NDArray[np.float64]
    wins: NDArray[np.int64]
    layer: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[Draws]) -> Draws:
        """Of parts of the resamples, in their order."""
        own, layer = (np.concatenate([getattr(part, name) for part in parts]) for name in ("own", "layer"))
        return cls(own, np.sum([part.wins for part in parts], axis=0), layer)


def bootstrap_draws(blocks: Iterable[WeightedCounts], labels: Best, min_iou: float) -> Draws:
    """Score resamples.

    Args:
        blocks: weighted counts whose weightings are the resamples, in blocks that fit memory.
        labels: of the data set.
        min_iou: of a detector.
    """
    own: list[NDArray[np.float64]] = []
    wins, unit = np.zeros(len(labels.concept), np.int64), np.arange(len(labels.concept))[:, None]
    layer: list[tuple[int, int, int]] = []
    for block in blocks:
        for weighting in range(block.label_pixels.shape[0]):
            scores = block.scores(weighting)
            own.append(scores[unit, labels.nearest])
            wins += scores.argmax(1) == labels.concept
            layer.append(_counts(detectors(scores, labels, min_iou)))
    return Draws(np.stack(own), wins, np.array(layer))


def bootstrap(draws: Draws, images: int, concepts: int, counted: DetectorCount) -> BootstrapResult:
    """Summarise resamples. Labels stay those of the data set: an interval says how sure the IoU of that label is.

    How often another label wins is `label_stability`. Were every resample labelled anew, its counts would all lie above
    the data set's own, since the best of many concepts gains from every repeated image. With the labels held they lie
    below it, since a label that won by luck loses: intervals of counts are freed of that bias.

    Args:
        draws: of all resamples.
        images: in the data set.
        concepts: in the data set.
        counted: detectors of the data set.
    """
    ends = expanded_ends(images)
    ranks = [np.quantile(draws.own[:, :, rank], ends, axis=0) for rank in range(draws.own.shape[2])]
    low, high = np.stack(ranks, 2)
    most = (len(draws.wins), concepts, concepts)
    drawn = draws.layer.T.astype(float)
    bounds = [count_interval(*column) for column in zip(_counts(counted), drawn, most, strict=True)]
    return BootstrapResult(low, high, draws.wins / len(draws.own), draws.own[:, :, 0].mean(1), *bounds)


def _counts(counted: DetectorCount) -> tuple[int, int, int]:
    return counted.units, counted.per_category, counted.per_unit


def count_interval(value: int, drawn: NDArray[np.float64], most: int) -> Interval:
    """The interval of a count, freed of the resamples' bias (`resampled_interval`), in whole numbers, rounded outwards.

    It says what the count would be for as many other images, and not how many units truly are detectors: no interval
    around a count of best labels covers that (docs/dissection.md).

    Args:
        value: of the data.
        drawn: (resamples,) of each resample.
        most: that the count can reach.
    """
    low, high = resampled_interval(value, drawn)
    return Interval(float(max(0, min(value, np.floor(low)))), float(min(most, max(value, np.ceil(high)))))


def heldout_iou(counts: WeightedCounts, resample: int = 0) -> NDArray[np.float64]:
    """(units,) IoU on the second half of the label that wins on the first.

    Args:
        counts: whose weightings are halves, from `halves` or `redrawn_halves`.
        resample: which pair of halves.
    """
    label = counts.scores(2 * resample).argmax(1)
    held: NDArray[np.float64] = counts.scores(2 * resample + 1)[np.arange(len(label)), label]
    return held


def confirmed(
    counts: WeightedCounts, believed: NDArray[np.bool_], min_iou: float, resample: int = 0
) -> NDArray[np.bool_]:
    """(units,) detectors that chance does not reach, and that are detectors on the half that did not choose the label.

    Args:
        counts: whose weightings are halves, from `halves` or `redrawn_halves`.
        believed: (units,) whether q lies at or below LEVEL; that of the data, in every resample.
        min_iou: of a detector, on all images and on the second half.
        resample: which pair of halves.
    """
    one, other = counts.at(2 * resample), counts.at(2 * resample + 1)
    whole = iou(one[0] + other[0], one[1] + other[1], one[2] + other[2])
    firm: NDArray[np.bool_] = believed & (whole.max(1) > min_iou) & (heldout_iou(counts, resample) > min_iou)
    return firm


def confirmed_draws(blocks: Iterable[WeightedCounts], believed: NDArray[np.bool_], min_iou: float) -> NDArray[np.int64]:
    """(resamples,) numbers of confirmed detectors: labels are chosen anew on every redrawn half.

    Args:
        blocks: whose weightings are from `redrawn_halves`, an even number in each.
        believed: (units,) as in `confirmed`.
        min_iou: of a detector.
    """
    drawn = [
        int(confirmed(block, believed, min_iou, resample).sum())
        for block in blocks
        for resample in range(len(block.label_pixels) // 2)
    ]
    return np.array(drawn)


def permutation_plan(
    annotated: NDArray[np.bool_], permutations: int, rng: np.random.Generator, strata: NDArray[np.int64]
) -> Sequence[NDArray[np.int64]]:
    """Per category, whose annotation each image gets: (permutations, images); itself where none is annotated.

    Args:
        annotated: (images, categories).
        permutations: how many.
        rng: the source of chance.
        strata: (images,) number of each image's stratum; annotations stay within it.
    """
    plans = []
    for seen in annotated.T:
        groups = [np.flatnonzero(seen & (strata == stratum)) for stratum in np.unique(strata)]
        plan = np.broadcast_to(np.arange(len(seen)), (permutations, len(seen))).copy()
        for row in plan:
            for members in groups:
                row[members] = rng.permutation(members)
        plans.append(plan)
    return plans
