"""Stage `index`: every picture checked, every label known, annotations put into the frame, all in one pass.

In one thread: most of it is Python, and two threads were measured to be slower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.datasets.base import Annotation, Concept, Dataset, Record, chosen
from microtome.datasets.frame import Frame
from microtome.errors import InputError, folded, refuse
from storage import Draft
from storage.stages import PARTS
from storage.tables import Columns, Row, from_rows
from storage.tensors import ROW_GROUP
from tasks.data import DataSpec
from tasks.index import IndexOptions, frame_of
from tasks.index.result import annotations_file
from tasks.session import Session
from tasks.spans import span, spans

_MOST_BYTES = 2**31 - 1  # of one array of binary values
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


def shards(options: IndexOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Spans of the pictures."""
    return spans(len(_wanted(options, inputs.data.records)))


class Shard:
    """Checks and indexes spans of pictures. Where one has a fault, its span has no annotations, but the faults.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: IndexOptions, inputs: Inputs, session: Session) -> None:
        self._dataset, self._session = inputs.data.place.open(), session
        self._numbers = _wanted(options, self._dataset.records)
        categories = sorted({concept.category for concept in self._dataset.concepts})
        self._indexer = _Indexer(self._dataset, frame_of(options), categories)

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the span's annotations, and the rows of it for the merge."""
        first, last = span(name)
        found = []
        for image in range(first, last):
            found.append(self._indexer(self._numbers[image]))
            self._session.check()
        faults = [fault for item in found for fault in item[2]]
        framed = [item[1] for item in found if item[1] is not None]
        if not faults:
            _write_annotations(draft, name, framed)
        images = [_image_row(first + place, record, sha256) for place, ((record, sha256), *_) in enumerate(found)]
        part = {"faults": faults, "images": images, "label_counts": self._counts(first, framed)}
        draft.leave(name, part)

    def _counts(self, first: int, framed: Sequence[_Framed]) -> Columns:
        """Columns of `label_counts`."""
        rows = [(first + n, *counted) for n, item in enumerate(framed) for counted in sorted(item.pixels.items())]
        image, concept, pixels = zip(*rows, strict=True) if rows else ((), (), ())
        numbers = [self._dataset.concepts[place].number for place in concept]
        return {"image": image, "concept_id": numbers, "pixels": pixels}


def run(options: IndexOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Put the spans' tables together. Raises InputError: all faults of all pictures, which are read again next time."""
    faults: list[str] = []
    images: list[pa.Table] = []  # not as rows, which take ten times the memory
    counts: list[pa.Table] = []
    of_images, of_counts = draft.declared("images"), draft.declared("label_counts")
    for name in shards(options, inputs, ()):
        part = draft.left(name)
        images.append(of_images.conform(from_rows(list(of_images.columns), part["images"])))
        counts.append(of_counts.conform(part["label_counts"]))
        if part["faults"]:
            faults += part["faults"]
            draft.discard(f"{PARTS}{name}.json")
    refuse(folded(faults))
    draft.table("images", pa.concat_tables(images).combine_chunks())
    labelled = pa.concat_tables(counts).combine_chunks()
    draft.table("label_counts", labelled)
    concepts = inputs.data.place.open().concepts
    draft.table("concepts", _concept_table(concepts, labelled, frame_of(options)))


def _wanted(options: IndexOptions, records: Sequence[Record]) -> list[int]:
    return list(chosen(records, split=options.split, categories=options.categories, limit=options.limit))


class _Indexer:
    """Frames one picture's annotation after another."""

    def __init__(self, dataset: Dataset, frame: Frame, categories: Sequence[str]) -> None:
        self._dataset, self._frame, self._categories = dataset, frame, list(categories)
        most = max((concept.number for concept in dataset.concepts), default=0)
        self._lookup = {category: np.zeros(most + 1, np.int32) for category in categories}
        for index, concept in enumerate(dataset.concepts):
            self._lookup[concept.category][concept.number] = index + 1

    def __call__(self, index: int) -> tuple[tuple[Record, str], _Framed | None, list[str]]:
        """The picture's record and digest, its annotation, and its faults."""
        record = self._dataset.records[index]
        faults = self._dataset.faults(index)
        sha256 = ""
        try:
            if not faults:
                sha256 = _picture_digest(self._dataset, index)
            framed = self._framed(record, self._dataset.annotation(index))
        except InputError as error:
            return (record, sha256), None, faults + list(error.faults)
        return (record, sha256), framed, faults

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


def _write_annotations(draft: Draft, name: str, framed: Sequence[_Framed]) -> None:
    """The annotations of a span, a row group at a time."""
    first, _ = span(name)
    with draft.publish(annotations_file(name), rows=len(framed)) as sink:
        writer = pq.ParquetWriter(sink, _ANNOTATIONS, compression="zstd", use_dictionary=False)
        for start in range(0, len(framed), ROW_GROUP):
            group = framed[start : start + ROW_GROUP]
            writer.write_table(_annotation_rows(first + start, group), row_group_size=len(group))
        writer.close()


def _annotation_rows(first: int, framed: Sequence[_Framed]) -> pa.Table:
    return pa.table(
        {
            "image": list(range(first, first + len(framed))),
            "planes": _planes(framed),
            "plane_category": [item.plane_category for item in framed],
            "present": [item.present for item in framed],
            "whole": [item.whole for item in framed],
            "annotated": [item.annotated for item in framed],
        },
        schema=_ANNOTATIONS,
    )


def _planes(framed: Sequence[_Framed]) -> pa.Array | pa.ChunkedArray:
    """Each picture's planes as one binary value."""
    ends = np.cumsum([0, *(item.planes.nbytes for item in framed)])
    if ends[-1] > _MOST_BYTES:
        return pa.array([item.planes.astype("<u2").tobytes() for item in framed], pa.binary())
    values = np.concatenate([item.planes.ravel() for item in framed]).astype("<u2", copy=False)  # all at once
    return pa.Array.from_buffers(
        pa.binary(), len(framed), [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(values)]
    )


def _picture_digest(dataset: Dataset, index: int) -> str:
    file = dataset.picture_file(index)
    content = file.read_bytes() if file else np.asarray(dataset.picture(index)).tobytes()
    return hashlib.sha256(content).hexdigest()


def _image_row(image: int, record: Record, sha256: str) -> Row:
    return {
        "image": image,
        "split": record.split,
        "file": record.file,
        "width": record.width,
        "height": record.height,
        "sha256": sha256,
        "label": record.label,
        "stratum": record.stratum,
    }


def _concept_table(concepts: Sequence[Concept], counts: pa.Table, frame: Frame) -> Columns:
    area = frame.masks[0] * frame.masks[1]
    number, pixels = (counts.column(name).to_numpy() for name in ("concept_id", "pixels"))
    return {
        "concept_id": [concept.number for concept in concepts],
        "concept": [concept.name for concept in concepts],
        "category": [concept.category for concept in concepts],
        "coverage": [float(pixels[number == concept.number].sum()) / area for concept in concepts],
        "images": [int((number == concept.number).sum()) for concept in concepts],
    }
