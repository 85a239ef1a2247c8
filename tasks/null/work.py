"""Stage `null`: what IoU each unit reaches when pictures and annotations do not belong together."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.quantify.null import AllLabels, NullCounts
from microtome.quantify.resampling import permutation_plan
from microtome.quantify.words import tiles
from storage import Draft
from storage.tables import Columns
from tasks.activations.result import Maps
from tasks.index.result import Index
from tasks.null import NullOptions
from tasks.null.annotations import Annotations
from tasks.session import Session
from tasks.tally.result import Tally

BLOCK = 100  # permutations that are drawn together, and lie in one file
COUNTED_BYTES = 128_000_000  # of counts held at a time


@dataclass(frozen=True)
class Inputs:
    """Annotations, and what units light of the same pictures."""

    index: Index
    activations: Maps
    tally: Tally


def run(options: NullOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Count the permutations of every layer."""
    layers, permutations = inputs.activations.layers, options.permutations
    schema = draft.declared("null").schema
    session.begin(permutations * len(layers), "permutations")
    with Annotations(inputs.index) as annotations, ThreadPoolExecutor(session.threads, "null") as pool:
        for number, layer in enumerate(layers):
            exchange = _Exchange(inputs, number, annotations.all(), pool, session)
            for first in range(0, permutations, BLOCK):
                count = min(BLOCK, permutations - first)
                name = f"null/{number:03d}-{first:06d}.parquet"
                if not draft.has(name):
                    within, across = exchange.both(first, count)
                    with draft.publish(name, rows=within.size) as sink:
                        rows = pa.table(_columns(layer.name, first, within, across), schema=schema)
                        pq.write_table(rows, sink, compression="zstd")
                session.advance(count)


@dataclass(frozen=True)
class _Exchange:
    """Exchanges the annotations of one layer's pictures.

    Args:
        inputs: of the stage.
        number: of the layer.
        annotations: of all pictures.
        pool: of the session's threads, among which permutations are divided.
        session: that draws.
    """

    inputs: Inputs
    number: int
    annotations: AllLabels
    pool: Executor
    session: Session

    def both(self, first: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(permutations, units) best IoU of one block: annotations exchanged within strata, and across them.

        A block lies in a file of its own, which an interrupted run keeps.
        """
        strata, annotated = self.inputs.index.strata, self.inputs.index.labels.annotated

        def best(groups: NDArray[np.int64]) -> NDArray[np.float64]:
            rng = np.random.default_rng([self.session.seed, first])
            return self.best(np.stack(permutation_plan(annotated, count, rng, groups)))

        within = best(strata)
        return within, best(np.zeros_like(strata)) if strata.any() else within

    def best(self, plan: NDArray[np.int64]) -> NDArray[np.float64]:
        """(permutations, units) best IoU under given exchanges: (categories, permutations, images)."""
        index, tally, layer = self.inputs.index, self.inputs.tally, self.inputs.activations.layers[self.number]
        shape = (layer.units, len(index.concepts.number), tiles(index.frame.masks))
        activation, label_pixels = tally.column(layer.name, "activation", layer.units), index.labels.total()
        step = max(1, COUNTED_BYTES // (4 * shape[0] * shape[1]))
        found = []
        for low in range(0, plan.shape[1], step):
            null = NullCounts(plan[:, low : low + step], self.annotations, shape)
            for first, count, lit in tally.lit(index, self.number):
                null.update(first, count, lit, pool=self.pool, parts=self.session.threads)
                self.session.check()
            found.append(null.best(activation, label_pixels))
        return np.concatenate(found)


def _columns(layer: str, first: int, within: NDArray[np.float64], across: NDArray[np.float64]) -> Columns:
    count, units = within.shape
    return {
        "layer": pa.repeat(pa.scalar(layer), within.size),
        "unit": np.tile(np.arange(units, dtype=np.int32), count),
        "permutation": np.repeat(np.arange(first, first + count, dtype=np.int32), units),
        "best_iou": within.ravel(),
        "best_iou_across": across.ravel(),
    }
