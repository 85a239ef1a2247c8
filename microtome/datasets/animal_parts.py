"""Animals with an object box and part landmarks in one landmarks.json (after Zhang et al.'s ILSVRC animal parts)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from microtome.datasets.base import Annotation, Dataset, Landmark, Record, open_picture, picture_fault
from microtome.errors import InputError


class AnimalParts(Dataset):
    """`landmarks.json`: records[] with file (below images/), category, width, height, object_box_xyxy, parts.

    A part has center_xy: pixels of the full picture. The box is half-open, and clipped to the picture.

    Args:
        root: the folder with landmarks.json and images/.

    Raises:
        InputError: the file is missing or no JSON, a record lacks a key, a box is empty, a landmark lies outside its
            picture; all of them, with the record's number.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._file = root, root / "landmarks.json"
        self.concepts = []
        self.records: list[Record] = []
        self._landmarks: list[tuple[Landmark, ...]] = []
        faults: list[str] = []
        for number, row in enumerate(self._rows()):
            try:
                self.records.append(_record(row))
                self._landmarks.append(_landmarks(row))
            except (KeyError, TypeError, ValueError) as error:
                faults.append(f"{self._file}: records[{number}]: {_worded(error)}")
        if faults:
            raise InputError(faults)

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
        yield from (self._root / "images" / record.file for record in self.records)

    def faults(self, index: int) -> list[str]:
        """Whether the picture is there, whole, and of the promised size."""
        record = self.records[index]
        fault = picture_fault(self.picture_file(index), (record.width, record.height))
        return [f"{self._file}: records[{index}]: {fault}"] if fault else []

    def _rows(self) -> list[Mapping[str, Any]]:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{self._file}: no such file") from error
        except ValueError as error:
            raise InputError(f"{self._file}: is not JSON: {error}") from error
        rows = content.get("records") if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows:
            raise InputError(f"{self._file}: must be an object with a list `records`, got {type(content).__name__}")
        return rows


def _record(row: Mapping[str, Any]) -> Record:
    width, height = int(row["width"]), int(row["height"])
    x0, y0, x1, y1 = (float(value) for value in row["object_box_xyxy"])
    box = (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f"object_box_xyxy must span at least a pixel of the picture, got {row['object_box_xyxy']}")
    return Record(str(row["file"]), str(row.get("split", "all")), width, height, str(row["category"]), box)


def _landmarks(row: Mapping[str, Any]) -> tuple[Landmark, ...]:
    return tuple(Landmark(name, *(float(value) for value in part["center_xy"])) for name, part in row["parts"].items())


def _worded(error: Exception) -> str:
    return f"has no key {error}" if isinstance(error, KeyError) else str(error)
