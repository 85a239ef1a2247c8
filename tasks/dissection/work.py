"""Stage `dissection`: labels, intervals, null and held-out check of every unit, from the counts alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from microtome.networks.geometry import LayerGeometry
from microtome.quantify.dissection import Best, DetectorCount, best, detectors
from microtome.quantify.intervals import Interval
from microtome.quantify.resampling import (
    BootstrapResult,
    WeightedCounts,
    bootstrap,
    bootstrap_weights,
    confirmed,
    confirmed_interval,
    count_interval,
    halves,
    heldout_iou,
    long_runs,
    redrawn_halves,
)
from microtome.quantify.significance import LEVEL, null_p95, p_values, permutations_needed
from storage import Draft
from storage.tables import Columns, Gathered, Row
from tasks.dissection import DissectionOptions
from tasks.index.result import ConceptTable
from tasks.null.result import Null
from tasks.redrawn.result import Redrawn
from tasks.session import Session
from tasks.tally.result import Tally
from tasks.thresholds.result import SeenPictures

BLOCK_BYTES = 256_000_000  # of counts held for one block of resamples
SATURATED = "saturated: its threshold is its maximum, so nothing lies above it"
CONSTANT = "dead: it has the same value everywhere"


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """Counts of the same pictures, and what chance and other thresholds reach, where that was asked for."""

    tally: Tally
    null: Null | None = None
    redrawn: Redrawn | None = None


@dataclass(frozen=True)
class Confirmed:
    """Which detectors are confirmed: (units,), and the interval of their number, where there are resamples."""

    units: NDArray[np.bool_]
    number: Interval | None


@dataclass(frozen=True)
class _Layer:
    """What was found out about one layer."""

    geometry: LayerGeometry
    found: Best
    counted: DetectorCount
    sure: BootstrapResult | None
    redrawn: Sequence[Interval | None]
    heldout: NDArray[np.float64]
    confirmed: Confirmed | None
    null_p95: NDArray[np.float64] | None
    p: NDArray[np.float64] | None
    p_across: NDArray[np.float64] | None
    strata: int
    saturated: list[int]
    constant: list[int]


def run(options: DissectionOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Summarise every layer."""
    layers = inputs.activations.layers
    session.begin(len(layers), "layers")
    units: Gathered = {}
    nearest: Gathered = {}
    summary: list[Row] = []
    for number, layer in enumerate(layers):
        result = _Summary(options, inputs, session, number)()
        thresholds = inputs.thresholds.at(layer.name, options.tail)
        _extend(units, _unit_rows(result, inputs.index.concepts, thresholds, options.min_iou))
        scores = inputs.tally.column(layer.name, "iou", layer.units)
        _extend(nearest, _nearest_rows(result, scores, inputs.index.concepts))
        summary.append(_layer_row(result, options, inputs.index.images))
        session.advance(1)
    draft.table("units", units)
    draft.table("nearest", nearest)
    draft.table("layers", {name: [row[name] for row in summary] for name in summary[0]})


def _extend(rows: Gathered, more: Columns) -> None:
    for name, values in more.items():
        rows.setdefault(name, []).extend(values)


