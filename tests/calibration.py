"""Worlds whose truth is known: what an interval says of a sample of one, and whether the truth lies in it.

Each case is an interval that tables and pages print, made by the function that makes it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from microtome.quantify.crossed import crossed_mean, crossed_resamples, crossed_weights
from microtome.quantify.dissection import best, detectors
from microtome.quantify.intervals import (
    ENDS,
    mean_interval,
    paired_interval,
    paired_shares,
    resampled_interval,
    share_ends,
    share_interval,
)
from microtome.quantify.kept_labels import OwnCounts
from microtome.quantify.resampling import (
    ImageCounts,
    WeightedCounts,
    bootstrap,
    bootstrap_draws,
    bootstrap_weights,
    confirmed_draws,
    count_interval,
    halves,
    redrawn_halves,
)
from microtome.quantify.shift import following

Floats = NDArray[np.float64]
TRUTHS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
IMAGES = (10, 20, 50)
RESAMPLES = 200


@dataclass(frozen=True)
class Case:
    """An interval in a world.

    Args:
        interval: what is printed.
        world: what it is of.
        images: in each sample.
        sample: (low, high, truth) of one sample.
    """

    interval: str
    world: str
    images: int
    sample: Callable[[Generator], tuple[float, float, float]]

    def coverage(self, samples: int, seed: int = 0) -> float:
        """Share of samples whose interval holds the truth."""
        rng = np.random.default_rng([seed, self.images, len(self.world)])
        inside = [
            low - 1e-12 <= truth <= high + 1e-12 for low, high, truth in (self.sample(rng) for _ in range(samples))
        ]
        return float(np.mean(inside))


def cases(images: Sequence[int] = IMAGES) -> Iterator[Case]:
    """All but the counts of a dissection, whose truth is their mean over samples (`dissected`)."""
    for count in images:
        yield from _shares(count)
        yield from _means(count)
        yield from _differences(count)
        yield from _spreads(count)
        yield from _crossed(count)
        yield from _slopes(count)
        yield from _ious(count)


def _shares(count: int) -> Iterator[Case]:
    def hits(truth: float) -> Callable[[Generator], tuple[float, float, float]]:
        return lambda rng: (*share_interval((rng.random(count) < truth).astype(float))[1:], truth)

    def draws(truth: float) -> Callable[[Generator], tuple[float, float, float]]:
        return lambda rng: (*share_interval(rng.binomial(3, truth, count) / 3)[1:], truth)

    for truth in TRUTHS:
        yield Case("share", f"hits, {truth:g}", count, hits(truth))
        yield Case("share of shares", f"three draws an image, {truth:g}", count, draws(truth))


MEANS: dict[str, tuple[Callable[[Generator, int], Floats], float]] = {
    "normal": (lambda rng, count: rng.normal(0, 1, count), 0.0),
    "uniform": (lambda rng, count: rng.random(count), 0.5),
    "two humps": (lambda rng, count: rng.beta(0.3, 0.3, count), 0.5),
    "skewed: exponential": (lambda rng, count: rng.exponential(1, count), 1.0),
    "near its limit: beta(9, 1)": (lambda rng, count: rng.beta(9, 1, count), 0.9),
    "heavy: log-normal": (lambda rng, count: rng.lognormal(0, 0.7, count), float(np.exp(0.245))),
}


def _means(count: int) -> Iterator[Case]:
    for world, (draw, truth) in MEANS.items():
        yield Case(
            "mean", world, count, lambda rng, draw=draw, truth=truth: (*mean_interval(draw(rng, count))[1:], truth)
        )


def _differences(count: int) -> Iterator[Case]:
    def apart(one: float, other: float) -> Callable[[Generator], tuple[float, float, float]]:
        def sample(rng: Generator) -> tuple[float, float, float]:
            common, two = rng.random(count), rng.random((2, count))
            hits = [
                np.where(two[side] < 0.5, common, two[side] * 2 - 1) < share for side, share in ((0, one), (1, other))
            ]
            return *mean_interval(hits[0].astype(float) - hits[1])[1:], one - other

        return sample

    def hits_apart(one: float, other: float) -> Callable[[Generator], tuple[float, float, float]]:
        def sample(rng: Generator) -> tuple[float, float, float]:
            common, two = rng.random(count), rng.random((2, count))
            hits = [
                np.where(two[side] < 0.5, common, two[side] * 2 - 1) < share for side, share in ((0, one), (1, other))
            ]
            return *paired_shares(hits[0].astype(float), hits[1].astype(float))[1:], one - other

        return sample

    def beside_chance(share: float) -> Callable[[Generator], tuple[float, float, float]]:
        def sample(rng: Generator) -> tuple[float, float, float]:
            chance = rng.beta(2, 6, count)
            hits = rng.random(count) < np.clip(share + 0.1 * (chance - 0.25), 0, 1)
            return *paired_shares(hits.astype(float), chance)[1:], share - 0.25

        return sample

    def shifted(rng: Generator) -> tuple[float, float, float]:
        noise = rng.exponential(1, count)
        return *mean_interval(noise + rng.normal(0.2, 0.3, count) - noise)[1:], 0.2

    for one, other in ((0.5, 0.5), (0.8, 0.6), (0.7, 0.3), (0.95, 0.9), (0.95, 0.5)):
        yield Case("paired difference of shares", f"hits, {one:g} and {other:g}", count, hits_apart(one, other))
    for share in (0.3, 0.6, 0.9):
        yield Case("paired difference of shares", f"beside chance, {share:g}", count, beside_chance(share))
    yield Case("paired difference", "of means", count, shifted)
    for one, other in ((0.5, 0.5), (0.8, 0.6), (0.7, 0.3)):
        yield Case("paired difference", f"of shares, {one:g} and {other:g}", count, apart(one, other))


def _spread(places: Floats, weights: NDArray[np.int32]) -> Floats:
    """(weightings, filters) deviation of each filter's places over the weighted images."""
    share = weights / weights.sum(1, keepdims=True)
    return np.sqrt(np.maximum(share @ places**2 - (share @ places) ** 2, 0))


