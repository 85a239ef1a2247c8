"""Stage `dissection`: labels, intervals, null and held-out check of every unit, from the counts alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from microtome.networks import LayerGeometry
from microtome.quantify.dissection import Best, DetectorCount, best, detectors
from microtome.quantify.resampling import (
    BootstrapResult,
    WeightedCounts,
    bootstrap,
    bootstrap_weights,
    halves,
)
from microtome.quantify.significance import null_p95, p_values, permutations_needed
from tasks.reading import ConceptTable, image_count, layers_of
from tasks.stage import Work
from tasks.tally import image_counts
from tasks.thresholds import threshold_at

BLOCK_BYTES = 256_000_000  # of counts held for one block of resamples
SATURATED = "saturated: its threshold is its maximum, so nothing lies above it"
CONSTANT = "dead: it has the same value everywhere"


@dataclass(frozen=True)
class _Layer:
    """What was found out about one layer."""

    geometry: LayerGeometry
    found: Best
    counted: DetectorCount
    sure: BootstrapResult | None
    heldout: NDArray[np.float64]
    null_p95: NDArray[np.float64] | None
    p: NDArray[np.float64] | None
    saturated: list[int]
    constant: list[int]


def run(work: Work) -> None:
    """Summarise every layer."""
    layers = layers_of(work.inputs["activations"])
    concepts = ConceptTable.of(work.inputs["index"])
    work.begin(len(layers), "layers")
    units: dict[str, list[Any]] = {}
    summary: list[dict[str, Any]] = []
    for number, layer in enumerate(layers):
        result = _summarise(work, number, layer, concepts)
        thresholds = threshold_at(work.inputs["thresholds"], layer.name, work.parameters["tail"])
        for name, values in _unit_rows(result, concepts, thresholds, work.parameters).items():
            units.setdefault(name, []).extend(values)
        summary.append(_layer_row(result, work))
        work.advance(1)
    work.draft.table("units", units)
    work.draft.table("layers", {name: [row[name] for row in summary] for name in summary[0]})


def _summarise(work: Work, number: int, layer: LayerGeometry, concepts: ConceptTable) -> _Layer:
    scores = _observed(work, layer.name, layer.units)
    category = concepts.category_index
    found, min_iou = best(scores, category), work.parameters["min_iou"]
    sure = None
    if work.parameters["bootstrap"]:
        sure = bootstrap(_blocks(work, number, layer, category), found, min_iou)
    null = _null(work, layer.name, layer.units)
    empty = work.inputs["tally"].json("empty.json")
    return _Layer(
        layer,
        found,
        detectors(scores, found, min_iou),
        sure,
        _heldout(work, number, layer, category),
        None if null is None else null_p95(null),
        None if null is None else p_values(found.iou, null),
        empty["saturated"][layer.name],
        empty["constant"][layer.name],
    )


def _observed(work: Work, layer: str, units: int) -> NDArray[np.float64]:
    table = work.inputs["tally"].table("iou", ["layer", "iou"])
    chosen: NDArray[np.float64] = table.filter(pc.equal(table.column("layer"), layer)).column("iou").to_numpy()
    return chosen.reshape(units, -1)


def _weighted(
    work: Work, number: int, layer: LayerGeometry, category: NDArray[np.int64], weights: NDArray[np.int32]
) -> WeightedCounts:
    counts = WeightedCounts(weights, layer.units, category, all_images=work.parameters["all_images"])
    for block in image_counts(work.inputs["tally"], work.inputs["index"], number, layer.units):
        counts.update(block)
        work.session.check()
    return counts


def _blocks(work: Work, number: int, layer: LayerGeometry, category: NDArray[np.int64]) -> Iterator[WeightedCounts]:
    """Resamples in blocks of bounded memory."""
    rng = np.random.default_rng([work.parameters["seed"], 1])
    images, resamples = image_count(work.inputs["index"]), work.parameters["bootstrap"]
    weights = bootstrap_weights(images, resamples, rng)
    size = max(1, BLOCK_BYTES // (4 * layer.units * len(category)))
    for first in range(0, resamples, size):
        yield _weighted(work, number, layer, category, weights[first : first + size])


def _heldout(work: Work, number: int, layer: LayerGeometry, category: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU on one half of the images of the label that wins on the other."""
    rng = np.random.default_rng([work.parameters["seed"], 2])
    counts = _weighted(work, number, layer, category, halves(image_count(work.inputs["index"]), rng))
    label = counts.scores(0).argmax(1)
    return counts.scores(1)[np.arange(layer.units), label]


def _null(work: Work, layer: str, units: int) -> NDArray[np.float64] | None:
    """(permutations, units) best IoU; None where no permutations were asked for."""
    if "null" not in work.inputs:
        return None
    artifact = work.inputs["null"]
    tables = []
    for name in artifact.names("null/"):
        with artifact.source(name) as source:
            tables.append(pq.read_table(source, columns=["layer", "best_iou"]))
    table = pa.concat_tables(tables)
    values: NDArray[np.float64] = table.filter(pc.equal(table.column("layer"), layer)).column("best_iou").to_numpy()
    return values.reshape(-1, units)


def _unit_rows(
    result: _Layer, concepts: ConceptTable, thresholds: NDArray[np.float32], parameters: Any
) -> dict[str, Any]:
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
        "iou_low": sure.low if sure else empty,
        "iou_high": sure.high if sure else empty,
        "label_stability": sure.label_stability if sure else empty,
        "null_p95": empty if result.null_p95 is None else result.null_p95,
        "p_value": empty if result.p is None else result.p,
        "q_value": empty if result.p is None else false_discovery_control(result.p),
        "heldout_iou": result.heldout,
        "detector": result.found.iou > parameters["min_iou"],
        "reason": [reasons.get(unit) for unit in range(units)],
    }


def _layer_row(result: _Layer, work: Work) -> dict[str, Any]:
    layer, counted, sure, p = result.geometry, result.counted, result.sure, result.p
    permutations = work.parameters["permutations"]
    return {
        "layer": layer.name,
        "units": layer.units,
        "detectors": counted.units,
        "detectors_low": sure.detectors.low if sure else None,
        "detectors_high": sure.detectors.high if sure else None,
        "unique_per_category": counted.per_category,
        "unique_low": sure.unique_per_category.low if sure else None,
        "unique_high": sure.unique_per_category.high if sure else None,
        "unique_per_unit": counted.per_unit,
        "unique_per_unit_low": sure.unique_per_unit.low if sure else None,
        "unique_per_unit_high": sure.unique_per_unit.high if sure else None,
        "significant": None if p is None else int((false_discovery_control(p) <= 0.05).sum()),
        "saturated": len(result.saturated),
        "dead": len(result.constant),
        "mean_iou": float(result.found.iou.mean()),
        "min_iou": work.parameters["min_iou"],
        "tail": work.parameters["tail"],
        "images": image_count(work.inputs["index"]),
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
