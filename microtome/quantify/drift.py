"""How the units of one network differ from the units of the same number of another, over the same pictures.

The networks are two checkpoints of one training, or one before and after fine-tuning. A unit's label is its concept of
highest IoU (Bau et al. 2017), in each network by itself. The bootstrap over pictures is paired: one draw of pictures
judges both networks, so what the draw alone does to an IoU cancels in its change, and networks with the same weights
differ by exactly zero in every draw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.intervals import ENDS, paired_interval, resampled_interval
from microtome.quantify.significance import LEVEL, false_discovery

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
NONE = -1  # the label of a unit that meets no concept


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Matched:
    """Units of two networks, matched by number. Labels are indices into the concept table, NONE for none.

    Args:
        label_before, label_after: (units,) in each network.
        iou_before, iou_after: (units,) of each network's own label in that network, 0 to 1.
        kept_iou: (units,) of the label before, in the network after.
        earlier_iou: (units,) of the label after, in the network before.
    """

    label_before: Labels
    label_after: Labels
    iou_before: Floats
    iou_after: Floats
    kept_iou: Floats
    earlier_iou: Floats

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(units,) whether the labels differ; having none is a label here."""
        found: NDArray[np.bool_] = self.label_before != self.label_after
        return found

    @property
    def change(self) -> Floats:
        """(units,) of the IoU of the label before; NaN where there was none."""
        return np.where(self.label_before == NONE, np.nan, self.kept_iou - self.iou_before)

    @property
    def best_change(self) -> Floats:
        """(units,) of the best IoU, each network's own label."""
        return self.iou_after - self.iou_before


def matched(before: Floats, after: Floats) -> Matched:
    """Match the units of two networks by number.

    Args:
        before, after: (units, concepts) IoU in each network, over the same pictures.
    """
    unit = np.arange(len(before))
    first, second = before.argmax(1), after.argmax(1)
    return Matched(
        labels(before),
        labels(after),
        before[unit, first],
        after[unit, second],
        after[unit, first],
        before[unit, second],
    )


def labels(scores: Floats) -> Labels:
    """(units,) each unit's concept of highest IoU, the lowest number of equal ones; NONE where it meets none.

    Args:
        scores: (units, concepts) IoU.
    """
    return np.where(scores.max(1) > 0, scores.argmax(1), NONE)


def random_changed(before: Labels, after: Labels) -> float | None:
    """Share of the pairs of different units, one of each network, whose labels differ: what numbers mean by chance.

    Exact, over all pairs. None for a single unit.

    Args:
        before, after: (units,) labels.
    """
    units = len(before)
    if units < 2:
        return None
    alike = (before[:, None] == after[None, :]).sum() - (before == after).sum()
    return float(1 - alike / (units * (units - 1)))


@dataclass(frozen=True)
class DetectorDrift:
    """Detectors of two networks: units whose IoU with their label lies above the limit.

    Args:
        before, after: how many in each.
        kept: detectors in both, of one label.
        lost: detectors before that detect nothing after.
        gained: detectors after that detected nothing before.
    """

    before: int
    after: int
    kept: int
    lost: int
    gained: int

    @property
    def shares(self) -> tuple[float, float, float]:
        """Kept and lost of those before, gained of those after; NaN where there are none."""
        return (
            self.kept / self.before if self.before else np.nan,
            self.lost / self.before if self.before else np.nan,
            self.gained / self.after if self.after else np.nan,
        )


def detectors(before: Floats, after: Floats, changed: NDArray[np.bool_], min_iou: float) -> DetectorDrift:
    """Count detectors.

    Args:
        before, after: (units,) IoU of each network's own label.
        changed: (units,) whether these are different ones.
        min_iou: a detector lies strictly above it.
    """
    first, second = before > min_iou, after > min_iou
    return DetectorDrift(
        int(first.sum()),
        int(second.sum()),
        int((first & second & ~changed).sum()),
        int((first & ~second).sum()),
        int((second & ~first).sum()),
    )


