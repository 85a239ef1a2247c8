"""COCO instances: one plane per picture and as many more as overlapping instances need."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import Annotation, Concept, Dataset, Record, open_picture, picture_fault
from microtome.errors import InputError


class Coco(Dataset):
    """Instance annotations in COCO's JSON, read by pycocotools.

    Args:
        root: the folder.
        annotations: the JSON file, below the root.
        images: the folder of pictures, below the root.

    Raises:
        InputError: no such file, or no COCO JSON.
    """

    def __init__(self, root: Path, *, annotations: str = "annotations.json", images: str = "images") -> None:
        self._file, self._images = root / annotations, root / images
        self._coco = _load(self._file)
        rows = self._coco.loadImgs(sorted(self._coco.getImgIds()))
        self._ids = [row["id"] for row in rows]
        self.records = [Record(row["file_name"], "all", row["width"], row["height"]) for row in rows]
        named = self._coco.loadCats(sorted(self._coco.getCatIds()))
        self.concepts = [Concept(int(row["id"]), row["name"], "object") for row in named]

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self.picture_file(index))

    def annotation(self, index: int) -> Annotation:
        """Instances painted into planes; where two of different categories overlap, a further plane takes one."""
        record = self.records[index]
        planes: list[NDArray[np.int32]] = []
        known = {concept.number for concept in self.concepts}
        for row in self._coco.loadAnns(sorted(self._coco.getAnnIds(imgIds=[self._ids[index]]))):
            if row["category_id"] not in known:
                raise InputError(f"{self._file}: annotation {row['id']}: unknown category {row['category_id']}")
            self._paint(planes, row, (record.height, record.width))
        return Annotation({"object": np.stack(planes)} if planes else {})

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._images / self.records[index].file

    def files(self) -> Iterator[Path]:
        """The JSON file, then every picture."""
        yield self._file
        yield from (self._images / record.file for record in self.records)

    def faults(self, index: int) -> list[str]:
        """Whether the picture is there, whole, and of the promised size."""
        record = self.records[index]
        fault = picture_fault(self._images / record.file, (record.width, record.height))
        return [fault] if fault else []

    def _paint(self, planes: list[NDArray[np.int32]], row: dict[str, Any], shape: tuple[int, int]) -> None:
        mask = self._coco.annToMask(row).astype(bool)
        if mask.shape != shape:
            raise InputError(f"{self._file}: annotation {row['id']}: mask must be {shape}, got {mask.shape}")
        number = row["category_id"]
        for plane in planes:
            if not ((plane != 0) & (plane != number))[mask].any():
                plane[mask] = number
                return
        fresh = np.zeros(shape, np.int32)
        fresh[mask] = number
        planes.append(fresh)


def _load(file: Path) -> Any:
    from pycocotools.coco import COCO

    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(file))
    except (ValueError, KeyError, AssertionError, TypeError) as error:
        raise InputError(f"{file}: is not COCO's instance JSON: {error}") from error
    if not coco.imgs or not coco.cats:
        raise InputError(f"{file}: must have `images` and `categories`, got {len(coco.imgs)} and {len(coco.cats)}")
    return coco
