"""Caltech-UCSD Birds 200-2011: boxes, part locations, splits, in the set's own text tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from microtome.datasets.base import Annotation, Dataset, Landmark, Record, open_picture, picture_fault
from microtome.errors import InputError


class Cub(Dataset):
    """images.txt, bounding_boxes.txt, parts/parts.txt, parts/part_locs.txt, train_test_split.txt, images/.

    A part that is marked not visible is left out.

    Args:
        root: the folder with images.txt.
        species: label each picture with its species; otherwise all are `bird`, one category as in the literature.

    Raises:
        InputError: a table that is missing, a line with too few words, an image that a table does not know.
    """

    def __init__(self, root: Path, *, species: bool = False) -> None:
        self._root = root
        self.concepts = []
        names = {key: rest[0] for key, rest in self._rows("images.txt", 2)}
        boxes = {key: tuple(map(float, rest)) for key, rest in self._rows("bounding_boxes.txt", 5)}
        train = {key: rest[0] == "1" for key, rest in self._rows("train_test_split.txt", 2)}
        parts = {key: "_".join(rest) for key, rest in self._rows("parts/parts.txt", 2)}
        missing = [key for key in names if key not in boxes or key not in train]
        if missing:
            raise InputError(f"{root}: image {missing[0]} must be in bounding_boxes.txt and train_test_split.txt")
        self._marks: dict[str, list[Landmark]] = defaultdict(list)
        for key, (part, x, y, visible) in self._rows("parts/part_locs.txt", 5):
            if visible == "1":
                self._marks[key].append(Landmark(parts.get(part, part), float(x), float(y)))
        self._keys = list(names)
        self._labels = [names[key].partition("/")[0] if species else "bird" for key in names]
        self.records = self._read_records(names, boxes, train)

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self.picture_file(index))

    def annotation(self, index: int) -> Annotation:
        """None: this format has landmarks only."""
        return Annotation()

    def landmarks(self, index: int) -> tuple[Landmark, ...]:
        """The parts that are visible."""
        return tuple(self._marks[self._keys[index]])

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._root / "images" / self.records[index].file

    def files(self) -> Iterator[Path]:
        """The tables, then every picture."""
        tables = ("images", "bounding_boxes", "train_test_split", "parts/parts", "parts/part_locs")
        yield from (self._root / f"{name}.txt" for name in tables)
        yield from (self._root / "images" / record.file for record in self.records)

    def faults(self, index: int) -> list[str]:
        """Whether the picture is whole."""
        fault = picture_fault(self.picture_file(index))
        return [fault] if fault else []

    def _rows(self, name: str, words: int) -> Iterator[tuple[str, list[str]]]:
        file = self._root / name
        if not file.is_file():
            raise InputError(f"{file}: no such file")
        for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            found = text.split()
            if len(found) < words:
                raise InputError(f"{file}:{line}: must have {words} words, got {len(found)}")
            yield found[0], found[1:]

    def _read_records(
        self, names: dict[str, str], boxes: dict[str, tuple[float, ...]], train: dict[str, bool]
    ) -> list[Record]:
        records, faults = [], []
        for key, label in zip(self._keys, self._labels, strict=True):
            file = self._root / "images" / names[key]
            try:
                with Image.open(file) as image:
                    width, height = image.size
            except OSError as error:
                faults.append(f"{file}: cannot be read as a picture: {error}")
                continue
            x, y, w, h = boxes[key]
            box = (max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h))
            records.append(Record(names[key], "train" if train[key] else "test", width, height, label, box))
        if faults:
            raise InputError(faults)
        return records
