"""What attacks do to explanations: the parse path through a decision tree, the nodes of an explanatory graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.graph_inference import Seen
from microtome.disentangle.graph_layers import look_up
from microtome.disentangle.graph_metrics import nodes_moved
from microtome.disentangle.parse_paths import FrozenTree
from microtome.disentangle.rationales import LayersAbove
from microtome.disentangle.tree_metrics import path_kept
from microtome.visualize.attribution import Scaled
from microtome.visualize.measures import AttackMeasure, MeasureKind
from tasks.graph.result import Graph

Measured = Mapping[AttackMeasure, NDArray[np.float64]]


class Paths:
    """A decision tree, and where pictures go in it.

    Args:
        frozen: a tree of the same network.
        network: behind its normalisation.
    """

    def __init__(self, frozen: FrozenTree, network: Scaled) -> None:
        self._frozen = frozen
        self._above = LayersAbove(network, f"network.{frozen.layer}", frozen.output)

    def moved(self, before: torch.Tensor, after: torch.Tensor) -> Measured:
        """Of the pictures in which the network sees the tree's category: NaN for the others."""
        one, two = (self._above.rationales(pictures) for pictures in (before, after))
        node, path = np.full(len(before), np.nan), np.full(len(before), np.nan)
        for place in np.flatnonzero(one.y > 0):
            paths = []
            for raw in (one, two):
                data, _ = self._frozen.scale.apply(raw.of(np.array([place])))
                paths.append(self._frozen.tree.paths(data.g)[0] if len(data.g) else [-1])
            path[place] = path_kept(*paths)
            node[place] = float(path[place] > 0)
        of = self._frozen.category
        return {
            AttackMeasure(MeasureKind.TREE_NODE_KEPT, of): node,
            AttackMeasure(MeasureKind.TREE_PATH_KEPT, of): path,
        }


class Patterns:
    """An explanatory graph, and what pictures show of it.

    Args:
        graph: of the same network; pictures that are not of its category do not count.
        network: behind its normalisation.
        size: (height, width) of the network's input.
    """

    def __init__(self, graph: Graph, network: Scaled, size: tuple[int, int]) -> None:
        self._learned, self._own = graph.learned, graph.images
        self._network, self._size = network, size

    def moved(self, before: torch.Tensor, after: torch.Tensor, images: list[int]) -> Measured:
        """Of the graph's own pictures: how far the strongest nodes go, and how many stay among them."""
        shift, kept = np.full(len(images), np.nan), np.full(len(images), np.nan)
        mine = [place for place, image in enumerate(images) if image in self._own]
        if mine:
            moved = nodes_moved(*(self._seen(pictures[mine]) for pictures in (before, after)))
            shift[mine], kept[mine] = moved.shift, moved.kept
        return {AttackMeasure(MeasureKind.NODES_SHIFTED): shift, AttackMeasure(MeasureKind.NODES_KEPT): kept}

    def _seen(self, pictures: torch.Tensor) -> list[Seen]:
        return look_up(self._network.network, self._learned, self._network.normalised(pictures), self._size)
