"""Stage `tally`: which pixels each unit lights, and on which concepts they fall, counted per image."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.quantify.dissection import Counts, iou, tally
from microtome.quantify.words import LitWords, lit_words, tiles
from storage import Draft
from storage.tables import Gathered
from storage.tensors import Tensors
from tasks.index.result import AnnotationBlock, ConceptTable
from tasks.session import Session
from tasks.spans import layer_span, layered, of_layer, spans
from tasks.tally import TallyOptions
from tasks.tally.lighting import BATCH, Lighter, limits
from tasks.tally.result import span_file
from tasks.thresholds.result import SeenPictures

LIT = pa.schema([("image", pa.int32()), ("tile", pa.int32()), ("unit", pa.int32()), ("word", pa.uint64())])

_Sparse = Mapping[str, pa.Array | NDArray[np.integer]]


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """Maps, thresholds and annotations of the same pictures."""


def shards(options: TallyOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Spans of the pictures, for each layer."""
    return layered(len(inputs.activations.layers), spans(inputs.index.images))


class Shard:
    """Tallies spans of pictures.

    Batches are tallied side by side, each in one thread: much of the work is indexing, which does not split further.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: TallyOptions, inputs: Inputs, session: Session) -> None:
        self._options, self._inputs, self._session = options, inputs, session
        self._concepts = inputs.index.concepts
        self._lighters: dict[int, Lighter] = {}

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the span's sparse counts; for the merge I and A."""
        number, first, last = of_layer(name)
        lighter = self._lighter(number)
        units, concepts, session = lighter.layer.units, self._concepts, self._session
        intersection = np.zeros((units, len(concepts.number)), np.int64)
        activation = np.zeros((units, len(concepts.categories)), np.int64)
        with ThreadPoolExecutor(session.threads, "tally") as pool, _writers(draft, name) as writers:
            for notes, maps in lighter.blocks(first, last):
                batches = range(0, len(maps), BATCH)
                counted, shown = zip(*pool.map(partial(_tally_batch, lighter, notes, maps), batches), strict=True)
                sparse, active = _sparse(lighter.layer.name, notes.first, counted, concepts)
                lit = _lit(notes.first, shown, tiles(lighter.masks))
                for writer, columns in zip(writers, (sparse, active, lit), strict=True):
                    table = _typed(writer.schema, columns)
                    if table.num_rows:
                        writer.write_table(table, row_group_size=table.num_rows)
                activated = np.concatenate([counts.activated for counts in counted])
                activation += activated.T @ (notes.annotated | (self._options.denominator == "all-images"))
                for counts in counted:
                    np.add.at(intersection, (counts.unit, counts.concept), counts.intersection)
                session.check()
        met = np.flatnonzero(intersection)
        draft.leave_arrays(name, {"met": met, "intersection": intersection.ravel()[met], "activation": activation})

    def _lighter(self, number: int) -> Lighter:
        """Of a layer; one is kept."""
        if number not in self._lighters:
            self._lighters = {number: Lighter(self._inputs, number, self._options, device=self._session.device)}
        return self._lighters[number]


@contextlib.contextmanager
def _writers(draft: Draft, name: str) -> Iterator[list[pq.ParquetWriter]]:
    """Of a span's `counts`, of its `activated`, and of what is lit."""
    schemas = {table: draft.declared(table).schema for table in ("counts", "activated")} | {"lit": LIT}
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(draft.publish(span_file(table, name))) for table in schemas]
        writers = [
            pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=["layer"])
            for sink, schema in zip(sinks, schemas.values(), strict=True)
        ]
        yield writers
        for writer in writers:
            writer.close()


def run(options: TallyOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Add the spans' counts up."""
    index = inputs.index
    concepts = index.concepts
    totals: Gathered = {name: [] for name in draft.declared("iou").columns}
    saturated, constant = {}, {}
    for number, layer in enumerate(inputs.activations.layers):
        shape = (layer.units, len(concepts.number))
        intersection = np.zeros(shape[0] * shape[1], np.int64)
        activation = np.zeros((layer.units, len(concepts.categories)), np.int64)
        for name in spans(index.images):
            part = draft.left_arrays(layer_span(number, name))
            intersection[part["met"]] += part["intersection"]
            activation += part["activation"]
        counts = (intersection.reshape(shape), activation[:, concepts.category_index], index.labels.total())
        _extend(totals, layer.name, concepts, counts)
        low, high = inputs.thresholds.extremes(layer.name)
        empty = limits(inputs, number, options) >= high
        saturated[layer.name] = np.flatnonzero(empty & (low < high)).tolist()
        constant[layer.name] = np.flatnonzero(low == high).tolist()
    draft.table("iou", totals)
    draft.write("empty.json", json.dumps({"saturated": saturated, "constant": constant}).encode())


def _tally_batch(lighter: Lighter, notes: AnnotationBlock, maps: Tensors, at: int) -> tuple[Counts, LitWords]:
    part = slice(at, at + BATCH)
    lit, labels = lighter.light(maps[part]), notes.labels.part(part)
    return tally(lit, labels), lit_words(lit, len(labels.present), lighter.masks)


def _lit(first: int, shown: Sequence[LitWords], tiles: int) -> _Sparse:
    """Columns of what is lit, which the permutation null reads."""
    cell = np.concatenate([words.cell + BATCH * tiles * place for place, words in enumerate(shown)])
    return {
        "image": first + cell // tiles,
        "tile": cell % tiles,
        "unit": np.concatenate([words.unit for words in shown]),
        "word": np.concatenate([words.word for words in shown]),
    }


def _sparse(layer: str, first: int, counted: Sequence[Counts], concepts: ConceptTable) -> tuple[_Sparse, _Sparse]:
    """Columns of `counts` and of `activated`."""
    starts = [first + BATCH * place for place in range(len(counted))]
    image = np.concatenate([start + counts.image for start, counts in zip(starts, counted, strict=True)])
    columns = {
        "layer": _constant(layer, len(image)),
        "image": image,
        "unit": np.concatenate([counts.unit for counts in counted]),
        "concept_id": concepts.number[np.concatenate([counts.concept for counts in counted])],
        "intersection": np.concatenate([counts.intersection for counts in counted]),
    }
    lit = np.concatenate([counts.activated for counts in counted])
    at, unit = np.nonzero(lit)
    active = {"layer": _constant(layer, len(at)), "image": first + at, "unit": unit, "pixels": lit[at, unit]}
    return columns, active


def _constant(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)


def _typed(schema: pa.Schema, columns: _Sparse) -> pa.Table:
    """Columns cast by numpy, which is many times faster than value by value."""
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column.astype(field.type.to_pandas_dtype()))
        for field, column in ((field, columns[field.name]) for field in schema)
    ]
    return pa.table(arrays, schema=schema)


def _extend(
    totals: Gathered,
    layer: str,
    concepts: ConceptTable,
    counts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
) -> None:
    intersection, activation, pixels = counts
    units, count = intersection.shape
    totals["layer"] += [layer] * (units * count)
    totals["unit"] += np.repeat(np.arange(units), count).tolist()
    totals["concept_id"] += np.tile(concepts.number, units).tolist()
    totals["concept"] += concepts.name * units
    totals["category"] += concepts.category * units
    totals["intersection"] += intersection.ravel().tolist()
    totals["activation"] += activation.ravel().tolist()
    totals["label_pixels"] += np.tile(pixels, units).tolist()
    totals["iou"] += iou(intersection, activation, pixels).ravel().tolist()
