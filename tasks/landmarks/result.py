"""Part landmarks of the indexed pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.landmarks import LandmarksOptions
from tasks.result import StageResult


class Mark(NamedTuple):
    """A landmark that a picture shows."""

    image: int
    category: str
    landmark: str
    x: float
    y: float


@dataclass(frozen=True)
class CategoryMarks:
    """The pictures of a category, and where their landmarks are.

    Args:
        name: of the category.
        images: sorted numbers in the index.
        landmarks: name -> (images, 2) x, y in the frame; NaN where a picture does not show it once.
    """

    name: str
    images: NDArray[np.int64]
    landmarks: Mapping[str, NDArray[np.float64]]

    @property
    def most(self) -> int:
        """Pictures that show the landmark that most of them show."""
        return max(int(np.isfinite(points).all(1).sum()) for points in self.landmarks.values())


@dataclass(frozen=True)
class Landmarks(StageResult):
    """Landmarks in the network's frame."""

    @property
    def options(self) -> LandmarksOptions:
        """What it was made with."""
        return LandmarksOptions.model_validate(self.parameters)

    @cached_property
    def marks(self) -> list[Mark]:
        """All of them, in the pictures' order."""
        return [Mark(**row) for row in self.rows("landmarks")]

    def places(self, images: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Landmark -> (images, 2) x, y in the frame; NaN where a picture does not show it, or several.

        Args:
            images: sorted numbers in the index; landmarks that none of them shows are left out.
        """
        shown = set(images.tolist())
        names = sorted({mark.landmark for mark in self.marks if mark.image in shown})
        return {name: _places([mark for mark in self.marks if mark.landmark == name], images) for name in names}

    def by_category(self, allowed: NDArray[np.int64] | None = None) -> list[CategoryMarks]:
        """The pictures that show landmarks, by category; categories of which none is allowed are left out.

        Args:
            allowed: numbers of the pictures that may count; None for all.
        """
        found = []
        for name in sorted({mark.category for mark in self.marks}):
            mine = [mark for mark in self.marks if mark.category == name]
            images = np.unique([mark.image for mark in mine])
            images = images if allowed is None else images[np.isin(images, allowed)]
            names = sorted({mark.landmark for mark in mine})
            if len(images):
                points = {key: _places([mark for mark in mine if mark.landmark == key], images) for key in names}
                found.append(CategoryMarks(name, images, points))
        return found


def _places(marks: Sequence[Mark], images: NDArray[np.int64]) -> NDArray[np.float64]:
    """(images, 2) where one landmark is."""
    found, first, count = np.unique([mark.image for mark in marks], return_index=True, return_counts=True)
    points = np.array([(mark.x, mark.y) for mark in marks])
    single = (count == 1) & np.isin(found, images)
    places = np.full((len(images), 2), np.nan)
    places[np.searchsorted(images, found[single])] = points[first[single]]
    return places
