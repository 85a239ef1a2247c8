"""Stage `tally`: which pixels each unit lights, and on which concepts they fall, counted per image."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from microtome.datasets import Frame
from microtome.networks import LayerGeometry
from microtome.quantify.dissection import Counts, iou, tally
from microtome.quantify.resampling import ImageCounts
from microtome.quantify.upsample import Lit, Upsampler
from storage import SCHEMAS, Artifact
from storage.tensors import ROW_GROUP
from tasks.reading import (
    AnnotationBlock,
    ConceptTable,
    LabelCounts,
    activation_blocks,
    annotation_blocks,
    layers_of,
)
from tasks.stage import Work
from tasks.thresholds import extremes, threshold_at

BATCH = 16


def run(work: Work) -> None:
    """Tally every layer.

    Batches are tallied side by side, each in one thread: much of the work is indexing, which does not split further.
    """
    torch.set_num_threads(1)
    index = work.inputs["index"]
    layers, concepts, labels = layers_of(work.inputs["activations"]), ConceptTable.of(index), LabelCounts(index)
    work.begin(labels.images * len(layers))
    totals: dict[str, list[Any]] = {name: [] for name in SCHEMAS["iou"].names}
    saturated, constant = {}, {}
    for number, layer in enumerate(layers):
        lighter = Lighter(work, number, layer)
        intersection, activation = _tally_layer(work, lighter, concepts, number)
        _extend(totals, layer.name, concepts, intersection, activation[:, concepts.category_index], labels.total())
        low, high = extremes(work.inputs["thresholds"], layer.name)
        empty = lighter.thresholds >= high
        saturated[layer.name] = np.flatnonzero(empty & (low < high)).tolist()
        constant[layer.name] = np.flatnonzero(low == high).tolist()
    work.draft.table("iou", totals)
    work.draft.write("empty.json", json.dumps({"saturated": saturated, "constant": constant}).encode())


def upsampler(work: Work, layer: LayerGeometry, lighting: Mapping[str, Any]) -> Upsampler:
    """From a layer's maps to lit pixels of the masks.

    Args:
        work: whose job reaches the frame.
        layer: geometry.
        lighting: align, inclusive.
    """
    frame: Frame = work.job.reach["frame"]
    how = {"align": lighting["align"], "inclusive": lighting["inclusive"]}
    return Upsampler(layer, frame.size, frame.masks, **how, device=work.session.device)


class Lighter:
    """Lights the pixels of a layer, batch by batch, beside the annotations of the same images.

    Args:
        work: with the inputs index, activations, thresholds.
        number: of the layer.
        layer: its geometry.
        lighting: tail, align, inclusive; the work's own parameters by default.
    """

    def __init__(
        self, work: Work, number: int, layer: LayerGeometry, lighting: Mapping[str, Any] | None = None
    ) -> None:
        lighting = work.parameters if lighting is None else lighting
        frame: Frame = work.job.reach["frame"]
        thresholds = work.inputs["thresholds"]
        self.layer, self._work, self._number = layer, work, number
        self._pixels = frame.masks[0] * frame.masks[1]
        self.thresholds = threshold_at(thresholds, layer.name, lighting["tail"])
        self._limits = torch.from_numpy(self.thresholds).to(work.session.device)
        self._upsample = upsampler(work, layer, lighting)

    def blocks(self) -> Iterator[tuple[AnnotationBlock, NDArray]]:
        """Annotations and maps of the same images, a row group at a time."""
        annotated = annotation_blocks(self._work.inputs["index"], self._pixels)
        maps = activation_blocks(self._work.inputs["activations"], self._number)
        for notes, block in zip(annotated, maps, strict=True):
            yield notes, block.tensors

    def light(self, maps: NDArray) -> Lit:
        """Lit pixels of a batch of maps."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # and nobody writes
            batch = torch.from_numpy(maps.astype(np.float32, copy=False))
        return self._upsample(batch.to(self._limits.device), self._limits)


