"""The pictures of a category and of what it is told from: their examples, and the data sets that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.examples import Examples, Labelled, Side
from tasks.index.result import Index


@dataclass(frozen=True)
class Origin:
    """Where labelled pictures come from.

    Args:
        index: a data set, of one category or of several.
        negatives: pictures of none of them; None where the categories are told from each other.
    """

    index: Index
    negatives: Index | None = None

    def of(self, side: Side) -> Index:
        """One of the two."""
        found = self.index if side == "dataset" else self.negatives
        if found is None:
            raise RuntimeError("pictures of `negatives` must come with their index, got none")
        return found

    @property
    def labelled(self) -> list[Labelled]:
        """Every picture, with the class that its data set gives it."""
        sides: list[Side] = ["dataset", *(["negatives"] if self.negatives else [])]
        return [
            Labelled(side, row["image"], row["file"], row["label"])
            for side in sides
            for row in self.of(side).table("images", ["image", "file", "label"]).to_pylist()
        ]


@dataclass(frozen=True)
class LabelledPictures:
    """Examples and their pictures, known by their place among the examples.

    Args:
        examples: classes and split.
        origin: where the pictures come from.
    """

    examples: Examples
    origin: Origin

    def __len__(self) -> int:
        return len(self.examples)

    def some(self, places: Sequence[int]) -> LabelledPictures:
        """Some of them, in this order."""
        return LabelledPictures(self.examples.of(places), self.origin)

    def file(self, place: int) -> str:
        """Name of a picture's file."""
        index, image = self._found(place)
        return index.files[image]

    def normalised(self, place: int) -> NDArray[np.float32]:
        """(3, height, width), as the network takes it."""
        index, image = self._found(place)
        return index.source.normalised(image)

    def landmarks(self, place: int) -> dict[str, tuple[float, float]]:
        """x, y of the landmarks that a picture shows, in the frame."""
        index, image = self._found(place)
        return index.source.landmarks(image)

    def thumbnail(self, place: int, side: int) -> bytes:
        """A small picture as WebP, `side` pixels wide and high."""
        index, image = self._found(place)
        return index.source.thumbnail(image, side)

    def _found(self, place: int) -> tuple[Index, int]:
        return self.origin.of(self.examples.sides[place]), self.examples.images[place]
