"""Caltech-UCSD Birds 200-2011: boxes, part locations, splits, in the set's own text tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from PIL import Image

from microtome.datasets.base import (
    Annotation,
    Dataset,
    Landmark,
    Record,
    digestible,
    open_picture,
    picture_fault,
    picture_size,
)
from microtome.datasets.tables import below, finite, read_lines, shown, text, unique, whole
from microtome.errors import InputError, refuse

Box = tuple[float, float, float, float]
_Value = TypeVar("_Value")


class Cub(Dataset):
    """images.txt, bounding_boxes.txt, parts/parts.txt, parts/part_locs.txt, train_test_split.txt, images/.

    A part that is marked not visible is left out.

    Args:
        root: the folder with images.txt.
        species: label each picture with its species; otherwise all are `bird`, one category as in the literature.

    Raises:
        InputError: a table that is missing, a line with too few words or with a word that is no number, an image or
            a part that stands twice or that another table does not know; all of a table's faults, with their lines.
    """

    default_crop = "object"

    def __init__(self, root: Path, *, species: bool = False) -> None:
        if not isinstance(species, bool):
            raise InputError(f"dataset.species: must be true or false, got {shown(species)}")
        self._root = root
        self.concepts = []
        names = self._table("images.txt", lambda words: below(words, "image"))
        if not names:
            raise InputError(f"{root / 'images.txt'}: has no pictures")
        boxes = self._table("bounding_boxes.txt", _box, names)
        train = self._table("train_test_split.txt", lambda words: whole(words, "train", 0, 1) == 1, names)
        parts = self._table("parts/parts.txt", lambda words: "_".join(words.split()))
        missing = [number for number in names if number not in boxes or number not in train]
        refuse([f"{root}: image {n} must be in bounding_boxes.txt and train_test_split.txt" for n in missing])
        self._numbers = list(names)
        self._marks = self._read_marks(names, parts)
        self.records = self._read_records(names, boxes, train, species=species)

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self.picture_file(index))

    def annotation(self, index: int) -> Annotation:
        """None: this format has landmarks only."""
        return Annotation()

    def landmarks(self, index: int) -> tuple[Landmark, ...]:
        """The parts that are visible."""
        return tuple(self._marks.get(self._numbers[index], ()))

    def has_landmarks(self) -> bool:
        """Whether any part of any bird is visible."""
        return bool(self._marks)

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._root / "images" / self.records[index].file

    def files(self) -> Iterator[Path]:
        """The tables, then every picture."""
        tables = ("images", "bounding_boxes", "train_test_split", "parts/parts", "parts/part_locs")
        yield from (self._root / f"{name}.txt" for name in tables)
        yield from digestible(self._root / "images" / record.file for record in self.records)

    def faults(self, index: int) -> list[str]:
        """Whether the picture is whole."""
        fault = picture_fault(self.picture_file(index))
        return [fault] if fault else []

    def _table(
        self, name: str, read: Callable[[str], _Value], known: Mapping[int, object] | None = None
    ) -> dict[int, _Value]:
        """A table of number -> what the rest of its line says.

        Args:
            name: of the file.
            read: the rest of a line; raises ValueError.
            known: the numbers there may be, all if None.
        """
        file, faults = self._root / name, []
        found: dict[int, _Value] = {}
        seen: dict[int, str] = {}
        for line, content in read_lines(file):
            try:
                number, rest = _split(content)
                unique(seen, number, f"line {line}", "number")
                if known is not None and number not in known:
                    raise ValueError(f"image {number} is not in images.txt")
                found[number] = read(rest)
            except ValueError as error:
                faults.append(f"{file}:{line}: {error}")
        refuse(faults)
        return found

    def _read_marks(self, names: Mapping[int, str], parts: Mapping[int, str]) -> dict[int, list[Landmark]]:
        file, faults = self._root / "parts/part_locs.txt", []
        marks: dict[int, list[Landmark]] = defaultdict(list)
        seen: dict[tuple[int, int], str] = {}
        for line, content in read_lines(file):
            try:
                image, rest = _split(content)
                part, x, y, visible = _words(rest, 4)
                number = whole(part, "part", 0, 10**9)
                unique(seen, (image, number), f"line {line}", "image and part")
                if image not in names or number not in parts:
                    raise ValueError(f"image {image} must be in images.txt and part {number} in parts/parts.txt")
                mark = Landmark(parts[number], finite(x, "x"), finite(y, "y"))
                if whole(visible, "visible", 0, 1):
                    marks[image].append(mark)
            except ValueError as error:
                faults.append(f"{file}:{line}: {error}")
        refuse(faults)
        return dict(marks)

    def _read_records(
        self, names: Mapping[int, str], boxes: Mapping[int, Box], train: Mapping[int, bool], *, species: bool
    ) -> list[Record]:
        records: list[Record] = []
        faults: list[str] = []
        for number, name in names.items():
            try:
                width, height = picture_size(self._root / "images" / name)
            except InputError as error:
                faults += error.faults
                continue
            x, y, w, h = boxes[number]
            box = (max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h))
            if box[0] >= box[2] or box[1] >= box[3]:
                faults.append(
                    f"{self._root / 'bounding_boxes.txt'}: the box of image {number} must meet its picture "
                    f"({width} x {height}), got {x:g} {y:g} {w:g} {h:g}"
                )
            label = name.partition("/")[0] if species else "bird"
            records.append(Record(name, "train" if train[number] else "test", width, height, label, box))
        refuse(faults)
        return records


def _split(line: str) -> tuple[int, str]:
    """A line's number and the rest of it, which may hold spaces where it is a name."""
    words = line.split(maxsplit=1)
    if len(words) < 2:
        raise ValueError("must have 2 words, got 1")
    return whole(words[0], "number", 0, 10**9), text(words[1].strip(), "what follows it")


def _words(rest: str, count: int) -> list[str]:
    words = rest.split()
    if len(words) != count:
        raise ValueError(f"must have {count + 1} words, got {len(words) + 1}")
    return words


def _box(rest: str) -> Box:
    x, y, width, height = (finite(word, "a box") for word in _words(rest, 4))
    if width <= 0 or height <= 0:
        raise ValueError(f"a box must have a width and a height above 0, got {width:g} and {height:g}")
    return (x, y, width, height)
