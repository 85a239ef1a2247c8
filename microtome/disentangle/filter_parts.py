"""Which part of the object each filter stands for: what a decision tree's reasons are put into words by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NOTHING = "no part"


@dataclass(frozen=True)
class FilterParts:
    """A part for each filter.

    Args:
        names: of the parts.
        of: (filters,) index into them.
        share: (filters,) how sure that is, 0 to 1.
        source: what it rests on.
    """

    names: list[str]
    of: NDArray[np.int64]
    share: Floats
    source: str

    def groups(self) -> NDArray[np.bool_]:
        """(parts, filters) which filters each part has."""
        groups: NDArray[np.bool_] = self.of == np.arange(len(self.names))[:, None]
        return groups


def parts_by_landmark(
    peak: NDArray[np.int32], centres: Floats, landmarks: Sequence[Mapping[str, tuple[float, float]]]
) -> FilterParts:
    """The landmark that a filter's peak is nearest to in most pictures; `share`: of the pictures in which it has one.

    Args:
        peak: (pictures, filters) cell of the highest activation, -1 where the filter is silent.
        centres: (cells, 2) x, y of the cells.
        landmarks: per picture, name -> x, y of those that it shows.
    """
    names = sorted({name for shown in landmarks for name in shown})
    votes = np.zeros((len(names), peak.shape[1]))
    for cells, shown in zip(peak, landmarks, strict=True):
        if shown:
            where = np.array([shown.get(name, (np.inf, np.inf)) for name in names])
            apart = np.linalg.norm(centres[cells][:, None] - where, axis=2)
            np.add.at(votes, (apart.argmin(1), np.arange(len(cells))), cells >= 0)
    total = votes.sum(0)
    of = np.where(total > 0, votes.argmax(0), len(names))
    share = np.where(total > 0, votes.max(0) / np.maximum(total, 1), 0)
    return FilterParts([*names, NOTHING], of, share, "nearest landmark")


def parts_by_concept(concepts: Sequence[str | None], share: Floats) -> FilterParts:
    """The concept that a dissection found for each filter.

    Args:
        concepts: per filter its label; None for a filter that is no detector.
        share: (filters,) its IoU.
    """
    said = [NOTHING if concept is None else concept for concept in concepts]
    names = sorted(set(said))
    return FilterParts(names, np.array([names.index(name) for name in said]), share, "concept by dissection")


def no_parts(filters: int) -> FilterParts:
    """Nothing is known of the filters."""
    return FilterParts([], np.zeros(filters, np.int64), np.zeros(filters), "none")
