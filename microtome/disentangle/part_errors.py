"""How near parts were located: errors over pictures and draws of boxes, and the blend beside each of its rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.graph_keys import Locator
from microtome.quantify.crossed import (
    CrossedWeights,
    crossed_difference,
    crossed_mean,
    crossed_resamples,
    crossed_weights,
    holm,
)
from microtome.quantify.intervals import ENDS, share_ends
from microtome.quantify.shift import following

Floats = NDArray[np.float64]
CLOSE = 0.1  # of the diagonal


@dataclass(frozen=True)
class Tried:
    """A part that was looked for from so many boxes.

    Args:
        part: its name.
        boxes: how many were given.
        errors: by method (draws, pictures) distances to the truth in diagonals; NaN where a picture was given, or does
            not show the part.
        pictures: which pictures these are: those of equal names are the same ones.
    """

    part: str
    boxes: int
    errors: Mapping[Locator, Floats]
    pictures: int = 0

    @property
    def weights(self) -> CrossedWeights:
        """Of its resamples: pictures are shared by all parts and numbers of boxes, draws by all parts."""
        draws, pictures = next(iter(self.errors.values())).shape
        return crossed_weights(pictures, draws, seed=(self.pictures, self.boxes))


@dataclass(frozen=True)
class PartSummary:
    """A method's errors for one part and number of boxes: their mean, and the share of near hits."""

    part: str
    boxes: int
    method: Locator
    error: float
    low: float
    high: float
    share: float
    share_low: float
    share_high: float
    images: int


def summaries(tried: Sequence[Tried]) -> list[PartSummary]:
    """Every method's errors; below CLOSE they are near hits. Intervals over pictures and draws."""
    return [_summary(item, method, item.weights) for item in tried for method in item.errors]


def _summary(item: Tried, method: Locator, weights: CrossedWeights) -> PartSummary:
    errors = item.errors[method]
    near = np.where(np.isfinite(errors), (errors < CLOSE).astype(float), np.nan)
    images = int(np.isfinite(errors).any(0).sum())
    error, hits = _interval(errors, weights), crossed_mean(near)
    share = (hits, *share_ends(hits, float(crossed_resamples(near, weights).var()), images))
    return PartSummary(item.part, item.boxes, method, *error, *share, images)


def _interval(values: Floats, weights: CrossedWeights) -> tuple[float, float, float]:
    """Mean, low and high."""
    low, high = np.quantile(crossed_resamples(values, weights), ENDS)
    return crossed_mean(values), float(low), float(high)


@dataclass(frozen=True)
class PartComparison:
    """The blend's error less a rival's, on the same pictures from the same boxes.

    Args:
        part, boxes: None for the mean over all parts and numbers of boxes.
        rival: which.
        difference, low, high: below zero where the blend is nearer; 95 % over pictures and draws, paired.
        p_value: of no difference.
        holm: the same, adjusted for all parts and numbers of boxes (Holm); None of their mean.
    """

    part: str | None
    boxes: int | None
    rival: Locator
    difference: float
    low: float
    high: float
    p_value: float
    holm: float | None = None


@dataclass(frozen=True)
class PartShift:
    """How a method's places follow what pictures show when it is moved: the shift test, mean over draws.

    Args:
        part, boxes, method: of what.
        slope, low, high: 1 follows, 0 is frozen; 95 % over pictures.
        r2: share of the displacement that the offset explains.
        images: pictures, given ones left out.
    """

    part: str
    boxes: int
    method: Locator
    slope: float
    low: float
    high: float
    r2: float
    images: int


def part_shift(item: Tried, method: Locator, places: tuple[Floats, Floats], offset: Floats) -> PartShift:
    """The shift test of a method.

    Args:
        item: with its errors, which say in which pictures the part was looked for in each draw.
        method: of it.
        places: (draws, pictures, 2) where it located the part before and after.
        offset: (pictures, 2) by which what is shown was moved, in the same unit.
    """
    counts = np.isfinite(item.errors[method]).T
    before, after = (where.transpose(1, 0, 2) for where in places)
    found = following(before, after, offset, counts, weights=item.weights.pictures.astype(np.int64))
    low, high = np.quantile(found.drawn.mean(1), ENDS)
    images = int(counts.any(1).sum())
    return PartShift(
        item.part,
        item.boxes,
        method,
        float(found.slope.mean()),
        float(low),
        float(high),
        float(found.r2.mean()),
        images,
    )


def comparisons(tried: Sequence[Tried]) -> list[PartComparison]:
    """The blend against every rival: all together first, the rival of the lowest mean error before the others."""
    rivals = [method for method in tried[0].errors if method != Locator.BLEND]
    rivals.sort(key=lambda rival: np.mean([crossed_mean(item.errors[rival]) for item in tried]))
    return [row for rival in rivals for row in _against(tried, rival)]


def _against(tried: Sequence[Tried], rival: Locator) -> list[PartComparison]:
    values, drawn = [], []
    for item in tried:
        apart = item.errors[Locator.BLEND] - item.errors[rival]
        values.append(crossed_mean(apart))
        drawn.append(crossed_resamples(apart, item.weights))
    rows = [
        _row((item.part, item.boxes), rival, value, each)
        for item, value, each in zip(tried, values, drawn, strict=True)
    ]
    adjusted = holm([row.p_value for row in rows])
    together = _row((None, None), rival, float(np.mean(values)), np.mean(drawn, axis=0))
    return [together, *(replace(row, holm=float(p)) for row, p in zip(rows, adjusted, strict=True))]


def _row(of: tuple[str | None, int | None], rival: Locator, value: float, drawn: Floats) -> PartComparison:
    found = crossed_difference(value, drawn)
    return PartComparison(*of, rival, found.value, found.low, found.high, found.p_value)
