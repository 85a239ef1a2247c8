"""Broden's layout (Bau et al. 2017): index.csv, label.csv, c_<category>.csv, and PNGs with label = R + 256 G."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import (
    Annotation,
    Concept,
    Dataset,
    Record,
    digestible,
    first_folder,
    open_mask,
    open_picture,
    picture_fault,
)
from microtome.datasets.tables import (
    MOST_NUMBER,
    MOST_SIDE,
    below,
    finite,
    read_table,
    text,
    unique,
    whole,
)
from microtome.errors import InputError, refuse
from microtome.texts import Texts

FIXED_COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")


class _Cell(NamedTuple):
    """One category of one picture."""

    labels: tuple[int, ...]
    masks: tuple[str, ...]


class _Row(NamedTuple):
    line: int
    cells: dict[str, _Cell]
    mask_size: tuple[int, int]


class _Rows:
    """Rows of index.csv, by picture: checked when they are taken, and made again from JSON when they are asked for."""

    def __init__(self) -> None:
        self._stored = Texts()

    def append(self, row: _Row) -> None:
        self._stored.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")))

    def __getitem__(self, index: int) -> _Row:
        line, cells, (height, width) = json.loads(self._stored[index])
        found = {name: _Cell(tuple(labels), tuple(masks)) for name, (labels, masks) in cells.items()}
        return _Row(line, found, (height, width))


class Broden(Dataset):
    """A Broden folder, full or small.

    A label that occurs in several categories is scored in the one where it covers most (c_<category>.csv; ties: the
    column order of index.csv). Number 0 means unlabelled. A picture's stratum is its source, the folder that its path
    begins with: ade20k, dtd, opensurfaces, pascal ...

    Args:
        root: the folder with index.csv.

    Raises:
        InputError: a table that is missing or broken, an unknown category, a picture or a label that stands in its
            table twice, a number that is none, a file outside the folder; all faults, with file and line.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rows = _Rows()
        self.records: list[Record] = []
        self.categories: list[str] = []
        self._read_index()
        self.concepts = self._read_concepts()
        self._known = {concept.number for concept in self.concepts}
        self._scored = {concept.category for concept in self.concepts}

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self.picture_file(index))

    def annotation(self, index: int) -> Annotation:
        """Label numbers by category. Raises InputError: unreadable, of another size, or with an unknown label."""
        row = self._rows[index]
        planes: dict[str, NDArray[np.int32]] = {}
        labels: dict[str, tuple[int, ...]] = {}
        faults: list[str] = []
        for category, cell in row.cells.items():
            faults += [self._unknown(row, category, number) for number in cell.labels if number not in self._known]
            read = [plane for mask in cell.masks if (plane := self._plane(row, category, mask, faults)) is not None]
            if category not in self._scored:
                continue  # all of its labels are scored in other categories
            if cell.labels:
                labels[category] = cell.labels
            if read and not faults:
                planes[category] = np.stack(read)
        refuse(faults)
        return Annotation(planes, labels)

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._root / "images" / self.records[index].file

    def files(self) -> Iterator[Path]:
        """The tables, then every picture and mask."""
        yield self._root / "index.csv"
        yield self._root / "label.csv"
        yield from (file for category in self.categories if (file := self._coverage_file(category)))
        for index, record in enumerate(self.records):
            names = [record.file, *(mask for cell in self._rows[index].cells.values() for mask in cell.masks)]
            yield from digestible(self._root / "images" / name for name in names)

    def has_landmarks(self) -> bool:
        """No: the layout has none."""
        return False

    def faults(self, index: int) -> list[str]:
        """Whether the picture is there, whole, and of the promised size."""
        record = self.records[index]
        fault = picture_fault(self.picture_file(index), (record.width, record.height))
        return [f"index.csv:{self._rows[index].line}: {fault}"] if fault else []

    def _plane(self, row: _Row, category: str, name: str, faults: list[str]) -> NDArray[np.int32] | None:
        file = self._root / "images" / name
        where = f"index.csv:{row.line}: {category}"
        try:
            stored = open_mask(file)
        except InputError as error:
            faults += [f"{where}: {fault}" for fault in error.faults]
            return None
        if stored.ndim != 3:
            faults.append(f"{where}: {file}: must be an RGB PNG, got one channel")
            return None
        if stored.shape[:2] != row.mask_size:
            faults.append(
                f"{where}: {file}: must be {row.mask_size[1]} x {row.mask_size[0]} pixels "
                f"(sw x sh), got {stored.shape[1]} x {stored.shape[0]}"
            )
            return None
        pairs = np.ndarray(stored.shape[:2], "<u2", np.ascontiguousarray(stored), strides=(3 * stored.shape[1], 3))
        wide = pairs.astype(np.int32)  # R + 256 G: the first two bytes of each pixel
        if not self._in_masks.take(wide).all():
            strange = np.unique(wide[~self._in_masks[wide]])
            faults += [self._unknown(row, category, number, file) for number in strange.tolist()]
        return wide

    @cached_property
    def _in_masks(self) -> NDArray[np.bool_]:
        """Which numbers a mask may have: zero, and those in label.csv."""
        found = np.zeros(1 << 16, bool)
        found[[0, *(number for number in self._known if number < len(found))]] = True
        return found

    def _unknown(self, row: _Row, category: str, number: int, file: Path | None = None) -> str:
        where = f" in {file}" if file else ""
        return f"index.csv:{row.line}: {category}: label {number}{where} is not in label.csv"

    def _read_index(self) -> None:
        file = self._root / "index.csv"
        faults: list[str] = []
        seen: dict[str, str] = {}
        for line, row in read_table(file, FIXED_COLUMNS, faults):
            self.categories = self.categories or [name for name in row if name not in FIXED_COLUMNS]
            try:
                record, parsed = _row(line, row)
                unique(seen, record.file, f"line {line}", "image")
            except ValueError as error:
                faults.append(f"{file}:{line}: {error}")
                continue
            self._rows.append(parsed)
            self.records.append(record)
        if not self.records and not faults:
            faults.append(f"{file}: has no pictures")
        refuse(faults)

    def _read_concepts(self) -> list[Concept]:
        file = self._root / "label.csv"
        faults: list[str] = []
        coverage = {category: self._coverage(category, faults) for category in self.categories}
        concepts: list[Concept] = []
        seen: dict[int | tuple[str, str], str] = {}
        for line, row in read_table(file, ("number", "name", "category"), faults):
            try:
                number = whole(row["number"], "number", 0, MOST_NUMBER)
                unique(seen, number, f"line {line}", "number")
                best = max(self._named(row), key=lambda category: coverage[category].get(number, 0.0))
                unique(seen, (text(row["name"], "name"), best), f"line {line}", "name and category")
            except ValueError as error:
                faults.append(f"{file}:{line}: {error}")
                continue
            if number:
                concepts.append(Concept(number, row["name"], best))
        refuse(faults)
        return sorted(concepts, key=lambda concept: concept.number)

    def _named(self, row: Mapping[str, str]) -> list[str]:
        """The categories of a label that index.csv has, in its order."""
        named = [part.partition("(")[0].strip() for part in row["category"].split(";")]
        known = [category for category in self.categories if category in named]
        if not known:
            raise ValueError(
                f"category of {row['name']!r} must be a column of index.csv ({', '.join(self.categories)}), "
                f"got {row['category']!r}"
            )
        return known

    def _coverage(self, category: str, faults: list[str]) -> dict[int, float]:
        file = self._coverage_file(category)
        if file is None:
            return {}
        found: dict[int, float] = {}
        seen: dict[int, str] = {}
        for line, row in read_table(file, ("number", "coverage"), faults):
            try:
                number = whole(row["number"], "number", 0, MOST_NUMBER)
                unique(seen, number, f"line {line}", "number")
                found[number] = finite(row["coverage"], "coverage")
            except ValueError as error:
                faults.append(f"{file}:{line}: {error}")
        return found

    def _coverage_file(self, category: str) -> Path | None:
        name = f"c_{category}.csv"  # of a category that is called as no file can be there is none
        return self._root / name if "/" not in name and os.path.lexists(self._root / name) else None


