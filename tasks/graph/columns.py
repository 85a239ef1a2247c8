"""Columns of a graph's tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.graph_layers import edges
from storage.tables import Gathered
from tasks.graph.found import FoundLayer
from tasks.graph.metrics import Pure

EDGES = ("child", "parent", "weight", "dx", "dy")
Columns = Gathered
Inferences = dict[str, NDArray[np.integer | np.floating]]


def node_columns(found: Sequence[FoundLayer], pure: Sequence[Sequence[Pure] | None]) -> Columns:
    """Columns of `graph_nodes`.

    Args:
        found: the graph.
        pure: per layer and node the share of its pictures and the part; None where there are no parts.
    """
    parts = [_nodes(part, own) for part, own in zip(found, pure, strict=True)]
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def _nodes(part: FoundLayer, pure: Sequence[Pure] | None) -> Columns:
    nodes, home = part.learned.layer.nodes, part.learned.layer.home
    count = len(part.nodes)
    return {
        "layer": [part.name] * count,
        "filter": part.learned.node_filters.tolist(),
        "node": part.nodes.tolist(),
        "x": _flat(nodes.mu[..., 0]),
        "y": _flat(nodes.mu[..., 1]),
        "sigma": _flat(nodes.sigma),
        "score": _flat(part.seen.score.mean(0)),
        "home_x": _flat(home[..., 0]),
        "home_y": _flat(home[..., 1]),
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
        joined = edges(part.learned.layer, above.learned.layer)
        if joined is None:
            continue
        columns["child"] += np.repeat(part.nodes, joined.parent.shape[1]).tolist()
        columns["parent"] += (joined.parent.ravel() + above.first).tolist()
        columns["weight"] += joined.weight.ravel().tolist()
        columns["dx"] += joined.offset[..., 0].ravel().tolist()
        columns["dy"] += joined.offset[..., 1].ravel().tolist()
    return columns


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
