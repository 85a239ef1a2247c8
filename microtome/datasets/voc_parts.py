"""PASCAL-Part: an object per record, its part masks, and the centres of their boxes as landmarks."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import (
    Annotation,
    Concept,
    Dataset,
    Landmark,
    Record,
    open_picture,
    picture_fault,
)
from microtome.errors import InputError

_INSTANCE = re.compile(r"_\d+$")  # wheel_1, wheel_2: several instances of one part


@dataclass(frozen=True)
class _Object:
    file: Path
    place: int
    category: str
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    parts: tuple[tuple[str, tuple[float, float]], ...]


class VocParts(Dataset):
    """Pictures and PASCAL-Part `.mat` files (v5) of the same name: anno.objects[] = class, mask, parts[].

    Each object is a record of its own: its class the label, its mask's box the box. A part's landmark is the centre of
    its mask's box; of a part that occurs several times (wheel_1, wheel_2) each is a landmark of the same name.

    Args:
        root: the folder.
        images, annotations: folders below it; `.` for the root itself.

    Raises:
        InputError: a file that is missing or not of this form; all of them.
    """

    def __init__(self, root: Path, *, images: str = ".", annotations: str = ".") -> None:
        self._root, self._images = root, root / images
        self._mats = sorted((root / annotations).glob("*.mat"))
        if not self._mats:
            raise InputError(f"{root / annotations}: has no .mat files")
        faults: list[str] = []
        self._objects = [item for file in self._mats for item in _listed(file, faults)]
        pictures = {file: self._picture_of(file) for file in self._mats}
        absent = [(mat, picture) for mat, picture in pictures.items() if not picture.is_file()]
        faults += [f"{picture}: no such picture, for {mat.name}" for mat, picture in absent]
        if faults:
            raise InputError(faults)
        self._pictures = [pictures[item.file] for item in self._objects]
        self.records = [
            Record(picture.relative_to(root).as_posix(), "all", *item.size, label=item.category, box=item.box)
            for picture, item in zip(self._pictures, self._objects, strict=True)
        ]
        objects = sorted({item.category for item in self._objects})
        parts = sorted({name for item in self._objects for name, _ in item.parts})
        named = [("object", name) for name in objects] + [("part", name) for name in parts]
        self.concepts = [Concept(number, name, category) for number, (category, name) in enumerate(named, 1)]
        self._numbers = {(concept.category, concept.name): concept.number for concept in self.concepts}

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self._pictures[index])

    def annotation(self, index: int) -> Annotation:
        """The object's mask, and its parts' masks in as many planes as they overlap."""
        item = self._objects[index]
        stored = _objects(_read(item.file))[item.place]
        number = self._numbers["object", item.category]
        planes = {"object": np.where(np.asarray(stored["mask"]) > 0, number, 0).astype(np.int32)[None]}
        layers: list[NDArray[np.int32]] = []
        for name, mask in _parts(stored):
            _put(layers, mask, self._numbers["part", name])
        if layers:
            planes["part"] = np.stack(layers)
        return Annotation(planes)

    def landmarks(self, index: int) -> tuple[Landmark, ...]:
        """The centres of the parts' boxes."""
        return tuple(Landmark(name, *centre) for name, centre in self._objects[index].parts)

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._pictures[index]

    def files(self) -> Iterator[Path]:
        """Every annotation, then every picture."""
        yield from self._mats
        yield from sorted(set(self._pictures))

    def faults(self, index: int) -> list[str]:
        """Whether the picture is whole, and as large as its masks."""
        fault = picture_fault(self._pictures[index], self._objects[index].size)
        return [fault] if fault else []

    def _picture_of(self, mat: Path) -> Path:
        return (self._images / mat.name).with_suffix(".jpg")


def _read(file: Path) -> Any:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(file)["anno"]
    except (MatReadError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _objects(anno: Any) -> NDArray:
    return np.asarray(anno["objects"][0, 0]).reshape(-1)


def _listed(file: Path, faults: list[str]) -> Iterator[_Object]:
    try:
        for place, stored in enumerate(_objects(_read(file))):
            mask = np.asarray(stored["mask"])
            parts = tuple((name, _centre(part)) for name, part in _parts(stored) if part.any())
            category = str(stored["class"][0])
            yield _Object(file, place, category, _box(mask), (mask.shape[1], mask.shape[0]), parts)
    except (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        faults.append(f"{file}: must be a PASCAL-Part annotation (MATLAB v5, `anno`): {error}")


def _parts(stored: Any) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for part in np.asarray(stored["parts"]).reshape(-1):
        yield _INSTANCE.sub("", str(part["part_name"][0])), np.asarray(part["mask"]) > 0


def _box(mask: NDArray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise ValueError("an object's mask must not be empty")
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _centre(mask: NDArray) -> tuple[float, float]:
    x0, y0, x1, y1 = _box(mask)
    return (x0 + x1) / 2, (y0 + y1) / 2


def _put(layers: list[NDArray[np.int32]], mask: NDArray[np.bool_], number: int) -> None:
    """Write a mask into the first plane where it covers nothing; into a new one if there is none."""
    for layer in layers:
        if not layer[mask].any():
            layer[mask] = number
            return
    layers.append(np.where(mask, number, 0).astype(np.int32))
