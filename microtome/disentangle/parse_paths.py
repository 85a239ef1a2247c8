"""What a grown tree says of a picture: its parse path, and what filters and parts add along it, in logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.filter_parts import NOTHING
from microtome.disentangle.rationales import FilterScale
from microtome.disentangle.readings import Readings
from microtome.disentangle.routes import Routes


@dataclass(frozen=True)
class FrozenTree:
    """A tree, and all that is needed to find its paths in new pictures.

    Args:
        tree: where pictures go in it.
        scale: of the filters.
        layer: whose filters they are, by its dotted name in the network.
        output: the network's output that stands for the category.
        category: that the tree is of.
    """

    tree: Routes
    scale: FilterScale
    layer: str
    output: int
    category: str


@dataclass(frozen=True)
class PathStep:
    """A node of a picture's parse path: cos(g, w), and what the node estimates."""

    node: int
    cosine: float
    estimate: float


@dataclass(frozen=True)
class FilterShare:
    """What a filter adds at a node (rho), and to the network's own decision; the part that it belongs to, if known."""

    number: int
    part: str | None
    here: float
    own: float


@dataclass(frozen=True)
class PartShare:
    """What a part's filters add at a node, and to the network's own decision."""

    name: str
    here: float
    own: float


@dataclass(frozen=True)
class ParsedPictures:
    """Pictures in a tree, known by their place among the rationales.

    Args:
        read: what the tree says of them.
        filters: (kept filters,) numbers in the layer.
        parts: (filters of the layer,) the part of each; None where it has none.
    """

    read: Readings
    filters: NDArray[np.int64]
    parts: Sequence[str | None]

    @property
    def paths(self) -> Sequence[Sequence[int]]:
        """Each picture's nodes, from the second layer to a leaf."""
        return self.read.paths

    def decision(self, picture: int) -> float:
        """The network's own."""
        return float(self.read.y[picture])

    def steps(self, picture: int) -> list[PathStep]:
        """A picture's parse path."""
        read = self.read
        return [
            PathStep(node, float(read.cosine[step]), float(read.estimate[step]))
            for node, step in zip(read.paths[picture], read.steps(picture), strict=True)
        ]

    def filter_shares(self, picture: int, node: int) -> list[FilterShare]:
        """Filters by the size of what they add at a node of the picture's path, the largest first."""
        rho, own = self.read.rho[self._step(picture, node)], self.read.own[picture]
        order = np.argsort(-np.abs(rho), kind="stable")
        numbers = [int(self.filters[place]) for place in order]
        return [
            FilterShare(number, self.parts[number], float(rho[place]), float(own[place]))
            for number, place in zip(numbers, order, strict=True)
        ]

    def part_shares(self, picture: int, node: int) -> list[PartShare]:
        """Parts by the size of what their filters add, the largest first; nothing where no filter has one."""
        if not any(self.parts):
            return []
        total: dict[str, list[float]] = {}
        for share in self.filter_shares(picture, node):
            sums = total.setdefault(share.part or NOTHING, [0.0, 0.0])
            sums[0] += share.here
            sums[1] += share.own
        found = [PartShare(name, here, own) for name, (here, own) in total.items()]
        return sorted(found, key=lambda share: (-abs(share.here), share.name))

    def nearest(self, node: int, among: NDArray[np.bool_]) -> list[int]:
        """Pictures whose path leads through a node, the nearest by cosine first.

        Args:
            node: of the tree.
            among: (pictures,) which ones count.
        """
        there = np.array([n for n, path in enumerate(self.paths) if among[n] and node in path], np.int64)
        near = np.array([self.read.cosine[self._step(picture, node)] for picture in there.tolist()])
        found: list[int] = there[np.argsort(-near, kind="stable")].tolist()
        return found

    def _step(self, picture: int, node: int) -> int:
        return self.read.steps(picture)[list(self.paths[picture]).index(node)]
