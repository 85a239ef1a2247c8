"""Stage `null`: what IoU each unit reaches when pictures and annotations do not belong together."""

from __future__ import annotations

from collections.abc import Sequence
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
from tasks.spans import layer_part, of_layer_part
from tasks.tally.result import Tally

BLOCK = 100  # permutations that are drawn together
SHARD = 25  # of them that lie in one file; divides BLOCK
COUNTED_BYTES = 128_000_000  # of counts held at a time


@dataclass(frozen=True)
class Inputs:
    """Annotations, and what units light of the same pictures."""

    index: Index
    activations: Maps
    tally: Tally


def shards(options: NullOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Some permutations, for each layer, by the first one's number."""
    starts = range(0, options.permutations, min(BLOCK, SHARD))
    layers = range(len(inputs.activations.layers))
    return {layer_part(number, first): len(_shard(options, first)) for number in layers for first in starts}


def _shard(options: NullOptions, first: int) -> range:
    return range(first, min(first + min(BLOCK, SHARD), options.permutations))


class Shard:
    """Counts some permutations of one layer.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: NullOptions, inputs: Inputs, session: Session) -> None:
        self._options, self._inputs, self._session = options, inputs, session
        self._annotations = Annotations(inputs.index)  # whose scratch file goes with it

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the best IoUs of the shard."""
        number, first = of_layer_part(name)
        with ThreadPoolExecutor(self._session.threads, "null") as pool:
            exchange = _Exchange(self._inputs, number, self._annotations.all(), pool, self._session)
            within, across = exchange.both(_shard(self._options, first), self._options.permutations)
        rows = _columns(self._inputs.activations.layers[number].name, first, within, across)
        with draft.publish(f"null/{name}.parquet", rows=within.size) as sink:
            pq.write_table(pa.table(rows, schema=draft.declared("null").schema), sink, compression="zstd")


def run(options: NullOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Nothing is left to do: the shards' files are the table."""


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

    def both(self, shard: range, permutations: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(shard, units) best IoU: annotations exchanged within strata, and across them.

        Args:
            shard: numbers of the permutations, all of one block.
            permutations: that there are.
        """
        strata, annotated = self.inputs.index.strata, self.inputs.index.labels.annotated
        block = shard.start // BLOCK * BLOCK
        count, part = min(BLOCK, permutations - block), slice(shard.start - block, shard.stop - block)

        def best(groups: NDArray[np.int64]) -> NDArray[np.float64]:
            rng = np.random.default_rng([self.session.seed, block])
            return self.best(np.stack(permutation_plan(annotated, count, rng, groups, kept=part)))

        within = best(strata)
        return within, best(np.zeros_like(strata)) if strata.any() else within

    def best(self, plan: NDArray[np.int32]) -> NDArray[np.float64]:
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
