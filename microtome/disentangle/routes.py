"""Where pictures go in a tree: from the root on, to the child that points most nearly where their rationale does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rounded(cosine: Floats) -> Floats:
    """Cosines that differ by rounding alone are equal: the first child then wins."""
    return np.round(cosine, 9)


@dataclass(frozen=True)
class Routes:
    """The nodes of a tree as pictures find their way among them.

    Args:
        direction: (nodes, filters) where each node points.
        below: children of each node, none for a leaf; of equal ones the first wins.
        top: the second layer, the root's children.
    """

    direction: Floats
    below: Sequence[Sequence[int]]
    top: Sequence[int]
    _unit: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        length = np.linalg.norm(self.direction, axis=1, keepdims=True)
        object.__setattr__(self, "_unit", self.direction / np.maximum(length, 1e-30))

    def cosine(self, g: Floats, nodes: NDArray[np.int64]) -> Floats:
        """(images, nodes) cosine of rationales and nodes.

        Args:
            g: (images, filters) unit vectors.
            nodes: which ones.
        """
        return rounded(g @ self._unit[nodes].T)

    def paths(self, g: Floats) -> list[list[int]]:
        """Each image's nodes, from the second layer to a leaf.

        Args:
            g: (images, filters) unit vectors.
        """
        paths = []
        for row in self.cosine(g, np.arange(len(self.direction))):
            path, level = [], self.top
            while len(level):
                path.append(int(level[int(np.argmax(row[list(level)]))]))
                level = self.below[path[-1]]
            paths.append(path)
        return paths


def children_of(parent: Sequence[int] | NDArray[np.int64]) -> list[list[int]]:
    """The children of each node, by rising number.

    Args:
        parent: (nodes,) of each node; negative below the root.
    """
    below: list[list[int]] = [[] for _ in parent]
    for node, above in enumerate(parent):
        if above >= 0:
            below[int(above)].append(node)
    return below