def threshold_change(thresholds: tuple[Floats, Floats], deviations: tuple[Floats, Floats]) -> Floats:
    """(units,) change of the thresholds on the units' own scale: (T_a - T_b) / sqrt((s_a^2 + s_b^2) / 2).

    Both deviations count, so that a unit that hardly fires in one network does not set the scale alone. NaN for a unit
    that has one value everywhere in both.

    Args:
        thresholds: (units,) before and after.
        deviations: (units,) standard deviation of each unit's values, before and after.
    """
    apart = thresholds[1] - thresholds[0]
    scale = np.sqrt((deviations[0] ** 2 + deviations[1] ** 2) / 2)
    found: Floats = np.divide(apart, scale, out=np.full(len(scale), np.nan), where=scale > 0)
    return found


@dataclass(frozen=True)
class Redrawn:
    """Matched units over resamples of the pictures, both networks over the same ones; labels held but in the last two,
    which are None where no unit was labelled anew.

    Args:
        before: (resamples, units) IoU of the label before, in the network before.
        after: (resamples, units) IoU of the label after, in the network after.
        kept: (resamples, units) IoU of the label before, in the network after.
        changed: (resamples, units) whether the labels differ, both chosen anew.
        relabelled: (resamples, units) whether the network before gives another label than over the pictures as they
            are.
    """

    before: Floats
    after: Floats
    kept: Floats
    changed: NDArray[np.bool_] | None
    relabelled: NDArray[np.bool_] | None


def redrawn(found: Matched, scores: Iterable[tuple[Floats, Floats]]) -> Redrawn:
    """Matched units over resamples.

    Args:
        found: the units, over the pictures as they are.
        scores: for each resample (units, concepts) IoU in the network before and in the network after.
    """
    unit = np.arange(len(found.label_before))
    rows = []
    for before, after in scores:
        anew = labels(before)
        rows.append(
            (
                before[unit, found.label_before] * (found.label_before != NONE),
                after[unit, found.label_after] * (found.label_after != NONE),
                after[unit, found.label_before] * (found.label_before != NONE),
                anew != labels(after),
                anew != found.label_before,
            )
        )
    return Redrawn(*(np.array(column) for column in zip(*rows, strict=True)))


@dataclass(frozen=True)
class UnitDrift:
    """How sure the changes of units are; all are (units,).

    Args:
        low, high: 95 % interval of the change of the label before, NaN where there was none.
        p, q: of that change being none: twice the share of resamples on the rarer side of zero, and its false
            discovery rate over the units that had a label; NaN where there was none.
        best_low, best_high: 95 % interval of the change of the best IoU.
        apart: share of the resamples in which the two networks label the unit differently; None as `Redrawn.changed`.
    """

    low: Floats
    high: Floats
    p: Floats
    q: Floats
    best_low: Floats
    best_high: Floats
    apart: Floats | None


def unit_drift(found: Matched, drawn: Redrawn) -> UnitDrift:
    """Summarise resamples unit by unit.

    Args:
        found: the units.
        drawn: over resamples.
    """
    had = found.label_before != NONE
    change = np.where(had, drawn.kept - drawn.before, np.nan)
    low, high = np.quantile(change, ENDS, axis=0)
    p = np.where(had, sign_p_values(change), np.nan)
    q = false_discovery(p)
    best_low, best_high = np.quantile(drawn.after - drawn.before, ENDS, axis=0)
    return UnitDrift(low, high, p, q, best_low, best_high, None if drawn.changed is None else drawn.changed.mean(0))


def sign_p_values(change: Floats) -> Floats:
    """(units,) two-sided p of no change, which is below 0.05 where the percentile interval excludes zero.

    p = min(1, 2 (1 + b) / (1 + resamples)), b the resamples on the rarer side of zero, zero itself on both.

    Args:
        change: (resamples, units).
    """
    rarer = np.minimum((change <= 0).sum(0), (change >= 0).sum(0))
    found: Floats = np.minimum(1.0, 2 * (1 + rarer) / (1 + len(change)))
    return found


