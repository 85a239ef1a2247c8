"""Does a metric notice labels that are wrong? The missing-labels and extra-labels tests of NeuronEval, section 4.

Of a unit and the concept that explains it, half of the labels are taken away, or as many false ones are added, at
random. A score that is worth anything falls. A metric passes a test if its score falls, by more than `EPSILON` of its
range and in the mean over the draws, for 90 % of the pairs: NeuronEval's table marks 89.54 % as a failure, and 93.62 %
as none. Its program takes the mean over draws, too, but makes one: `LabelTest.single` is the share of single draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.intervals import mean_interval, share_interval
from microtome.quantify.scores import COUNTED, METRICS, SIGNED, UNBOUNDED, Flags, Floats, PooledUnits, Scores, of_counts

Pair = tuple[int, int]
Ends = tuple[float | None, float | None, float | None]
"""A value and its interval."""
Verdict = Literal["passes", "fails", "undecided", "not tested"]
EPSILON = 0.001  # of a metric's range: a fall that is less is none (the default of NeuronEval's program)
LIMIT = 0.9  # share of pairs whose score has to fall
NONE: Ends = (None, None, None)
MANY = 1_000_000_000  # more pixels than NumPy draws from without putting back


class ScoredLevel(Protocol):
    """Units and concepts at one level: pictures, or pixels."""

    @property
    def metrics(self) -> Sequence[str]:
        """Names."""

    @property
    def scores(self) -> Scores:
        """Metric -> (units, concepts)."""

    @property
    def testable(self) -> Flags:
        """(concepts,) of which labels can be taken away and added: at least two have it, two have it not."""

    def altered(self, pair: Pair, draws: int, rng: np.random.Generator) -> Floats:
        """(metrics, 2, draws) scores of a unit and concept with labels missing, and with extra ones."""


@dataclass(frozen=True)
class PictureLevel:
    """Scores over pictures: a unit's map is pooled, a concept is there or not.

    Only the pictures in which a concept's category is annotated count for it.

    Args:
        values: (images, units) each unit's pooled maps.
        lit: (images, units) which pictures count as lit.
        present: (images, concepts) which pictures have which concept.
        category: (concepts,) number of each concept's category.
        inside: (images, categories) which pictures count for which category.
        sampled: per category and unit, pictures of top-and-random sampling, numbered within the category's pictures.
    """

    values: Floats
    lit: Flags
    present: Flags
    category: NDArray[np.int64]
    inside: Flags
    sampled: Sequence[Sequence[NDArray[np.int64]]]

    @property
    def metrics(self) -> Sequence[str]:
        """All."""
        return METRICS

    @cached_property
    def scores(self) -> Scores:
        """Metric -> (units, concepts)."""
        found = {metric: np.full((self.values.shape[1], len(self.category)), np.nan) for metric in METRICS}
        for number in np.flatnonzero(self.inside.any(0)).tolist():
            own = np.flatnonzero(self.category == number)
            for metric, values in self._units[number].scores(self._present(own)).items():
                found[metric][:, own] = values
        return found

    @cached_property
    def testable(self) -> Flags:
        """(concepts,)"""
        images = self.inside.sum(0)[self.category]
        have = (self.present & self.inside[:, self.category]).sum(0)
        testable: Flags = (have >= 2) & (images - have >= 2)
        return testable

    def altered(self, pair: Pair, draws: int, rng: np.random.Generator) -> Floats:
        """Exactly half of the labels stay, rounded up; as many are added, at most half of the pictures without one."""
        unit, concept = pair
        (labels,) = self._present(np.array([concept])).T
        columns = np.concatenate([thinned(labels, draws, rng), enlarged(labels, draws, rng)], axis=1)
        found = self._units[int(self.category[concept])].only(unit).scores(columns)
        return np.stack([found[metric][0].reshape(2, draws) for metric in METRICS])

    def _present(self, concepts: NDArray[np.int64]) -> Flags:
        """(pictures of their category, concepts); concepts of one category."""
        found: Flags = self.present[self.inside[:, self.category[concepts[0]]]][:, concepts]
        return found

    @cached_property
    def _units(self) -> Sequence[PooledUnits]:
        return [
            PooledUnits(self.values[inside], self.lit[inside], rows)
            for inside, rows in zip(self.inside.T, self.sampled, strict=True)
        ]


@dataclass(frozen=True)
class PixelLevel:
    """Scores over pixels, from the counts of a dissection.

    Args:
        both, lit: (units, concepts) I, and A of the concept's category.
        labelled, total: (concepts,) L, and N: pixels of the pictures that count.
    """

    both: NDArray[np.int64]
    lit: NDArray[np.int64]
    labelled: NDArray[np.int64]
    total: NDArray[np.int64]

    @property
    def metrics(self) -> Sequence[str]:
        """Those of what is lit alone."""
        return COUNTED

    @cached_property
    def scores(self) -> Scores:
        """Metric -> (units, concepts)."""
        return of_counts(*(part.astype(np.float64) for part in (self.both, self.lit, self.labelled, self.total)))

    @property
    def testable(self) -> Flags:
        """(concepts,)"""
        testable: Flags = (self.labelled >= 2) & (self.total - self.labelled >= 2)
        return testable

    def altered(self, pair: Pair, draws: int, rng: np.random.Generator) -> Floats:
        """As over pictures: how many of the pixels that stay, or are added, are lit is all that is to be drawn."""
        both, lit = int(self.both[pair]), int(self.lit[pair])
        labelled, total = int(self.labelled[pair[1]]), int(self.total[pair[1]])
        stay, more = (labelled + 1) // 2, min(labelled, (total - labelled) // 2)
        left = _drawn((both, labelled - both), stay, draws, rng)
        added = both + _drawn((lit - both, total - labelled - (lit - both)), more, draws, rng)
        sizes = np.array([[stay], [labelled + more]], np.float64)
        found = of_counts(np.stack([left, added]), np.full(1, lit, np.float64), sizes, np.full(1, total, np.float64))
        return np.stack([found[metric] for metric in COUNTED])


def _drawn(kinds: Pair, wanted: int, draws: int, rng: np.random.Generator) -> Floats:
    """(draws,) how many of the first kind are among those that are drawn, none twice."""
    if max(kinds) < MANY:
        return rng.hypergeometric(*kinds, wanted, draws).astype(np.float64)
    drawn = rng.binomial(wanted, kinds[0] / sum(kinds), draws)  # of so many, the same one would hardly be drawn twice
    return np.minimum(drawn, kinds[0]).astype(np.float64)


def thinned(labels: Flags, draws: int, rng: np.random.Generator) -> Flags:
    """(images, draws) labels of which half stays, rounded up.

    Args:
        labels: (images,).
        draws: how often.
        rng: of the draws.
    """
    have = np.flatnonzero(labels)
    return _marked(have, (len(have) + 1) // 2, (len(labels), draws), rng)


def enlarged(labels: Flags, draws: int, rng: np.random.Generator) -> Flags:
    """(images, draws) labels and as many false ones, at most half of those that could be false.

    Args:
        labels: (images,).
        draws: how often.
        rng: of the draws.
    """
    have_not = np.flatnonzero(~labels)
    more = min(len(labels) - len(have_not), len(have_not) // 2)
    added = _marked(have_not, more, (len(labels), draws), rng)
    return added | labels[:, None]


def _marked(places: NDArray[np.int64], count: int, shape: Pair, rng: np.random.Generator) -> Flags:
    """Flags of a shape, in each column `count` random ones of the places."""
    found = np.zeros(shape, bool)
    order = rng.random((len(places), shape[1])).argsort(0)[:count]
    found[places[order], np.arange(shape[1])] = True
    return found


@dataclass(frozen=True)
class ScoreChanges:
    """What became of the scores of units, each with one concept.

    Args:
        missing, extra: (units, draws) change as a share of the metric's range; nan where it is undefined, or where the
            pair could not be tested.
    """

    missing: Floats
    extra: Floats

    @staticmethod
    def falls(changes: Floats) -> Floats:
        """(units,) share of draws in which the score falls by more than `EPSILON`; nan where none is defined."""
        return _mean(np.where(np.isnan(changes), np.nan, changes < -EPSILON))

    @staticmethod
    def change(changes: Floats) -> Floats:
        """(units,) mean change."""
        return _mean(changes)


def _mean(values: Floats) -> Floats:
    """(units,) over what is defined; nan where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(defined, values, 0).sum(1) / np.where(defined.any(1), defined.sum(1), np.nan)
    return mean


