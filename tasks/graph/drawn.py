"""An explanatory graph as people are shown it: its nodes and edges, and where they are in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.pattern_graph import Node, PatternGraph, Place
from microtome.quantify.novelty import Novelty, novelty
from tasks.graph.files import read_known
from tasks.graph.result import Graph

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DrawnGraph(Graph):
    """The graph, read for drawing it."""

    @cached_property
    def patterns(self) -> PatternGraph:
        """Its nodes and edges, for people."""
        nodes = [Node(**row) for row in self.rows("graph_nodes")]
        ordered = sorted(self.rows("graph_edges"), key=lambda row: (row["child"], -row["weight"]))
        parents: dict[int, list[int]] = {}
        for row in ordered:
            parents.setdefault(row["child"], []).append(row["parent"])
        return PatternGraph(nodes, parents)

    def seen_in(self, image: int) -> list[Place]:
        """Where its nodes are in one of its pictures."""
        return [place for _, place in self._places(self._inferences["image"] == image)]

    def novelty(self, picture: torch.Tensor, network: torch.nn.Module) -> Novelty:
        """How far a picture is from the graph's own, by the mean activations of the top layer's units.

        Args:
            picture: (1, 3, height, width), as the network takes it.
            network: that the graph explains.
        """
        from microtome.networks.capture import Capture

        top = self.learned[0].filters.geometry
        with Capture(network, [top]) as capture:
            there = capture(picture)[top.name].double().mean((2, 3)).cpu().numpy()[0]
        return novelty(read_known(self.artifact), there)

    def strongest_of(self, node: int, count: int) -> list[tuple[int, Place]]:
        """The pictures, of those that it was not learned from, in which a node is strongest, and where it is there."""
        found = [item for item in self._places(self._inferences["node"] == node) if item[0] in self._held_out]
        return sorted(found, key=lambda item: (-item[1].score, item[0]))[:count]

    def _places(self, wanted: NDArray[np.bool_]) -> list[tuple[int, Place]]:
        """Picture and place of some rows."""
        values = (self._inferences[name][wanted].tolist() for name in ("image", "node", "x", "y", "score"))
        return [(image, Place(*row)) for image, *row in zip(*values, strict=True)]

    @cached_property
    def _held_out(self) -> set[int]:
        return {row["image"] for row in self.pictures if row["split"] != "train"}

    @cached_property
    def _inferences(self) -> Mapping[str, NDArray[np.integer | np.floating]]:
        table = self.table("graph_inferences")
        return {name: table.column(name).to_numpy() for name in table.column_names}