def sure_changes(found: Matched, q: Floats) -> tuple[int, int]:
    """Units whose label before gained IoU, and lost it, at a false discovery rate of LEVEL.

    Args:
        found: the units.
        q: (units,); NaN is neither.
    """
    sure = q <= LEVEL
    return int((sure & (found.change > 0)).sum()), int((sure & (found.change < 0)).sum())


def resamples_needed(p: Floats, resamples: int) -> int:
    """Resamples with which the units that changed one way in every resample could reach LEVEL (Benjamini-Hochberg).

    Args:
        p: (units,) of those that had a label.
        resamples: that were drawn.

    Returns:
        the number given if it suffices, or if no unit changed so; else the smallest that does.
    """
    at_floor = int((p <= 2 / (1 + resamples)).sum())
    if not at_floor or 2 * len(p) / ((1 + resamples) * at_floor) <= LEVEL:
        return resamples
    return int(np.ceil(2 * len(p) / (LEVEL * at_floor))) - 1


@dataclass(frozen=True)
class LayerDrift:
    """A layer in two networks.

    Args:
        detectors: before, after, kept, lost and gained.
        changed: share of the units whose label changed.
        random: the same of pairs of different units, exact: nothing is left of the numbers' meaning there.
        redrawn: share of labels that the network before changes by itself when pictures are redrawn, mean over the
            resamples: as much is in the pictures' chance.
        kept, lost: shares of the detectors before; `gained`: of those after.
        change: mean change of the IoU of the labels before, over the units that had one.
        best_change: mean change of the best IoU, over all units.
    """

    detectors: DetectorDrift
    changed: Estimate
    random: float | None
    redrawn: float | None
    kept: Estimate
    lost: Estimate
    gained: Estimate
    change: Estimate
    best_change: Estimate


def layer_drift(found: Matched, min_iou: float, drawn: Redrawn | None = None) -> LayerDrift:
    """Summarise a layer.

    Args:
        found: its units.
        min_iou: of a detector.
        drawn: the units over resamples of the pictures, for intervals; None for none.
    """
    counted = detectors(found.iou_before, found.iou_after, found.changed, min_iou)
    shares = None if drawn is None else _shares(found, min_iou, drawn)
    kept, lost, gained = (
        _share(value, None if shares is None else shares[:, place]) for place, value in enumerate(counted.shares)
    )
    had = found.label_before != NONE
    own = None if drawn is None else (drawn.kept[:, had], drawn.before[:, had])
    return LayerDrift(
        counted,
        _share(float(found.changed.mean()), None if drawn is None or drawn.changed is None else drawn.changed.mean(1)),
        random_changed(found.label_before, found.label_after),
        None if drawn is None or drawn.relabelled is None else float(drawn.relabelled.mean()),
        kept,
        lost,
        gained,
        _mean_change((found.kept_iou[had], found.iou_before[had]), own),
        _mean_change((found.iou_after, found.iou_before), None if drawn is None else (drawn.after, drawn.before)),
    )


def _shares(found: Matched, min_iou: float, drawn: Redrawn) -> Floats:
    """(resamples, 3) of kept, lost and gained detectors, labels held."""
    pairs = zip(drawn.before, drawn.after, strict=True)
    return np.array([detectors(before, after, found.changed, min_iou).shares for before, after in pairs])


def _share(value: float, drawn: Floats | None) -> Estimate:
    """A share of units; its interval is freed of bias, since more units change in a draw than over the data."""
    if np.isnan(value):
        return Estimate(None)
    known = np.zeros(0) if drawn is None else drawn[~np.isnan(drawn)]
    if not len(known):
        return Estimate(value)
    low, high = np.clip(resampled_interval(value, known), 0, 1)
    return Estimate(value, float(low), float(high))


def _mean_change(values: tuple[Floats, Floats], drawn: tuple[Floats, Floats] | None) -> Estimate:
    """Mean over units of what comes after minus what was before: (units,) each, and (resamples, units)."""
    if not len(values[0]):
        return Estimate(None)
    after, before = (float(value.mean()) for value in values)
    if drawn is None:
        return Estimate(after - before)
    rows = (drawn[0].mean(1), drawn[1].mean(1))
    return Estimate(*paired_interval((after, before), rows))
