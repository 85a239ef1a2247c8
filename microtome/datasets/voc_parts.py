"""PASCAL-Part: an object per record, its part masks, and the centres of their boxes as landmarks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import (
    MOST_PIXELS,
    Annotation,
    Concept,
    Dataset,
    Landmark,
    Record,
    digestible,
    open_picture,
    picture_fault,
    shortened,
)
from microtome.datasets.matlab import Value, read_variable
from microtome.datasets.tables import file_fault, key, option, reason, shown, text
from microtome.errors import InputError, refuse

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

    The records are the objects, so that every file is read at opening, once in a process as long as it does not change.

    Args:
        root: the folder.
        images, annotations: folders below it; `.` for the root itself.

    Raises:
        InputError: a file that is missing or not of this form; all of them.
    """

    default_crop = "object"

    def __init__(self, root: Path, *, images: str = ".", annotations: str = ".") -> None:
        folder = root / option(annotations, "annotations", "a folder")
        self._images = root / option(images, "images", "a folder")
        self._mats = sorted(folder.glob("*.mat"))
        if not self._mats:
            raise InputError(f"{folder}: has no .mat files")
        faults: list[str] = []
        self._objects = [item for file in self._mats for item in _listed(file, faults)]
        pictures = {file: self._picture_of(file) for file in self._mats}
        absent = [(mat, fault) for mat, picture in pictures.items() if (fault := file_fault(picture, "picture"))]
        faults += [f"{fault}, for {mat.name}" for mat, fault in absent]
        if not self._objects and not faults:
            faults.append(f"{folder}: none of its .mat files has an object")
        refuse(faults)
        self._pictures = [pictures[item.file] for item in self._objects]
        self.records = [
            Record(shortened(picture, root), "all", *item.size, label=item.category, box=item.box)
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
        try:
            _, body, parts = _stored(_objects(item.file)[item.place])
            number = self._numbers["object", item.category]
            layers: list[NDArray[np.int32]] = []
            for name, mask in parts:
                _put(layers, mask, self._numbers["part", name])
        except (OSError, ValueError, LookupError) as error:  # the file has changed since it was listed
            raise InputError(_refused(item.file, error)) from error
        planes = {"object": np.where(body, number, 0).astype(np.int32)[None]}
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
        yield from digestible(self._mats)
        yield from digestible(sorted(set(self._pictures)))

    def faults(self, index: int) -> list[str]:
        """Whether the picture is whole, and as large as its masks."""
        fault = picture_fault(self._pictures[index], self._objects[index].size)
        return [fault] if fault else []

    def _picture_of(self, mat: Path) -> Path:
        return (self._images / mat.name).with_suffix(".jpg")


def _objects(file: Path) -> list[Value]:
    """The structs `anno.objects`. Raises ValueError, OSError."""
    fault = file_fault(file, "file")
    if fault:
        raise ValueError(fault)
    anno = read_variable(file.read_bytes(), "anno")
    if not isinstance(anno, list) or len(anno) != 1:
        raise ValueError(f"`anno` must be a struct, got {shown(anno)}")
    return _structs(anno[0], "objects")


def _structs(holder: object, name: str) -> list[Value]:
    """A field that is a struct array, or empty. Raises ValueError."""
    found = key(holder, name)
    if isinstance(found, np.ndarray) and not found.size:
        return []
    if not isinstance(found, list):
        raise ValueError(f"`{name}` must be a struct, got {shown(found)}")
    return found


def _listed(file: Path, faults: list[str]) -> tuple[_Object, ...]:
    """The objects of a file; what is wrong with it is added to the faults."""
    try:
        found = file.stat()
        return _seen(file, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev))
    except (OSError, ValueError) as error:
        faults.append(_refused(file, error))
        return ()


@cache
def _seen(file: Path, state: tuple[int, ...]) -> tuple[_Object, ...]:
    """The objects of a file in this state; an audit opens its data set several times, and inflating takes long."""
    found = []
    for place, struct in enumerate(_objects(file)):
        category, body, parts = _stored(struct)
        marks = tuple((name, _centre(part)) for name, part in parts if part.any())
        found.append(_Object(file, place, category, _box(body), (body.shape[1], body.shape[0]), marks))
    return tuple(found)


def _refused(file: Path, error: Exception) -> str:
    return f"{file}: must be a PASCAL-Part annotation (MATLAB v5, `anno`): {reason(error)}"


def _stored(struct: Value) -> tuple[str, NDArray[np.bool_], list[tuple[str, NDArray[np.bool_]]]]:
    """Class, mask, and the parts' names and masks of an object. Raises ValueError."""
    body = _mask(key(struct, "mask"))
    parts = []
    for part in _structs(struct, "parts"):
        mask = _mask(key(part, "mask"))
        if mask.shape != body.shape:
            raise ValueError(f"a part's mask must be as large as its object's {body.shape}, got {mask.shape}")
        parts.append((_INSTANCE.sub("", text(key(part, "part_name"), "`part_name`")), mask))
    return text(key(struct, "class"), "`class`"), body, parts


def _mask(stored: object) -> NDArray[np.bool_]:
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or not 0 < stored.size <= MOST_PIXELS:
        raise ValueError(f"a mask must be a matrix of numbers, got {shown(stored)}")
    return np.asarray(stored > 0, bool)


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise ValueError("an object's mask must not be empty")
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    x0, y0, x1, y1 = _box(mask)
    return (x0 + x1) / 2, (y0 + y1) / 2


def _put(layers: list[NDArray[np.int32]], mask: NDArray[np.bool_], number: int) -> None:
    """Write a mask into the first plane where it covers nothing; into a new one if there is none."""
    for layer in layers:
        if not layer[mask].any():
            layer[mask] = number
            return
    layers.append(np.where(mask, number, 0).astype(np.int32))
