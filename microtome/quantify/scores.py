"""Scores of how well a concept explains a unit: the 18 of NeuronEval (Oikarinen, Yan and Weng 2025, arXiv 2506.05774).

The concept's labels are taken for a prediction of what the unit lights, as NeuronEval does: recall is the share of what
is lit that has the concept, precision the share of what has the concept that is lit. The names that begin with
`inverse` turn this round: there the unit's values predict the labels. INVERT (Bykov et al. 2023) and CoSy (Kopf et al.
2024) call AUC what is `inverse_auc` here.

An undefined score (nothing lit, a concept that is everywhere, a unit of one value) is nan. Ties have the mean of their
ranks, as in SciPy and scikit-learn; NeuronEval's program breaks them at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Scores = Mapping[str, Floats]

COUNTED = (
    "recall", "precision", "f1", "iou", "accuracy", "balanced_accuracy", "inverse_balanced_accuracy", "auc", "wpmi",
    "auprc",
)  # fmt: skip
"""Metrics that ask of a unit only what it lights: they are counted over pixels, too."""

METRICS = (
    "recall", "precision", "f1", "iou", "accuracy", "balanced_accuracy", "inverse_balanced_accuracy", "auc",
    "inverse_auc", "correlation", "correlation_top_random", "spearman", "spearman_top_random", "cosine", "wpmi", "mad",
    "auprc", "inverse_auprc",
)  # fmt: skip
"""All, in the order of NeuronEval's table."""

RELIABLE = frozenset({"f1", "iou", "correlation", "cosine", "auprc"})
"""Those that pass both tests in NeuronEval's table."""

SIGNED = frozenset({"correlation", "correlation_top_random", "spearman", "spearman_top_random", "cosine"})
UNBOUNDED = frozenset({"wpmi", "mad"})
FLOOR = 1e-8  # what WPMI takes for the probability of a concept that is not there
SAMPLE = 25  # pictures of the highest ones, and of all, that top-and-random sampling looks at


