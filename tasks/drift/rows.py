"""Rows of the tables of `drift`, from units that were matched: by the stage, and where two runs are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.quantify import drift as science
from storage.tables import Columns, Row

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MatchedLayer:
    """A layer in two networks.

    Args:
        name: in the network before.
        found: its units, matched by number.
        drawn: the same over resamples of the pictures; None for none.
        thresholds, deviations: (units,) before and after.
        concepts: names of the concepts.
        images: number of pictures.
        min_iou: of a detector.
        resamples: how many there are.
    """

    name: str
    found: science.Matched
    drawn: science.Redrawn | None
    thresholds: tuple[Floats, Floats]
    deviations: tuple[Floats, Floats]
    concepts: Sequence[str]
    images: int
    min_iou: float
    resamples: int

    @cached_property
    def sure(self) -> science.UnitDrift | None:
        """How sure the units' changes are."""
        return science.unit_drift(self.found, self.drawn) if self.drawn else None

    @cached_property
    def threshold_change(self) -> Floats:
        """(units,) in standard deviations of each unit's values."""
        return science.threshold_change(self.thresholds, self.deviations)

    def unit_rows(self) -> Columns:
        """Columns of the table `drift_units`."""
        found, sure = self.found, self.sure
        units = len(found.changed)
        empty = [None] * units
        return {
            "layer": [self.name] * units,
            "unit": range(units),
            "concept_before": _named(found.label_before, self.concepts),
            "concept_after": _named(found.label_after, self.concepts),
            "changed": found.changed,
            "apart_share": empty if sure is None or sure.apart is None else sure.apart,
            "iou_before": found.iou_before,
            "iou_after": found.iou_after,
            "kept_iou": found.kept_iou,
            "earlier_iou": found.earlier_iou,
            "change": _or_none(found.change),
            "change_low": _or_none(sure.low) if sure else empty,
            "change_high": _or_none(sure.high) if sure else empty,
            "p_value": _or_none(sure.p) if sure else empty,
            "q_value": _or_none(sure.q) if sure else empty,
            "best_change": found.best_change,
            "best_change_low": sure.best_low if sure else empty,
            "best_change_high": sure.best_high if sure else empty,
            "detector_before": found.iou_before > self.min_iou,
            "detector_after": found.iou_after > self.min_iou,
            "threshold_before": self.thresholds[0],
            "threshold_after": self.thresholds[1],
            "threshold_change": _or_none(self.threshold_change),
        }

    def layer_row(self) -> Row:
        """A row of the table `drift_layers`."""
        found = science.layer_drift(self.found, self.min_iou, self.drawn)
        counted, moved, sure = found.detectors, self.threshold_change, self.sure
        risen, fallen = science.sure_changes(self.found, sure.q) if sure else (None, None)
        p = sure.p[np.isfinite(sure.p)] if sure else None
        return {
            "layer": self.name,
            "units": len(self.found.changed),
            "images": self.images,
            **_figure("changed_share", "changed", found.changed),
            "random_share": found.random,
            "redrawn_share": found.redrawn,
            "detectors_before": counted.before,
            "detectors_after": counted.after,
            "kept": counted.kept,
            "lost": counted.lost,
            "gained": counted.gained,
            **_figure("kept_share", "kept", found.kept),
            **_figure("lost_share", "lost", found.lost),
            **_figure("gained_share", "gained", found.gained),
            **_figure("change", "change", found.change),
            **_figure("best_change", "best_change", found.best_change),
            "risen": risen,
            "fallen": fallen,
            "threshold_change": float(np.nanmedian(np.abs(moved))) if np.isfinite(moved).any() else None,
            "min_iou": self.min_iou,
            "bootstrap": self.resamples,
            "bootstrap_needed": self.resamples if p is None else science.resamples_needed(p, self.resamples),
        }


def _figure(name: str, ends: str, found: science.Estimate) -> Row:
    return {name: found.value, f"{ends}_low": found.low, f"{ends}_high": found.high}


def _named(labels: NDArray[np.int64], names: Sequence[str]) -> list[str | None]:
    return [None if label == science.NONE else names[label] for label in labels]


def _or_none(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
