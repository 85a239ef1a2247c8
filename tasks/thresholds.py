"""Stage `thresholds`: each unit's exact tail, moments and top images, in one pass over the stored maps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.networks import LayerGeometry
from microtome.quantify.accumulate import MomentResult, Moments, Tail, TopImages, rank
from storage import Artifact
from tasks.reading import activation_blocks, image_count, layers_of
from tasks.stage import Work

LEVELS = (0.001, 0.002, 0.005, 0.01)  # tails with a row of their own; any other below 1 % is a look into `tails`
KEPT_TAIL = 0.01
TOP_IMAGES = 60


def run(work: Work) -> None:
    """Find the thresholds of every layer."""
    activations = work.inputs["activations"]
    layers = layers_of(activations)
    images = image_count(work.inputs["index"])
    work.begin(images * len(layers))
    rows: dict[str, dict[str, list[Any]]] = {"thresholds": {}, "tails": {}, "top_images": {}}
    for number, layer in enumerate(layers):
        tail, moments, top = _accumulate(work, number, layer, images)
        _extend(rows["thresholds"], _threshold_rows(layer.name, tail, moments))
        _extend(rows["tails"], {"layer": [layer.name] * layer.units, "unit": range(layer.units), "values": tail})
        _extend(rows["top_images"], _top_rows(layer.name, top))
    for name, columns in rows.items():
        work.draft.table(name, columns)


def threshold_at(thresholds: Artifact, layer: str, tail: float) -> NDArray[np.float32]:
    """(units,) thresholds of a layer at any tail that is kept.

    Args:
        thresholds: the stage.
        layer: dotted name.
        tail: share of values that may lie strictly above.
    """
    rows = thresholds.table("thresholds", ["layer", "samples"])
    samples = rows.filter(pc.equal(rows.column("layer"), layer)).column("samples")[0].as_py()
    return _tail(thresholds, layer)[:, rank(tail, samples)].copy()


def extremes(thresholds: Artifact, layer: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(units,) each unit's smallest and largest value."""
    rows = thresholds.table("thresholds", ["layer", "unit", "min", "max"]).to_pydict()
    units = max(unit for unit, name in zip(rows["unit"], rows["layer"], strict=True) if name == layer) + 1
    low, high = np.empty(units, np.float32), np.empty(units, np.float32)
    for name, unit, least, most in zip(rows["layer"], rows["unit"], rows["min"], rows["max"], strict=True):
        if name == layer:
            low[unit], high[unit] = least, most
    return low, high


def _tail(thresholds: Artifact, layer: str) -> NDArray[np.float32]:
    table = thresholds.table("tails")
    values = table.filter(pc.equal(table.column("layer"), layer)).column("values").combine_chunks()
    return values.flatten().to_numpy().reshape(len(values), -1)


def _accumulate(
    work: Work, number: int, layer: LayerGeometry, images: int
) -> tuple[np.ndarray, MomentResult, TopImages]:
    samples = images * layer.grid[0] * layer.grid[1]
    tail = Tail(layer.units, rank(work.parameters["keep"], samples) + 1)
    moments, top = Moments(layer.units), TopImages(layer.units, TOP_IMAGES)
    with ThreadPoolExecutor(1, "tail") as pool:
        for block in activation_blocks(work.inputs["activations"], number):
            maps = block.tensors.astype(np.float32, copy=False)
            beside = pool.submit(tail.update, maps)
            peaks = moments.update(maps)
            beside.result()
            top.update(np.arange(block.first, block.first + len(peaks)), peaks)
            work.advance(len(peaks))
    return tail.compute(), moments.compute(), top


def _threshold_rows(layer: str, tail: np.ndarray, moments: MomentResult) -> dict[str, Any]:
    units = len(tail)
    levels = [level for level in LEVELS if rank(level, moments.samples) < tail.shape[1]]
    columns = {
        "layer": [layer] * units,
        "unit": np.arange(units),
        "samples": np.full(units, moments.samples),
        "min": moments.minimum,
        "max": moments.maximum,
        "mean": moments.mean,
        "std": moments.std,
        "zero_share": moments.zero_share,
    }
    rows: dict[str, Any] = {}
    for level in levels:
        threshold = tail[:, rank(level, moments.samples)]
        _extend(rows, {**columns, "tail": np.full(units, level), "threshold": threshold})
    return rows


def _top_rows(layer: str, top: TopImages) -> dict[str, Any]:
    images, peaks = top.compute()
    units, kept = images.shape
    return {
        "layer": [layer] * (units * kept),
        "unit": np.repeat(np.arange(units), kept),
        "rank": np.tile(np.arange(kept), units),
        "image": images.ravel(),
        "peak": peaks.ravel(),
    }


def _extend(rows: dict[str, list[Any]], more: dict[str, Any]) -> None:
    for name, values in more.items():
        rows.setdefault(name, []).extend(values)
