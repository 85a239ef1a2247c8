"""Stage `thresholds`: each unit's exact tail, moments and top images, in one pass over the stored maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.accumulate import (
    BINS,
    Histogram,
    MomentResult,
    Moments,
    State,
    Tail,
    TailPart,
    TopImages,
    joined_tail,
    rank,
)
from storage import Draft
from storage.tables import Columns, Gathered
from tasks.activations.result import Maps
from tasks.index.result import Index
from tasks.session import Session
from tasks.spans import layer_span, layered, of_layer, span, spans
from tasks.thresholds import ThresholdsOptions

LEVELS = (0.001, 0.002, 0.005, 0.01)  # tails with a row of their own; any other below 1 % is a look into `tails`
TOP_IMAGES = 60


@dataclass(frozen=True)
class Inputs:
    """Stored maps of indexed pictures."""

    index: Index
    activations: Maps


def shards(options: ThresholdsOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Spans of the pictures, for each layer."""
    return layered(len(inputs.activations.layers), spans(inputs.index.images))


class Shard:
    """Accumulates over spans of pictures.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: ThresholdsOptions, inputs: Inputs, session: Session) -> None:
        self._options, self._activations, self._session = options, inputs.activations, session

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the state of the span's accumulators."""
        number, first, last = of_layer(name)
        layer = self._activations.layers[number]
        samples = (last - first) * layer.grid[0] * layer.grid[1]
        kept = TailPart.kept(self._options.keep, samples)
        tail, moments, histogram = Tail(layer.units, kept), Moments(layer.units), Histogram(layer.units)
        top = TopImages(layer.units, TOP_IMAGES)
        with ThreadPoolExecutor(2, "tail") if self._session.threads > 1 else nullcontext() as pool:
            for block in self._activations.blocks(number, first, last):
                maps = block.tensors.astype(np.float32, copy=False)
                peaks = _together(pool, maps, moments, (tail, histogram))
                top.update(np.arange(block.first, block.first + len(peaks)), peaks)
                self._session.check()
        values = {"tail": tail.compute(), "whole": np.array(kept == samples)}
        draft.leave_arrays(name, {**values, **moments.state, **histogram.state, **top.state})


def _together(
    pool: Executor | None, maps: NDArray[np.float32], moments: Moments, others: Sequence[Tail | Histogram]
) -> NDArray[np.float32]:
    """Update all, side by side where there are threads for it; gives the maps' peaks."""
    if pool is None:
        for other in others:
            other.update(maps)
        return moments.update(maps)
    beside = [pool.submit(other.update, maps) for other in others]
    peaks = moments.update(maps)
    for done in beside:
        done.result()
    return peaks


def run(options: ThresholdsOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Find the thresholds of every layer from its spans."""
    layers, images = inputs.activations.layers, inputs.index.images
    rows: dict[str, Gathered] = {"thresholds": {}, "tails": {}, "histograms": {}, "top_images": {}}
    for number, layer in enumerate(layers):
        kept = rank(options.keep, images * layer.grid[0] * layer.grid[1]) + 1
        tail, moments, histogram, top = _Merge(inputs.activations, draft, number, images)(kept)
        _extend(rows["thresholds"], _threshold_rows(layer.name, tail, moments))
        _extend(rows["tails"], {"layer": [layer.name] * layer.units, "unit": range(layer.units), "values": tail})
        _extend(rows["histograms"], _histogram_rows(layer.name, histogram))
        _extend(rows["top_images"], _top_rows(layer.name, top))
    for name, columns in rows.items():
        draft.table(name, columns)


@dataclass(frozen=True)
class _Merge:
    """Merges the spans of a layer."""

    activations: Maps
    draft: Draft
    number: int
    images: int

    def __call__(self, kept: int) -> tuple[NDArray[np.float32], MomentResult, Histogram, TopImages]:
        """The layer's tail of so many values, its moments, histogram and top images."""
        units, names = self.activations.layers[self.number].units, list(spans(self.images))
        moments, histogram, top = Moments(units), Histogram(units), TopImages(units, TOP_IMAGES)
        for name in names:
            state = self.state(name)
            moments.merge(Moments.of(state))
            histogram.merge(Histogram.of(state))
            top.merge(TopImages.of(state, TOP_IMAGES))
        tail = joined_tail([partial(self.tail, name) for name in names], kept, lambda place: self.maps(names[place]))
        return tail, moments.compute(), histogram, top

    def state(self, name: str) -> State:
        """What a span's shard wrote."""
        return self.draft.left_arrays(layer_span(self.number, name))

    def tail(self, name: str) -> TailPart:
        """Of a span."""
        state = self.state(name)
        return TailPart(state["tail"], bool(state["whole"]))

    def maps(self, name: str) -> Iterator[NDArray[np.float32]]:
        """Of a span, a row group at a time."""
        for block in self.activations.blocks(self.number, *span(name)):
            yield block.tensors.astype(np.float32, copy=False)


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
