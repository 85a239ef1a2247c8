"""95 % intervals: of a share, of a mean over images, and of what resamples of the images say.

Every resampled interval is a percentile interval. Where a resample judges anew (which images count, how steady a
filter is), images that are drawn twice shift it: then the interval is moved onto the data's own value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Floats = NDArray[np.float64]
ENDS = (0.025, 0.975)
RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """Percentile interval, 95 %."""

    low: float
    high: float


def mean_interval(values: Floats) -> tuple[float, float, float]:
    """A mean over images, and its 95 % percentile interval under resampling of the images.

    The resamples are the same ones for equal numbers of images, so that differences are paired.

    Args:
        values: (images,).

    Returns:
        mean, low, high.
    """
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(means, ENDS)
    return float(values.mean()), float(low), float(high)


def resampled_interval(value: float, drawn: Floats) -> tuple[float, float]:
    """The interval of a value whose resamples are biased: images drawn twice make a resample steadier than the data.

    That bias, the resamples' mean minus the value, is taken off: low, high = quantiles - mean(drawn) + value.

    Args:
        value: of the data.
        drawn: (resamples,) of each resample.

    Returns:
        low, high.
    """
    low, high = np.quantile(drawn, ENDS) - drawn.mean() + value
    return float(low), float(high)


def paired_interval(values: tuple[float, float], drawn: tuple[Floats, Floats]) -> tuple[float, float, float]:
    """The difference of two values over the same resamples, and its interval, freed of bias as above.

    Args:
        values: of the data, one and the other.
        drawn: (resamples,) of each; resample by resample over the same images.

    Returns:
        one minus other, low, high.
    """
    apart = drawn[0] - drawn[1]
    low, high = np.quantile(apart, ENDS) - apart.mean() + values[0] - values[1]
    return values[0] - values[1], float(low), float(high)


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); never outside [0, 1], sound at 0 and at all hits."""
    found = binomtest(hits, trials).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