def _spreads(count: int) -> Iterator[Case]:
    """Location instability: the mean over filters of a deviation over images, which all filters share."""
    own, other = np.linspace(0.1, 0.3, 8), np.linspace(0.08, 0.28, 8)

    def world(rng: Generator) -> tuple[tuple[float, float], tuple[Floats, Floats]]:
        common = rng.normal(0, 1, (count, 1))
        noise = [0.5 * common + np.sqrt(0.75) * rng.normal(0, 1, (count, 8)) for _ in range(2)]
        weights = bootstrap_weights(count, RESAMPLES, rng)
        found = [
            (
                _spread(deviation * part, np.ones((1, count), np.int32)).mean(),
                _spread(deviation * part, weights).mean(1),
            )
            for deviation, part in zip((own, other), noise, strict=True)
        ]
        (one, drawn_one), (two, drawn_two) = found
        return (float(one), float(two)), (drawn_one, drawn_two)

    shrunk = float(np.mean([np.std(np.random.default_rng(i).normal(0, 1, count)) for i in range(4000)]))

    def alone(rng: Generator) -> tuple[float, float, float]:
        values, drawn = world(rng)
        return *resampled_interval(values[0], drawn[0]), float(own.mean()) * shrunk

    def paired(rng: Generator) -> tuple[float, float, float]:
        return *paired_interval(*world(rng))[1:], float((own - other).mean()) * shrunk

    yield Case("location instability", "eight filters", count, alone)
    yield Case("paired difference of instabilities", "eight filters", count, paired)


def _crossed(count: int) -> Iterator[Case]:
    """Part errors: pictures that are hard and easy, draws of boxes that are good and bad."""

    def errors(rng: Generator) -> Floats:
        return np.abs(
            rng.normal(0, 1, (1, count)) + 0.6 * rng.normal(0, 1, (5, 1)) + 0.6 * rng.normal(0, 1, (5, count))
        )

    spread = np.sqrt(1 + 0.36 + 0.36)
    error = float(spread * np.sqrt(2 / np.pi))
    near = 0.6826894921370859

    def mean(rng: Generator) -> tuple[float, float, float]:
        found = errors(rng)
        drawn = crossed_resamples(found, crossed_weights(count, 5, seed=(int(rng.integers(1000)),)))
        return *(float(end) for end in np.quantile(drawn, ENDS)), error

    def share(rng: Generator) -> tuple[float, float, float]:
        found = (errors(rng) < spread).astype(float)
        drawn = crossed_resamples(found, crossed_weights(count, 5, seed=(int(rng.integers(1000)),)))
        return *share_ends(crossed_mean(found), float(drawn.var()), count), near

    yield Case("part error, over pictures and draws", "five draws", count, mean)
    yield Case("near hits, over pictures and draws", "five draws", count, share)


def _slopes(count: int) -> Iterator[Case]:
    """The shift test: a position that follows most of the way, and jumps about as it does."""

    def slope(rng: Generator) -> tuple[float, float, float]:
        offset = rng.uniform(-32, 32, (count, 2))
        before = rng.uniform(0, 224, (count, 1, 2))
        after = before + 0.8 * offset[:, None] + rng.normal(0, 12, (count, 1, 2))
        weights = bootstrap_weights(count, RESAMPLES, rng).astype(np.int64)
        found = following(before, after, offset, np.ones((count, 1), bool), weights=weights)
        return float(found.low[0]), float(found.high[0]), 0.8

    yield Case("slope of the shift test", "0.8, and noise", count, slope)


