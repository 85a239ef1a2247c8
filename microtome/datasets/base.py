"""The contract that every data set keeps: records, concepts, pictures, annotations, landmarks."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from microtome.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class Concept:
    """Something that pixels or whole pictures are labelled with.

    Args:
        number: the data set's own label number, at least 1; what tables call `concept_id`.
        name: as the data set writes it.
        category: in which it is scored, for example `object`, `part`, `texture`.
    """

    number: int
    name: str
    category: str


@dataclass(frozen=True)
class Record:
    """One picture of a data set.

    Args:
        file: path below the root, or a name where pictures are generated.
        split: for example `train`, `val`.
        width, height: of the picture as stored, in pixels.
        label: class of the whole picture, where the data set has classes.
        box: object box x0, y0, x1, y1 in pixels, half-open, where it has one.
    """

    file: str
    split: str
    width: int
    height: int
    label: str | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Landmark:
    """Centre of a named part, in pixels of the picture: the first pixel spans 0..1."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Annotation:
    """What is known of one picture.

    Args:
        planes: category -> (planes, height, width) label numbers per pixel, 0 for none; several planes where a pixel
            may carry several labels. All planes of a picture have one size, which may differ from the picture's.
        labels: category -> numbers of whole-picture labels.
    """

    planes: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Dataset(ABC):
    """A labelled set of pictures. Constructors read tables only; pictures are read when asked for.

    Attributes:
        records: the pictures, in the data set's order.
        concepts: by rising number; each is scored in one category.
    """

    records: Sequence[Record]
    concepts: Sequence[Concept]
    default_crop: str = "none"

    @abstractmethod
    def picture(self, index: int) -> Image.Image:
        """The picture, RGB, as stored. Raises InputError naming a file that cannot be read."""

    @abstractmethod
    def annotation(self, index: int) -> Annotation:
        """Label numbers per pixel and for the whole picture. Raises InputError naming an unreadable file."""

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """Every file whose content determines the data set, for its digest; none if it is generated."""

    def picture_file(self, index: int) -> Path | None:
        """The file that a picture is stored in; None where it is generated."""
        return None

    def landmarks(self, index: int) -> tuple[Landmark, ...]:
        """Part landmarks of a picture; none by default."""
        return ()

    def has_landmarks(self) -> bool:
        """Whether any picture has one."""
        return any(self.landmarks(index) for index in range(len(self.records)))

    def faults(self, index: int) -> list[str]:
        """What is wrong with a picture's file, checked without decoding it; masks are checked when they are read."""
        return []


def open_picture(file: Path) -> Image.Image:
    """Read a picture whole, as RGB.

    Raises:
        InputError: the file is missing, is no picture, or ends early.
    """
    try:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such picture") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as a picture: {error}") from error


def open_mask(file: Path) -> NDArray[np.uint8]:
    """Read a mask's stored values: (height, width) of an indexed or grey PNG, (height, width, 3) of an RGB one.

    Raises:
        InputError: the file is missing, damaged, or of another kind.
    """
    try:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            if image.mode not in ("P", "L", "RGB", "1"):
                raise InputError(f"{file}: a mask must be an indexed, grey or RGB PNG, got mode {image.mode}")
            return np.asarray(image)
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such mask") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as a mask: {error}") from error


def find_pictures(folder: Path) -> list[Path]:
    """All picture files below a folder, sorted by path.

    Raises:
        InputError: no such folder, or none in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURES)
    if not found:
        raise InputError(f"{folder}: has no pictures ({', '.join(PICTURES)})")
    return found


def picture_fault(file: Path, size: tuple[int, int] | None = None) -> str | None:
    """What is wrong with a picture file, without decoding it: missing, no picture, cut off, of another size.

    Args:
        file: the picture.
        size: promised (width, height), or None.
    """
    try:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            found, kind = image.size, image.format
    except FileNotFoundError:
        return f"{file}: no such picture"
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        return f"{file}: cannot be read as a picture: {error}"
    ends = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
    if kind in ends and ends[kind] not in content[-64:]:
        return f"{file}: cut off, its {kind} end marker is missing"
    if size is not None and found != size:
        return f"{file}: must be {size[0]} x {size[1]} pixels, got {found[0]} x {found[1]}"
    return None


def chosen(
    records: Sequence[Record],
    *,
    split: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[int]:
    """Indices of the records in the splits and of the categories, the first `limit` of them; all for None.

    Raises:
        InputError: a split or a category that no record has.
    """
    _known("split", split, {record.split for record in records})
    _known("categories", categories, {record.label for record in records if record.label is not None})
    kept = [
        index
        for index, record in enumerate(records)
        if (split is None or record.split in split) and (categories is None or record.label in categories)
    ]
    return kept[:limit]


def _known(key: str, wanted: Sequence[str] | None, known: set[str]) -> None:
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise InputError(
            f"dataset.{key}: none is {unknown[0]!r}; the data set has {', '.join(sorted(known)) or 'none'}"
        )
