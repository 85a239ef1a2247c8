"""95 % intervals: of a share, of a mean over images, and of what resamples of the images say.

A mean's interval takes its ends from resamples of the images, corrected for skewness and for few images. A share's is
Wilson's, also where resamples say how much it varies: from resamples alone, a share of 1 would have the interval
[1, 1]. Where a resample judges anew (which images count, how steady a filter is), images that are drawn twice shift it:
then the percentile interval is moved onto the data's own value. How often each holds the truth is simulated in
tests/test_calibration.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
ENDS = (0.025, 0.975)
RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """Percentile interval, 95 %."""

    low: float
    high: float


def mean_interval(values: Floats) -> tuple[float, float, float]:
    """A mean over images, and its 95 % interval under resampling of the images.

    The resamples are the same ones for equal numbers of images, so that differences are paired. Which of their
    quantiles are the ends: those of the BCa interval (Efron 1987), for skewness, with Student's quantile times
    sqrt(n / (n - 1)) in place of the normal one (Hesterberg 2015), for few images. Values that are all equal have no
    width: say `share_interval` of shares.

    Args:
        values: (images,).

    Returns:
        mean, low, high.
    """
    value, count = float(values.mean()), len(values)
    if np.ptp(values) == 0:
        return value, value, value
    rng = np.random.default_rng(0)
    means = values[rng.integers(count, size=(RESAMPLES, count))].mean(1)
    low, high = np.quantile(means, _ends(values, means))
    return value, float(low), float(high)


def mean_intervals(values: Floats) -> Floats:
    """`mean_interval` of many values of the same images, over the same resamples: (rows, 3) mean, low, high.

    Args:
        values: (rows, images).
    """
    drawn = values @ _resamples(values.shape[1]).T
    found = np.repeat(values.mean(1)[:, None], 3, axis=1)
    for row, own, means in zip(found, values, drawn, strict=True):
        if np.ptp(own) > 0:
            row[1:] = np.quantile(means, _ends(own, means))
    return found


def ratio_intervals(values: Floats, whole: Floats) -> Floats:
    """Ratios of two means over the same images: (rows, 3) ratio, low, high; of resamples, the quantiles of few images.

    Args:
        values: (rows, images).
        whole: (images,), of which they are shares.

    Returns:
        NaN where the whole's mean is not above zero, in the data or, of the ends, in a resample.
    """
    weights = _resamples(len(whole))
    of, drawn_of = whole.mean(), weights @ whole
    found = np.full((len(values), 3), np.nan)
    if of > 0:
        found[:, 0] = values.mean(1) / of
    if of > 0 and (drawn_of > 0).all():
        found[:, 1:] = np.quantile(values @ weights.T / drawn_of, expanded_ends(len(whole)), axis=1).T
    return found


def _resamples(images: int) -> Floats:
    """(RESAMPLES, images) each image's share of the resamples of `mean_interval`."""
    drawn = np.random.default_rng(0).integers(images, size=(RESAMPLES, images))
    return np.stack([np.bincount(one, minlength=images) for one in drawn]) / images


