"""A folder of pictures, a folder of indexed masks, and the names of the values (CamVid, VOC, ADE20K style)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from microtome.datasets.base import (
    Annotation,
    Concept,
    Dataset,
    Record,
    find_pictures,
    open_mask,
    open_picture,
    picture_fault,
)
from microtome.errors import InputError


class Masks(Dataset):
    """Pictures and same-named mask PNGs whose value v stands for the v-th name.

    Args:
        root: the folder.
        names: a file below the root: JSON list of names (or of objects with `name`), or one name a line; the first
            name is value 0. Values without a name are unlabelled.
        images, masks: folders below the root.
        category: of all the concepts.
        unlabelled: names that mean no label.

    Raises:
        InputError: a folder or the names are missing; a picture has no mask; all such faults.
    """

    def __init__(
        self,
        root: Path,
        *,
        names: str = "classes.json",
        images: str = "images",
        masks: str = "masks",
        category: str = "object",
        unlabelled: tuple[str, ...] = ("unlabelled", "void", "background"),
    ) -> None:
        self._root, self._category = root, category
        self._names_file = root / names
        found = read_names(self._names_file)
        # Value 0 may be a class, and label number 0 means none everywhere: numbers are values plus one.
        self.concepts = [
            Concept(value + 1, name, category) for value, name in enumerate(found) if name.lower() not in unlabelled
        ]
        self._count = len(found)
        self._unlabelled = [value + 1 for value, name in enumerate(found) if name.lower() in unlabelled]
        self._pictures = find_pictures(root / images)
        self._masks = [root / masks / picture.with_suffix(".png").name for picture in self._pictures]
        self.records = self._read_records()

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self.picture_file(index))

    def annotation(self, index: int) -> Annotation:
        """One plane of numbers (stored value + 1)."""
        stored = open_mask(self._masks[index])
        if stored.ndim != 2:
            raise InputError(f"{self._masks[index]}: must be an indexed or grey PNG, got RGB")
        plane = stored.astype(np.int32) + 1
        plane[(plane > self._count) | np.isin(plane, self._unlabelled)] = 0
        return Annotation({self._category: plane[None]})

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._pictures[index]

    def files(self) -> Iterator[Path]:
        """The names, then every picture and mask."""
        yield self._names_file
        yield from self._pictures
        yield from self._masks

    def faults(self, index: int) -> list[str]:
        """Whether the picture is whole."""
        fault = picture_fault(self._pictures[index])
        return [fault] if fault else []

    def _read_records(self) -> list[Record]:
        faults = [f"{mask}: no such mask" for mask in self._masks if not mask.is_file()]
        records = []
        for picture in self._pictures:
            try:
                with Image.open(picture) as image:
                    records.append(Record(picture.relative_to(self._root).as_posix(), "all", *image.size))
            except OSError as error:
                faults.append(f"{picture}: cannot be read as a picture: {error}")
        if faults:
            raise InputError(faults)
        return records


def read_names(file: Path) -> list[str]:
    """Names from a JSON list (of names, or of objects with `name`) or from lines of text.

    Raises:
        InputError: no such file, or another structure.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; it must name the mask values (JSON list, or one name a line)")
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{file}: is not JSON: {error}") from error
    if isinstance(content, dict):
        content = content.get("classes", content.get("names"))
    listed = [item.get("name") if isinstance(item, dict) else item for item in content or ()]
    names = [name for name in listed if isinstance(name, str)]
    if not names or len(names) < len(listed):
        raise InputError(f"{file}: must be a JSON list of names, or of objects with `name`")
    return names
