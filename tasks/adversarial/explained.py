"""What attacks do to explanations: the parse path through a decision tree, the nodes of an explanatory graph."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.graph_inference import Seen
from microtome.disentangle.graph_metrics import nodes_moved
from microtome.disentangle.rationales import FilterScale, LayersAbove
from microtome.disentangle.tree_metrics import path_kept
from microtome.visualize.attribution import Scaled
from tasks.graph_lookup import seen_in
from tasks.graph_reading import learned_graph
from tasks.stage import Work
from tasks.tree import Grown

Measures = dict[str, NDArray[np.float64]]


class Paths:
    """A decision tree, and where pictures go in it.

    Args:
        work: of a stage that reads a tree of its own network.
        network: behind its normalisation.
    """

    def __init__(self, work: Work, network: Scaled) -> None:
        grown = Grown.of(work.inputs["tree"])
        about = grown.about
        self._tree, self._scale = grown.tree, FilterScale(grown.size, grown.filters, about["positions"])
        self._tail = LayersAbove(network, f"network.{about['layer']}", about["output"])
        self.category: str = about["category"]

    def moved(self, before: torch.Tensor, after: torch.Tensor) -> Measures:
        """Of the pictures in which the network sees the tree's category: NaN for the others."""
        one, two = (self._tail.rationales(pictures) for pictures in (before, after))
        kept = {name: np.full(len(before), np.nan) for name in ("second-layer node kept", "share of the path kept")}
        for place in np.flatnonzero(one.y > 0):
            paths = []
            for raw in (one, two):
                data, _ = self._scale.apply(raw.of(np.array([place])))
                paths.append(self._tree.paths(data.g)[0] if len(data.g) else [-1])
            stayed = path_kept(*paths)
            kept["second-layer node kept"][place] = float(stayed > 0)
            kept["share of the path kept"][place] = stayed
        return {f"tree of {self.category}: {name}": values for name, values in kept.items()}


class Patterns:
    """An explanatory graph, and what pictures show of it.

    Args:
        work: of a stage that reads a graph of its own network.
        network: behind its normalisation.
        images: numbers in the index of the graph's category; others do not count.
    """

    def __init__(self, work: Work, network: Scaled) -> None:
        self._learned, self._network = learned_graph(work.inputs["graph"]), network
        self._size = work.job.reach["frame"].size
        self.images = set(work.inputs["graph"].table("graph_images").column("image").to_pylist())

    def moved(self, before: torch.Tensor, after: torch.Tensor, images: list[int]) -> Measures:
        """Of the graph's own pictures: how far the strongest nodes go, and how many stay among them."""
        found: Measures = {
            f"graph: {name}": np.full(len(images), np.nan)
            for name in ("shift of strongest nodes, by the side", "strongest nodes kept")
        }
        mine = [place for place, image in enumerate(images) if image in self.images]
        if not mine:
            return found
        one, two = (self._seen(pictures[mine]) for pictures in (before, after))
        moved = nodes_moved(one, two)
        for values, measured in zip(found.values(), (moved.shift, moved.kept), strict=True):
            values[mine] = measured
        return found

    def _seen(self, pictures: torch.Tensor) -> list[Seen]:
        return seen_in(self._network.network, self._learned, self._network.normalised(pictures), self._size)
