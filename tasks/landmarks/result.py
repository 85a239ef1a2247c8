"""Part landmarks of the indexed pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.landmarks import LandmarksOptions
from tasks.result import Result


class Mark(NamedTuple):
    """A landmark that a picture shows."""

    image: int
    category: str
    landmark: str
    x: float
    y: float


@dataclass(frozen=True)
class Landmarks(Result):
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
        """Landmark -> (images, 2) x, y in the frame; NaN where a picture does not show it, the last of several.

        Args:
            images: sorted numbers in the index.
        """
        found: dict[str, NDArray[np.float64]] = {}
        at = {int(image): place for place, image in enumerate(images)}
        for mark in self.marks:
            if mark.image in at:
                points = found.setdefault(mark.landmark, np.full((len(images), 2), np.nan))
                points[at[mark.image]] = mark.x, mark.y
        return found
