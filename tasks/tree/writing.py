"""What the stage `tree` writes: its tables, its arrays, and the tree for other programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property

import networkx
import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.decision_tree import Merge, Tree
from microtome.disentangle.examples import HELD_OUT, TRAIN
from microtome.disentangle.filter_parts import FilterParts
from microtome.disentangle.rationales import FilterScale, Rationales, RawRationales
from microtome.disentangle.tree_metrics import TreeMetric
from microtome.networks import LayerGeometry
from microtome.quantify.intervals import mean_interval
from storage import Draft
from storage.tables import Row, from_rows
from tasks.activations.result import geometry_row
from tasks.thumbnails import SIDE, keep_thumbnails
from tasks.tree import PlannedTree
from tasks.tree.pictures import TreePictures
from tasks.tree.result import ABOUT, ARRAYS


@dataclass(frozen=True)
class PictureRationales:
    """What a layer and what follows it do in the pictures.

    Args:
        raw: rationales of all of them.
        scale: of the filters, over the positives to grow from.
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
        cls, raw: RawRationales, pictures: TreePictures, geometry: LayerGeometry, positions: str
    ) -> PictureRationales:
        """Scaled by the positives to grow from."""
        scale = FilterScale.of(raw.of(pictures.places(TRAIN, True)), positions)
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
    tree: Tree

    @cached_property
    def paths(self) -> list[list[int]]:
        """Parse paths of the kept pictures."""
        return self.tree.paths(self.seen.data.g)

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
    draft.table("tree_merges", from_rows(names, [asdict(merge) for merge in made.tree.merges]))
    _table(draft, "tree_filters", _filter_rows(made))
    _arrays(draft, made)
    located = map(made.pictures.located, made.seen.kept.tolist())
    keep_thumbnails(draft, (index.source.thumbnail(image, SIDE) for index, image in located))
    draft.write(ABOUT, json.dumps(_about(made, output), indent=1).encode())
    _export(draft, made.tree)


def _table(draft: Draft, name: str, rows: Iterator[Row]) -> None:
    every = list(rows)
    draft.table(name, from_rows(list(every[0]), every))


def _metric_row(metric: TreeMetric) -> Row:
    value, low, high = mean_interval(metric.values)
    about = {"depth": metric.depth, "metric": metric.name, "model": metric.model, "images": len(metric.values)}
    return {**about, "value": value, "low": low, "high": high}


def _image_rows(made: MadeTree) -> Iterator[Row]:
    grown = made.seen.inside(made.pictures.places(TRAIN, True)).tolist()
    leaves = {place: leaf for leaf, place in enumerate(grown)}
    decisions = made.seen.data.y * made.seen.data.norm
    for place, decision in enumerate(decisions.tolist()):
        yield {**made.picture(place), "y": decision, "leaf": leaves.get(place)}


def _path_rows(made: MadeTree) -> Iterator[Row]:
    for place, path in enumerate(made.paths):
        cosines = made.tree.cosine(made.seen.data.g[place : place + 1], np.array(path))[0]
        for depth, (node, cosine) in enumerate(zip(path, cosines.tolist(), strict=True), 2):
            yield {**made.where(place), "depth": depth, "node": node, "cosine": cosine}


def _node_rows(made: MadeTree) -> Iterator[Row]:
    """The nodes, and last the root."""
    tree, root, depth = made.tree, len(made.tree.b), made.tree.depth()
    visits = {split: _visits(made, split) for split in (TRAIN, HELD_OUT)}
    for node in range(root):
        parent = int(tree.parent[node]) if tree.parent[node] >= 0 else root
        row = {"node": node, "parent": parent, "depth": depth[node], "images": len(tree.members[node])}
        row |= {"filters": int(tree.kept[node].sum()), "bias": float(tree.b[node])}
        yield {**row, "visitors": visits[TRAIN][node], "held_out": visits[HELD_OUT][node]}
    top = {split: sum(counted[node] for node in tree.second_layer.tolist()) for split, counted in visits.items()}
    last = {"node": root, "parent": None, "depth": 1, "images": _leaves(tree), "filters": None, "bias": None}
    yield {**last, "visitors": top[TRAIN], "held_out": top[HELD_OUT]}


def _visits(made: MadeTree, split: str) -> Counter[int]:
    """Positives of a split whose path leads through each node."""
    counted: Counter[int] = Counter()
    for place in made.seen.inside(made.pictures.places(split, True)).tolist():
        counted.update(made.paths[place])
    return counted


def _leaves(tree: Tree) -> int:
    return len(tree.members) - len(tree.merges)


def _filter_rows(made: MadeTree) -> Iterator[Row]:
    parts, scale = made.parts, made.seen.scale
    used = set(scale.filters.tolist())
    for number, size in enumerate(scale.size.tolist()):
        part = parts.names[parts.of[number]] if parts.names else None
        row = {"filter": number, "size": size, "dropped": number not in used}
        yield {**row, "part": part, "share": float(parts.share[number])}


def _arrays(draft: Draft, made: MadeTree) -> None:
    from safetensors.numpy import save

    tree, seen = made.tree, made.seen
    arrays = {
        "w": tree.w, "b": tree.b, "kept": tree.kept.astype(np.uint8), "x": seen.data.x, "g": seen.data.g,
        "y": seen.data.y, "norm": seen.data.norm, "peak": seen.raw.peak[seen.kept], "filters": seen.scale.filters,
        "size": seen.scale.size,
    }  # fmt: skip
    draft.write(ARRAYS, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))


def _about(made: MadeTree, output: int) -> Row:
    seen = made.seen
    return {
        "category": made.pictures.category, "layer": made.options.layer, "output": output, "parts": made.parts.source,
        "positions": seen.scale.positions, "geometry": geometry_row(seen.geometry),
        "silent": int((seen.scale.size <= 0).sum()), "without_gradient": len(made.pictures) - len(seen.kept),
        "cells": seen.raw.cells,
    }  # fmt: skip


def _export(draft: Draft, tree: Tree) -> None:
    """For other programs: GraphML, and JSON as networkx reads it."""
    graph, root = networkx.DiGraph(), len(tree.b)
    graph.add_node(root, images=_leaves(tree), merged=True)
    for node in range(root):
        graph.add_node(
            node,
            images=len(tree.members[node]),
            filters=int(tree.kept[node].sum()),
            bias=float(tree.b[node]),
            merged=bool(tree.children[node, 0] >= 0),
        )
    graph.add_edges_from((int(p) if p >= 0 else root, node) for node, p in enumerate(tree.parent))
    draft.write("tree.json", json.dumps(networkx.node_link_data(graph, edges="edges"), indent=1).encode())
    draft.write("tree.graphml", "\n".join(networkx.generate_graphml(graph)).encode())
