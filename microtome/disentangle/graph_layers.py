"""Layers of an explanatory graph: the filters that are in it, their maps in one frame, and pictures looked up in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.graph import GraphLayer, infer, most_active, standardised
from microtome.disentangle.graph_inference import LayerMaps, Seen
from microtome.disentangle.pattern_graph import Place
from microtome.networks.capture import Capture
from microtome.networks.geometry import LayerGeometry

Floats = NDArray[np.float64]


def top_first(layers: Sequence[LayerGeometry]) -> list[int]:
    """Places of the layers in the order of a graph: that of the widest receptive field first."""
    return sorted(range(len(layers)), key=lambda place: (-layers[place].field[0] * layers[place].field[1], place))


def cell_axes(layer: LayerGeometry, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """x of a layer's columns and y of its rows, in relative image coordinates.

    Args:
        layer: the geometry.
        size: (height, width) of the network's input.
    """
    height, width = size
    return np.array(layer.centres(1)) / width, np.array(layer.centres(0)) / height


@dataclass(frozen=True)
class GraphFilters:
    """The filters of a layer that a graph has.

    Args:
        geometry: of the layer.
        numbers: (filters,) among the layer's, rising.
        spread: (filters,) deviation of each, by which its response is divided.
    """

    geometry: LayerGeometry
    numbers: NDArray[np.int64]
    spread: NDArray[np.float32]

    @classmethod
    def most_active(cls, geometry: LayerGeometry, maps: NDArray[np.float32], count: int | None) -> GraphFilters:
        """Those with the highest mean peak, in deviations.

        Args:
            geometry: of the layer.
            maps: (images, all filters of the layer, rows, columns).
            count: how many; all for None.
        """
        numbers, spread = most_active(torch.from_numpy(maps), count)
        return cls(geometry, numbers.numpy(), spread.numpy())

    def maps(self, maps: NDArray[np.float32], size: tuple[int, int], device: str = "cpu") -> LayerMaps:
        """What `learn` and `infer` take.

        Args:
            maps: (images, all filters of the layer, rows, columns).
            size: (height, width) of the network's input.
            device: where it is put.
        """
        z = standardised(torch.from_numpy(maps[:, self.numbers]), torch.from_numpy(self.spread)).to(device)
        x, y = (torch.from_numpy(axis).to(z) for axis in cell_axes(self.geometry, size))
        return LayerMaps(z, x, y)


@dataclass(frozen=True)
class LearnedLayer:
    """A layer of a finished graph."""

    filters: GraphFilters
    layer: GraphLayer

    @property
    def name(self) -> str:
        """Dotted name."""
        return self.filters.geometry.name

    @property
    def node_filters(self) -> NDArray[np.int64]:
        """(nodes,) the filter of each node."""
        return np.repeat(self.filters.numbers, self.layer.nodes.sigma.shape[1])


def look_up(
    network: torch.nn.Module, learned: Sequence[LearnedLayer], pictures: torch.Tensor, size: tuple[int, int]
) -> list[Seen]:
    """The graph's nodes in any pictures, with everything frozen.

    Args:
        network: that the graph explains, in eval mode.
        learned: the graph, the top layer first.
        pictures: (pictures, 3, height, width), as the network takes them.
        size: (height, width) of its input.
    """
    with Capture(network, [part.filters.geometry for part in learned]) as capture:
        maps = capture(pictures)
    layers = [part.filters.maps(maps[part.name].float().cpu().numpy(), size) for part in learned]
    return infer([part.layer for part in learned], layers)


def places_in(seen: Sequence[Seen], picture: int) -> list[Place]:
    """Where a graph's nodes are in one of the pictures that it was looked up in, in the nodes' order.

    Args:
        seen: its layers, the top one first.
        picture: place among the pictures.
    """
    position = torch.cat([item.position[picture].flatten(0, 1) for item in seen]).tolist()
    score = torch.cat([item.score[picture].flatten() for item in seen]).tolist()
    return [Place(node, x, y, own) for node, ((x, y), own) in enumerate(zip(position, score, strict=True))]


@dataclass(frozen=True)
class Edges:
    """From the nodes of a layer to their parents.

    Args:
        parent: (nodes, M) places among the nodes of the layer above.
        weight: (nodes, M) share of the node's affinity.
        offset: (nodes, M, 2) the node's mean place as seen from the parent's, x and y.
    """

    parent: NDArray[np.int64]
    weight: NDArray[np.float32]
    offset: NDArray[np.float32]


def edges(layer: GraphLayer, above: GraphLayer) -> Edges | None:
    """The edges of a layer; None of one without parents.

    Args:
        layer: the layer.
        above: that its parents are in.
    """
    if layer.nodes.parents is None or layer.affinity is None:
        return None
    parents = layer.nodes.parents.flatten(0, 1)
    offset = layer.nodes.mu.flatten(0, 1)[:, None] - above.nodes.mu.flatten(0, 1)[parents]
    share = (layer.affinity / layer.affinity.sum(2, keepdim=True).clamp(min=1e-30)).flatten(0, 1)
    return Edges(parents.cpu().numpy(), share.cpu().numpy(), offset.cpu().numpy())
