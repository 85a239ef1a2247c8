"""A graph as files: GraphML and JSON for other programs, and what looking pictures up needs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import networkx
import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.anchors import Anchors
from microtome.disentangle.graph import GraphLayer
from microtome.disentangle.graph_inference import Nodes
from microtome.disentangle.graph_layers import GraphFilters, LearnedLayer
from storage import Artifact, Draft
from tasks.activations.result import geometry_from, geometry_row
from tasks.graph.columns import Columns

LEARNED, ABOUT, KNOWN = "graph.safetensors", "graph-about.json", "graph-known.safetensors"


def write_exports(draft: Draft, nodes: Columns, edges: Columns) -> None:
    """For other programs: GraphML, and JSON as networkx reads it.

    Args:
        draft: of the stage.
        nodes: columns of `graph_nodes`.
        edges: of `graph_edges`.
    """
    graph = networkx.DiGraph()
    names = ("layer", "filter", "x", "y", "sigma", "score")
    for number, *values in zip(nodes["node"], *(nodes[name] for name in names), strict=True):
        graph.add_node(number, **dict(zip(names, values, strict=True)))
    for child, parent, weight in zip(edges["child"], edges["parent"], edges["weight"], strict=True):
        graph.add_edge(parent, child, weight=weight)
    draft.write("graph.json", json.dumps(networkx.node_link_data(graph, edges="edges")).encode())
    draft.write("graph.graphml", "\n".join(networkx.generate_graphml(graph)).encode())


def write_learned(draft: Draft, learned: Sequence[LearnedLayer], category: str) -> None:
    """All that looking a new picture up needs.

    Args:
        draft: of the stage.
        learned: the layers, the top one first.
        category: that the graph is about.
    """
    from safetensors.numpy import save

    arrays = {f"{n}.{name}": value for n, part in enumerate(learned) for name, value in _arrays(part).items()}
    draft.write(LEARNED, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
    about = {
        "layers": [part.name for part in learned],
        "geometry": [geometry_row(part.filters.geometry) for part in learned],
        "category": category,
    }
    draft.write(ABOUT, json.dumps(about, indent=1).encode())


def write_known(draft: Draft, maps: NDArray[np.float32]) -> None:
    """What tells how far a new picture is from the graph's own.

    Args:
        draft: of the stage.
        maps: (pictures, units, rows, columns) of the top layer, all units, in the graph's pictures.
    """
    from safetensors.numpy import save

    draft.write(KNOWN, save({"means": maps.mean((2, 3), dtype=np.float64)}))


def read_known(artifact: Artifact) -> NDArray[np.float64]:
    """(pictures, units) mean activations of the top layer's units in the graph's pictures."""
    from safetensors.numpy import load

    means: NDArray[np.float64] = load(artifact.read(KNOWN))["means"]
    return means


def _arrays(part: LearnedLayer) -> dict[str, NDArray[np.generic]]:
    nodes = part.layer.nodes
    arrays: dict[str, NDArray[np.generic]] = {
        "mu": nodes.mu.cpu().numpy(),
        "sigma": nodes.sigma.cpu().numpy(),
        "home": part.layer.home.cpu().numpy(),
        "filters": part.filters.numbers,
        "spread": part.filters.spread,
    }
    for name, value in (("parents", nodes.parents), ("present", nodes.present)):
        arrays |= {} if value is None else {name: value.cpu().numpy()}
    anchors = part.anchors
    return arrays | (
        {f"anchors-{name}": value.cpu().numpy() for name, value in vars(anchors).items()} if anchors else {}
    )


def read_learned(artifact: Artifact) -> list[LearnedLayer]:
    """What `write_learned` wrote."""
    from safetensors.torch import load

    arrays = load(artifact.read(LEARNED))
    found = []
    for number, row in enumerate(artifact.json(ABOUT)["geometry"]):
        own = {name.partition(".")[2]: value for name, value in arrays.items() if name.partition(".")[0] == str(number)}
        filters = GraphFilters(geometry_from(row), own["filters"].numpy(), own["spread"].numpy())
        nodes = Nodes(own["mu"], own["sigma"], own.get("parents"), own.get("present"), averaged="present" in own)
        anchors = {name.partition("-")[2]: value for name, value in own.items() if name.startswith("anchors-")}
        layer = GraphLayer(nodes, None, own["home"], ())
        found.append(LearnedLayer(filters, layer, Anchors(**anchors) if anchors else None))
    return found
