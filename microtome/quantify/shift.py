"""The shift test: does a position follow when what the picture shows is moved by a known offset?

    d_I = q_I - p_I                  p, q: the position before and after what is shown moved by o_I
    slope = sum_xy cov(o, d) / sum_xy var(o)         R^2 = slope^2 sum_xy var(o) / sum_xy var(d)

Over pictures I; x and y have intercepts of their own. A position that follows has slope 1, a frozen one 0, one that
jumps about whatever is shown 0 as well, with an R^2 near 0. A steady position that does not follow may just be frozen.

Whether a slope lies above LIMIT is tested by its score, the residuals of a slope of LIMIT itself:

    u_I = sum_xy o_I (d_I - LIMIT o_I), o and d less their means      t = sum_I u_I / sqrt(n / (n - 1) sum_I u_I^2)

by Student's distribution of n - 2. Nothing is asked of the displacements' distribution; of positions that follow in
half of the pictures and jump anywhere in the others, whose slope is LIMIT, quantiles of resamples call up to four times
as many sure as they should. Of many positions, the surely following are those whose false discovery rate is at most
5 % (`false_discovery_of_pairs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.intervals import ENDS
from microtome.quantify.significance import false_discovery_of_pairs
from microtome.quantify.stability import CategoryStability, LandmarkStability, Protocol

Floats = NDArray[np.float64]
LIMIT = 0.5  # a position follows if the whole interval of its slope lies above


@dataclass(frozen=True)
class Following:
    """How positions follow: (positions,) each; NaN with fewer than three pictures.

    Args:
        slope: 1 follows, 0 is frozen.
        r2: share of the displacement's variance that the offset explains; 0 of a position that never moves.
        low, high: 95 % percentile interval of the slope over pictures; NaN where nothing was resampled.
        drawn: (resamples, positions) slopes.
        p_value: of a slope of LIMIT at most, by its score.
    """

    slope: Floats
    r2: Floats
    low: Floats
    high: Floats
    drawn: Floats
    p_value: Floats

    @property
    def follows(self) -> NDArray[np.bool_]:
        """Those of which it is sure, each taken alone."""
        return self.low > LIMIT


def following(
    before: Floats, after: Floats, offset: Floats, counts: NDArray[np.bool_], *, weights: NDArray[np.int64]
) -> Following:
    """How positions follow the offset of what pictures show.

    Args:
        before, after: (pictures, positions, 2) x, y.
        offset: (pictures, 2) in the same unit.
        counts: (pictures, positions) which pictures count for which position.
        weights: (resamples, pictures) how often each picture counts in each resample.
    """
    once = np.ones((1, len(offset)))
    moved = after - before
    slope, r2 = (values[0] for values in _regressed(moved, offset, counts, once))
    drawn, _ = _regressed(moved, offset, counts, weights.astype(float))
    low, high = np.quantile(drawn, ENDS, axis=0) if len(drawn) else np.full((2, len(slope)), np.nan)
    few = counts.sum(0) < 3
    each = (slope, r2, low, high, _above(moved, offset, counts))
    slope, r2, low, high, p_value = (np.where(few, np.nan, values) for values in each)
    return Following(slope, r2, low, high, drawn, p_value)


def _above(moved: Floats, offset: Floats, counts: NDArray[np.bool_]) -> Floats:
    """(positions,) p-value of a slope of LIMIT at most. SciPy is imported where it is asked."""
    from scipy.special import stdtr

    pictures = np.maximum(counts.sum(0), 3)
    o, d = (
        np.where(counts[..., None], values - np.where(counts[..., None], values, 0).sum(0) / pictures[:, None], 0)
        for values in (np.broadcast_to(offset[:, None], moved.shape), moved)
    )
    score = (o * (d - LIMIT * o)).sum(2)
    noise = np.sqrt((score**2).sum(0) * pictures / (pictures - 1))
    t = np.divide(score.sum(0), noise, out=np.zeros(len(noise)), where=noise > 0)
    found: Floats = stdtr(pictures - 2.0, -t)
    return found


def _regressed(moved: Floats, offset: Floats, counts: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """(resamples, positions) slope and R^2; 0 where nothing varies."""
    total = np.maximum(weights @ counts, 1e-12)
    together, of_offset, of_moved = (np.zeros((len(weights), moved.shape[1])) for _ in range(3))
    for axis in (0, 1):
        o, d = offset[:, [axis]] * counts, np.where(counts, moved[..., axis], 0)
        mean_o, mean_d = weights @ o / total, weights @ d / total
        together += weights @ (o * d) / total - mean_o * mean_d
        of_offset += weights @ (o * o) / total - mean_o**2
        of_moved += weights @ (d * d) / total - mean_d**2
    slope = np.divide(together, of_offset, out=np.zeros_like(together), where=of_offset > 1e-9)
    r2 = np.divide(slope * together, of_moved, out=np.zeros_like(together), where=of_moved > 1e-9)
    return slope, r2


def frozen_deviation(position: Floats, landmark: Floats, counts: NDArray[np.bool_], diagonal: float) -> Floats:
    """(positions,) instability of each position held at its own mean place: what it owes to standing still.

    Args:
        position: (pictures, positions, 2).
        landmark: (pictures, 2); anything where no position counts.
        counts: (pictures, positions) which pictures count.
        diagonal: of the picture, in the same unit.

    Returns:
        unbiased standard deviation over the pictures of the distance to the landmark, in diagonals; NaN with fewer than
        two pictures.
    """
    total = counts.sum(0)
    mean = np.where(counts[..., None], position, 0).sum(0) / np.maximum(total, 1)[:, None]
    distance = np.where(counts, np.linalg.norm(mean[None] - landmark[:, None], axis=2) / diagonal, 0)
    apart = np.where(counts, distance - distance.sum(0) / np.maximum(total, 1), 0)
    deviation: Floats = np.where(total > 1, np.sqrt(np.square(apart).sum(0) / np.maximum(total - 1, 1)), np.nan)
    return deviation


def frozen_resampled(
    item: CategoryStability,
    position: Floats,
    landmarks: Mapping[str, Floats],
    *,
    protocol: Protocol,
    weights: NDArray[np.int64],
) -> Floats:
    """(resamples, positions) instability of positions held at their own mean places, each resample's own.

    Top pictures are chosen anew in every resample, as in `stability.resampled`; of equal weights the two are paired.

    Args:
        item: the category, judged.
        position: (pictures, positions, 2) in input pixels.
        landmarks: by name (pictures, 2), as the category was judged with.
        protocol: of the judgement.
        weights: (resamples, pictures).
    """
    return np.array(
        [
            np.mean(
                [
                    _frozen(position, landmarks[name], _drawn(mark, weight, protocol.top_images)) / protocol.diagonal
                    for name, mark in item.landmarks.items()
                ],
                axis=0,
            )
            for weight in weights
        ]
    )


def _drawn(mark: LandmarkStability, weight: NDArray[np.int64], top: int) -> NDArray[np.int64]:
    """(pictures, positions) how often each picture counts for each position in a resample."""
    drawn = weight[mark.order] * np.take_along_axis(mark.shown, mark.order, 0)
    before = np.cumsum(drawn, 0) - drawn
    counts = np.zeros_like(drawn)
    np.put_along_axis(counts, mark.order, np.clip(top - before, 0, drawn), 0)
    return counts


def _frozen(position: Floats, landmark: Floats, counts: NDArray[np.int64]) -> Floats:
    """(positions,) unbiased deviation of the distance from the mean place, under counts."""
    total = np.maximum(counts.sum(0), 1)
    mean = (counts[..., None] * position).sum(0) / total[:, None]
    distance = np.where(counts > 0, np.linalg.norm(mean[None] - landmark[:, None], axis=2), 0)
    apart = distance - (counts * distance).sum(0) / total
    deviation: Floats = np.sqrt((counts * np.square(apart)).sum(0) / np.maximum(total - 1, 1))
    return deviation


@dataclass(frozen=True)
class Shifted:
    """Pictures whose show was moved.

    Args:
        offset: (pictures, 2) x, y by which what is shown moved, in input pixels.
        inside: (pictures,) the crop window stayed in the picture; where not, the picture was mirrored at its border.
    """

    offset: Floats
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class CategoryShift:
    """How a category's filters follow, and what they would be if they stood still.

    Args:
        following: of each filter, in the pictures in which its steadiness is judged.
        inside, mirrored: (filters,) slope where the crop window stayed in the picture, and where it did not; NaN with
            fewer than three such pictures.
        inside_share: of the pictures.
        deviation, frozen: (filters,) location instability, and that of the filter's own mean place; NaN where NULL.
        tracking: (filters,) tracks a landmark.
    """

    following: Following
    inside: Floats
    mirrored: Floats
    inside_share: float
    deviation: Floats
    frozen: Floats
    tracking: NDArray[np.bool_]

    @property
    def p_value(self) -> Floats:
        """(filters,) of a slope of LIMIT at most; NaN where NULL."""
        return np.where(np.isfinite(self.deviation), self.following.p_value, np.nan)


def category_shift(
    item: CategoryStability,
    positions: tuple[Floats, Floats],
    landmarks: Mapping[str, Floats],
    shifted: Shifted,
    *,
    protocol: Protocol,
    weights: NDArray[np.int64],
) -> CategoryShift:
    """The shift test of a category's filters.

    Args:
        item: the category, judged.
        positions: (pictures, filters, 2) before and after, in input pixels.
        landmarks: by name (pictures, 2), as the category was judged with.
        shifted: the pictures.
        protocol: of the judgement.
        weights: (resamples, pictures).
    """
    before, after = positions
    counts = np.any([mark.counts for mark in item.landmarks.values()], axis=0)
    none = weights[:0]
    inside, mirrored = (
        following(before, after, shifted.offset, counts & some[:, None], weights=none).slope
        for some in (shifted.inside, ~shifted.inside)
    )
    frozen = np.mean(
        [
            frozen_deviation(before, landmarks[name], mark.counts, protocol.diagonal)
            for name, mark in item.landmarks.items()
        ],
        axis=0,
    )
    return CategoryShift(
        following(before, after, shifted.offset, counts, weights=weights),
        inside,
        mirrored,
        float(shifted.inside.mean()),
        item.deviation,
        np.where(np.isfinite(item.deviation), frozen, np.nan),
        item.tracking,
    )


@dataclass(frozen=True)
class ShiftSummary:
    """The shift test of a layer, in one category or as the mean over several; None where there is nothing to average.

    Args:
        positions, follow: filters that are not NULL, in each category, and those of them whose slope's interval, each
            taken alone, lies above LIMIT.
        slope, low, high, r2: means over them; the interval is over pictures.
        slope_inside, slope_mirrored, inside_share: slopes where the crop window stayed in the picture and where it did
            not, and the share of pictures in which it did.
        frozen: mean instability of the filters' own mean places.
        following_deviation, following_frozen, following_tracking: of those that follow: their instability, that of
            their mean places, and the share that tracks a landmark.
        filters, sure: that are not NULL, in one category at least, and those of them that surely follow in one at
        least. sure_deviation, sure_frozen, sure_tracking: as of those that follow, of the sure ones in their
        categories.
    """

    positions: int
    follow: int
    slope: float | None
    low: float | None
    high: float | None
    r2: float | None
    slope_inside: float | None
    slope_mirrored: float | None
    inside_share: float
    frozen: float | None
    following_deviation: float | None
    following_frozen: float | None
    following_tracking: float | None
    filters: int
    sure: int
    sure_deviation: float | None
    sure_frozen: float | None
    sure_tracking: float | None


def false_discovery_of_following(categories: Sequence[CategoryShift]) -> Floats:
    """(categories, filters) false discovery rate of each filter's following in each category, over all of them.

    Args:
        categories: all of a layer.
    """
    return false_discovery_of_pairs(np.array([item.p_value for item in categories]))


def shift_summary(
    categories: Sequence[CategoryShift], kept: NDArray[np.bool_], believed: NDArray[np.bool_]
) -> ShiftSummary:
    """Of the filters that count.

    Args:
        categories: one, or several to be pooled.
        kept: (filters,) which filters count.
        believed: (categories, filters) which surely follow, of all that were asked of the layer.
    """
    alive = [kept & np.isfinite(item.deviation) & np.isfinite(item.following.slope) for item in categories]
    alone = [own & item.following.follows for own, item in zip(alive, categories, strict=True)]
    sure = [own & those for own, those in zip(alive, believed, strict=True)]
    drawn = [item.following.drawn[:, own].mean(1) for own, item in zip(alive, categories, strict=True) if own.any()]
    ends = np.quantile(np.mean(drawn, axis=0), ENDS) if drawn and len(drawn[0]) else (None, None)

    def mean(flags: Sequence[NDArray[np.bool_]], values: Sequence[Floats | NDArray[np.bool_]]) -> float | None:
        """Over the filters of each category, then over categories."""
        each = [own[flag] for flag, own in zip(flags, values, strict=True)]
        finite = [own[np.isfinite(own)] for own in each]
        return float(np.mean([own.mean() for own in finite if len(own)])) if any(map(len, finite)) else None

    of = [item.following for item in categories]
    return ShiftSummary(
        positions=int(sum(own.sum() for own in alive)),
        follow=int(sum(own.sum() for own in alone)),
        slope=mean(alive, [item.slope for item in of]),
        low=None if ends[0] is None else float(ends[0]),
        high=None if ends[1] is None else float(ends[1]),
        r2=mean(alive, [item.r2 for item in of]),
        slope_inside=mean(alive, [item.inside for item in categories]),
        slope_mirrored=mean(alive, [item.mirrored for item in categories]),
        inside_share=float(np.mean([item.inside_share for item in categories])),
        frozen=mean(alive, [item.frozen for item in categories]),
        following_deviation=mean(alone, [item.deviation for item in categories]),
        following_frozen=mean(alone, [item.frozen for item in categories]),
        following_tracking=mean(alone, [item.tracking for item in categories]),
        filters=int(np.any(alive, axis=0).sum()),
        sure=int(np.any(sure, axis=0).sum()),
        sure_deviation=mean(sure, [item.deviation for item in categories]),
        sure_frozen=mean(sure, [item.frozen for item in categories]),
        sure_tracking=mean(sure, [item.tracking for item in categories]),
    )
