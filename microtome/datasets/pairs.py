"""Pictures and masks in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from microtome.datasets.base import Annotation, Concept, Dataset, Record, open_picture
from microtome.errors import InputError, refuse

Picture = Image.Image | NDArray[np.uint8] | str | Path
Pair = tuple[Picture, Mapping[str, ArrayLike]]


class Pairs(Dataset):
    """Pictures in memory, each with a mask of whatever it shows.

    Concepts are numbered by the alphabet. A pixel may carry several: each concept has a plane of its own.

    Args:
        pairs: for each picture the picture itself, a PIL image, (height, width, 3) bytes or a file; and its masks: the
            name of a concept -> (height, width) true where the picture shows it, of the picture's size or any other.
        category: in which the concepts are scored.

    Raises:
        InputError: no pairs, or pictures and masks that are none; all of them.
    """

    def __init__(self, pairs: Iterable[Pair], *, category: str = "object") -> None:
        given = list(pairs)
        refuse([] if given else ["dataset: must hold at least one (picture, masks), got none"])
        refuse([fault for number, pair in enumerate(given) if (fault := _fault(number, pair))])
        self._pictures = [_picture(number, picture) for number, (picture, _) in enumerate(given)]
        self._masks = [{name: np.asarray(mask, bool) for name, mask in masks.items()} for _, masks in given]
        refuse([fault for number, masks in enumerate(self._masks) for fault in _mask_faults(number, masks)])
        names = sorted({name for masks in self._masks for name in masks})
        self._category = category
        self._number = {name: number for number, name in enumerate(names, 1)}
        self.concepts = [Concept(number, name, category) for name, number in self._number.items()]
        self.records = [
            Record(f"picture {number}", "all", picture.width, picture.height)
            for number, picture in enumerate(self._pictures)
        ]

    def picture(self, index: int) -> Image.Image:
        """RGB."""
        return self._pictures[index]

    def annotation(self, index: int) -> Annotation:
        """A plane for each concept that the picture shows."""
        masks: Mapping[str, NDArray[np.bool_]] = self._masks[index]
        if not masks:
            return Annotation()
        planes = [np.where(mask, self._number[name], 0).astype(np.int32) for name, mask in sorted(masks.items())]
        return Annotation({self._category: np.stack(planes)})

    def files(self) -> Iterable[Path]:
        """None: they are in memory."""
        return ()

    def has_landmarks(self) -> bool:
        """No."""
        return False


def _fault(number: int, pair: object) -> str | None:
    if not (isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[1], Mapping)):
        return (
            f"dataset[{number}]: must be (picture, masks), masks naming concepts: {{'wing': array}}, got "
            f"{type(pair).__name__}"
        )
    return None


def _picture(number: int, picture: Picture) -> Image.Image:
    if isinstance(picture, str | Path):
        return open_picture(Path(picture))
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(
            f"dataset[{number}]: a picture must be a PIL image, a file, or (height, width, 3) bytes from 0 to 255, got "
            f"{pixels.dtype} of shape {pixels.shape}"
        )
    return Image.fromarray(pixels)


def _mask_faults(number: int, masks: Mapping[str, NDArray[np.bool_]]) -> list[str]:
    faults = [
        f"dataset[{number}]: the mask of {name!r} must be (height, width), got shape {mask.shape}"
        for name, mask in masks.items()
        if mask.ndim != 2 or not mask.size
    ]
    if not faults and len({mask.shape for mask in masks.values()}) > 1:
        faults = [
            f"dataset[{number}]: all masks of a picture must have one size, got {sorted(map(_size, masks.values()))}"
        ]
    return faults


def _size(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return mask.shape
