"""Stage `graph`: the explanatory graph of some layers, and every picture looked up in it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import networkx
import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.graph import GraphLayer, infer, learn, most_active, standardised
from microtome.disentangle.graph_inference import LayerMaps, Seen
from microtome.networks import LayerGeometry
from tasks.graph_metrics import metric_rows, purity
from tasks.graph_reading import Chosen, Made, category_images, frame_of, maps_of, ordered_layers
from tasks.pictures import Pictures, write_thumbnails
from tasks.reading import geometry_row
from tasks.rows import Rows
from tasks.stage import Work


def run(work: Work) -> None:
    """Learn from the training pictures of a category; look all of its pictures up."""
    torch.set_num_threads(work.session.threads)
    chosen = category_images(work)
    geometries = ordered_layers(work)
    train = np.array([split == "train" for split in chosen.splits])
    made = [_layer(work, number, layer, chosen.images, train) for number, layer in geometries]
    work.begin(len(made) * work.parameters["rounds"], "rounds")
    own = [_of_images(part.maps, train) for part in made]
    graph = learn(own, rounds=work.parameters["rounds"], seed=work.parameters["seed"], advance=work.advance)
    seen = infer(graph, [part.maps for part in made])
    _write(work, graph, seen, made, chosen)
    work.draft.table("graph_metrics", metric_rows(work, graph, seen, made, chosen))


def _of_images(layer: LayerMaps, kept: NDArray[np.bool_]) -> LayerMaps:
    return LayerMaps(layer.maps[torch.from_numpy(kept)], layer.x, layer.y)


def _layer(
    work: Work, number: int, geometry: LayerGeometry, images: NDArray[np.int64], train: NDArray[np.bool_]
) -> Made:
    """Of the filters that are most active in the training pictures."""
    maps = torch.from_numpy(maps_of(work, number, images))
    filters, spread = most_active(maps[torch.from_numpy(train)], work.parameters["filters"])
    z = standardised(maps[:, filters], spread).to(work.session.device)
    x, y = (torch.from_numpy(axis).to(z) for axis in frame_of(work, geometry))
    return Made(geometry, filters.numpy(), LayerMaps(z, x, y), spread.numpy())


def _write(work: Work, graph: Sequence[GraphLayer], seen: Sequence[Seen], made: Sequence[Made], chosen: Chosen) -> None:
    nodes: Rows = defaultdict(list)
    edges: Rows = defaultdict(list)
    found: Rows = defaultdict(list)
    first, before = 0, 0
    every = purity(work, seen, chosen)
    for layer, seen_layer, part, pure in zip(graph, seen, made, every, strict=True):
        filters, count = layer.nodes.sigma.shape
        numbers = np.arange(first, first + filters * count)
        columns: dict[str, Any] = {
            "layer": [part.geometry.name] * len(numbers),
            "filter": np.repeat(part.filters, count),
            "node": numbers,
            "x": _flat(layer.nodes.mu[..., 0]),
            "y": _flat(layer.nodes.mu[..., 1]),
            "sigma": _flat(layer.nodes.sigma),
            "score": _flat(seen_layer.score.mean(0)),
            "home_x": _flat(layer.home[..., 0]),
            "home_y": _flat(layer.home[..., 1]),
            "purity": [row[0] for row in pure] if pure else [None] * len(numbers),
            "concept": [row[1] for row in pure] if pure else [None] * len(numbers),
        }
        for name, values in columns.items():
            nodes[name].extend(values)
        if layer.nodes.parents is not None and layer.affinity is not None:
            _edge_rows(edges, layer, numbers, before, graph)
        for name, values in {
            "image": np.repeat(chosen.images, len(numbers)),
            "node": np.tile(numbers, len(chosen.images)),
            "x": seen_layer.position[..., 0].flatten().cpu().numpy(),
            "y": seen_layer.position[..., 1].flatten().cpu().numpy(),
            "score": seen_layer.score.flatten().cpu().numpy(),
        }.items():
            found[name].append(values)
        first, before = first + len(numbers), first
    work.draft.table("graph_nodes", nodes)
    work.draft.table("graph_edges", edges or {n: [] for n in ("child", "parent", "weight", "dx", "dy")})
    work.draft.table("graph_inferences", {name: np.concatenate(parts) for name, parts in found.items()})
    files = work.inputs["index"].table("images", ["file"]).column("file").to_pylist()
    rows = {
        "image": chosen.images,
        "file": [files[image] for image in chosen.images],
        "split": chosen.splits,
        "category": [chosen.category] * len(chosen.splits),
    }
    work.draft.table("graph_images", rows)
    pictures = Pictures(work)
    write_thumbnails(work, (pictures.pixels(image) for image in chosen.images.tolist()))
    _export(work, nodes, edges)
    _keep(work, graph, made, chosen)


def _edge_rows(
    edges: Rows, layer: GraphLayer, numbers: NDArray[np.int64], before: int, graph: Sequence[GraphLayer]
) -> None:
    """Child, parent, share of the child's affinity, and the child's mean place as seen from the parent's."""
    above = graph[[item is layer for item in graph].index(True) - 1]
    parents = layer.nodes.parents
    if parents is None or layer.affinity is None:
        return
    place = (layer.nodes.mu.flatten(0, 1)[:, None] - above.nodes.mu.flatten(0, 1)[parents.flatten(0, 1)]).cpu()
    share = (layer.affinity / layer.affinity.sum(2, keepdim=True).clamp(min=1e-30)).flatten(0, 1).cpu()
    degree = parents.shape[2]
    for name, values in {
        "child": np.repeat(numbers, degree),
        "parent": parents.flatten().cpu().numpy() + before,
        "weight": share.flatten().numpy(),
        "dx": place[..., 0].flatten().numpy(),
        "dy": place[..., 1].flatten().numpy(),
    }.items():
        edges[name].extend(values)


