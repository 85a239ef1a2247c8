"""A folder of pictures without annotation: negatives, or whatever only the network has something to say about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from microtome.datasets.base import Annotation, Dataset, Record, find_pictures, open_picture, picture_fault, sized


class Folder(Dataset):
    """Pictures below a folder, in the order of their paths; a picture's label is the sub-folder it lies in.

    Args:
        root: the folder.

    Raises:
        InputError: no picture, or files that are none.
    """

    def __init__(self, root: Path) -> None:
        self._pictures = find_pictures(root)
        self.concepts = []
        names = [picture.relative_to(root) for picture in self._pictures]
        self.records = [
            Record(name.as_posix(), "all", *size, label=name.parts[0] if len(name.parts) > 1 else None)
            for name, size in zip(names, sized(self._pictures), strict=True)
        ]

    def picture(self, index: int) -> Image.Image:
        """The stored picture, RGB."""
        return open_picture(self._pictures[index])

    def annotation(self, index: int) -> Annotation:
        """None."""
        return Annotation()

    def has_landmarks(self) -> bool:
        """No: a folder has none."""
        return False

    def picture_file(self, index: int) -> Path:
        """The picture's file."""
        return self._pictures[index]

    def files(self) -> Iterator[Path]:
        """Every picture."""
        yield from self._pictures

    def faults(self, index: int) -> list[str]:
        """Whether the picture is whole."""
        fault = picture_fault(self._pictures[index])
        return [fault] if fault else []