def tested(
    level: ScoredLevel, metric: str, labels: NDArray[np.int64], altered: Mapping[Pair, Floats], *, draws: int
) -> ScoreChanges:
    """How one metric's scores of units with their labels change.

    Args:
        level: that the metric belongs to.
        metric: its name.
        labels: (units,) a concept each, or -1.
        altered: what `ScoredLevel.altered` gave of every pair that can be tested.
        draws: of each.
    """
    scores, place = level.scores[metric], list(level.metrics).index(metric)
    changes = np.full((2, len(labels), draws), np.nan)
    for pair in enumerate(labels.tolist()):
        if pair in altered:
            changes[:, pair[0]] = (altered[pair][place] - scores[pair]) / span(metric, scores)
    return ScoreChanges(changes[0], changes[1])


def span(metric: str, scores: Floats) -> float:
    """A metric's range: 2 of correlations and cosine, 1 of shares; of the others, the one that is seen.

    Args:
        metric: its name.
        scores: (units, concepts).
    """
    if metric in UNBOUNDED:
        return float(np.nanmax(scores) - np.nanmin(scores)) if np.isfinite(scores).any() else 1.0
    return 2.0 if metric in SIGNED else 1.0


@dataclass(frozen=True)
class LabelTest:
    """One test of one metric.

    Args:
        pairs: units with their concepts that could be tested.
        share: of them, those whose score falls in the mean over the draws, and its 95 % interval over units.
        single: share of single draws in which the score falls, and its interval over units.
        change: mean change of the score, as a share of the metric's range.
        verdict: of the share.
    """

    pairs: int
    share: Ends
    single: Ends
    change: float | None
    verdict: Verdict


