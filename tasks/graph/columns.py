"""Columns of a graph's tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.anchors import Anchors
from microtome.disentangle.graph_layers import edges
from storage.tables import Gathered
from tasks.graph.found import FoundLayer
from tasks.graph.metrics import Pure

EDGES = ("child", "parent", "weight", "dx", "dy")
Columns = Gathered
Inferences = dict[str, NDArray[np.integer | np.floating]]


def node_columns(
    found: Sequence[FoundLayer], pure: Sequence[Sequence[Pure] | None], chosen: Sequence[NDArray[np.int64]]
) -> Columns:
    """Columns of `graph_nodes`.

    Args:
        found: the graph.
        pure: per layer and node the share of its pictures and the part; None where there are no parts.
        chosen: per layer places of the nodes that are shown and judged.
    """
    parts = [_nodes(*own) for own in zip(found, pure, chosen, strict=True)]
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def _nodes(part: FoundLayer, pure: Sequence[Pure] | None, chosen: NDArray[np.int64]) -> Columns:
    nodes, of = part.learned.layer.nodes, part.learned.of_nodes
    mu, home = of(nodes.mu), of(part.learned.layer.home)
    count = len(part.nodes)
    return {
        "layer": [part.name] * count,
        "filter": part.learned.node_filters.tolist(),
        "node": part.nodes.tolist(),
        "x": _flat(mu[:, 0]),
        "y": _flat(mu[:, 1]),
        "sigma": _flat(of(nodes.sigma)),
        "score": _flat(part.seen.score.mean(0)),
        "home_x": _flat(home[:, 0]),
        "home_y": _flat(home[:, 1]),
        "chosen": np.isin(np.arange(count), chosen).tolist(),
        "purity": [share for share, _ in pure] if pure else [None] * count,
        "concept": [concept for _, concept in pure] if pure else [None] * count,
    }


def _flat(values: torch.Tensor) -> list[float]:
    flat: list[float] = values.flatten().double().cpu().tolist()
    return flat


def edge_columns(found: Sequence[FoundLayer]) -> Columns:
    """Columns of `graph_edges`: none where the graph has one layer."""
    columns: Columns = {name: [] for name in EDGES}
    for above, part in pairwise(found):
        joined = edges(part.learned, above.learned)
        if joined is None:
            continue
        columns["child"] += np.repeat(part.nodes, joined.parent.shape[1]).tolist()
        columns["parent"] += (joined.parent.ravel() + above.first).tolist()
        columns["weight"] += joined.weight.ravel().tolist()
        columns["dx"] += joined.offset[..., 0].ravel().tolist()
        columns["dy"] += joined.offset[..., 1].ravel().tolist()
    return columns


def anchor_columns(anchors: Anchors | None) -> Columns:
    """Columns of `graph_anchors`: none where the graph hangs on nothing."""
    if anchors is None:
        return {name: [] for name in ("anchor", "home_x", "home_y", "slope", "sigma")}
    return {
        "anchor": list(range(len(anchors.sigma))),
        "home_x": list(_flat(anchors.home[:, 0])),
        "home_y": list(_flat(anchors.home[:, 1])),
        "slope": list(_flat(anchors.slope)),
        "sigma": list(_flat(anchors.sigma)),
    }


def inference_columns(found: Sequence[FoundLayer], images: NDArray[np.int64]) -> Inferences:
    """Columns of `graph_inferences`.

    Args:
        found: the graph.
        images: numbers of the pictures that it was looked up in.
    """
    parts = [_inferences(part, images) for part in found]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _inferences(part: FoundLayer, images: NDArray[np.int64]) -> Inferences:
    position = part.seen.position.cpu().numpy()
    return {
        "image": np.repeat(images, len(part.nodes)),
        "node": np.tile(part.nodes, len(images)),
        "x": position[..., 0].ravel(),
        "y": position[..., 1].ravel(),
        "score": part.seen.score.cpu().numpy().ravel(),
    }
