"""What a layer's stability comes to: over its filters, in each category and pooled over categories, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.intervals import resampled_interval
from microtome.quantify.significance import LEVEL, false_discovery_of_pairs
from microtome.quantify.stability import CategoryStability, Inferences

Floats = NDArray[np.float64]
_BASELINES = ("random", "random_sd", "centre", "best_constant")
Rule = Literal["lowest", "highest-activation", "mean"]
RULES: tuple[Rule, ...] = ("lowest", "highest-activation", "mean")


def chosen_category(categories: Sequence[CategoryStability], rule: Rule) -> NDArray[np.int64]:
    """(filters,) the category that a filter is judged in; -1 where it is NULL in each.

    Args:
        categories: of one layer.
        rule: `lowest` D_f (the paper's), or `highest-activation`: the highest mean score.
    """
    deviation = np.array([item.deviation for item in categories])
    if rule == "lowest":
        value = deviation
    elif rule == "highest-activation":
        value = np.where(np.isfinite(deviation), -np.array([item.score for item in categories]), np.nan)
    else:
        raise ValueError(f"rule must be lowest or highest-activation, got {rule!r}")
    alone = np.isfinite(deviation).any(0)
    return np.where(alone, np.where(np.isfinite(value), value, np.inf).argmin(0), -1)


def pooled(categories: Sequence[CategoryStability], rule: Rule) -> Floats:
    """(filters,) D_f over all categories under a rule of RULES; NaN where a filter is NULL in each."""
    deviation = np.array([item.deviation for item in categories])
    finite = np.isfinite(deviation)
    if rule == "mean":
        total: Floats = np.where(finite, deviation, 0).sum(0)
        return total / np.where(finite.any(0), finite.sum(0), np.nan)
    choice = chosen_category(categories, rule)
    picked = np.take_along_axis(deviation, np.maximum(choice, 0)[None], 0)[0]
    return np.where(choice >= 0, picked, np.nan)


def false_discovery_of_tracking(categories: Sequence[CategoryStability]) -> list[Mapping[str, Floats]]:
    """Per category, by landmark: (filters,) false discovery rate of tracking it, over all that the layer was asked.

    Args:
        categories: all of a layer; NULL filters are not asked.
    """
    tests = [
        np.where(np.isfinite(item.deviation), mark.p_value, np.nan)
        for item in categories
        for mark in item.landmarks.values()
    ]
    each = iter(false_discovery_of_pairs(np.array(tests)))
    return [{name: next(each) for name in item.landmarks} for item in categories]


def surely_tracking(rates: Sequence[Mapping[str, Floats]]) -> NDArray[np.bool_]:
    """(filters,) which surely track one landmark at least of some categories.

    Args:
        rates: of the categories, from `false_discovery_of_tracking`.
    """
    found: NDArray[np.bool_] = np.any([rate <= LEVEL for marks in rates for rate in marks.values()], axis=0)
    return found


def best_filters(categories: Sequence[CategoryStability], count: int | None) -> NDArray[np.bool_]:
    """(filters,) the `count` filters with the highest mean of top scores over the categories; all for None."""
    mean = np.mean([mark.top_score for item in categories for mark in item.landmarks.values()], axis=0)
    if count is None or count >= len(mean):
        return np.ones(len(mean), bool)
    kept = np.zeros(len(mean), bool)
    kept[np.argsort(-mean, kind="stable")[:count]] = True
    return kept


def pooled_resamples(categories: Sequence[CategoryStability], drawn: Floats, rule: Rule) -> Floats:
    """(resamples, filters) of a pooling rule, the category that each filter is judged in held.

    Args:
        categories: of one layer.
        drawn: (resamples, categories, filters) from `stability.resampled`.
        rule: of RULES.
    """
    if rule == "mean":
        finite = np.isfinite(drawn)
        total: Floats = np.where(finite, drawn, 0).sum(1)
        return total / np.where(finite.any(1), finite.sum(1), np.nan)
    choice = chosen_category(categories, rule)
    picked = np.take_along_axis(drawn, np.maximum(choice, 0)[None, None], 1)[:, 0]
    return np.where(choice >= 0, picked, np.nan)


def layer_means(drawn: Floats) -> Floats:
    """(resamples,) mean over the filters that are never NULL; empty where there is none.

    Two networks over the same images and seed share their resamples: the difference of their means is paired.

    Args:
        drawn: (resamples, filters).
    """
    alive = np.isfinite(drawn).all(0) if len(drawn) else np.zeros(drawn.shape[1], bool)
    means: Floats = drawn[:, alive].mean(1) if alive.any() else np.zeros(0)
    return means


@dataclass(frozen=True)
class LayerSummary:
    """A layer's filters together, in one category or pooled.

    Args:
        images: how many.
        filters, null_filters: that count, and those of them that are NULL.
        deviation, low, high: mean D_f over the filters that are not, and its interval; None where all are NULL, or
            nothing was resampled.
        random, random_sd, centre, best_constant: of the baselines.
        tracking_share, beating_share: of the filters that are not NULL, which track a landmark, and which beat the best
            constant position; None where all are NULL. Tracking at a false discovery rate of 5 % of each landmark.
        sure_tracking_share: which track one, at 5 % over all the landmarks and categories that the layer was asked.
        spread, entropy: means over the filters of how much their own position moves.
        tied_share, silent_share: of filters and images, where another cell is as high, and where nothing is above 0.
    """

    images: int
    filters: int
    null_filters: int
    deviation: float | None
    low: float | None
    high: float | None
    random: float
    random_sd: float
    centre: float
    best_constant: float
    tracking_share: float | None
    beating_share: float | None
    spread: float
    entropy: float
    tied_share: float
    silent_share: float
    sure_tracking_share: float | None


@dataclass(frozen=True)
class Judged:
    """A layer's summary, and what it is over.

    Args:
        layer: dotted name.
        category: the one that it is over, or None for all, pooled by
        rule: of RULES; None for a single category.
        summary: the figures.
    """

    layer: str
    category: str | None
    rule: Rule | None
    summary: LayerSummary


@dataclass(frozen=True)
class FilterOnLandmark:
    """A filter on a landmark of a category; see `LandmarkStability` for the figures, None where there are none.

    `q_all` is its false discovery rate over all landmarks and categories of the layer, not over one landmark's filters.
    """

    filter: int
    category: str
    landmark: str
    deviation: float | None
    r2: float | None
    q_value: float | None
    q_all: float | None


def category_summary(
    item: CategoryStability, drawn: Floats, kept: NDArray[np.bool_], found: Inferences, *, sure: NDArray[np.bool_]
) -> LayerSummary:
    """A layer in one category.

    Args:
        item: the category.
        drawn: (resamples, filters) D_f over images drawn anew.
        kept: (filters,) which filters count.
        found: inferences in the category's images.
        sure: (filters,) which surely track a landmark of it.
    """
    return _summary(
        item.deviation[kept],
        drawn[:, kept],
        bases={name: getattr(item.baselines, name) for name in _BASELINES},
        tracking=item.tracking[kept],
        sure=sure[kept],
        spread=float(item.spread.deviation[kept].mean()),
        entropy=float(item.spread.entropy[kept].mean()),
        found=found.filters(kept),
    )


def pooled_summary(
    categories: Sequence[CategoryStability],
    drawn: Floats,
    kept: NDArray[np.bool_],
    found: Inferences,
    *,
    rule: Rule,
    sure: NDArray[np.bool_],
) -> LayerSummary:
    """A layer over all categories; baselines are pooled by the same rule: the lowest, or the mean.

    Args:
        categories: of the layer.
        drawn: (resamples, categories, filters) from `stability.resampled`.
        kept: (filters,) which filters count.
        found: inferences in the images of all categories.
        rule: of RULES.
        sure: (filters,) which surely track a landmark of one of them.
    """
    choose = np.min if rule == "lowest" else np.mean
    return _summary(
        pooled(categories, rule)[kept],
        pooled_resamples(categories, drawn, rule)[:, kept],
        bases={name: float(choose([getattr(item.baselines, name) for item in categories])) for name in _BASELINES},
        tracking=np.any([item.tracking for item in categories], axis=0)[kept],
        sure=sure[kept],
        spread=float(np.mean([item.spread.deviation[kept].mean() for item in categories])),
        entropy=float(np.mean([item.spread.entropy[kept].mean() for item in categories])),
        found=found.filters(kept),
    )


def _summary(
    deviation: Floats,
    drawn: Floats,
    *,
    bases: Mapping[str, float],
    tracking: NDArray[np.bool_],
    sure: NDArray[np.bool_],
    spread: float,
    entropy: float,
    found: Inferences,
) -> LayerSummary:
    """Of the filters that count."""
    value, low, high = _mean(deviation, drawn)
    alive = np.isfinite(deviation)
    return LayerSummary(
        images=len(found.cell),
        filters=len(deviation),
        null_filters=int((~alive).sum()),
        deviation=value,
        low=low,
        high=high,
        **bases,
        tracking_share=_share(tracking, alive),
        beating_share=_share(deviation < bases["best_constant"], alive),
        spread=spread,
        entropy=entropy,
        tied_share=float(found.tied.mean()),
        silent_share=float(found.silent.mean()),
        sure_tracking_share=_share(sure, alive),
    )


def _mean(deviation: Floats, drawn: Floats) -> tuple[float | None, float | None, float | None]:
    """Mean over the filters that are not NULL, and its interval over the resamples."""
    alive = np.isfinite(deviation)
    if not alive.any():
        return None, None, None
    value = float(deviation[alive].mean())
    return (value, *resampled_interval(value, drawn[:, alive].mean(1))) if len(drawn) else (value, None, None)


def _share(flag: NDArray[np.bool_], alive: NDArray[np.bool_]) -> float | None:
    return float(flag[alive].mean()) if alive.any() else None