def outcome(changes: Floats) -> LabelTest:
    """Over all pairs.

    Args:
        changes: (units, draws) of `ScoreChanges`.
    """
    change, falls = ScoreChanges.change(changes), ScoreChanges.falls(changes)
    known = ~np.isnan(change)
    if not known.any():
        return LabelTest(0, NONE, NONE, None, "not tested")
    share, low, high = share_interval((change[known] < -EPSILON).astype(np.float64))
    single = share_interval(falls[known])
    return LabelTest(int(known.sum()), (share, low, high), single, float(change[known].mean()), judged(low, high))


def judged(low: float, high: float) -> Verdict:
    """Whether a share is surely at least `LIMIT`, surely below, or neither."""
    if low >= LIMIT:
        return "passes"
    return "fails" if high < LIMIT else "undecided"


def worse(missing: Verdict, extra: Verdict) -> Verdict:
    """The verdict of two tests: the worse one."""
    order: tuple[Verdict, ...] = ("fails", "not tested", "undecided", "passes")
    return min(missing, extra, key=order.index)


@dataclass(frozen=True)
class MetricAgreement:
    """Two metrics about the same units.

    Args:
        units: for which both choose a label.
        same: share of them for which it is the same one, and its 95 % interval.
        correlation: mean over units of Spearman's correlation of the two metrics over concepts, and its interval.
    """

    units: int
    same: Ends
    correlation: Ends


def agreement(labels: tuple[NDArray[np.int64], NDArray[np.int64]], correlations: Floats) -> MetricAgreement:
    """How far two metrics agree.

    Args:
        labels: (units,) the concept that each chooses, -1 where none.
        correlations: (units,) of the two, from `rank_correlations`.
    """
    one, other = labels
    known = (one >= 0) & (other >= 0)
    defined = correlations[~np.isnan(correlations)]
    return MetricAgreement(
        int(known.sum()),
        share_interval((one == other)[known].astype(np.float64)) if known.any() else NONE,
        mean_interval(defined) if len(defined) else NONE,
    )


def rank_correlations(scores: Sequence[Floats]) -> Floats:
    """(units, metrics, metrics) Spearman's correlation over the concepts for which every metric is defined.

    nan where a metric says the same of all concepts, or where there are fewer than three.

    Args:
        scores: per metric, (units, concepts).
    """
    from scipy.stats import rankdata

    stacked = np.stack(scores, axis=1)
    found = np.full((len(stacked), len(scores), len(scores)), np.nan)
    for unit, rows in enumerate(stacked):
        known = rows[:, ~np.isnan(rows).any(0)]
        if known.shape[1] > 2:
            with np.errstate(divide="ignore", invalid="ignore"):
                found[unit] = np.corrcoef(rankdata(known, axis=1))
    return found
