"""An explanatory graph as its tables tell it: nodes, edges, and where nodes are in pictures. Needs no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Node:
    """A part pattern: a row of the table `graph_nodes`. Places and `sigma` are in sides of the picture.

    One that is `chosen` is shown and judged.
    """

    layer: str
    filter: int
    node: int
    x: float
    y: float
    sigma: float
    score: float
    home_x: float
    home_y: float
    chosen: bool
    purity: float | None
    concept: str | None


@dataclass(frozen=True)
class Place:
    """Where a node is in a picture, in sides of the picture, and how strongly."""

    node: int
    x: float
    y: float
    score: float


@dataclass(frozen=True)
class PatternGraph:
    """A graph.

    Args:
        nodes: in the order of their numbers, the top layer first.
        parents: of each node that has any, the one with the largest share of its affinity first.
    """

    nodes: Sequence[Node]
    parents: Mapping[int, Sequence[int]]

    @property
    def layers(self) -> list[str]:
        """Names, the top one first."""
        return list(dict.fromkeys(node.layer for node in self.nodes))

    @property
    def edges(self) -> int:
        """How many there are."""
        return sum(map(len, self.parents.values()))

    @cached_property
    def named(self) -> dict[int, Node]:
        """Nodes by number."""
        return {node.node: node for node in self.nodes}

    @property
    def chosen(self) -> list[Node]:
        """The nodes that are shown and judged, layer by layer, the one with the highest mean score first."""
        layers = self.layers
        own = [node for node in self.nodes if node.chosen]
        return sorted(own, key=lambda node: (layers.index(node.layer), -node.score, node.node))

    def strongest(self, here: Sequence[Place], count: int) -> list[Place]:
        """The strongest nodes of each layer in a picture, the strongest of all first.

        Args:
            here: where the graph's nodes are in the picture.
            count: of each layer.
        """
        ordered = sorted(here, key=lambda place: (-place.score, place.node))
        kept = _first_of_each([self.named[place.node].layer for place in ordered], count)
        return [ordered[place] for place in kept]


def _first_of_each(layers: Sequence[str], count: int) -> list[int]:
    """Places of the first so many of each layer."""
    met: dict[str, int] = defaultdict(int)
    kept = []
    for place, layer in enumerate(layers):
        if met[layer] < count:
            kept.append(place)
        met[layer] += 1
    return kept