@dataclass(frozen=True)
class Dissected:
    """Pixels of pictures: (images, units, concepts) both, (images, units) lit, (images, concepts) labelled."""

    both: NDArray[np.int64]
    lit: NDArray[np.int64]
    label: NDArray[np.int64]

    @property
    def counts(self) -> ImageCounts:
        """As a tally gives them; every picture is annotated."""
        image, unit, concept = np.nonzero(self.both)
        pixels, annotated = self.both[image, unit, concept], np.ones((len(self.lit), 1), bool)
        return ImageCounts(0, image, unit, concept, pixels, self.lit, self.label, annotated)

    def weighted(self, weights: NDArray[np.int32]) -> WeightedCounts:
        """Under many weightings."""
        counts = WeightedCounts(weights, self.lit.shape[1], np.zeros(self.label.shape[1], np.int64))
        counts.update(self.counts)
        return counts

    @property
    def scores(self) -> Floats:
        """(units, concepts) IoU."""
        return self.weighted(np.ones((1, len(self.lit)), np.int32)).scores(0)


UNITS, CONCEPTS, MIN_IOU = 24, 12, 0.1


def dissected(rng: Generator, images: int) -> Dissected:
    """Pictures of twelve concepts, each in a fifth of them; every other unit leans to one, the last the most."""
    shown = rng.random((images, CONCEPTS)) < 0.2
    label = np.where(shown, rng.integers(200, 600, (images, CONCEPTS)), 0)
    lean = np.zeros((UNITS, CONCEPTS))
    lean[np.arange(UNITS), np.arange(UNITS) % CONCEPTS] = np.linspace(0, 0.9, UNITS) * (np.arange(UNITS) % 2)
    lit = rng.poisson(rng.gamma(1.0, 60.0, (images, UNITS)) + 200 * shown @ lean.T)
    chance = np.clip(label[:, None] / 3000 + np.where(shown[:, None], lean, 0), 0, 1)
    return Dissected(np.minimum(rng.binomial(lit[..., None], chance), label[:, None]), lit, label)


def _ious(count: int) -> Iterator[Case]:
    truth = dissected(np.random.default_rng(1), 20_000).scores

    def own(rng: Generator) -> tuple[float, float, float]:
        """Of one unit, drawn anew each time: the IoU of the label that wins in the sample, in the world."""
        world = dissected(rng, count)
        labels = best(world.scores, np.zeros(CONCEPTS, np.int64))
        counted = detectors(world.scores, labels, MIN_IOU)
        draws = bootstrap_draws([world.weighted(bootstrap_weights(count, RESAMPLES, rng))], labels, MIN_IOU)
        found = bootstrap(draws, count, CONCEPTS, counted)
        unit = int(rng.integers(UNITS))
        return float(found.low[unit, 0]), float(found.high[unit, 0]), float(truth[unit, labels.concept[unit]])

    yield Case("IoU of a unit's label", "24 units, 12 concepts", count, own)


@dataclass(frozen=True)
class Counted:
    """Counts of a dissection and their intervals, over samples.

    Args:
        name: of the count.
        values: (samples,).
        low, high: (samples,).
        truth: units whose best IoU in the world lies above the limit.
    """

    name: str
    values: Floats
    low: Floats
    high: Floats
    truth: int

    @property
    def is_count(self) -> bool:
        """Whether it is one of detectors."""
        return self.name in ("detectors", "confirmed")

    @property
    def coverage(self) -> float:
        """Share of samples whose interval holds the mean of the count over samples."""
        return self.holding(float(self.values.mean()))

    def holding(self, value: float) -> float:
        """Share of samples whose interval holds a value."""
        return float(((self.low <= value) & (value <= self.high)).mean())


def counted(images: int, samples: int, seed: int = 0) -> list[Counted]:
    """The counts of a dissection, all units believed (q at most 0.05), and the share that keeps the world's label."""
    rng, rows = np.random.default_rng([seed, images]), []
    truth = dissected(np.random.default_rng(1), 20_000).scores
    units, label = np.arange(UNITS), truth.argmax(1)
    for _ in range(samples):
        world = dissected(rng, images)
        labels = best(world.scores, np.zeros(CONCEPTS, np.int64))
        raw = detectors(world.scores, labels, MIN_IOU)
        draws = bootstrap_draws([world.weighted(bootstrap_weights(images, RESAMPLES, rng))], labels, MIN_IOU)
        found = bootstrap(draws, images, CONCEPTS, raw)
        split, believed = halves(images, rng), np.ones(UNITS, bool)
        firm = int(world.weighted(split).heldout().confirmed(believed, MIN_IOU).sum())
        numbers = confirmed_draws([world.weighted(redrawn_halves(split, RESAMPLES, rng))], believed, MIN_IOU)
        drawn = count_interval(firm, numbers.astype(float), UNITS)
        spans = (found.detectors, found.unique_per_category, found.unique_per_unit, drawn)
        values = (raw.units, raw.per_category, raw.per_unit, firm)
        kept = OwnCounts(world.both[:, units, label], world.lit, world.label[:, label]).kept_interval(MIN_IOU)
        rows.append([*((value, span.low, span.high) for value, span in zip(values, spans, strict=True)), kept])
    true = int((truth.max(1) > MIN_IOU).sum())
    names = ("detectors", "unique_per_category", "unique_per_unit", "confirmed", "share of labels kept")
    return [
        Counted(name, *column.T, true) for name, column in zip(names, np.array(rows, float).swapaxes(0, 1), strict=True)
    ]
