"""COCO instances: one plane per picture and as many more as overlapping instances need."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import (
    MOST_PIXELS,
    Annotation,
    Concept,
    Dataset,
    Record,
    digestible,
    first_folder,
    open_picture,
    picture_fault,
)
from microtome.datasets.tables import (
    MOST_NUMBER,
    MOST_SIDE,
    below,
    key,
    option,
    read_json,
    shown,
    text,
    unique,
    whole,
)
from microtome.errors import InputError, refuse

MOST_ID = 2**63 - 1

Found = TypeVar("Found")


class Coco(Dataset):
    """Instance annotations in COCO's JSON: polygons, and run lengths, compressed or not.

    A picture's stratum is the folder that its `file_name` begins with.

    Args:
        root: the folder.
        annotations: the JSON file, below the root.
        images: the folder of pictures, below the root.

    Raises:
        InputError: no such file; no COCO JSON: something missing or of another kind, an id that stands twice, an
            annotation of an unknown picture or category, a file outside the folder; all of them, with their place.
            By `annotation`: a polygon or run lengths that cannot be painted.
    """

    def __init__(self, root: Path, *, annotations: str = "annotations.json", images: str = "images") -> None:
        self._file = root / option(annotations, "annotations", "a file")
        self._images = root / option(images, "images", "a folder")
        content = read_json(self._file)
        faults: list[str] = []
        records = self._by_id(content, "images", _record, faults)
        concepts = self._by_id(content, "categories", _concept(), faults)
        complete = not faults  # else every annotation of a faulty row would be one more fault
        self._annotations: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        for number, row in self._by_id(content, "annotations", lambda number, row: row, faults, least=0).items():
            try:
                image, category = (whole(key(row, name), name, 0, MOST_ID) for name in ("image_id", "category_id"))
                if complete and image not in records:
                    raise ValueError(f"unknown picture {image}")
                if complete and category not in concepts:
                    raise ValueError(f"unknown category {category}")
                self._annotations[image].append((number, {**row, "category_id": category}))
            except ValueError as error:
                faults.append(f"{self._file}: annotation {number}: {error}")
        refuse(faults)
        self._ids = sorted(records)
        self.records = [records[number] for number in self._ids]
        self.concepts = [concepts[number] for number in sorted(concepts)]

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self.picture_file(index))

    def annotation(self, index: int) -> Annotation:
        """Instances painted into planes; where two of different categories overlap, a further plane takes one."""
        record = self.records[index]
        planes: list[NDArray[np.int32]] = []
        faults: list[str] = []
        for number, row in sorted(self._annotations.get(self._ids[index], ()), key=lambda pair: pair[0]):
            try:
                mask = painted(key(row, "segmentation"), record.height, record.width)
            except ValueError as error:
                faults.append(f"{self._file}: annotation {number}: {error}")
                continue
            _paint(planes, mask, row["category_id"])
        refuse(faults)
        return Annotation({"object": np.stack(planes)} if planes else {})

    def has_landmarks(self) -> bool:
        """No: instances have none; COCO's keypoints are not read."""
        return False

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._images / self.records[index].file

    def files(self) -> Iterator[Path]:
        """The JSON file, then every picture."""
        yield self._file
        yield from digestible(self._images / record.file for record in self.records)

    def faults(self, index: int) -> list[str]:
        """Whether the picture is there, whole, and of the promised size."""
        record = self.records[index]
        fault = picture_fault(self._images / record.file, (record.width, record.height))
        return [fault] if fault else []

    def _by_id(
        self, content: object, name: str, read: Callable[[int, Any], Found], faults: list[str], *, least: int = 1
    ) -> dict[int, Found]:
        """A list of the file by its rows' ids, which are unique."""
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list) or len(rows) < least:
            raise InputError(f"{self._file}: must be COCO's instance JSON with a list `{name}`, got {shown(rows)}")
        found: dict[int, Found] = {}
        seen: dict[int, str] = {}
        for place, row in enumerate(rows):
            try:
                number = whole(key(row, "id"), "id", 0, MOST_ID)
                unique(seen, number, f"{name}[{place}]", "id")
                found[number] = read(number, row)
            except ValueError as error:
                faults.append(f"{self._file}: {name}[{place}]: {error}")
        return found


