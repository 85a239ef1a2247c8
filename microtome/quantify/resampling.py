"""How sure a dissection is: bootstrap over images, a held-out half, and a permutation null.

All three weigh the same per-image counts: a resample is a vector of image weights, and every count under it is the
weighted sum. Thresholds stay fixed; microtome.quantify.redrawn lets go of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from microtome.compiling import compiled
from microtome.quantify.dissection import Best, DetectorCount, detected_concepts, iou
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


ALL = slice(None)


def bootstrap_weights(images: int, resamples: int, rng: np.random.Generator, *, kept: slice = ALL) -> NDArray[np.int32]:
    """How often each image is drawn in each resample: (kept resamples, images); every row sums to `images`.

    Args:
        images: how many there are.
        resamples: how many are drawn.
        rng: the source of chance.
        kept: which of them are kept; all are drawn, so that they are those of a run that keeps all.
    """
    wanted = range(*kept.indices(resamples))
    found = np.zeros((len(wanted), images), np.int32)
    for resample in range(resamples):
        drawn = rng.integers(images, size=images)
        if resample in wanted:
            found[wanted.index(resample)] = np.bincount(drawn, minlength=images)
    return found


def halves(images: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Two random halves of the images as weights: (2, images), ones and zeros."""
    first = np.zeros(images, np.int32)
    first[rng.permutation(images)[: images // 2]] = 1
    return np.stack([first, 1 - first])


def redrawn_halves(
    split: NDArray[np.int32], resamples: int, rng: np.random.Generator, *, kept: slice = ALL
) -> NDArray[np.int32]:
    """Each half drawn anew from itself, so that no image is on both sides: (2 kept resamples, images), half after half.

    Args:
        split: from `halves`.
        resamples, rng, kept: as `bootstrap_weights` takes them.
    """
    drawn = np.zeros((len(range(*kept.indices(resamples))), *split.shape), np.int32)
    for side, half in enumerate(split):
        members = np.flatnonzero(half)
        drawn[:, side, members] = bootstrap_weights(len(members), resamples, rng, kept=kept)
    return drawn.reshape(2 * len(drawn), -1)


def narrow(weights: NDArray[np.int32]) -> NDArray[np.int32] | NDArray[np.uint8]:
    """The same weights, in a byte each where that holds them: hundreds of them are kept for every image."""
    return weights.astype(np.uint8) if weights.max(initial=0) < 256 else weights


@compiled
def _add(totals, weights, counts):  # type: ignore[no-untyped-def]
    """Add a run's counts under every weighting. Compiled when it is first called.

    Args:
        totals: (units, concepts, weightings), added to.
        weights: (images, weightings) of the run.
        counts: image within the run, unit, concept and pixels of each count.
    """
    image, unit, concept, pixels = counts
    for at in range(len(image)):
        total, weight, pixel = totals[unit[at], concept[at]], weights[image[at]], np.int32(pixels[at])
        for weighting in range(len(weight)):
            total[weighting] += weight[weighting] * pixel


class WeightedCounts:
    """I, A and L under many weightings of the images at once, streamed over the images.

    The weightings are the last axis, along which a count is added to all of them, and a concept judged in all of them.

    Args:
        weights: (weightings, images) integers.
        units: number of units.
        category: (concepts,) number of each concept's category.
        all_images: A over all images instead of those in which the category is annotated.
    """

    def __init__(
        self,
        weights: NDArray[np.int32] | NDArray[np.uint8],
        units: int,
        category: NDArray[np.int64],
        *,
        all_images: bool = False,
    ) -> None:
        self._weights, self._category, self._all_images = weights, category, all_images
        concepts, categories, many = len(category), int(category.max()) + 1, len(weights)
        self._intersection = np.zeros((units, concepts, many), np.int32)
        self._activation = np.zeros((categories, units, many), np.int64)
        self._pixels = np.zeros((concepts, many), np.int64)

    def __len__(self) -> int:
        """Number of weightings."""
        return len(self._weights)

    def update(self, counts: ImageCounts) -> None:
        """Take a run of images."""
        weights = np.ascontiguousarray(
            self._weights[:, counts.first : counts.first + len(counts.activated)].T, np.int32
        )
        sparse = (counts.image - counts.first, counts.unit, counts.concept, counts.intersection)
        _add(self._intersection, weights, tuple(map(np.ascontiguousarray, sparse)))
        image, concept = np.nonzero(counts.label_pixels)
        _add(self._pixels[None], weights, (image, np.zeros_like(image), concept, counts.label_pixels[image, concept]))
        self._add_activation(counts, weights)

    def _add_activation(self, counts: ImageCounts, weights: NDArray[np.int32]) -> None:
        """Of each category over the images in which it is annotated; those that are in the same images at once."""
        annotated = np.ones_like(counts.annotated) if self._all_images else counts.annotated
        patterns, which = np.unique(annotated, axis=1, return_inverse=True)
        kind = _exact(counts.activated, weights)
        for number, seen in enumerate(patterns.T):
            lit = counts.activated[seen].T.astype(kind) @ weights[seen].astype(kind)
            self._activation[which.ravel() == number] += lit.astype(np.int64)

    def scores(self, weighting: int) -> NDArray[np.float64]:
        """(units, concepts) IoU under one weighting."""
        intersection = self._intersection[:, :, weighting].astype(np.int64)
        return iou(intersection, self._activation[self._category, :, weighting].T, self._pixels[:, weighting])

    def scores_of(self, concept: NDArray[np.int64]) -> NDArray[np.float64]:
        """(weightings, units, several) IoU of some concepts of each unit.

        Args:
            concept: (units, several).
        """
        unit = np.arange(len(concept))[:, None]
        intersection = self._intersection[unit, concept].astype(np.int64)
        activation = self._activation[self._category[concept], unit]
        return np.moveaxis(iou(intersection, activation, self._pixels[concept]), -1, 0)

    def winners(self) -> NDArray[np.int64]:
        """(weightings, units) the concept of the highest IoU, the first of equals."""
        found: NDArray[np.int64] = _winners(self._intersection, self._activation, self._pixels, self._category)
        return found

    def heldout(self) -> Heldout:
        """What labels chosen under the first of each two weightings reach under the second."""
        return Heldout(*_heldout(self._intersection, self._activation, self._pixels, self._category))


def _exact(activated: NDArray[np.int64], weights: NDArray[np.int32]) -> type[np.floating]:
    """The quickest type of floating-point numbers whose products with weights and sums over images are exact.

    All are integers: float32, where no sum on the way lies above 2**24, up to which it holds each of them; or else
    float64, which does so up to 2**53, and no data set has as many pixels.
    """
    largest = int(activated.sum(0).max(initial=0)) * int(weights.max(initial=0))
    return np.float32 if largest <= 1 << 24 else np.float64


@compiled
def _winners(intersection, activation, pixels, category):  # type: ignore[no-untyped-def]
    """(weightings, units) the concept of the highest IoU, the first of equals. Compiled when it is first called.

    Args:
        intersection: (units, concepts, weightings) I.
        activation: (categories, units, weightings) A.
        pixels: (concepts, weightings) L.
        category: (concepts,) number of each concept's category.
    """
    units, concepts, many = intersection.shape
    found = np.zeros((many, units), np.int64)
    for unit in range(units):
        best = np.zeros(many)
        for concept in range(concepts):
            both, lit, labelled = intersection[unit, concept], activation[category[concept], unit], pixels[concept]
            for at in range(many):
                if both[at]:  # or else the IoU is 0, which is above none
                    score = both[at] / (lit[at] + labelled[at] - both[at])
                    if score > best[at]:
                        best[at], found[at, unit] = score, concept
    return found


@compiled
def _heldout(intersection, activation, pixels, category):  # type: ignore[no-untyped-def]
    """(pairs, units) what `Heldout` holds. Compiled when it is first called.

    Args:
        intersection, activation, pixels, category: as `_winners` takes them, the weightings of a pair side by side.
    """
    units, concepts, many = intersection.shape
    held, whole = np.zeros((many // 2, units)), np.zeros((many // 2, units))
    for unit in range(units):
        best = np.full(many // 2, -1.0)
        for concept in range(concepts):
            both, lit, labelled = intersection[unit, concept], activation[category[concept], unit], pixels[concept]
            for pair in range(many // 2):
                one, other = both[2 * pair], both[2 * pair + 1]
                if concept and not one and not other:  # both IoUs are 0, which are above none
                    continue
                union = lit[2 * pair] + labelled[2 * pair] - one
                beyond = lit[2 * pair + 1] + labelled[2 * pair + 1] - other
                score = one / max(union, 1)
                if score > best[pair]:
                    best[pair], held[pair, unit] = score, other / max(beyond, 1)
                whole[pair, unit] = max(whole[pair, unit], (one + other) / max(union + beyond, 1))
    return held, whole


@dataclass(frozen=True)
class Heldout:
    """Units over pairs of halves of the images, from `halves` or `redrawn_halves`; both are (pairs, units).

    Args:
        iou: on the second half, of the label that wins on the first.
        whole: the best IoU on both halves together.
    """

    iou: NDArray[np.float64]
    whole: NDArray[np.float64]

    def confirmed(self, believed: NDArray[np.bool_], min_iou: float) -> NDArray[np.bool_]:
        """(pairs, units) detectors that chance does not reach, and that are some on the half that chose no label.

        Args:
            believed: (units,) whether q lies at or below LEVEL; that of the data, in every resample.
            min_iou: of a detector, on all images and on the second half.
        """
        firm: NDArray[np.bool_] = believed & (self.whole > min_iou) & (self.iou > min_iou)
        return firm


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
    wins, layer = np.zeros(len(labels.concept), np.int64), []
    for block in blocks:
        own.append(block.scores_of(labels.nearest))
        wins += (block.winners() == labels.concept).sum(0)
        inside = block.scores_of(labels.by_category)
        layer += [
            _counts(detected_concepts(*scores, labels, min_iou))
            for scores in zip(own[-1][:, :, 0], inside, strict=True)
        ]
        del block  # before the next one is made: each is as large as memory bears
    return Draws(np.concatenate(own), wins, np.array(layer))


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


def confirmed_draws(blocks: Iterable[WeightedCounts], believed: NDArray[np.bool_], min_iou: float) -> NDArray[np.int64]:
    """(resamples,) numbers of confirmed detectors: labels are chosen anew on every redrawn half.

    Args:
        blocks: whose weightings are from `redrawn_halves`, an even number in each.
        believed, min_iou: as in `Heldout.confirmed`.
    """
    numbers: list[NDArray[np.int64]] = []
    for block in blocks:
        numbers.append(block.heldout().confirmed(believed, min_iou).sum(1))
        del block  # before the next one is made
    return np.concatenate(numbers)


def permutation_plan(
    annotated: NDArray[np.bool_],
    permutations: int,
    rng: np.random.Generator,
    strata: NDArray[np.int64],
    *,
    kept: slice = ALL,
) -> Sequence[NDArray[np.int32]]:
    """Per category, whose annotation each image gets: (kept permutations, images); itself where none is annotated.

    Args:
        annotated: (images, categories).
        permutations: how many are drawn.
        rng: the source of chance.
        strata: (images,) number of each image's stratum; annotations stay within it.
        kept: which of them are kept; all are drawn, so that they are those of a run that keeps all.
    """
    plans = []
    for seen in annotated.T:
        groups = [np.flatnonzero(seen & (strata == stratum)) for stratum in np.unique(strata)]
        rows = []
        for permutation in range(permutations):
            row = np.arange(len(seen), dtype=np.int32)
            for members in groups:
                row[members] = rng.permutation(members)
            if permutation in range(*kept.indices(permutations)):
                rows.append(row)
        plans.append(np.stack(rows))
    return plans