def _ends(values: Floats, means: Floats) -> Floats:
    """Quantiles of the resamples' means that are the ends of an expanded BCa interval; values that differ."""
    count, apart = len(values), values - values.mean()
    skewness = (apart**3).mean() / (apart**2).mean() ** 1.5
    below = ((means < values.mean()).mean() + (means <= values.mean()).mean()) / 2
    bias = _quantile(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    z = bias + _expanded(count)
    ends: Floats = _below(bias + z / np.maximum(1 - skewness / (6 * np.sqrt(count)) * z, 0.1))
    return ends


def _expanded(images: int) -> Floats:
    """Student's quantiles times sqrt(n / (n - 1)): how far out the ends of an interval lie where images are few."""
    ends: Floats = _student(ENDS, images - 1) * np.sqrt(images / (images - 1)) if images > 1 else _quantile(ENDS)
    return ends


def expanded_ends(images: int) -> Floats:
    """The quantiles of resamples that are the ends of a 95 % interval over few images (Hesterberg 2015).

    0.025 and 0.975 of many images, 0.009 and 0.991 of 10: resamples vary less than samples do.

    Args:
        images: that each resample is drawn from.
    """
    ends: Floats = _below(_expanded(images))
    return ends


def share_interval(values: Floats) -> tuple[float, float, float]:
    """A share over images, and its 95 % interval: share, low, high.

    Args:
        values: (images,) 1 for a hit, else 0; or the share of hits in each image, 0 to 1.
    """
    share = float(values.mean())
    return share, *share_ends(share, float(values.var()) / len(values), len(values))


def share_ends(share: float, variance: float, images: int) -> tuple[float, float]:
    """95 % interval of a share whose variance is known: Wilson's, with the effective number of images.

    That is the number of independent hits or misses with this variance, share (1 - share) / variance (Korn and Graubard
    1998). A share that no resample moves is taken for that many images' own.

    Args:
        share: 0 to 1.
        variance: of the share, over images or over resamples.
        images: that it is a share of.
    """
    trials = share * (1 - share) / variance if variance > 0 and 0 < share < 1 else images
    return wilson(share * trials, trials)


def paired_shares(one: Floats, other: Floats) -> tuple[float, float, float]:
    """The difference of two shares over the same images, and its 95 % interval: one minus other, low, high.

    Newcombe's square-and-add interval for paired data (1998), from the two shares' own intervals:

        low = d - sqrt((p - l1)^2 - 2 r (p - l1) (u2 - q) + (u2 - q)^2),   high likewise with (u1 - p) and (q - l2)

    r is the correlation of the two over the images, 0 where either does not vary. By resamples alone, a share of 1 less
    one that hardly varies would have next to no interval.

    Args:
        one, other: (images,) 1 for a hit, else 0; or shares, 0 to 1.
    """
    (p, l1, u1), (q, l2, u2) = share_interval(one), share_interval(other)
    spread = float(np.sqrt(one.var() * other.var()))
    r = float(((one - p) * (other - q)).mean()) / spread if spread > 0 else 0.0

    def added(mine: float, its: float) -> float:
        return float(np.sqrt(max(0.0, mine**2 - 2 * r * mine * its + its**2)))

    return p - q, p - q - added(p - l1, u2 - q), p - q + added(u1 - p, q - l2)


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


Ends = tuple[float, float, float]


def separate_interval(one: Ends, other: Ends) -> Ends:
    """The difference of two values of which the intervals alone are known, and its 95 % interval.

    Each end is as far from the difference as the root of the sum of squares of the distances that the two values have
    from the ends of theirs (Zou & Donner 2008, for independent values). Over the same images, values that
    rise and fall together differ less than that: then the interval is too wide, never too narrow.

    Args:
        one, other: value, low, high.

    Returns:
        other minus one, low, high.
    """
    apart = other[0] - one[0]
    (below, above), (under, over) = (
        (max(0.0, value - low), max(0.0, high - value)) for value, low, high in (one, other)
    )
    return apart, apart - float(np.hypot(under, above)), apart + float(np.hypot(over, below))


def wilson(hits: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); never outside [0, 1], sound at 0 and at all hits.

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    share, square = hits / trials, float(_quantile(ENDS[1])) ** 2 / trials
    half = float(np.sqrt(square * share * (1 - share) + square**2 / 4))
    middle = share + square / 2
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    return (0.0 if share == 0 else max(0.0, low)), (1.0 if share == 1 else min(1.0, high))


def _quantile(share: ArrayLike) -> Floats:
    """Of the standard normal distribution. SciPy is imported where it is asked: who compares runs never does."""
    from scipy.special import ndtri

    found: Floats = ndtri(share)
    return found


def _below(value: ArrayLike) -> Floats:
    """Share of the standard normal distribution that lies below a value."""
    from scipy.special import ndtr

    found: Floats = ndtr(value)
    return found


def _student(shares: ArrayLike, freedom: int) -> Floats:
    """Quantiles of Student's distribution."""
    from scipy.special import stdtrit

    found: Floats = stdtrit(freedom, shares)
    return found
