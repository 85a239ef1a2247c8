"""The nodes of a grown tree, as its tables have them, whichever rule it was made by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.decision_tree import Merge, Tree
from microtome.disentangle.fitted_tree import FittedTree
from microtome.disentangle.readings import Readings
from microtome.disentangle.routes import Routes


@dataclass(frozen=True)
class GrownNodes:
    """Nodes by number, leaves first; the root comes after them.

    Args:
        routes: where pictures go.
        parent: of each; negative for the second layer.
        pictures: that the tree grew from, in each.
        filters: that each rule uses, or rests on.
        bias: b of each rule.
        root: pictures, filters and b of the root; None for what it has not.
        merges: the log, of the paper's tree.
        leaves: whether leaves are the training pictures of the category, in their order.
        arrays: the rules themselves.
    """

    routes: Routes
    parent: Sequence[int]
    pictures: Sequence[int]
    filters: Sequence[int]
    bias: Sequence[float]
    root: tuple[int, int | None, float | None]
    merges: Sequence[Merge]
    leaves: bool
    arrays: Mapping[str, NDArray[Any]]

    def depth(self) -> list[int]:
        """Of each node: 2 is the second layer."""
        depth = [0] * len(self.parent)
        for node in range(len(self.parent) - 1, -1, -1):
            above = self.parent[node]
            depth[node] = 2 if above < 0 else depth[above] + 1
        return depth


@dataclass(frozen=True)
class Grown:
    """A tree, and what it says of all pictures.

    Args:
        nodes: as the tables have them.
        read: what it says.
        features: that its rules weigh.
    """

    nodes: GrownNodes
    read: Readings
    features: str


def paper_nodes(tree: Tree) -> GrownNodes:
    """Those of the paper's procedure: leaves are single pictures."""
    pictures = [len(members) for members in tree.members]
    return GrownNodes(
        tree.routes, tree.parent.tolist(), pictures, tree.kept.sum(1).tolist(), tree.b.tolist(),
        (len(tree.b) - len(tree.merges), None, None), tree.merges, True,
        {"w": tree.w, "b": tree.b, "kept": tree.kept.astype(np.uint8)},
    )  # fmt: skip


def visited_nodes(made: FittedTree) -> GrownNodes:
    """Those that are fitted to their visitors."""
    tree = made.tree
    places = range(len(tree.rules))
    bias = np.array([rule.b for rule in tree.rules])
    return GrownNodes(
        tree.routes, tree.parent.tolist(), [len(visitors) for visitors in tree.visitors],
        [made.filters_of(node) for node in places], bias.tolist(),
        (len(made.inside), made.filters_of(-1), tree.root.b), [], False,
        {"w": np.stack([rule.w for rule in tree.rules]).astype(np.float32), "b": bias},
    )  # fmt: skip
