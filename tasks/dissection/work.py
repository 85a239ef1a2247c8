"""Stage `dissection`: labels, intervals, null and held-out check of every unit, from the counts alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from microtome.networks.geometry import LayerGeometry
from microtome.quantify.accumulate import State
from microtome.quantify.dissection import Best, DetectorCount, best, detectors
from microtome.quantify.intervals import Interval, resampled_interval
from microtome.quantify.resampling import (
    BootstrapResult,
    Draws,
    Heldout,
    ImageCounts,
    WeightedCounts,
    bootstrap,
    bootstrap_draws,
    bootstrap_weights,
    confirmed_draws,
    count_interval,
    halves,
    long_runs,
    narrow,
    redrawn_halves,
)
from microtome.quantify.significance import LEVEL, false_discovery, null_p95, p_values, permutations_needed
from storage import Draft
from storage.tables import Columns, Gathered, Row
from tasks.ablation.result import Ablation
from tasks.freed import give_back
from tasks.index.result import ConceptTable
from tasks.labelling import DissectionOptions
from tasks.null.result import Null
from tasks.redrawn.result import RedrawnDetectors
from tasks.session import Session
from tasks.spans import layer_part, of_layer_part
from tasks.tally.result import Tally
from tasks.tally.runs import Runs
from tasks.thresholds.result import SeenPictures

RESAMPLES = 100  # of a shard
BLOCK_BYTES = 256_000_000  # of counts held for one block of resamples
SATURATED = "saturated: its threshold is its maximum, so nothing lies above it"
CONSTANT = "dead: it has the same value everywhere"


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """Counts of the same pictures, and what chance and other thresholds reach, where that was asked for."""

    tally: Tally
    null: Null | None = None
    redrawn: RedrawnDetectors | None = None
    ablation: Ablation | None = None


@dataclass(frozen=True)
class Confirmed:
    """Which detectors are confirmed: (units,), and the interval of their number, where there are resamples."""

    units: NDArray[np.bool_]
    number: Interval | None


@dataclass(frozen=True)
class SummarisedLayer:
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


def shards(options: DissectionOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Some resamples, for each layer, by the first one's number."""
    layers, starts = range(len(inputs.activations.layers)), range(0, options.bootstrap, RESAMPLES)
    return {layer_part(number, at): min(RESAMPLES, options.bootstrap - at) for number in layers for at in starts}


class Shard:
    """Scores some resamples of a layer.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: DissectionOptions, inputs: Inputs, session: Session) -> None:
        self._summary = partial(LayerDissection, options, inputs, session)
        self._layers: dict[int, LayerDissection] = {}  # that in hand alone

    def __call__(self, draft: Draft, name: str) -> None:
        """Leave what is kept of the resamples, and their numbers of confirmed detectors, where these are judged."""
        number, first = of_layer_part(name)
        if number not in self._layers:
            self._layers = {number: self._summary(number)}
        draws, confirmed = self._layers[number].draws(slice(first, first + RESAMPLES))
        draft.leave_arrays(name, {**vars(draws), **({} if confirmed is None else {"confirmed": confirmed})})


def run(options: DissectionOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Summarise every layer."""
    layers, names = inputs.activations.layers, list(shards(options, inputs, ()))
    units: Gathered = {}
    nearest: Gathered = {}
    summary: list[Row] = []
    for number, layer in enumerate(layers):
        drawn = [draft.left_arrays(name) for name in names if of_layer_part(name)[0] == number]
        result = LayerDissection(options, inputs, session, number)(drawn)
        thresholds = inputs.thresholds.at(layer.name, options.tail)
        causal = _causal(inputs.ablation, layer)
        _extend(units, {**unit_rows(result, inputs.index.concepts, thresholds, options.min_iou), **causal})
        scores = inputs.tally.column(layer.name, "iou", layer.units)
        _extend(nearest, _nearest_rows(result, scores, inputs.index.concepts))
        summary.append(layer_row(result, options, inputs.index.images))
    draft.table("units", units)
    draft.table("nearest", nearest)
    draft.table("layers", {name: [row[name] for row in summary] for name in summary[0]})


def _extend(rows: Gathered, more: Columns) -> None:
    for name, values in more.items():
        rows.setdefault(name, []).extend(values)