def of_counts(both: Floats, lit: Floats, labelled: Floats, total: Floats) -> dict[str, Floats]:
    """The metrics of `COUNTED`, from how many pictures or pixels are lit, are labelled, and are both.

    With I both, A lit, L labelled, N all, and T = N - A - L + I neither: recall I / A; precision I / L; F1
    2 I / (A + L); IoU I / (A + L - I); accuracy (I + T) / N; balanced accuracy (I / A + T / (N - A)) / 2; the inverse
    one (I / L + T / (N - L)) / 2; AUC of labels that are 0 or 1, ties counted half, is the balanced accuracy; AUPRC of
    such labels is the average precision, R P + (1 - R) A / N; WPMI with lambda = 1 is the mean over what is lit of
    log p(concept | picture) - log(L / N), p being 1 or `FLOOR`.

    Args:
        both, lit, labelled, total: I, A, L, N of the same shape, or of shapes that NumPy broadcasts to one.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        neither = total - lit - labelled + both
        recall, precision = both / lit, both / labelled
        balanced = (recall + neither / (total - lit)) / 2
        return {
            "recall": recall,
            "precision": precision,
            "f1": 2 * both / (lit + labelled),
            "iou": both / (lit + labelled - both),
            "accuracy": (both + neither) / total,
            "balanced_accuracy": balanced,
            "inverse_balanced_accuracy": (precision + neither / (total - labelled)) / 2,
            "auc": balanced,
            "wpmi": _finite((1 - recall) * np.log(FLOOR) - np.log(labelled / total)),
            "auprc": recall * both / np.maximum(labelled, 1) + (1 - recall) * lit / total,
        }


@dataclass(frozen=True)
class PooledUnits:
    """What units say of pictures, each map pooled to one value.

    Args:
        values: (images, units) the pooled values.
        lit: (images, units) which pictures count as lit.
        sampled: per unit, the pictures that top-and-random sampling looks at; one may stand there twice.
    """

    values: Floats
    lit: Flags
    sampled: Sequence[NDArray[np.int64]]

    def only(self, unit: int) -> PooledUnits:
        """One unit by itself."""
        return PooledUnits(self.values[:, unit : unit + 1], self.lit[:, unit : unit + 1], [self.sampled[unit]])

    def scores(self, present: Flags) -> dict[str, Floats]:
        """All metrics, each (units, concepts).

        Args:
            present: (images, concepts) which pictures have which concept.
        """
        labels = present.astype(np.float64)
        both = self.lit.T.astype(np.float64) @ labels
        lit, labelled = self.lit.sum(0, dtype=np.float64)[:, None], labels.sum(0)
        found = of_counts(both, lit, labelled, np.full(1, len(labels), np.float64))
        found |= self._of_values(labels, labelled) | self._of_samples(labels)
        return {metric: found[metric] for metric in METRICS}

    def _of_values(self, labels: Floats, labelled: Floats) -> dict[str, Floats]:
        """Those of the values themselves, and of their ranks."""
        images = len(labels)
        summed, ranked = self.values.T @ labels, self.ranks.T @ labels
        with np.errstate(divide="ignore", invalid="ignore"):
            inside, outside = summed / labelled, (self.values.sum(0)[:, None] - summed) / (images - labelled)
            area = (ranked - labelled * (labelled + 1) / 2) / (labelled * (images - labelled))
            length = np.sqrt((self.values**2).sum(0))[:, None] * np.sqrt(labelled)
            return {
                "mad": inside - outside,
                "inverse_auc": area,
                "cosine": summed / length,
                "correlation": pearson(self.values, labels),
                "spearman": pearson(self.ranks, labels),
                "inverse_auprc": np.stack([average_precision(column, labels) for column in self.values.T]),
            }

    def _of_samples(self, labels: Floats) -> dict[str, Floats]:
        """Correlations over the highest and some random pictures alone."""
        plain, ranked = [], []
        for unit, rows in enumerate(self.sampled):
            values, some = self.values[rows, unit][:, None], labels[rows]
            plain.append(pearson(values, some)[0])
            ranked.append(pearson(_ranks(values), some)[0])
        return {"correlation_top_random": np.stack(plain), "spearman_top_random": np.stack(ranked)}

    @cached_property
    def ranks(self) -> Floats:
        """(images, units) of the values, from 1; ties have their mean."""
        return _ranks(self.values)


def lit_pictures(values: Floats, alpha: float) -> Flags:
    """(images, units) the share `alpha` of the pictures in which each unit is highest, and those that equal the last.

    Of a unit of one value that is all of them.

    Args:
        values: (images, units).
        alpha: above 0, at most 1.
    """
    count = int(np.ceil(alpha * len(values)))
    cutoff = np.partition(values, len(values) - count, axis=0)[len(values) - count]
    lit: Flags = values >= cutoff
    return lit


def top_and_random(lit: Flags, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Per unit, up to `SAMPLE` random ones of the lit pictures and as many of all (Bills et al. 2023).

    Args:
        lit: (images, units).
        rng: of the draws.
    """
    images = len(lit)
    found = []
    for column in lit.T:
        top = np.flatnonzero(column)
        parts = [rng.permutation(top)[:SAMPLE], rng.permutation(images)[:SAMPLE]]
        found.append(np.concatenate(parts).astype(np.int64))
    return found


def pearson(values: Floats, labels: Floats) -> Floats:
    """(units, concepts) Pearson's correlation of (images, units) with (images, concepts); nan where one is constant."""
    if not len(values):
        return np.full((values.shape[1], labels.shape[1]), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _standard(values).T @ _standard(labels)


def _standard(values: Floats) -> Floats:
    """Columns of mean 0 and length 1; nan where a column is constant."""
    constant = np.ptp(values, axis=0) == 0
    apart = values - values.mean(0)
    standard: Floats = apart / np.where(constant, np.nan, np.sqrt((apart**2).sum(0)))
    return standard


def average_precision(values: Floats, labels: Floats) -> Floats:
    """(concepts,) area under the precision-recall curve: the sum over thresholds of precision times gained recall.

    Args:
        values: (images,) that predict; equal ones are passed by one threshold.
        labels: (images, concepts) 0 or 1.
    """
    order = np.argsort(-values, kind="stable")
    falling = -values[order]
    last = np.searchsorted(falling, falling, side="right") - 1  # of those that equal it
    hits = labels[order]
    found = np.cumsum(hits, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        area: Floats = (found[last] / (last + 1)[:, None] * hits).sum(0) / found[-1]
    return area


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    ranks: Floats = np.asarray(rankdata(values, axis=0), np.float64)
    return ranks


def _finite(values: Floats) -> Floats:
    """Infinite ones are undefined: a concept that is nowhere."""
    return np.where(np.isfinite(values), values, np.nan)


def chosen(scores: Floats) -> NDArray[np.int64]:
    """(units,) the concept of each unit's highest score, the first of equals; -1 where none is defined.

    Args:
        scores: (units, concepts).
    """
    filled = np.where(np.isnan(scores), -np.inf, scores)
    best: NDArray[np.int64] = filled.argmax(1)
    return np.where(np.isneginf(filled.max(1)), -1, best)
