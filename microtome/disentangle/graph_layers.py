"""Layers of an explanatory graph: the filters that are in it, their maps in one frame, and pictures looked up in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.anchors import Anchors
from microtome.disentangle.graph import GraphLayer, evidence, infer, most_active, standardised
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


def raw_maps(
    geometry: LayerGeometry, maps: NDArray[np.float32], size: tuple[int, int], device: str = "cpu"
) -> LayerMaps:
    """What anchors are learned from and found in: all filters of a layer, as they come from the network.

    Args:
        geometry: of the layer.
        maps: (images, filters, rows, columns).
        size: (height, width) of the network's input.
        device: where it is put.
    """
    values = torch.from_numpy(maps).to(device)
    x, y = (torch.from_numpy(axis).to(values) for axis in cell_axes(geometry, size))
    return LayerMaps(values, x, y)


@dataclass(frozen=True)
class LearnedLayer:
    """A layer of a finished graph.

    Args:
        filters: that own its nodes.
        layer: its nodes.
        anchors: what it hangs on, if it is the top layer of a graph whose nodes hang on anchors.
    """

    filters: GraphFilters
    layer: GraphLayer
    anchors: Anchors | None = None

    @property
    def name(self) -> str:
        """Dotted name."""
        return self.filters.geometry.name

    @property
    def kept(self) -> torch.Tensor:
        """(nodes,) where each node is among (filters x most nodes of a filter): filters own different numbers."""
        return torch.nonzero(self.layer.nodes.there.flatten())[:, 0]

    @property
    def node_filters(self) -> NDArray[np.int64]:
        """(nodes,) the filter of each node."""
        return np.repeat(self.filters.numbers, self.layer.nodes.there.sum(1).cpu().numpy())

    def of_nodes(self, values: torch.Tensor) -> torch.Tensor:
        """(nodes, ...) of what is given as (filters, most nodes of a filter, ...)."""
        return values.flatten(0, 1)[self.kept]


def seen_in(
    learned: Sequence[LearnedLayer], maps: Sequence[NDArray[np.float32]], size: tuple[int, int], device: str = "cpu"
) -> list[Seen]:
    """A graph's nodes in pictures, with everything frozen: (pictures, 1, nodes ...) of each layer, in the nodes' order.

    Where nodes hang on anchors their scores say how surely these were found, too: S exp(mean over parents of sureness).

    Args:
        learned: the graph, the top layer first.
        maps: of its layers, (pictures, all filters of the layer, rows, columns) each.
        size: (height, width) of the network's input.
        device: where it is computed.
    """
    top, graph = learned[0], [part.layer for part in learned]
    layers = [part.filters.maps(own, size, device) for part, own in zip(learned, maps, strict=True)]
    if top.anchors is None:
        return [_present(part, seen) for part, seen in zip(learned, infer(graph, layers), strict=True)]
    upper, anchors = top.anchors.above(raw_maps(top.filters.geometry, maps[0], size, device))
    sure = evidence(graph, top.anchors.sureness(anchors))
    found = [
        replace(seen, score=seen.score * own.exp()) for seen, own in zip(infer(graph, layers, upper), sure, strict=True)
    ]
    return [_present(part, seen) for part, seen in zip(learned, found, strict=True)]


def _present(part: LearnedLayer, seen: Seen) -> Seen:
    """Of the nodes that there are, as if they were those of one filter."""
    one = {name: part.of_nodes(getattr(seen, name))[None] for name in ("mass", "pull", "square", "delta")}
    position, score = seen.position.flatten(1, 2)[:, part.kept], seen.score.flatten(1)[:, part.kept]
    return replace(seen, position=position[:, None], score=score[:, None], **one)


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
    return seen_in(learned, [maps[part.name].float().cpu().numpy() for part in learned], size)


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


def edges(part: LearnedLayer, above: LearnedLayer) -> Edges | None:
    """The edges of a layer; None of one without parents.

    Args:
        part: the layer.
        above: that its parents are in.
    """
    layer = part.layer
    if layer.nodes.parents is None or layer.affinity is None:
        return None
    parents = part.of_nodes(layer.nodes.parents)
    offset = part.of_nodes(layer.nodes.mu)[:, None] - above.layer.nodes.mu.flatten(0, 1)[parents]
    share = part.of_nodes(layer.affinity / layer.affinity.sum(2, keepdim=True).clamp(min=1e-30))
    numbers = torch.searchsorted(above.kept, parents)
    return Edges(numbers.cpu().numpy(), share.cpu().numpy(), offset.cpu().numpy())