def _flat(values: torch.Tensor) -> list[float]:
    return values.flatten().double().cpu().tolist()


def _export(work: Work, nodes: Rows, edges: Rows) -> None:
    """For other programs: GraphML, and JSON as networkx reads it."""
    graph = networkx.DiGraph()
    for row in zip(*(nodes[name] for name in ("node", "layer", "filter", "x", "y", "sigma", "score")), strict=True):
        number, layer, number_of_filter, *values = row
        about = dict(zip(("x", "y", "sigma", "score"), map(float, values), strict=True))
        graph.add_node(int(number), layer=layer, filter=int(number_of_filter), **about)
    for child, parent, weight in zip(*(edges[name] for name in ("child", "parent", "weight")), strict=True):
        graph.add_edge(int(parent), int(child), weight=float(weight))
    work.draft.write("graph.json", json.dumps(networkx.node_link_data(graph, edges="edges")).encode())
    work.draft.write("graph.graphml", "\n".join(networkx.generate_graphml(graph)).encode())


def _keep(work: Work, graph: Sequence[GraphLayer], made: Sequence[Made], chosen: Chosen) -> None:
    """All that looking a new picture up needs."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {}
    for number, (layer, part) in enumerate(zip(graph, made, strict=True)):
        arrays |= {
            f"{number}.mu": layer.nodes.mu.cpu().numpy(),
            f"{number}.sigma": layer.nodes.sigma.cpu().numpy(),
            f"{number}.home": layer.home.cpu().numpy(),
            f"{number}.filters": part.filters,
            f"{number}.spread": part.spread,
        }
        if layer.nodes.parents is not None:
            arrays[f"{number}.parents"] = layer.nodes.parents.cpu().numpy()
    work.draft.write("graph.safetensors", save({name: np.ascontiguousarray(v) for name, v in arrays.items()}))
    about = {
        "layers": [part.geometry.name for part in made],
        "geometry": [geometry_row(part.geometry) for part in made],
        "category": chosen.category,
    }
    work.draft.write("graph-about.json", json.dumps(about, indent=1).encode())
