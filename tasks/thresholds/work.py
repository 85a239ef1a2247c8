"""Stage `thresholds`: each unit's exact tail, moments and top images, in one pass over the stored maps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.accumulate import BINS, Histogram, MomentResult, Moments, Tail, TopImages, rank
from storage import Draft
from storage.tables import Columns, Gathered
from tasks.activations.result import Maps
from tasks.index.result import Index
from tasks.session import Session
from tasks.thresholds import ThresholdsOptions

LEVELS = (0.001, 0.002, 0.005, 0.01)  # tails with a row of their own; any other below 1 % is a look into `tails`
TOP_IMAGES = 60


@dataclass(frozen=True)
class Inputs:
    """Stored maps of indexed pictures."""

    index: Index
    activations: Maps


def run(options: ThresholdsOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Find the thresholds of every layer."""
    layers, images = inputs.activations.layers, inputs.index.images
    session.begin(images * len(layers))
    rows: dict[str, Gathered] = {"thresholds": {}, "tails": {}, "histograms": {}, "top_images": {}}
    for number, layer in enumerate(layers):
        kept = rank(options.keep, images * layer.grid[0] * layer.grid[1]) + 1
        tail, moments, histogram, top = _accumulate(inputs.activations, number, kept, session)
        _extend(rows["thresholds"], _threshold_rows(layer.name, tail, moments))
        _extend(rows["tails"], {"layer": [layer.name] * layer.units, "unit": range(layer.units), "values": tail})
        _extend(rows["histograms"], _histogram_rows(layer.name, histogram))
        _extend(rows["top_images"], _top_rows(layer.name, top))
    for name, columns in rows.items():
        draft.table(name, columns)


def _accumulate(
    activations: Maps, number: int, kept: int, session: Session
) -> tuple[NDArray[np.float32], MomentResult, Histogram, TopImages]:
    units = activations.layers[number].units
    tail, moments, histogram, top = Tail(units, kept), Moments(units), Histogram(units), TopImages(units, TOP_IMAGES)
    with ThreadPoolExecutor(2, "tail") as pool:
        for block in activations.blocks(number):
            maps = block.tensors.astype(np.float32, copy=False)
            beside = [pool.submit(other.update, maps) for other in (tail, histogram)]
            peaks = moments.update(maps)
            for done in beside:
                done.result()
            top.update(np.arange(block.first, block.first + len(peaks)), peaks)
            session.advance(len(peaks))
    return tail.compute(), moments.compute(), histogram, top


def _threshold_rows(layer: str, tail: NDArray[np.float32], moments: MomentResult) -> Columns:
    units = len(tail)
    levels = [level for level in LEVELS if rank(level, moments.samples) < tail.shape[1]]
    columns: Columns = {
        "layer": [layer] * units,
        "unit": np.arange(units),
        "samples": np.full(units, moments.samples),
        "min": moments.minimum,
        "max": moments.maximum,
        "mean": moments.mean,
        "std": moments.std,
        "zero_share": moments.zero_share,
    }
    rows: Gathered = {}
    for level in levels:
        threshold = tail[:, rank(level, moments.samples)]
        _extend(rows, {**columns, "tail": np.full(units, level), "threshold": threshold})
    return rows


def _histogram_rows(layer: str, histogram: Histogram) -> Columns:
    """From the first bin that holds anything to the last one."""
    widths, counts = histogram.compute()
    rows: Gathered = {"layer": [layer] * len(widths), "unit": list(range(len(widths))), "width": list(widths)}
    ends = [np.flatnonzero(mine)[[0, -1]] for mine in counts]
    rows["start"] = [(first - BINS) * width for (first, _), width in zip(ends, widths, strict=True)]
    rows["counts"] = [mine[first : last + 1] for mine, (first, last) in zip(counts, ends, strict=True)]
    return rows


def _top_rows(layer: str, top: TopImages) -> Columns:
    images, peaks = top.compute()
    units, kept = images.shape
    return {
        "layer": [layer] * (units * kept),
        "unit": np.repeat(np.arange(units), kept),
        "rank": np.tile(np.arange(kept), units),
        "image": images.ravel(),
        "peak": peaks.ravel(),
    }


def _extend(rows: Gathered, more: Columns) -> None:
    for name, values in more.items():
        rows.setdefault(name, []).extend(values)
