"""Stage `drift`: the same units of two networks, from the counts of both over the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InputError
from microtome.quantify import drift as science
from microtome.quantify.resampling import WeightedCounts, bootstrap_weights
from storage import Draft
from storage.tables import Columns, Gathered, Row
from tasks.activations.result import Maps
from tasks.drift import PlannedDrift
from tasks.index.result import Index
from tasks.session import Session
from tasks.tally.result import Tally
from tasks.thresholds.result import Thresholds

BLOCK_BYTES = 128_000_000  # of either network's counts, held for one block of resamples


@dataclass(frozen=True)
class Inputs:
    """Pictures, and what two networks made of them."""

    index: Index
    activations_before: Maps
    thresholds_before: Thresholds
    tally_before: Tally
    activations_after: Maps
    thresholds_after: Thresholds
    tally_after: Tally


def run(options: PlannedDrift, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Compare every layer that both networks have."""
    layers = shared_layers(inputs)
    session.begin(len(layers), "layers")
    units: Gathered = {}
    rows: list[Row] = []
    for layer in layers:
        compared = _Compared(options, inputs, session, layer)
        for name, values in compared.unit_rows().items():
            units.setdefault(name, []).extend(values)
        rows.append(compared.layer_row())
        session.advance(1)
    draft.table("drift_units", units)
    draft.rows("drift_layers", rows)


@dataclass(frozen=True)
class LayerSide:
    """A layer in one of the networks: its name there, its place among the layers, and what was made of its maps."""

    name: str
    number: int
    units: int
    thresholds: Thresholds
    tally: Tally

    @property
    def scores(self) -> NDArray[np.float64]:
        """(units, concepts) IoU."""
        return self.tally.column(self.name, "iou", self.units)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """(units,) standard deviation of each unit's values."""
        found = {row["unit"]: row["std"] for row in self.thresholds.rows("thresholds", layer=self.name)}
        return np.array([found[unit] for unit in range(self.units)], np.float64)

    def threshold(self, tail: float) -> NDArray[np.float64]:
        """(units,) threshold of each unit."""
        return self.thresholds.at(self.name, tail).astype(np.float64)


@dataclass(frozen=True)
class SharedLayer:
    """A layer in both networks."""

    before: LayerSide
    after: LayerSide


def shared_layers(inputs: Inputs) -> list[SharedLayer]:
    """The layers of one name; a fine-tuned network keeps those of a network without a chain `features` under that name.

    Raises:
        InputError: there are none.
    """
    before, after = inputs.activations_before.layers, inputs.activations_after.layers
    numbers = {layer.name: number for number, layer in enumerate(after)}
    found = []
    for number, layer in enumerate(before):
        there = next((name for name in (layer.name, f"features.{layer.name}") if name in numbers), None)
        if there is not None:
            at = numbers[there]
            first = LayerSide(layer.name, number, layer.units, inputs.thresholds_before, inputs.tally_before)
            second = LayerSide(there, at, after[at].units, inputs.thresholds_after, inputs.tally_after)
            found.append(SharedLayer(first, second))
    if not found:
        raise InputError(
            f"drift: must have a layer in both networks, got {', '.join(layer.name for layer in before)} before and "
            f"{', '.join(numbers)} after"
        )
    return found


@dataclass(frozen=True)
class _Compared:
    """A layer under comparison."""

    options: PlannedDrift
    inputs: Inputs
    session: Session
    layer: SharedLayer

    @cached_property
    def found(self) -> science.Matched:
        """The units, matched by number."""
        return science.matched(self.layer.before.scores, self.layer.after.scores)

    @cached_property
    def drawn(self) -> science.Redrawn | None:
        """The units over resamples of the pictures."""
        return science.redrawn(self.found, self.resampled()) if self.options.bootstrap else None

    @cached_property
    def sure(self) -> science.UnitDrift | None:
        """How sure their changes are."""
        return science.unit_drift(self.found, self.drawn) if self.drawn else None

    def resampled(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """(units, concepts) IoU in both networks over each resample: the same pictures in both."""
        rng = np.random.default_rng([self.session.seed, 1])
        weights = bootstrap_weights(self.inputs.index.images, self.options.bootstrap, rng)
        before, after = self.layer.before, self.layer.after
        concepts = len(self.inputs.index.concepts.number)
        size = max(1, BLOCK_BYTES // (4 * max(before.units, after.units) * concepts))
        for first in range(0, len(weights), size):
            some = weights[first : first + size]
            both = self.weighted(before, some), self.weighted(after, some)
            yield from ((both[0].scores(place), both[1].scores(place)) for place in range(len(some)))

    def weighted(self, side: LayerSide, weights: NDArray[np.int32]) -> WeightedCounts:
        """One network's counts with pictures taken so many times."""
        index, everywhere = self.inputs.index, self.options.denominator == "all-images"
        counts = WeightedCounts(weights, side.units, index.concepts.category_index, all_images=everywhere)
        for block in side.tally.image_counts(index, side.number, side.units):
            counts.update(block)
            self.session.check()
        return counts

    @cached_property
    def thresholds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(units,) before and after."""
        before, after, tail = self.layer.before, self.layer.after, self.options.tail
        return before.threshold(tail), after.threshold(tail)

    @cached_property
    def threshold_change(self) -> NDArray[np.float64]:
        """(units,) in standard deviations of each unit's values."""
        return science.threshold_change(self.thresholds, (self.layer.before.deviation, self.layer.after.deviation))

    def unit_rows(self) -> Columns:
        """Columns of the table `drift_units`."""
        found, sure, names = self.found, self.sure, self.inputs.index.concepts.name
        units, min_iou = len(found.changed), self.options.min_iou
        empty = [None] * units
        return {
            "layer": [self.layer.before.name] * units,
            "unit": range(units),
            "concept_before": _named(found.label_before, names),
            "concept_after": _named(found.label_after, names),
            "changed": found.changed,
            "apart_share": sure.apart if sure else empty,
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
            "detector_before": found.iou_before > min_iou,
            "detector_after": found.iou_after > min_iou,
            "threshold_before": self.thresholds[0],
            "threshold_after": self.thresholds[1],
            "threshold_change": _or_none(self.threshold_change),
        }

    def layer_row(self) -> Row:
        """A row of the table `drift_layers`."""
        found = science.layer_drift(self.found, self.options.min_iou, self.drawn)
        counted, moved, sure = found.detectors, self.threshold_change, self.sure
        resamples = self.options.bootstrap
        risen, fallen = science.sure_changes(self.found, sure.q) if sure else (None, None)
        return {
            "layer": self.layer.before.name,
            "units": len(self.found.changed),
            "images": self.inputs.index.images,
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
            "min_iou": self.options.min_iou,
            "bootstrap": resamples,
            "bootstrap_needed": science.resamples_needed(sure.p[np.isfinite(sure.p)], resamples) if sure else resamples,
        }


def _figure(name: str, ends: str, found: science.Estimate) -> Row:
    return {name: found.value, f"{ends}_low": found.low, f"{ends}_high": found.high}


def _named(labels: NDArray[np.int64], names: list[str]) -> list[str | None]:
    return [None if label == science.NONE else names[label] for label in labels]


def _or_none(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
