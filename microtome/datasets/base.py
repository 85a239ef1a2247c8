"""The contract that every data set keeps: records, concepts, pictures, annotations, landmarks."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from microtome.datasets.tables import MOST_NUMBER, file_fault, name_fault, reason
from microtome.errors import InputError, refuse

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
PICTURE_KINDS = ("JPEG", "PNG", "WEBP", "BMP")  # told by content: no other decoder ever sees a file
MASK_KINDS = ("PNG",)
MOST_PIXELS = 89_478_485  # 256 MiB of RGB; where PIL, too, suspects a decompression bomb
_PLAIN_MASKS = ("P", "P;1", "P;2", "P;4", "L", "1", "RGB")  # PNG samples that are decoded to the values stored


@dataclass(frozen=True)
class Concept:
    """Something that pixels or whole pictures are labelled with.

    Args:
        number: the data set's own label number, 1 to 65,535 (tables are looked up by it); `concept_id` in tables.
        name: as the data set writes it.
        category: in which it is scored, for example `object`, `part`, `texture`.
    """

    number: int
    name: str
    category: str

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MOST_NUMBER:
            raise InputError(f"concept {self.name!r}: its number must be 1 to {MOST_NUMBER:,}, got {self.number}")


@dataclass(frozen=True, slots=True)
class Record:
    """One picture of a data set.

    Args:
        file: path below the root, or a name where pictures are generated.
        split: for example `train`, `val`.
        width, height: of the picture as stored, in pixels.
        label: class of the whole picture, where the data set has classes.
        box: object box x0, y0, x1, y1 in pixels, half-open, where it has one.
        stratum: source, scene or video that it comes from, where the data set is a mixture: chance exchanges
            annotations within it. All pictures without one are a stratum, too.
    """

    file: str
    split: str
    width: int
    height: int
    label: str | None = None
    box: tuple[float, float, float, float] | None = None
    stratum: str | None = None


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
        default_crop: what an audit file that says nothing of `crop` means: `object` where landmarks are annotated
            within an object's box, as the literature crops them, else `none`.
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
        """Whether any picture has landmarks. Asks one after the other; formats that know better answer at once."""
        return any(self.landmarks(index) for index in range(len(self.records)))

    def faults(self, index: int) -> list[str]:
        """What is wrong with a picture's file, checked without decoding it; masks are checked when they are read."""
        return []


def open_picture(file: Path) -> Image.Image:
    """Read a picture whole, as RGB of 8 bits.

    16-bit grey v becomes v / 257, rounded; alpha is dropped, an index becomes its colour, CMYK is converted without
    colour profiles; of a JPEG that holds several pictures (MPO) the first counts.

    Raises:
        InputError: the file is missing, no regular file, no JPEG, PNG, WebP or BMP by its content, damaged, larger
            than `MOST_PIXELS`, animated, or carries an orientation other than upright.
    """
    with _opened(file, "picture") as stream, _decoded(stream, file, "picture", PICTURE_KINDS) as image:
        image.load()
        _refuse_turned(image, file, decoded=True)
        image.info.pop("transparency", None)  # else PIL warns that it drops it
        if image.mode.startswith("I"):
            return Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8)).convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")


def open_mask(file: Path) -> NDArray[np.uint8]:
    """Read a mask's stored values: (height, width) of an indexed or grey PNG, (height, width, 3) of an RGB one.

    Raises:
        InputError: as for `open_picture`; the file is no PNG, or decoding it would change the values.
    """
    with _opened(file, "mask") as stream, _decoded(stream, file, "mask", MASK_KINDS) as image:
        stored = image.tile[0][3] if image.tile else image.mode
        if stored not in _PLAIN_MASKS:
            raise InputError(
                f"{file}: a mask must be an indexed, grey or RGB PNG with 8 bits a channel (fewer if it is indexed), "
                f"got {stored}; save it as one, so that the values stay what they are"
            )
        values = np.asarray(image)
        _refuse_turned(image, file, decoded=True)
        return values


def picture_size(file: Path) -> tuple[int, int]:
    """(width, height) of a picture as stored, from its header. Raises InputError as `open_picture`."""
    with _opened(file, "picture") as stream, _decoded(stream, file, "picture", PICTURE_KINDS) as image:
        return image.size


def picture_fault(file: Path, size: tuple[int, int] | None = None) -> str | None:
    """What is wrong with a picture file, decoded only where its end is in doubt.

    Args:
        file: the picture.
        size: promised (width, height), or None.
    """
    try:
        with _opened(file, "picture") as stream, _decoded(stream, file, "picture", PICTURE_KINDS) as image:
            found = image.size
            if not _ended(stream, image.format):
                _decode_to_the_end(image, file)
    except InputError as error:
        return error.faults[0]
    if size is not None and found != size:
        return f"{file}: must be {size[0]} x {size[1]} pixels, got {found[0]} x {found[1]}"
    return None


def _ended(stream: BinaryIO, kind: str | None) -> bool:
    ends = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
    place, size = stream.tell(), stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 64))
    tail = stream.read()
    stream.seek(place)
    return kind not in ends or ends[kind] in tail


def _decode_to_the_end(image: Image.Image, file: Path) -> None:
    """Cameras append films and more to a whole JPEG: only a decoder knows whether it is cut off."""
    try:
        image.load()
    except Exception as error:
        raise InputError(f"{file}: cut off, its {image.format} end marker is missing: {reason(error)}") from error


@contextmanager
def _opened(file: Path, what: str) -> Iterator[BinaryIO]:
    """A regular file's bytes: opening a pipe or a device would wait for ever."""
    fault = file_fault(file, what)
    if fault:
        raise InputError(fault)
    try:
        stream = file.open("rb")
    except OSError as error:
        raise InputError(f"{file}: cannot be read as a {what}: {reason(error)}") from error
    with stream:
        yield stream


@contextmanager
def _decoded(stream: BinaryIO, file: Path, what: str, kinds: tuple[str, ...]) -> Iterator[ImageFile.ImageFile]:
    """The picture in a stream, its header checked; whatever its decoder raises, here or later, names the file."""
    try:
        with Image.open(stream, formats=kinds) as image:
            _check_header(image, file)
            yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        stream.seek(0)
        start = stream.read(8)
        got = f"a file that begins with {start!r}" if start else "an empty file"
        allowed = ", ".join(kinds)
        raise InputError(f"{file}: cannot be read as a {what}: its content must be {allowed}, got {got}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{file}: must have at most {MOST_PIXELS:,} pixels: {error}") from error
    except Exception as error:  # decoders meet damage with any of them: struct.error, zlib.error, MemoryError ...
        raise InputError(f"{file}: cannot be read as a {what}: {reason(error)}") from error


def _check_header(image: Image.Image, file: Path) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise InputError(f"{file}: must have at most {MOST_PIXELS:,} pixels, got {width} x {height}; make it smaller")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photograph with a preview or a depth map behind it
        raise InputError(f"{file}: must be a single picture, got an animation of {frames} frames; save the one meant")
    _refuse_turned(image, file)


def _refuse_turned(image: Image.Image, file: Path, *, decoded: bool = False) -> None:
    try:
        exif = image.getexif() if decoded or image.format != "PNG" else _early_exif(image)
        turn = exif.get(ExifTags.Base.Orientation)
    except Exception:
        return  # EXIF that nobody can read turns no picture
    if turn in range(2, 9):
        raise InputError(
            f"{file}: carries the EXIF orientation {turn} (not upright), and nothing tells whether masks, boxes and "
            "landmarks mean the stored or the turned pixels; if the turned ones, save it turned (PIL: "
            "ImageOps.exif_transpose), if the stored ones, remove the tag"
        )


def _early_exif(image: Image.Image) -> Image.Exif:
    """EXIF from a PNG's header: `getexif` would decode the picture to see whether some stands behind the pixels."""
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return exif


def find_pictures(folder: Path) -> list[Path]:
    """All picture files below a folder, linked folders included, sorted by path.

    Raises:
        InputError: no such folder, none in it, a folder that is reached twice or cannot be listed, a name that is no
            regular file's or no UTF-8; all of them.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    faults: list[str] = []
    found = sorted(file for file in _files_below(folder, faults) if file.suffix.lower() in PICTURES)
    faults += [fault for file in found if (fault := name_fault(file) or file_fault(file, "picture"))]
    refuse(faults)
    if not found:
        raise InputError(f"{folder}: has no pictures ({', '.join(PICTURES)})")
    return found


def _files_below(folder: Path, faults: list[str]) -> Iterator[Path]:
    seen: dict[tuple[int, int], str] = {}

    def note(error: OSError) -> None:
        faults.append(f"{error.filename}: cannot be listed: {reason(error)}")

    for place, folders, files in os.walk(folder, followlinks=True, onerror=note):
        status = os.stat(place)
        first = seen.setdefault((status.st_dev, status.st_ino), place)
        if first != place:
            faults.append(f"{place}: is the folder {first}, whose pictures would count twice; remove the link")
            folders.clear()
            continue
        folders.sort()
        yield from (Path(place, name) for name in files)


def first_folder(file: str) -> str | None:
    """The folder that the path of a picture begins with, its stratum; None where it lies in none."""
    folder, inside, _ = file.partition("/")
    return folder if inside else None


def sized(pictures: Iterable[Path]) -> list[tuple[int, int]]:
    """(width, height) of each picture. Raises InputError naming all that cannot be read."""
    sizes: list[tuple[int, int]] = []
    faults: list[str] = []
    for picture in pictures:
        try:
            sizes.append(picture_size(picture))
        except InputError as error:
            faults += error.faults
    refuse(faults)
    return sizes


def shortened(file: Path, root: Path) -> str:
    """A file as tables name it: its path below the root, or whole where an option leads out of the root."""
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()


def digestible(files: Iterable[Path]) -> Iterator[Path]:
    """The files as they are, missing ones too; InputError before one is passed on that reading would hang on."""
    for file in files:
        fault = file_fault(file, "file") if os.path.exists(file) else None
        refuse([fault] if fault else [])
        yield file


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
