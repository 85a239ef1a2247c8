"""Is a picture like those that were looked at? A test that holds for any network and any pictures.

Of the pictures that were looked at and the new one together, each has a distance to the nearest of the others. Were the
new one drawn as the others were, its distance could be any of them with equal chance; so the share of pictures whose
distance is at least as large is a p-value, exact for any distance (conformal anomaly detection: Laxhammar and Falkman
2010; Vovk, Gammerman and Shafer 2005, proposition 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
UNLIKE = 0.05


@dataclass(frozen=True)
class Novelty:
    """How far a picture is from its nearest one, among those that were looked at.

    Args:
        lonely: how many of the pictures, itself among them, are at least as far from their nearest.
        pictures: how many there are, itself among them.
    """

    lonely: int
    pictures: int

    @property
    def p(self) -> float:
        """The chance of being as far, for a picture that is drawn as the others were; in (0, 1]."""
        return self.lonely / self.pictures

    @property
    def unlike(self) -> bool:
        """Whether that is 5 % or less."""
        return self.p <= UNLIKE


def novelty(known: Floats, new: Floats) -> Novelty:
    """How far a picture is from those that were looked at.

    The distance is 1 minus the cosine of the two pictures' values, each divided by its mean size over all pictures, the
    new one among them: no filter counts more than another for being loud, no picture for its contrast, and all
    pictures are treated alike, as the test demands.

    Args:
        known: (pictures, values) what a network makes of each.
        new: (values,) what it makes of the new one.
    """
    every = np.concatenate([known, new[None]])
    size = np.abs(every).mean(0)
    scaled = np.divide(every, size, out=np.zeros_like(every), where=size > 0)
    unit = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-30)
    apart = np.round(1 - unit @ unit.T, 9)  # distances that differ by rounding alone are equal
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(1)
    return Novelty(int((nearest >= nearest[-1]).sum()), len(every))