@dataclass(frozen=True)
class LayerDissection:
    """Summarises one layer.

    Args:
        options, inputs, session: of the stage.
        number: of the layer.
    """

    options: DissectionOptions
    inputs: Inputs
    session: Session
    number: int

    def __call__(self, drawn: Sequence[State]) -> SummarisedLayer:
        """From what the layer's shards left."""
        inputs, layer = self.inputs, self.layer
        counted = detectors(self.scores, self.found, self.options.min_iou)
        split = self.weighted(long_runs(self._counts()), self.halves).heldout()
        null, across = self.null(), self.null(across=True)
        parts = [Draws(part["own"], part["wins"], part["layer"]) for part in drawn]
        concepts = len(self.category)
        return SummarisedLayer(
            layer,
            self.found,
            counted,
            bootstrap(Draws.joined(parts), inputs.index.images, concepts, counted) if parts else None,
            self.redrawn(counted),
            split.iou[0],
            self.confirmed(split, [part["confirmed"] for part in drawn if "confirmed" in part]),
            None if null is None else null_p95(null),
            None if null is None else p_values(self.found.iou, null),
            None if across is None else p_values(self.found.iou, across),
            int(inputs.index.strata.max()) + 1,
            inputs.tally.saturated(layer.name),
            inputs.tally.constant(layer.name),
        )

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """(units, concepts) IoU."""
        return self.inputs.tally.column(self.layer.name, "iou", self.layer.units)

    @cached_property
    def found(self) -> Best:
        """The labels."""
        return best(self.scores, self.category)

    def null(self, *, across: bool = False) -> NDArray[np.float64] | None:
        """(permutations, units) what chance reaches, within strata or across them; None where nobody asked."""
        inputs = self.inputs
        return inputs.null.best(self.layer.name, self.layer.units, across=across) if inputs.null else None

    @cached_property
    def believed(self) -> NDArray[np.bool_] | None:
        """(units,) that chance does not reach; None where nobody asked what it reaches."""
        null = self.null()
        return None if null is None else false_discovery(p_values(self.found.iou, null)) <= LEVEL

    @property
    def layer(self) -> LayerGeometry:
        """In hand."""
        return self.inputs.activations.layers[self.number]

    @property
    def category(self) -> NDArray[np.int64]:
        """(concepts,) number of each one's category."""
        return self.inputs.index.concepts.category_index

    @cached_property
    def runs(self) -> Runs:
        """The layer's counts, to be read often."""
        return Runs(self._counts())

    def _counts(self) -> Iterator[ImageCounts]:
        return self.inputs.tally.image_counts(self.inputs.index, self.number, self.layer.units)

    def weighted(self, runs: Iterable[ImageCounts], weights: NDArray[np.int32] | NDArray[np.uint8]) -> WeightedCounts:
        """Counts with pictures taken so many times."""
        everywhere = self.options.denominator == "all-images"
        counts = WeightedCounts(weights, self.layer.units, self.category, all_images=everywhere)
        for run in runs:
            counts.update(run)
            self.session.check()
        return counts

    def draws(self, some: slice) -> tuple[Draws, NDArray[np.int64] | None]:
        """What is kept of some resamples, which are drawn with all others; and how many units are confirmed in each."""
        images, many, seed = self.inputs.index.images, self.options.bootstrap, self.session.seed
        weights = narrow(bootstrap_weights(images, many, np.random.default_rng([seed, 1]), kept=some))
        draws = bootstrap_draws(self.blocks(weights), self.found, self.options.min_iou)
        if self.believed is None:
            return draws, None
        weights = narrow(redrawn_halves(self.halves, many, np.random.default_rng([seed, 3]), kept=some))
        return draws, confirmed_draws(self.blocks(weights), self.believed, self.options.min_iou)

    def redrawn(self, counted: DetectorCount) -> Sequence[Interval | None]:
        """Of detectors, unique per category and unique per unit, every resample with thresholds of its own."""
        if self.inputs.redrawn is None:
            return (None, None, None)
        most = (self.layer.units, len(self.category), len(self.category))
        values = (counted.units, counted.per_category, counted.per_unit)
        drawn = self.inputs.redrawn.counts(self.layer.name)
        return [count_interval(*column) for column in zip(values, drawn, most, strict=True)]

    def blocks(self, weights: NDArray[np.int32] | NDArray[np.uint8]) -> Iterator[WeightedCounts]:
        """Counts under many weightings, an even number of them in each block."""
        size = 2 * max(1, BLOCK_BYTES // (8 * self.layer.units * len(self.category)))
        for first in range(0, len(weights), size):
            yield self.weighted(self.runs, weights[first : first + size])
            give_back()  # the block: it would stay beside the next one, which need not fit into its place

    @property
    def halves(self) -> NDArray[np.int32]:
        """Of the images: on one the label is chosen, on the other judged."""
        return halves(self.inputs.index.images, np.random.default_rng([self.session.seed, 2]))

    def confirmed(self, split: Heldout, drawn: Sequence[NDArray[np.int64]]) -> Confirmed | None:
        """Detectors that pass on the held-out half and that chance does not reach, and their numbers in resamples."""
        if self.believed is None:
            return None
        units = split.confirmed(self.believed, self.options.min_iou)[0]
        numbers = np.concatenate(drawn).astype(float) if drawn else None
        return Confirmed(units, None if numbers is None else count_interval(int(units.sum()), numbers, len(units)))


def unit_rows(
    result: SummarisedLayer, concepts: ConceptTable, thresholds: NDArray[np.float32], min_iou: float
) -> Columns:
    """Columns of the table `units`, but for those of the stage `ablation`."""
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
        "q_value": empty if result.p is None else false_discovery(result.p),
        "heldout_iou": result.heldout,
        "detector": result.found.iou > min_iou,
        "confirmed": empty if result.confirmed is None else result.confirmed.units,
        "reason": [reasons.get(unit) for unit in range(units)],
    }


def _causal(ablated: Ablation | None, layer: LayerGeometry) -> Columns:
    """What the network loses without each unit; nothing where nobody asked."""
    rows = ablated.units(layer.name) if ablated else []
    names = {"class": "class_name", "drop": "drop", "low": "drop_low", "high": "drop_high", "random": "random"}
    names["q"] = "q_value"
    return {f"causal_{name}": [row[column] for row in rows] or [None] * layer.units for name, column in names.items()}


def _nearest_rows(result: SummarisedLayer, scores: NDArray[np.float64], concepts: ConceptTable) -> Columns:
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
    return None if p is None else int((false_discovery(p) <= LEVEL).sum())


def _ends(name: str, interval: Interval | None) -> Row:
    return {f"{name}_low": interval and interval.low, f"{name}_high": interval and interval.high}


def layer_row(result: SummarisedLayer, options: DissectionOptions, images: int) -> Row:
    """The row of the table `layers`."""
    layer, counted, sure, p, firm = result.geometry, result.counted, result.sure, result.p, result.confirmed
    permutations, mean = options.permutations, float(result.found.iou.mean())
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
        "mean_iou": mean,
        **_ends("mean_iou", Interval(*resampled_interval(mean, sure.mean_iou)) if sure else None),
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
        "apart": layer.apart,
    }