@dataclass(frozen=True)
class _Summary:
    """Summarises one layer."""

    options: DissectionOptions
    inputs: Inputs
    session: Session
    number: int

    def __call__(self) -> _Layer:
        inputs, layer, min_iou = self.inputs, self.layer, self.options.min_iou
        scores = inputs.tally.column(layer.name, "iou", layer.units)
        found = best(scores, self.category)
        counted, split = detectors(scores, found, min_iou), self.weighted(self.halves)
        null = inputs.null.best(layer.name, layer.units) if inputs.null else None
        across = inputs.null.best(layer.name, layer.units, across=True) if inputs.null else None
        p = None if null is None else p_values(found.iou, null)
        return _Layer(
            layer,
            found,
            counted,
            bootstrap(self.resamples(), found, min_iou, counted) if self.options.bootstrap else None,
            self.redrawn(counted),
            heldout_iou(split),
            None if p is None else self.confirmed(split, false_discovery_control(p) <= LEVEL),
            None if null is None else null_p95(null),
            p,
            None if across is None else p_values(found.iou, across),
            int(inputs.index.strata.max()) + 1,
            inputs.tally.saturated(layer.name),
            inputs.tally.constant(layer.name),
        )

    @property
    def layer(self) -> LayerGeometry:
        """In hand."""
        return self.inputs.activations.layers[self.number]

    @property
    def category(self) -> NDArray[np.int64]:
        """(concepts,) number of each one's category."""
        return self.inputs.index.concepts.category_index

    def weighted(self, weights: NDArray[np.int32]) -> WeightedCounts:
        """Counts with pictures taken so many times."""
        everywhere = self.options.denominator == "all-images"
        counts = WeightedCounts(weights, self.layer.units, self.category, all_images=everywhere)
        for block in long_runs(self.inputs.tally.image_counts(self.inputs.index, self.number, self.layer.units)):
            counts.update(block)
            self.session.check()
        return counts

    def resamples(self) -> Iterator[WeightedCounts]:
        """Resamples in blocks of bounded memory."""
        rng = np.random.default_rng([self.session.seed, 1])
        return self.blocks(bootstrap_weights(self.inputs.index.images, self.options.bootstrap, rng))

    def redrawn(self, counted: DetectorCount) -> Sequence[Interval | None]:
        """Of detectors, unique per category and unique per unit, every resample with thresholds of its own."""
        if self.inputs.redrawn is None:
            return (None, None, None)
        most = (self.layer.units, len(self.category), len(self.category))
        values = (counted.units, counted.per_category, counted.per_unit)
        drawn = self.inputs.redrawn.counts(self.layer.name)
        return [count_interval(*column) for column in zip(values, drawn, most, strict=True)]

    def blocks(self, weights: NDArray[np.int32]) -> Iterator[WeightedCounts]:
        """Counts under many weightings, an even number of them in each block."""
        size = 2 * max(1, BLOCK_BYTES // (8 * self.layer.units * len(self.category)))
        for first in range(0, len(weights), size):
            yield self.weighted(weights[first : first + size])

    @property
    def halves(self) -> NDArray[np.int32]:
        """Of the images: on one the label is chosen, on the other judged."""
        return halves(self.inputs.index.images, np.random.default_rng([self.session.seed, 2]))

    def confirmed(self, split: WeightedCounts, believed: NDArray[np.bool_]) -> Confirmed:
        """Detectors that pass on the held-out half and that chance does not reach."""
        min_iou, resamples = self.options.min_iou, self.options.bootstrap
        units = confirmed(split, believed, min_iou)
        if not resamples:
            return Confirmed(units, None)
        weights = redrawn_halves(self.halves, resamples, np.random.default_rng([self.session.seed, 3]))
        return Confirmed(units, confirmed_interval(self.blocks(weights), believed, min_iou, int(units.sum())))


def _unit_rows(result: _Layer, concepts: ConceptTable, thresholds: NDArray[np.float32], min_iou: float) -> Columns:
    units = result.geometry.units
    empty = [None] * units
    label = result.found.concept
    reasons = dict.fromkeys(result.saturated, SATURATED) | dict.fromkeys(result.constant, CONSTANT)
    none = result.found.iou == 0  # a unit that meets no concept has no label
    sure = result.sure
    return {
        "layer": [result.geometry.name] * units,
        "unit": list(range(units)),
        "threshold": thresholds,
        "concept": [None if none[unit] else concepts.name[c] for unit, c in enumerate(label)],
        "category": [None if none[unit] else concepts.category[c] for unit, c in enumerate(label)],
        "concept_id": [None if none[unit] else int(concepts.number[c]) for unit, c in enumerate(label)],
        "iou": result.found.iou,
        "iou_low": sure.low[:, 0] if sure else empty,
        "iou_high": sure.high[:, 0] if sure else empty,
        "label_stability": sure.label_stability if sure else empty,
        "null_p95": empty if result.null_p95 is None else result.null_p95,
        "p_value": empty if result.p is None else result.p,
        "p_value_across": empty if result.p_across is None else result.p_across,
        "q_value": empty if result.p is None else false_discovery_control(result.p),
        "heldout_iou": result.heldout,
        "detector": result.found.iou > min_iou,
        "confirmed": empty if result.confirmed is None else result.confirmed.units,
        "reason": [reasons.get(unit) for unit in range(units)],
    }


def _nearest_rows(result: _Layer, scores: NDArray[np.float64], concepts: ConceptTable) -> Columns:
    """Of each unit's nearest concepts, those that it meets."""
    nearest, sure = result.found.nearest, result.sure
    unit, rank = np.nonzero(np.take_along_axis(scores, nearest, 1) > 0)
    concept = nearest[unit, rank]
    empty = [None] * len(unit)
    return {
        "layer": [result.geometry.name] * len(unit),
        "unit": unit,
        "rank": rank,
        "concept_id": concepts.number[concept],
        "concept": [concepts.name[place] for place in concept],
        "category": [concepts.category[place] for place in concept],
        "iou": scores[unit, concept],
        "iou_low": sure.low[unit, rank] if sure else empty,
        "iou_high": sure.high[unit, rank] if sure else empty,
    }


def _significant(p: NDArray[np.float64] | None) -> int | None:
    return None if p is None else int((false_discovery_control(p) <= LEVEL).sum())


def _ends(name: str, interval: Interval | None) -> Row:
    return {f"{name}_low": interval and interval.low, f"{name}_high": interval and interval.high}


def _layer_row(result: _Layer, options: DissectionOptions, images: int) -> Row:
    layer, counted, sure, p, firm = result.geometry, result.counted, result.sure, result.p, result.confirmed
    permutations = options.permutations
    return {
        "layer": layer.name,
        "units": layer.units,
        "confirmed": None if firm is None else int(firm.units.sum()),
        "confirmed_low": firm.number.low if firm and firm.number else None,
        "confirmed_high": firm.number.high if firm and firm.number else None,
        "detectors": counted.units,
        "detectors_low": sure.detectors.low if sure else None,
        "detectors_high": sure.detectors.high if sure else None,
        "unique_per_category": counted.per_category,
        "unique_low": sure.unique_per_category.low if sure else None,
        "unique_high": sure.unique_per_category.high if sure else None,
        "unique_per_unit": counted.per_unit,
        "unique_per_unit_low": sure.unique_per_unit.low if sure else None,
        "unique_per_unit_high": sure.unique_per_unit.high if sure else None,
        **_ends("detectors_redrawn", result.redrawn[0]),
        **_ends("unique_redrawn", result.redrawn[1]),
        **_ends("unique_per_unit_redrawn", result.redrawn[2]),
        "significant": _significant(p),
        "significant_across": _significant(result.p_across),
        "strata": result.strata,
        "saturated": len(result.saturated),
        "dead": len(result.constant),
        "mean_iou": float(result.found.iou.mean()),
        "min_iou": options.min_iou,
        "tail": options.tail,
        "images": images,
        "permutations": permutations,
        "permutations_needed": permutations if p is None else permutations_needed(p, permutations),
        "rows": layer.grid[0],
        "columns": layer.grid[1],
        "start_row": layer.start[0],
        "start_column": layer.start[1],
        "jump_row": layer.jump[0],
        "jump_column": layer.jump[1],
        "field_row": layer.field[0],
        "field_column": layer.field[1],
        "is_global": layer.is_global,
    }
