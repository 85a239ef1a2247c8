"""What the stage `tree` writes: its tables, its arrays, and the tree for other programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields

import networkx
import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.decision_tree import Merge
from microtome.disentangle.examples import HELD_OUT, TRAIN
from microtome.disentangle.filter_parts import FilterParts
from microtome.disentangle.rationales import FilterScale, Rationales, RawRationales
from microtome.disentangle.tree_metrics import TreeMetric
from microtome.networks import LayerGeometry
from storage import Draft
from storage.tables import Row, from_rows
from tasks.activations.result import geometry_row
from tasks.thumbnails import SIDE, keep_thumbnails
from tasks.tree import PlannedTree
from tasks.tree.nodes import Grown, GrownNodes
from tasks.tree.pictures import TreePictures
from tasks.tree.result import ABOUT, ARRAYS


@dataclass(frozen=True)
class PictureRationales:
    """What a layer and what follows it do in the pictures.

    Args:
        raw: rationales of all of them.
        scale: of the filters, over the pictures to grow from.
        data: rationales, scaled, of those whose gradient is not zero.
        kept: which those are.
        geometry: of the layer.
    """

    raw: RawRationales
    scale: FilterScale
    data: Rationales
    kept: NDArray[np.int64]
    geometry: LayerGeometry

    @classmethod
    def of(
        cls, raw: RawRationales, pictures: TreePictures, geometry: LayerGeometry, options: PlannedTree
    ) -> PictureRationales:
        """Scaled by the pictures to grow from: with the paper's rule by the positives alone."""
        grown = pictures.places(TRAIN, True if options.rule == "paper" else None)
        scale = FilterScale.of(raw.of(grown), options.averaged)
        return cls(raw, scale, *scale.apply(raw), geometry)

    def inside(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places among `data` of those of these pictures that are there."""
        return np.flatnonzero(np.isin(self.kept, places))


@dataclass(frozen=True)
class MadeTree:
    """A tree, and what it was made from."""

    options: PlannedTree
    pictures: TreePictures
    seen: PictureRationales
    parts: FilterParts
    grown: Grown

    @property
    def paths(self) -> Sequence[Sequence[int]]:
        """Parse paths of the kept pictures."""
        return self.grown.read.paths

    def where(self, place: int) -> Row:
        """What names a kept picture in the tables."""
        picture, found = int(self.seen.kept[place]), self.pictures.examples
        return {"dataset": found.sides[picture], "image": found.images[picture]}

    def picture(self, place: int) -> Row:
        """What names a kept picture, and what it is."""
        picture, found = int(self.seen.kept[place]), self.pictures
        index, image = found.located(picture)
        about = {"file": index.files[image], "split": found.examples.splits[picture]}
        return {**self.where(place), **about, "positive": bool(found.positive[picture])}


def write_metrics(draft: Draft, found: Sequence[TreeMetric]) -> None:
    """Means and their intervals."""
    _table(draft, "tree_metrics", map(_metric_row, found))


def write(draft: Draft, made: MadeTree, output: int) -> None:
    """All the rest.

    Args:
        draft: of the stage.
        made: the tree.
        output: the network's output that it is of.
    """
    _table(draft, "tree_images", _image_rows(made))
    _table(draft, "tree_paths", _path_rows(made))
    _table(draft, "tree_nodes", _node_rows(made))
    names = [item.name for item in fields(Merge)]
    draft.table("tree_merges", from_rows(names, [asdict(merge) for merge in made.grown.nodes.merges]))
    _table(draft, "tree_filters", _filter_rows(made))
    _arrays(draft, made)
    located = map(made.pictures.located, made.seen.kept.tolist())
    keep_thumbnails(draft, (index.source.thumbnail(image, SIDE) for index, image in located))
    draft.write(ABOUT, json.dumps(_about(made, output), indent=1).encode())
    _export(draft, made.grown.nodes)


def _table(draft: Draft, name: str, rows: Iterator[Row]) -> None:
    every = list(rows)
    draft.table(name, from_rows(list(every[0]), every))


def _metric_row(metric: TreeMetric) -> Row:
    value, low, high = metric.interval
    about = {"depth": metric.depth, "metric": metric.name, "model": metric.model, "images": len(metric.values)}
    about |= {"against": metric.against}
    return {**about, "value": value, "low": low, "high": high}


def _image_rows(made: MadeTree) -> Iterator[Row]:
    grown = made.seen.inside(made.pictures.places(TRAIN, True)).tolist()
    leaves = {place: leaf for leaf, place in enumerate(grown)} if made.grown.nodes.leaves else {}
    decisions = made.seen.data.y * made.seen.data.norm
    for place, decision in enumerate(decisions.tolist()):
        yield {**made.picture(place), "y": decision, "leaf": leaves.get(place)}


def _path_rows(made: MadeTree) -> Iterator[Row]:
    read = made.grown.read
    for place, path in enumerate(made.paths):
        for depth, (node, step) in enumerate(zip(path, read.steps(place), strict=True), 2):
            said = {"cosine": float(read.cosine[step]), "estimate": float(read.estimate[step])}
            yield {**made.where(place), "depth": depth, "node": node, **said}


def _node_rows(made: MadeTree) -> Iterator[Row]:
    """The nodes, and last the root."""
    nodes = made.grown.nodes
    root, depth = len(nodes.parent), nodes.depth()
    visits = {name: _visits(made, *which) for name, which in VISITS.items()}
    for node, above in enumerate(nodes.parent):
        row = {"node": node, "parent": above if above >= 0 else root, "depth": depth[node]}
        about: Row = {"images": nodes.pictures[node], "filters": nodes.filters[node], "bias": nodes.bias[node]}
        yield {**row, **about, **{name: counted[node] for name, counted in visits.items()}}
    pictures, filters, bias = nodes.root
    top = {name: sum(counted[node] for node in nodes.routes.top) for name, counted in visits.items()}
    yield {"node": root, "parent": None, "depth": 1, "images": pictures, "filters": filters, "bias": bias, **top}


VISITS = {
    "visitors": (TRAIN, True),
    "held_out": (HELD_OUT, True),
    "other_visitors": (TRAIN, False),
    "other_held_out": (HELD_OUT, False),
}


def _visits(made: MadeTree, split: str, positive: bool) -> Counter[int]:
    """Pictures of a split, of the category or not, whose path leads through each node."""
    counted: Counter[int] = Counter()
    for place in made.seen.inside(made.pictures.places(split, positive)).tolist():
        counted.update(made.paths[place])
    return counted


def _filter_rows(made: MadeTree) -> Iterator[Row]:
    parts, scale = made.parts, made.seen.scale
    used = set(scale.filters.tolist())
    for number, size in enumerate(scale.size.tolist()):
        part = parts.names[parts.of[number]] if parts.names else None
        row = {"filter": number, "size": size, "dropped": number not in used}
        yield {**row, "part": part, "share": float(parts.share[number])}


def _arrays(draft: Draft, made: MadeTree) -> None:
    from safetensors.numpy import save

    seen = made.seen
    arrays = {
        **made.grown.nodes.arrays, "direction": made.grown.nodes.routes.direction,
        "rho": made.grown.read.rho.astype(np.float32), "x": seen.data.x, "g": seen.data.g, "y": seen.data.y,
        "norm": seen.data.norm, "peak": seen.raw.peak[seen.kept], "filters": seen.scale.filters,
        "size": seen.scale.size,
    }  # fmt: skip
    draft.write(ARRAYS, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))


def _about(made: MadeTree, output: int) -> Row:
    seen = made.seen
    return {
        "category": made.pictures.category, "layer": made.options.layer, "output": output, "parts": made.parts.source,
        "rule": made.options.rule, "features": made.grown.features, "positions": seen.scale.positions,
        "geometry": geometry_row(seen.geometry), "silent": int((seen.scale.size <= 0).sum()),
        "without_gradient": len(made.pictures) - len(seen.kept), "cells": seen.raw.cells,
    }  # fmt: skip


def _export(draft: Draft, nodes: GrownNodes) -> None:
    """For other programs: GraphML, and JSON as networkx reads it."""
    graph, root = networkx.DiGraph(), len(nodes.parent)
    graph.add_node(root, images=nodes.root[0], merged=True)
    for node in range(root):
        below = nodes.routes.below[node]
        about = {"images": nodes.pictures[node], "filters": nodes.filters[node], "bias": nodes.bias[node]}
        graph.add_node(node, **about, merged=len(below) > 0)
    graph.add_edges_from((above if above >= 0 else root, node) for node, above in enumerate(nodes.parent))
    draft.write("tree.json", json.dumps(networkx.node_link_data(graph, edges="edges"), indent=1).encode())
    draft.write("tree.graphml", "\n".join(networkx.generate_graphml(graph)).encode())