def _record(number: int, row: object) -> Record:
    width, height = (whole(key(row, name), name, 1, MOST_SIDE) for name in ("width", "height"))
    if width * height > MOST_PIXELS:
        raise ValueError(f"must have at most {MOST_PIXELS:,} pixels, got {width} x {height}")
    file = below(key(row, "file_name"), "file_name")
    return Record(file, "all", width, height, stratum=first_folder(file))


def _concept() -> Callable[[int, object], Concept]:
    names: dict[str, str] = {}

    def read(number: int, row: object) -> Concept:
        name = text(key(row, "name"), "name")
        unique(names, name, f"category {number}", "name")
        return Concept(whole(number, "a category's id", 1, MOST_NUMBER), name, "object")

    return read


def _paint(planes: list[NDArray[np.int32]], mask: NDArray[np.bool_], number: int) -> None:
    for plane in planes:
        if not ((plane != 0) & (plane != number))[mask].any():
            plane[mask] = number
            return
    planes.append(np.where(mask, number, 0).astype(np.int32))


def painted(segmentation: object, height: int, width: int) -> NDArray[np.bool_]:
    """(height, width) mask of a segmentation: a list of polygons, or an object with `size` and `counts`.

    pycocotools trusts what it is given and reads and writes beyond its memory otherwise: it gets checked polygons only.

    Raises:
        ValueError: of another kind; an odd or too short polygon, far outside the picture; run lengths of another size.
    """
    if isinstance(segmentation, dict):
        size, counts = key(segmentation, "size"), key(segmentation, "counts")
        if size != [height, width]:
            raise ValueError(f"the size of run lengths must be [{height}, {width}], got {shown(size)}")
        return _filled(_runs(counts), height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"segmentation must be polygons or run lengths, got {shown(segmentation)}")
    from pycocotools import mask as masks

    outlines = [_outline(polygon, height, width) for polygon in segmentation]
    filled: NDArray[np.uint8] = masks.decode(masks.merge(masks.frPyObjects(outlines, height, width)))
    return filled.astype(bool)


def _outline(polygon: object, height: int, width: int) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon must be a list of x, y, x, y ... of three corners or more, got {shown(polygon)}")
    if not all(type(value) in (int, float) for value in polygon):
        raise ValueError(f"a polygon must be numbers, got {shown(polygon)}")
    corners = np.array([float(value) if abs(value) < 1e9 else np.nan for value in polygon]).reshape(-1, 2)
    size = np.array([width, height])
    if not ((corners >= -size) & (corners <= 2 * size)).all():  # false for NaN
        raise ValueError(
            f"a polygon must lie within a picture's size of its picture ({width} x {height}), got {shown(polygon)}"
        )
    return [float(value) for value in corners.ravel()]


def _runs(counts: object) -> list[int]:
    """Lengths of alternating runs of 0 and 1, down the columns."""
    if isinstance(counts, str):
        return _decompressed(counts)
    if not isinstance(counts, list):
        raise ValueError(f"counts must be a list or a string, got {shown(counts)}")
    return [whole(count, "a run length", 0, MOST_PIXELS) for count in counts]


def _decompressed(text: str) -> list[int]:
    """COCO's run lengths as text: 5 bits a character, from 48 on, low bits first, 32 if more follow; from the third
    run on the difference to the last but one.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 30:
            raise ValueError(f"counts must be run lengths as COCO compresses them, got {shown(text)}")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        value -= (code & 16 > 0) << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift or any(run < 0 for run in runs):
        raise ValueError(f"counts must be run lengths as COCO compresses them, got {shown(text)}")
    return runs


def _filled(runs: list[int], height: int, width: int) -> NDArray[np.bool_]:
    if sum(runs) != height * width:
        raise ValueError(f"run lengths must sum to {height} x {width} = {height * width}, got {sum(runs)}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T
