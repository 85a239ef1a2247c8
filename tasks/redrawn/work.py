"""Stage `redrawn`: counts of detectors in resamples of the pictures that estimate every threshold anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.quantify.accumulate import rank
from microtome.quantify.dissection import DetectorCount, best
from microtome.quantify.redrawn import PicturedTail, RedrawnCounts, Weights
from microtome.quantify.resampling import bootstrap_weights
from storage import Draft
from tasks.redrawn import RedrawnOptions
from tasks.session import Session
from tasks.tally.lighting import BATCH, Lighter
from tasks.tally.result import Tally
from tasks.thresholds.result import SeenPictures


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """Maps and annotations of the same pictures, and their counts by the thresholds of the data."""

    tally: Tally


def run(options: RedrawnOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Count every layer; a layer lies in a file of its own, which an interrupted run keeps."""
    index, layers = inputs.index, inputs.activations.layers
    weights = bootstrap_weights(index.images, options.redrawn, np.random.default_rng([session.seed, 1]))
    schema = draft.declared("redrawn").schema
    session.begin(index.images * len(layers))
    for number, layer in enumerate(layers):
        name = f"redrawn/{number:03d}.parquet"
        if draft.has(name):
            session.advance(index.images)
            continue
        found = _counted(_Redrawing(options, inputs, session, number), weights).detectors(options.min_iou)
        with draft.publish(name, rows=len(found)) as sink:
            pq.write_table(pa.table(_columns(layer.name, found), schema=schema), sink, compression="zstd")


@dataclass(frozen=True)
class _Redrawing:
    """A layer in hand."""

    options: RedrawnOptions
    inputs: Inputs
    session: Session
    number: int

    def thresholds(self, weights: Weights) -> NDArray[np.float32]:
        """(resamples, units) of each resample: as much of the tail is kept as the resamples turn out to reach into."""
        maps = self.inputs.activations
        layer = maps.layers[self.number]
        values = self.inputs.index.images * layer.grid[0] * layer.grid[1]
        keep = 2 * (rank(self.options.tail, values) + 1)
        while True:
            tail = PicturedTail(layer.units, min(keep, values))
            for block in maps.blocks(self.number):
                tail.update(block.first, block.tensors.astype(np.float32, copy=False))
                self.session.check()
            found = tail.thresholds(weights, self.options.tail)
            if found is not None:
                return found
            keep *= 2


def _counted(layer: _Redrawing, weights: Weights) -> RedrawnCounts:
    """Every resample of a layer, lit by its own thresholds."""
    inputs, options, session = layer.inputs, layer.options, layer.session
    lighter = Lighter(inputs, layer.number, options, device=session.device)
    category = inputs.index.concepts.category_index
    labels = best(inputs.tally.column(lighter.layer.name, "iou", lighter.layer.units), category)
    counts = RedrawnCounts(
        labels,
        category,
        weights,
        layer.thresholds(weights),
        all_images=options.denominator == "all-images",
        inclusive=options.inclusive,
    )
    for notes, maps in lighter.blocks():
        pixels, annotated = inputs.index.labels.block(notes.first, len(maps))
        for at in range(0, len(maps), BATCH):
            part = slice(at, at + BATCH)
            lit = lighter.above(maps[part], counts.lowest)
            counts.update(notes.first + at, lit, notes.labels.part(part), (pixels[part], annotated[part]))
            session.check()
        session.advance(len(maps))
    return counts


def _columns(layer: str, found: list[DetectorCount]) -> dict[str, list[str] | list[int]]:
    return {
        "layer": [layer] * len(found),
        "resample": list(range(len(found))),
        "detectors": [counted.units for counted in found],
        "unique_per_category": [counted.per_category for counted in found],
        "unique_per_unit": [counted.per_unit for counted in found],
    }