def image_counts(artifact: Artifact, index: Artifact, number: int, units: int) -> Iterator[ImageCounts]:
    """Per-image counts of one layer, a row group of images at a time.

    Args:
        artifact: the tally.
        index: its data set.
        number: of the layer.
        units: in the layer.
    """
    concepts, labels = ConceptTable.of(index), LabelCounts(index)
    with artifact.source(_file("counts", number)) as counts, artifact.source(_file("activated", number)) as lit:
        sparse, active = _ByImage(counts), _ByImage(lit)
        for first in range(0, labels.images, ROW_GROUP):
            count = min(ROW_GROUP, labels.images - first)
            rows, lights = sparse.rows(first), active.rows(first)
            activated = np.zeros((count, units), np.int64)
            activated[lights["image"] - first, lights["unit"]] = lights["pixels"]
            concept = np.searchsorted(concepts.number, rows["concept_id"])
            pixels, annotated = labels.block(first, count)
            yield ImageCounts(
                first, rows["image"], rows["unit"], concept, rows["intersection"], activated, pixels, annotated
            )


class _ByImage:
    """Row groups of a sparse table, found by the images that they hold."""

    def __init__(self, source: pa.NativeFile) -> None:
        self._file = pq.ParquetFile(source)
        self._names = self._file.schema_arrow.names
        meta, column = self._file.metadata, self._names.index("image")
        starts = (meta.row_group(group).column(column).statistics for group in range(meta.num_row_groups))
        self._groups = {stats.min // ROW_GROUP * ROW_GROUP: group for group, stats in enumerate(starts)}

    def rows(self, first: int) -> dict[str, NDArray[np.int64]]:
        """Columns of integers of the images from `first` on; empty where nothing was counted."""
        names = [name for name in self._names if name != "layer"]
        if first not in self._groups:
            return {name: np.zeros(0, np.int64) for name in names}
        table = self._file.read_row_group(self._groups[first], names)
        return {name: table.column(name).to_numpy().astype(np.int64) for name in names}


def _file(table: str, number: int) -> str:
    return f"{table}/{number:03d}.parquet"


def _tally_layer(
    work: Work, lighter: Lighter, concepts: ConceptTable, number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Writes the layer's sparse counts; gives I (units, concepts) and A (units, categories)."""
    units = lighter.layer.units
    intersection = np.zeros((units, len(concepts.number)), np.int64)
    activation = np.zeros((units, len(concepts.categories)), np.int64)
    with (
        ThreadPoolExecutor(work.session.threads, "tally") as pool,
        work.draft.publish(_file("counts", number)) as counts_sink,
        work.draft.publish(_file("activated", number)) as activated_sink,
    ):
        writers = {
            name: pq.ParquetWriter(sink, SCHEMAS[name], compression="zstd", use_dictionary=["layer"])
            for name, sink in (("counts", counts_sink), ("activated", activated_sink))
        }
        for notes, maps in lighter.blocks():
            counted = list(pool.map(partial(_tally_batch, lighter, notes, maps), range(0, len(maps), BATCH)))
            sparse, active = _sparse(lighter.layer.name, notes.first, counted, concepts)
            for name, table in (("counts", sparse), ("activated", active)):
                if table.num_rows:
                    writers[name].write_table(table, row_group_size=table.num_rows)
            lit = np.concatenate([counts.activated for counts in counted])
            activation += lit.T @ (notes.annotated | work.parameters["all_images"])
            for counts in counted:
                np.add.at(intersection, (counts.unit, counts.concept), counts.intersection)
            work.advance(len(maps))
        for writer in writers.values():
            writer.close()
    return intersection, activation


def _tally_batch(lighter: Lighter, notes: AnnotationBlock, maps: NDArray, at: int) -> Counts:
    part = slice(at, at + BATCH)
    return tally(lighter.light(maps[part]), notes.labels.part(part))


def _sparse(layer: str, first: int, counted: list[Counts], concepts: ConceptTable) -> tuple[pa.Table, pa.Table]:
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
    return _typed("counts", columns), _typed("activated", active)


def _constant(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)


def _typed(name: str, columns: dict[str, Any]) -> pa.Table:
    """Columns cast by numpy, which is many times faster than value by value."""
    schema = SCHEMAS[name]
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column.astype(field.type.to_pandas_dtype()))
        for field, column in ((field, columns[field.name]) for field in schema)
    ]
    return pa.table(arrays, schema=schema)


def _extend(
    totals: dict[str, list[Any]],
    layer: str,
    concepts: ConceptTable,
    intersection: NDArray[np.int64],
    activation: NDArray[np.int64],
    pixels: NDArray[np.int64],
) -> None:
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
