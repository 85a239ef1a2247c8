"""Means over pictures and over draws of what was learnt from: both are samples, so both are drawn anew.

The pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1, 386-411): rows and columns of a table are resampled
each on its own, and a value counts with the product of its row's and its column's weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from microtome.quantify.intervals import ENDS, RESAMPLES, expanded_ends

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CrossedWeights:
    """How often every picture and every draw counts in each resample: (resamples, pictures) and (resamples, draws)."""

    pictures: Floats
    draws: Floats


def crossed_weights(pictures: int, draws: int, *, seed: Sequence[int], resamples: int = RESAMPLES) -> CrossedWeights:
    """Weights of resamples; the same ones for equal counts and seed, so that differences are paired.

    Args:
        pictures, draws: how many there are.
        seed: of the draws, and of the pictures by its first number alone: tables of the same pictures share these.
        resamples: how many.
    """
    of_pictures, of_draws = np.random.default_rng(seed[0]), np.random.default_rng([*seed, 1])
    return CrossedWeights(
        of_pictures.multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples).astype(float),
        of_draws.multinomial(draws, np.full(draws, 1 / draws), size=resamples).astype(float),
    )


def crossed_mean(values: Floats) -> float:
    """Mean over pictures of each one's mean over draws.

    Args:
        values: (draws, pictures); NaN where a draw says nothing of a picture, which does not count if none does.
    """
    known = np.isfinite(values)
    shown = known.any(0)
    return float((np.where(known, values, 0).sum(0)[shown] / known.sum(0)[shown]).mean())


def crossed_resamples(values: Floats, weights: CrossedWeights) -> Floats:
    """(resamples,) the same mean in each resample.

    Args:
        values: (draws, pictures) as of `crossed_mean`.
        weights: of as many pictures and draws.
    """
    known = np.isfinite(values)
    total, count = weights.draws @ np.where(known, values, 0), weights.draws @ known
    means = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    weight = weights.pictures * (count > 0)
    drawn: Floats = (means * weight).sum(1) / weight.sum(1)
    return drawn


def crossed_interval(values: Floats) -> tuple[float, float, float]:
    """A mean over pictures and draws, and its 95 % interval, expanded for the fewer of both: mean, low, high.

    Args:
        values: (draws, pictures) as of `crossed_mean`.
    """
    draws, pictures = values.shape
    drawn = crossed_resamples(values, crossed_weights(pictures, draws, seed=[0]))
    low, high = np.quantile(drawn, expanded_ends(min(draws, pictures)))
    return crossed_mean(values), float(low), float(high)


@dataclass(frozen=True)
class CrossedDifference:
    """A mean difference: its 95 % percentile interval, and p of none, by the resamples' deviation as a normal one's."""

    value: float
    low: float
    high: float
    p_value: float


def crossed_difference(value: float, drawn: Floats) -> CrossedDifference:
    """Of a mean and its resamples."""
    low, high = np.quantile(drawn, ENDS)
    spread = float(drawn.std(ddof=1))
    p_value = 2 * float(norm.sf(abs(value) / spread)) if spread > 0 else float(value == 0)
    return CrossedDifference(value, float(low), float(high), p_value)


def holm(p_values: Sequence[float]) -> Floats:
    """Adjusted p-values, over the family (Holm 1979): max over those not above of (tests left) p, at most 1."""
    p = np.array(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted
