"""A folder of pictures, a folder of indexed masks, and the names of the values (CamVid, VOC, ADE20K style)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from microtome.datasets.base import (
    Annotation,
    Concept,
    Dataset,
    Record,
    digestible,
    find_pictures,
    first_folder,
    open_mask,
    open_picture,
    picture_fault,
    shortened,
    sized,
)
from microtome.datasets.tables import file_fault, option, read_json, read_text, shown, text, unique, whole
from microtome.errors import InputError, refuse

UNLABELLED = ("unlabelled", "void", "background", "none")
MOST_VALUE = 255  # of an 8-bit mask


class Masks(Dataset):
    """Pictures and same-named mask PNGs, and what each value of a mask means.

    A picture's stratum is the sub-folder of `images` that it lies in, a folder for each video, say.

    Args:
        root: the folder.
        names: the names of the values: a list, whose first name is value 0; a mapping, `{0: none, 1: road}`; or a
            file below the root that holds either (JSON: list of names, of objects with `name`, or an object, any of
            them also below `classes` or `names`; else one name a line).
        images, masks: folders below the root.
        category: of all the concepts.
        unlabelled: names, in any case, and values that mean no label.

    Raises:
        InputError: a folder or the names are missing; a picture has no mask, or shares it with another; all such
            faults. By `annotation`: a value that has no name and is not unlabelled.
    """

    def __init__(
        self,
        root: Path,
        *,
        names: str | Sequence[str] | Mapping[int, str] = "classes.json",
        images: str = "images",
        masks: str = "masks",
        category: str = "object",
        unlabelled: Sequence[str | int] = UNLABELLED,
    ) -> None:
        self._root = root
        self._category = option(category, "category", "a category")
        self._names_file = root / option(names, "names", "a file") if isinstance(names, str) else None
        self._refuse_a_file_in_a_list(names)
        named = named_values(names, "dataset.names") if self._names_file is None else read_names(self._names_file)
        ignored = _unlabelled(unlabelled)
        # Value 0 may be a class, and label number 0 means none everywhere: numbers are values plus one.
        self.concepts = [
            Concept(value + 1, name, self._category)
            for value, name in sorted(named.items())
            if name.lower() not in ignored and value not in ignored
        ]
        self._lookup = np.zeros(MOST_VALUE + 1, np.int32)
        self._lookup[[concept.number - 1 for concept in self.concepts]] = [c.number for c in self.concepts]
        self._known = np.isin(np.arange(MOST_VALUE + 1), [*named, *(v for v in ignored if isinstance(v, int))])
        top = root / option(images, "images", "a folder")
        self._pictures = find_pictures(top)
        folder = root / option(masks, "masks", "a folder")
        self._masks = [folder / picture.with_suffix(".png").name for picture in self._pictures]
        self._check_masks()
        self.records = [
            Record(shortened(picture, root), "all", *size, stratum=first_folder(picture.relative_to(top).as_posix()))
            for picture, size in zip(self._pictures, sized(self._pictures), strict=True)
        ]

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self.picture_file(index))

    def annotation(self, index: int) -> Annotation:
        """One plane of numbers (stored value + 1)."""
        file = self._masks[index]
        stored = open_mask(file)
        if stored.ndim != 2:
            raise InputError(f"{file}: must be an indexed or grey PNG, got RGB")
        stored = stored.astype(np.uint8)
        unknown = [value for value in np.unique(stored).tolist() if not self._known[value]]
        if unknown:
            has = "has" if len(unknown) == 1 else "have"
            raise InputError(
                f"{file}: each value must have a name in {self._names_file or 'dataset.names'}, and "
                f"{', '.join(map(str, unknown))} {has} none; name it there, or list it under dataset.unlabelled"
            )
        return Annotation({self._category: self._lookup[stored][None]})

    def has_landmarks(self) -> bool:
        """No: the layout has none."""
        return False

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._pictures[index]

    def files(self) -> Iterator[Path]:
        """The names, then every picture and mask."""
        if self._names_file:
            yield self._names_file
        yield from digestible(self._pictures)
        yield from digestible(self._masks)

    def faults(self, index: int) -> list[str]:
        """Whether the picture is whole."""
        fault = picture_fault(self._pictures[index])
        return [fault] if fault else []

    def _refuse_a_file_in_a_list(self, names: str | Sequence[str] | Mapping[int, str]) -> None:
        if isinstance(names, list | tuple) and len(names) == 1 and (self._root / str(names[0])).is_file():
            raise InputError(
                f"dataset.names: must be the names themselves or their file, got a list of one name, {names[0]!r}, "
                f"which is a file; write names: {names[0]}"
            )

    def _check_masks(self) -> None:
        faults: list[str] = []
        owners: dict[Path, Path] = {}
        for picture, mask in zip(self._pictures, self._masks, strict=True):
            owner = owners.setdefault(mask, picture)
            if owner != picture:
                faults.append(f"{mask}: is the mask of both {owner} and {picture}; rename one of them, and its mask")
            elif fault := file_fault(mask, "mask"):
                faults.append(fault)
        refuse(faults)


def named_values(content: object, where: str) -> dict[int, str]:
    """Value -> name from a list of names (or of objects with `name`) or from a mapping of values to names.

    Args:
        content: the list or mapping, also below `classes` or `names`.
        where: it stands, for the sentence.

    Raises:
        InputError: another structure, a value that no mask can hold, a name that is none or stands twice.
    """
    if isinstance(content, Mapping):
        content = content.get("classes", content.get("names", content))
    if isinstance(content, Mapping):
        pairs = list(content.items())
    elif isinstance(content, list | tuple):
        pairs = list(enumerate(item.get("name") if isinstance(item, Mapping) else item for item in content))
    else:
        pairs = []
    if not pairs:
        raise InputError(
            f"{where}: must be a JSON list of names, or of objects with `name`, or a mapping such as "
            f"{{0: none, 1: road}}, got {shown(content)}"
        )
    return _checked(pairs, where)


def _checked(pairs: Sequence[tuple[object, object]], where: str) -> dict[int, str]:
    found: dict[int, str] = {}
    faults: list[str] = []
    values: dict[int, str] = {}
    names: dict[str, str] = {}
    for value, name in pairs:
        try:
            number = whole(value, "a mask's value", 0, MOST_VALUE)
            unique(values, number, "this mapping", "a value")
            found[number] = meaning = text(name, f"what value {number} means")
            if meaning.lower() not in UNLABELLED:
                unique(names, meaning, f"value {number}", "a name")
        except ValueError as error:
            faults.append(f"{where}: {error}")
    refuse(faults)
    return found


def read_names(file: Path) -> dict[int, str]:
    """Value -> name from a file: JSON as in `named_values`, else lines of text, the first of which is value 0.

    Raises:
        InputError: no such file, another structure, an empty line before a name (it would shift those after it).
    """
    if file_fault(file, "file") and not os.path.lexists(file):
        raise InputError(
            f"{file}: no such file; it must name the mask values (JSON list or mapping, or one name a line)"
        )
    if file.suffix == ".json":
        return named_values(read_json(file), str(file))
    lines = [line.strip() for line in read_text(file).replace("\r\n", "\n").rstrip().split("\n")]
    refuse(
        [
            f"{file}:{number}: must be the name of value {number - 1}, got an empty line; write `none` for no label"
            for number, line in enumerate(lines, 1)
            if not line
        ]
    )
    return named_values(lines, str(file))


def _unlabelled(given: object) -> set[str | int]:
    if not isinstance(given, list | tuple):
        raise InputError(f"dataset.unlabelled: must be a list of names and values, got {shown(given)}")
    try:
        return {
            item.lower() if isinstance(item, str) else whole(item, "a name or a mask's value", 0, MOST_VALUE)
            for item in given
        }
    except ValueError as error:
        raise InputError(f"dataset.unlabelled: {error}") from error
