"""Broden's layout (Bau et al. 2017): index.csv, label.csv, c_<category>.csv, and PNGs with label = R + 256 G."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
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
    open_mask,
    open_picture,
    picture_fault,
)
from microtome.errors import InputError

FIXED_COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")


class _Row(NamedTuple):
    line: int
    cells: dict[str, tuple[str, ...]]
    mask_size: tuple[int, int]


class Broden(Dataset):
    """A Broden folder, full or small.

    A label that occurs in several categories is scored in the one where it covers most (c_<category>.csv; ties: the
    column order of index.csv). Number 0 means unlabelled.

    Args:
        root: the folder with index.csv.

    Raises:
        InputError: a table that is missing or broken, an unknown category; all faults, with file and line.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rows: list[_Row] = []
        self.records: list[Record] = []
        self.categories: list[str] = []
        self._read_index()
        self.concepts = self._read_concepts()
        self._known = {concept.number for concept in self.concepts}

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self.picture_file(index))

    def annotation(self, index: int) -> Annotation:
        """Label numbers by category. Raises InputError: unreadable, of another size, or with an unknown label."""
        row = self._rows[index]
        planes: dict[str, NDArray[np.int32]] = {}
        labels: dict[str, tuple[int, ...]] = {}
        faults: list[str] = []
        for category, parts in row.cells.items():
            numbers = tuple(int(part) for part in parts if part.isdecimal() and int(part))
            files = [part for part in parts if not part.isdecimal()]
            faults += [self._unknown(row, category, number) for number in numbers if number not in self._known]
            if numbers:
                labels[category] = numbers
            read = [self._plane(row, category, file, faults) for file in files]
            if read and not faults:
                planes[category] = np.stack(read)
        if faults:
            raise InputError(faults)
        return Annotation(planes, labels)

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._root / "images" / self.records[index].file

    def files(self) -> Iterator[Path]:
        """The tables, then every picture and mask."""
        yield self._root / "index.csv"
        yield self._root / "label.csv"
        yield from (file for c in self.categories if (file := self._root / f"c_{c}.csv").is_file())
        for record, row in zip(self.records, self._rows, strict=True):
            yield self._root / "images" / record.file
            for parts in row.cells.values():
                yield from (self._root / "images" / part for part in parts if not part.isdecimal())

    def faults(self, index: int) -> list[str]:
        """Whether the picture is there, whole, and of the promised size."""
        record = self.records[index]
        fault = picture_fault(self.picture_file(index), (record.width, record.height))
        return [f"index.csv:{self._rows[index].line}: {fault}"] if fault else []

    def _plane(self, row: _Row, category: str, name: str, faults: list[str]) -> NDArray[np.int32]:
        file = self._root / "images" / name
        empty = np.zeros(row.mask_size, np.int32)
        try:
            stored = open_mask(file)
        except InputError as error:
            faults += [f"index.csv:{row.line}: {category}: {fault}" for fault in error.faults]
            return empty
        if stored.ndim != 3:
            faults.append(f"index.csv:{row.line}: {category}: {file}: must be an RGB PNG, got one channel")
            return empty
        if stored.shape[:2] != row.mask_size:
            faults.append(
                f"index.csv:{row.line}: {category}: {file}: must be {row.mask_size[1]} x {row.mask_size[0]} pixels "
                f"(sw x sh), got {stored.shape[1]} x {stored.shape[0]}"
            )
            return empty
        wide = stored[..., 1].astype(np.int32)  # uint8 would overflow silently
        wide <<= 8
        wide += stored[..., 0]
        faults += [
            self._unknown(row, category, int(number), file)
            for number in np.flatnonzero(np.bincount(wide.ravel()))
            if number and int(number) not in self._known
        ]
        return wide

    def _unknown(self, row: _Row, category: str, number: int, file: Path | None = None) -> str:
        where = f" in {file}" if file else ""
        return f"index.csv:{row.line}: {category}: label {number}{where} is not in label.csv"

    def _read_index(self) -> None:
        file = self._root / "index.csv"
        faults: list[str] = []
        for line, row in read_table(file, FIXED_COLUMNS):
            if not self.categories:
                self.categories = [name for name in row if name not in FIXED_COLUMNS]
            try:
                height, width, mask_height, mask_width = (int(row[name]) for name in ("ih", "iw", "sh", "sw"))
            except ValueError:
                faults.append(f"{file}:{line}: ih, iw, sh, sw must be whole numbers")
                continue
            cells = {c: parts for c in self.categories if (parts := _parts(row[c]))}
            self._rows.append(_Row(line, cells, (mask_height, mask_width)))
            self.records.append(Record(row["image"], row["split"], width, height))
        if not self.records:
            faults.append(f"{file}: has no pictures")
        if faults:
            raise InputError(faults)

    def _read_concepts(self) -> list[Concept]:
        coverage = {category: self._coverage(category) for category in self.categories}
        concepts = []
        for line, row in read_table(self._root / "label.csv", ("number", "name", "category")):
            number = int(row["number"])
            named = [part.partition("(")[0].strip() for part in row["category"].split(";")]
            known = [category for category in self.categories if category in named]
            if not known:
                raise InputError(
                    f"{self._root / 'label.csv'}:{line}: category of {row['name']!r} must be a column of index.csv "
                    f"({', '.join(self.categories)}), got {row['category']!r}"
                )
            if number:
                best = max(known, key=lambda category: coverage[category].get(number, 0.0))
                concepts.append(Concept(number, row["name"], best))
        return sorted(concepts, key=lambda concept: concept.number)

    def _coverage(self, category: str) -> dict[int, float]:
        file = self._root / f"c_{category}.csv"
        if not file.is_file():
            return {}
        return {int(row["number"]): float(row["coverage"]) for _, row in read_table(file, ("number", "coverage"))}


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


def read_table(file: Path, columns: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV with their line numbers.

    Raises:
        InputError: the file is missing, or lacks one of the columns.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            found = ", ".join(reader.fieldnames or ())
            raise InputError(f"{file}: must have the columns {', '.join(columns)}; got {found or 'none'}")
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{file}:{reader.line_num}: must have {len(reader.fieldnames or ())} cells")
            yield reader.line_num, row


def _parts(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(";") if part.strip())
