"""Animals with an object box and part landmarks in one landmarks.json (after Zhang et al.'s ILSVRC animal parts)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from microtome.datasets.base import Annotation, Dataset, Landmark, Record, digestible, open_picture, picture_fault
from microtome.datasets.tables import MOST_SIDE, below, key, numbers, read_json, shown, text, whole
from microtome.errors import InputError, refuse


class AnimalParts(Dataset):
    """`landmarks.json`: records[] with file (below images/), category, width, height, object_box_xyxy, parts.

    A part has center_xy: pixels of the full picture. The box is half-open, and clipped to the picture.

    Args:
        root: the folder with landmarks.json and images/.

    Raises:
        InputError: the file is missing or no JSON, a record lacks a key or has a value of another kind, a box is
            empty, a landmark lies outside its picture, a file outside the folder; all of them, with the record's
            number.
    """

    default_crop = "object"

    def __init__(self, root: Path) -> None:
        self._root, self._file = root, root / "landmarks.json"
        self.concepts = []
        self.records: list[Record] = []
        self._landmarks: list[tuple[Landmark, ...]] = []
        faults: list[str] = []
        for number, row in enumerate(self._rows()):
            try:
                record = _record(row)
                self._landmarks.append(_landmarks(row, record))
                self.records.append(record)
            except ValueError as error:
                faults.append(f"{self._file}: records[{number}]: {error}")
        refuse(faults)

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self.picture_file(index))

    def annotation(self, index: int) -> Annotation:
        """None: this format has landmarks only."""
        return Annotation()

    def landmarks(self, index: int) -> tuple[Landmark, ...]:
        """The centres of the record's parts."""
        return self._landmarks[index]

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._root / "images" / self.records[index].file

    def files(self) -> Iterator[Path]:
        """The table, then every picture."""
        yield self._file
        yield from digestible(self._root / "images" / record.file for record in self.records)

    def faults(self, index: int) -> list[str]:
        """Whether the picture is there, whole, and of the promised size."""
        record = self.records[index]
        fault = picture_fault(self.picture_file(index), (record.width, record.height))
        return [f"{self._file}: records[{index}]: {fault}"] if fault else []

    def _rows(self) -> list[object]:
        content = read_json(self._file)
        rows = content.get("records") if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows:
            raise InputError(f"{self._file}: must be an object with a list `records`, got {shown(content)}")
        return rows


def _record(row: Any) -> Record:
    width, height = (whole(key(row, name), name, 1, MOST_SIDE) for name in ("width", "height"))
    x0, y0, x1, y1 = numbers(key(row, "object_box_xyxy"), "object_box_xyxy", 4)
    box = (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f"object_box_xyxy must span at least a pixel of the picture, got {row['object_box_xyxy']}")
    file, category = below(key(row, "file"), "file"), text(key(row, "category"), "category")
    return Record(file, text(row.get("split", "all"), "split"), width, height, category, box)


def _landmarks(row: object, record: Record) -> tuple[Landmark, ...]:
    parts = key(row, "parts")
    if not isinstance(parts, Mapping):
        raise ValueError(f"parts must be an object of parts by name, got {shown(parts)}")
    marks = []
    for name, part in parts.items():
        x, y = numbers(key(part, "center_xy"), f"center_xy of {name!r}", 2)
        if not (0 <= x <= record.width and 0 <= y <= record.height):
            raise ValueError(
                f"landmark {name!r} must lie in the picture ({record.width} x {record.height}), got ({x:g}, {y:g})"
            )
        marks.append(Landmark(text(name, "a part"), x, y))
    return tuple(marks)
