"""Stage `index`: every picture checked, every label known, annotations put into the frame, all in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.datasets.base import Annotation, Concept, Dataset, Record, chosen
from microtome.datasets.frame import Frame
from microtome.errors import InputError, refuse
from storage import Draft
from storage.tables import Columns
from storage.tensors import ROW_GROUP
from tasks.data import DataSpec
from tasks.index import IndexOptions, frame_of
from tasks.session import Session

_ANNOTATIONS = pa.schema(
    [
        ("image", pa.int32()),
        ("planes", pa.binary()),
        ("plane_category", pa.list_(pa.int16())),
        ("present", pa.list_(pa.int32())),
        ("whole", pa.list_(pa.int32())),
        ("annotated", pa.list_(pa.bool_())),
    ]
)


@dataclass(frozen=True)
class _Framed:
    """One picture's annotation in the frame; concepts are indices into the concept table."""

    planes: NDArray[np.uint16]
    plane_category: list[int]
    present: list[int]
    whole: list[int]
    annotated: list[bool]
    pixels: dict[int, int]


@dataclass(frozen=True)
class Inputs:
    """A data set."""

    data: DataSpec


def run(options: IndexOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Check and index the data set."""
    dataset, frame = inputs.data.place.open(), frame_of(options)
    numbers = chosen(dataset.records, split=options.split, categories=options.categories, limit=options.limit)
    categories = sorted({concept.category for concept in dataset.concepts})
    indexer = _Indexer(dataset, frame, categories)
    session.begin(len(numbers))
    faults: list[str] = []
    rows: dict[str, list[int]] = {"image": [], "concept_id": [], "pixels": []}
    images: list[dict[str, Any]] = []
    with draft.publish("annotations.parquet", rows=len(numbers)) as sink:
        writer = pq.ParquetWriter(sink, _ANNOTATIONS, compression="zstd", use_dictionary=False)
        for first, group in _groups(indexer, numbers):
            faults += [fault for item in group for fault in item[2]]
            framed = [item[1] for item in group if item[1] is not None]
            images += [item[0] for item in group]
            if not faults:
                writer.write_table(_annotation_rows(first, framed), row_group_size=len(framed))
                for offset, item in enumerate(framed):
                    for concept, pixels in sorted(item.pixels.items()):
                        rows["image"].append(first + offset)
                        rows["concept_id"].append(dataset.concepts[concept].number)
                        rows["pixels"].append(pixels)
            session.advance(len(group))
        writer.close()
        refuse(faults)
    draft.table("label_counts", rows)
    draft.table("images", _image_table(images))
    draft.table("concepts", _concept_table(dataset.concepts, rows, frame))


class _Indexer:
    """Frames one picture's annotation after another."""

    def __init__(self, dataset: Dataset, frame: Frame, categories: Sequence[str]) -> None:
        self._dataset, self._frame, self._categories = dataset, frame, list(categories)
        most = max((concept.number for concept in dataset.concepts), default=0)
        self._lookup = {category: np.zeros(most + 1, np.int32) for category in categories}
        for index, concept in enumerate(dataset.concepts):
            self._lookup[concept.category][concept.number] = index + 1

    def __call__(self, index: int) -> tuple[dict[str, Any], _Framed | None, list[str]]:
        """The picture's row, its annotation, and its faults."""
        record = self._dataset.records[index]
        faults = self._dataset.faults(index)
        row: dict[str, Any] = {"record": record, "sha256": ""}
        try:
            if not faults:
                row["sha256"] = _picture_digest(self._dataset, index)
            framed = self._framed(record, self._dataset.annotation(index))
        except InputError as error:
            return row, None, faults + list(error.faults)
        return row, framed, faults

    def _framed(self, record: Record, annotation: Annotation) -> _Framed:
        place = self._frame.place(record)
        planes: list[tuple[int, NDArray[np.int32]]] = []
        annotated = [False] * len(self._categories)
        counted = np.zeros(len(self._dataset.concepts) + 1, np.int64)
        for category, stored in annotation.planes.items():
            if category not in self._lookup:
                raise InputError(f"{record.file}: category {category!r} has no concept")
            number = self._categories.index(category)
            lookup = self._lookup[category]
            for plane in _without_repeats(place.mask(stored, (record.width, record.height), self._frame.masks)):
                numbers = np.bincount(plane.ravel(), minlength=len(lookup))
                annotated[number] |= bool(numbers[1:].any())
                np.add.at(counted, lookup, numbers)
                planes.append((number, plane))
        whole: list[int] = []
        for category, labels in annotation.labels.items():
            annotated[self._categories.index(category)] |= bool(labels)
            whole += [int(self._lookup[category][label]) - 1 for label in labels if self._lookup[category][label]]
        return self._local(planes, counted, sorted(set(whole)), annotated)

    def _local(
        self,
        planes: list[tuple[int, NDArray[np.int32]]],
        counted: NDArray[np.int64],
        whole: list[int],
        annotated: list[bool],
    ) -> _Framed:
        """Planes in the picture's own numbering of the concepts that occur in it; planes without any are left out."""
        height, width = self._frame.masks
        found = np.flatnonzero(counted[1:]) + 1
        local = np.zeros(len(counted), np.uint16)
        local[found] = np.arange(1, len(found) + 1)
        tables = [local[self._lookup[category]] for category in self._categories]
        shown = [(category, tables[category].take(plane)) for category, plane in planes]
        kept = [(category, plane) for category, plane in shown if plane.any()]
        stacked = np.stack([plane for _, plane in kept]) if kept else np.zeros((0, height, width), np.uint16)
        # A label that fills the picture meets every pixel once, even where a plane names it too.
        pixels = {int(key) - 1: int(counted[key]) for key in found} | dict.fromkeys(whole, height * width)
        return _Framed(stacked, [category for category, _ in kept], (found - 1).tolist(), whole, annotated, pixels)


def _without_repeats(planes: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    """Planes in which a pixel's number that an earlier plane has already is 0: it counts once."""
    kept: list[NDArray[np.int32]] = []
    for plane in planes:
        for earlier in kept:
            plane = np.where(plane == earlier, 0, plane)
        kept.append(plane)
        yield plane


def _groups(indexer: _Indexer, chosen: Sequence[int]) -> Iterator[tuple[int, list[Any]]]:
    """Results of the chosen pictures in order, a row group at a time.

    In one thread: most of it is Python, and two threads were measured to be slower.
    """
    for first in range(0, len(chosen), ROW_GROUP):
        yield first, [indexer(index) for index in chosen[first : first + ROW_GROUP]]


def _annotation_rows(first: int, framed: Sequence[_Framed]) -> pa.Table:
    return pa.table(
        {
            "image": list(range(first, first + len(framed))),
            "planes": [item.planes.astype("<u2").tobytes() for item in framed],
            "plane_category": [item.plane_category for item in framed],
            "present": [item.present for item in framed],
            "whole": [item.whole for item in framed],
            "annotated": [item.annotated for item in framed],
        },
        schema=_ANNOTATIONS,
    )


def _picture_digest(dataset: Dataset, index: int) -> str:
    file = dataset.picture_file(index)
    content = file.read_bytes() if file else np.asarray(dataset.picture(index)).tobytes()
    return hashlib.sha256(content).hexdigest()


def _image_table(images: Sequence[dict[str, Any]]) -> Columns:
    records: list[Record] = [row["record"] for row in images]
    return {
        "image": list(range(len(records))),
        "split": [record.split for record in records],
        "file": [record.file for record in records],
        "width": [record.width for record in records],
        "height": [record.height for record in records],
        "sha256": [row["sha256"] for row in images],
        "label": [record.label for record in records],
        "stratum": [record.stratum for record in records],
    }


def _concept_table(concepts: Sequence[Concept], rows: Mapping[str, Sequence[int]], frame: Frame) -> Columns:
    area = frame.masks[0] * frame.masks[1]
    number, pixels = np.array(rows["concept_id"], np.int64), np.array(rows["pixels"], np.int64)
    return {
        "concept_id": [concept.number for concept in concepts],
        "concept": [concept.name for concept in concepts],
        "category": [concept.category for concept in concepts],
        "coverage": [float(pixels[number == concept.number].sum()) / area for concept in concepts],
        "images": [int((number == concept.number).sum()) for concept in concepts],
    }