def _row(line: int, row: Mapping[str, str]) -> tuple[Record, _Row]:
    """A row of index.csv. Raises ValueError."""
    height, width, mask_height, mask_width = (whole(row[name], name, 1, MOST_SIDE) for name in ("ih", "iw", "sh", "sw"))
    file = below(row["image"], "image")
    split, folder = sys.intern(row["split"]), first_folder(file)  # few, of many pictures
    record = Record(file, split, width, height, stratum=folder and sys.intern(folder))
    categories = [name for name in row if name not in FIXED_COLUMNS]
    cells = {name: cell for name in categories if any(cell := _cell(row[name], name))}
    return record, _Row(line, cells, (mask_height, mask_width))


def _cell(content: str, category: str) -> _Cell:
    parts = [part.strip() for part in content.split(";") if part.strip()]
    masks = tuple(below(part, category) for part in parts if not _numeric(part))
    labels = [whole(part, f"{category}: a label", 0, MOST_NUMBER) for part in parts if _numeric(part)]
    return _Cell(tuple(label for label in labels if label), masks)


def _numeric(part: str) -> bool:
    """Whether it looks like a number, -1 and nan included, which then must be a label's."""
    try:
        float(part)
    except ValueError:
        return False
    return True


def write_broden(dataset: Dataset, root: Path, *, quality: int = 92) -> None:
    """Write any data set in Broden's layout: JPEG pictures, RGB PNG masks at half their size, and the tables.

    Args:
        dataset: whose masks are as large as its pictures.
        root: a new folder.
        quality: of the JPEGs.
    """
    categories = sorted({concept.category for concept in dataset.concepts})
    (root / "images").mkdir(parents=True)
    rows = []
    for index, record in enumerate(dataset.records):
        dataset.picture(index).save(root / "images" / f"{index}.jpg", quality=quality)
        notes, cells = dataset.annotation(index), []
        for category in categories:
            parts = [str(number) for number in notes.labels.get(category, ())]
            for place, plane in enumerate(notes.planes.get(category, ())):
                half = plane[::2, ::2]
                parts.append(f"{index}_{category}_{place}.png")
                pixels = np.stack([half % 256, half // 256, half * 0], 2).astype(np.uint8)
                Image.fromarray(pixels).save(root / "images" / parts[-1])
            cells.append(";".join(parts))
        height, width = record.height, record.width
        rows.append([f"{index}.jpg", record.split, height, width, -(-height // 2), -(-width // 2), *cells])
    _write_table(root / "index.csv", [[*FIXED_COLUMNS, *categories], *rows])
    labels = [[concept.number, concept.name, concept.category] for concept in dataset.concepts]
    _write_table(root / "label.csv", [["number", "name", "category"], *labels])


def _write_table(file: Path, rows: Iterable[Iterable[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
