"""Stage `tree`: the decision tree of a network's rationales for one category."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from typing import Any

import networkx
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from microtome.disentangle.decision_tree import Merge, RationaleExamples, Tree, grow, structure
from microtome.disentangle.filter_parts import FilterParts, no_parts, parts_by_concept, parts_by_landmark
from microtome.disentangle.rationales import FilterScale, LayersAbove, Rationales, RawRationales, joined
from microtome.disentangle.tree_metrics import HeldOut, baselines, metrics, specificity
from microtome.errors import InputError
from microtome.networks import LayerGeometry, walk
from microtome.quantify.intervals import mean_interval
from microtome.quantify.stability import cell_centres
from storage import Artifact
from tasks import finetuning
from tasks.networks import ABOUT, network_of
from tasks.pictures import Pictures, sampled, write_thumbnails
from tasks.reading import geometry_row
from tasks.rows import Rows, append
from tasks.stage import Work

BATCH = 16
UNSEEN = "val"


def run(work: Work) -> None:
    """Grow the tree on the training pictures, judge it on the others."""
    torch.set_num_threads(work.session.threads)
    shown = _Shown(work)
    network = network_of(work).to(work.session.device)
    tail = LayersAbove(network, work.parameters["layer"], shown.output(network))
    tail.check(shown.batch(shown.places("train", True)[:BATCH]))
    work.begin(2 * len(shown.rows), "pictures and merges")
    raw = _rationales(work, shown, tail)
    geometry = _geometry(work, network)
    own = shown.places("train", True)
    scale = FilterScale.of(raw.of(own), work.parameters["positions"])
    data, kept = scale.apply(raw)
    parts = _parts(work, shown, raw, geometry, own)
    with threadpool_limits(1):  # sums split over threads round differently
        tree, examples = _grown(work, shown, data, kept)
        removed = _removed(work, shown, tail, parts.groups())
        held = _held_out(shown, data, kept, (removed, parts.groups()[:, scale.filters]))
        _metric_rows(work, tree, held, examples)
    _write(work, shown, tree, (data, kept, scale), (raw, parts, geometry, tail.output))


class _Shown:
    """The pictures of the tree: rows of data set, number, whether of the category, split; in the order of the index."""

    def __init__(self, work: Work) -> None:
        self._work = work
        found = _examples(work)
        self.category, number = _category(work, found.categories)
        self._outputs = 1 if "finetuned" in work.inputs and len(found.categories) == 2 else None
        self._number = number
        every = [
            (name, image, label == number, split)
            for name, image, label, split in zip(found.datasets, found.images, found.labels, found.splits, strict=True)
        ]
        self.rows: list[tuple[str, int, bool, str]] = []
        most, seed = work.parameters["images"], work.parameters["seed"]
        for split in ("train", UNSEEN):
            for positive in (True, False):
                some = [row for row in every if row[2] is positive and row[3] == split]
                self.rows += [some[place] for place in sampled(len(some), most, seed)]
        self._pictures = finetuning.opened(work, found)
        self.files = {
            name: work.inputs["index" if name == "dataset" else name].table("images").column("file").to_pylist()
            for name in self._pictures
        }

    def places(self, split: str, positive: bool | None = None) -> NDArray[np.int64]:
        """Rows of a split, of the category or not."""
        wanted = [row[3] == split and positive in (None, row[2]) for row in self.rows]
        return np.flatnonzero(wanted)

    def batch(self, places: NDArray[np.int64]) -> torch.Tensor:
        """(pictures, 3, height, width), as the network takes them."""
        stacked = np.stack([self.of(place)[0].normalised(self.rows[place][1]) for place in places])
        return torch.from_numpy(stacked).to(self._work.session.device)

    def of(self, place: int) -> tuple[Pictures, int]:
        """Where a row's picture comes from, and its number there."""
        return self._pictures[self.rows[place][0]], self.rows[place][1]

    def output(self, network: torch.nn.Module) -> int:
        """The network's output that stands for the category: as asked for, or what it says of most positives."""
        if self._work.parameters["output"] is not None:
            return int(self._work.parameters["output"])
        if "finetuned" in self._work.inputs:
            return 0 if self._outputs == 1 else self._number
        own = self.places("train", True)
        with torch.no_grad():
            said = [network(self.batch(own[s : s + BATCH])).argmax(1) for s in range(0, len(own), BATCH)]
        return Counter(torch.cat(said).tolist()).most_common(1)[0][0]


def _examples(work: Work) -> finetuning.Examples:
    """The pictures, split as the network's fine-tuning split them, or by the same rule."""
    if "finetuned" not in work.inputs:
        return finetuning.gather(work)
    made = work.inputs["finetuned"]
    rows = made.table("finetuning_images").to_pydict()
    categories = made.json(ABOUT)["categories"]
    return finetuning.Examples(rows["dataset"], rows["image"], [], rows["label"], rows["split"], categories)


def _category(work: Work, categories: list[str]) -> tuple[str, int]:
    wanted = work.parameters["category"]
    named = [name for name in categories if name != finetuning.BACKGROUND]
    if wanted is None and len(named) == 1:
        wanted = named[0]
    if wanted not in named:
        raise InputError(f"tree.category: must be one of {', '.join(named)}, got {wanted!r}")
    return wanted, categories.index(wanted)


def _rationales(work: Work, shown: _Shown, tail: LayersAbove) -> RawRationales:
    parts = []
    for start in range(0, len(shown.rows), BATCH):
        places = np.arange(start, min(start + BATCH, len(shown.rows)))
        parts.append(tail.rationales(shown.batch(places)))
        work.advance(len(places))
    return joined(parts)


def _geometry(work: Work, network: torch.nn.Module) -> LayerGeometry:
    """Of the layer, or of the map that a mask was put on: masks keep cells where they are."""
    layer = (
        work.parameters["layer"].replace("_mask", "_map") if "finetuned" in work.inputs else work.parameters["layer"]
    )
    return walk(network, work.job.reach["frame"].size, [layer])[0]


def _parts(
    work: Work, shown: _Shown, raw: RawRationales, geometry: LayerGeometry, own: NDArray[np.int64]
) -> FilterParts:
    """By landmarks, over the positives; else by dissection."""
    marks = [source.landmarks(image) for source, image in map(shown.of, own.tolist())]
    if any(marks):
        return parts_by_landmark(raw.peak[own], cell_centres(geometry), marks)
    if "dissection" in work.inputs:
        every = work.inputs["dissection"].table("units").to_pylist()
        rows = sorted((row for row in every if row["layer"] == geometry.name), key=lambda row: row["unit"])
        said = [row["concept"] if row["detector"] else None for row in rows]
        return parts_by_concept(said, np.array([row["iou"] or 0.0 for row in rows]))
    return no_parts(raw.x.shape[1])


def _grown(work: Work, shown: _Shown, data: Rationales, kept: NDArray[np.int64]) -> tuple[Tree, RationaleExamples]:
    positives, negatives = (np.flatnonzero(np.isin(kept, shown.places("train", side))) for side in (True, False))
    examples = RationaleExamples(data.of(positives), data.of(negatives), work.parameters["selection"])

    def advance(count: int) -> None:
        work.advance(count)

    return grow(examples, advance), examples


def _removed(work: Work, shown: _Shown, tail: LayersAbove, groups: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(unseen pictures, parts) the decision without each part's filters."""
    unseen = shown.places(UNSEEN)
    if not len(groups):
        return np.zeros((len(unseen), 0))
    parts = []
    for start in range(0, len(unseen), BATCH):
        parts.append(tail.without(shown.batch(unseen[start : start + BATCH]), groups))
        work.session.check()
    return np.concatenate(parts)


def _held_out(
    shown: _Shown,
    data: Rationales,
    kept: NDArray[np.int64],
    parts: tuple[NDArray[np.float64], NDArray[np.bool_]],
) -> HeldOut:
    unseen = shown.places(UNSEEN)
    inside = np.flatnonzero(np.isin(kept, unseen))
    positive = np.array([shown.rows[place][2] for place in kept[inside]])
    if not positive.any() or positive.all():
        raise InputError(
            f"tree: needs held-out pictures of the category and of others, got {int(positive.sum())} of "
            f"{len(positive)}; use a larger data set"
        )
    removed, groups = parts
    return HeldOut(data.of(inside), positive, removed[np.isin(unseen, kept[inside])], groups)


def _metric_rows(work: Work, tree: Tree, held: HeldOut, examples: RationaleExamples) -> None:
    rows: Rows = defaultdict(list)

    def add(model: str, depth: int | None, name: str, values: NDArray[np.float64]) -> None:
        value, low, high = mean_interval(values)
        about = {"depth": depth, "metric": name, "model": model, "images": len(values)}
        append(rows, {**about, "value": value, "low": low, "high": high})

    for metric in metrics(tree, held):
        add("tree", metric.depth, metric.name, metric.values)
    add("tree", None, "fitness gained down the path", specificity(tree, held))
    decided = held.data.y > 0
    said = {"network": decided}
    every = examples.every
    said |= baselines(every.x, every.y > 0, held.data.x, work.parameters["seed"])
    for model, answers in said.items():
        add(model, None, "accuracy", (answers == held.positive).astype(float))
        add(model, None, "fidelity", (answers == decided).astype(float))
    work.draft.table("tree_metrics", rows)


def _write(
    work: Work,
    shown: _Shown,
    tree: Tree,
    scaled: tuple[Rationales, NDArray[np.int64], FilterScale],
    seen: tuple[RawRationales, FilterParts, LayerGeometry, int],
) -> None:
    from safetensors.numpy import save

    data, kept, scale = scaled
    raw, parts, geometry, output = seen
    paths = tree.paths(data.g)
    leaves = dict(
        zip(np.flatnonzero(np.isin(kept, shown.places("train", True))).tolist(), range(len(kept)), strict=False)
    )
    images: Rows = defaultdict(list)
    walked: Rows = defaultdict(list)
    for place, path in enumerate(paths):
        dataset, image, positive, split = shown.rows[kept[place]]
        where = {"dataset": dataset, "image": image}
        decision = float(data.y[place] * data.norm[place])
        row = {**where, "file": shown.files[dataset][image], "positive": positive, "split": split}
        append(images, {**row, "y": decision, "leaf": leaves.get(place)})
        cosines = tree.cosine(data.g[place : place + 1], np.array(path))[0]
        for step, (node, cosine) in enumerate(zip(path, cosines, strict=True)):
            append(walked, {**where, "depth": step + 2, "node": node, "cosine": float(cosine)})
    work.draft.table("tree_images", images)
    work.draft.table("tree_paths", walked)
    _node_rows(work, tree, shown, kept, paths)
    names = [item.name for item in fields(Merge)]
    work.draft.table("tree_merges", {name: [getattr(merge, name) for merge in tree.merges] for name in names})
    filters: Rows = defaultdict(list)
    used = set(scale.filters.tolist())
    for number in range(len(scale.size)):
        part = parts.names[parts.of[number]] if parts.names else None
        row = {"filter": number, "size": float(scale.size[number]), "dropped": number not in used}
        append(filters, {**row, "part": part, "share": float(parts.share[number])})
    work.draft.table("tree_filters", filters)
    arrays = {
        "w": tree.w, "b": tree.b, "kept": tree.kept.astype(np.uint8), "x": data.x, "g": data.g, "y": data.y,
        "norm": data.norm, "peak": raw.peak[kept], "filters": scale.filters, "size": scale.size,
    }  # fmt: skip
    work.draft.write("arrays.safetensors", save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
    about = {
        "category": shown.category, "layer": work.parameters["layer"], "output": output, "parts": parts.source,
        "positions": scale.positions, "geometry": geometry_row(geometry), "silent": int((scale.size <= 0).sum()),
        "without_gradient": len(shown.rows) - len(kept), "cells": raw.cells,
    }  # fmt: skip
    write_thumbnails(work, (pictures.pixels(image) for pictures, image in map(shown.of, kept)))
    work.draft.write("tree-about.json", json.dumps(about, indent=1).encode())
    _export(work, tree)


def _node_rows(work: Work, tree: Tree, shown: _Shown, kept: NDArray[np.int64], paths: list[list[int]]) -> None:
    rows: Rows = defaultdict(list)
    depth, root = tree.depth(), len(tree.b)
    visits = {split: Counter[int]() for split in ("train", UNSEEN)}
    for place, path in zip(kept, paths, strict=True):
        if shown.rows[place][2]:
            visits[shown.rows[place][3]].update(path)
    for node in range(root):
        row = {"node": node, "parent": int(tree.parent[node]) if tree.parent[node] >= 0 else root, "depth": depth[node]}
        row |= {"images": len(tree.members[node]), "filters": int(tree.kept[node].sum()), "bias": float(tree.b[node])}
        append(rows, {**row, "visitors": visits["train"][node], "held_out": visits[UNSEEN][node]})
    top = {name: sum(counted[node] for node in tree.second_layer) for name, counted in visits.items()}
    last = {"node": root, "parent": None, "depth": 1, "images": len(tree.members) - len(tree.merges), "filters": None}
    append(rows, {**last, "bias": None, "visitors": top["train"], "held_out": top[UNSEEN]})
    work.draft.table("tree_nodes", rows)


def _export(work: Work, tree: Tree) -> None:
    """For other programs: GraphML, and JSON as networkx reads it."""
    graph = networkx.DiGraph()
    root = len(tree.b)
    graph.add_node(root, images=len(tree.members) - len(tree.merges), merged=True)
    for node in range(root):
        graph.add_node(
            node,
            images=len(tree.members[node]),
            filters=int(tree.kept[node].sum()),
            bias=float(tree.b[node]),
            merged=bool(tree.children[node, 0] >= 0),
        )
    graph.add_edges_from((int(p) if p >= 0 else root, node) for node, p in enumerate(tree.parent))
    work.draft.write("tree.json", json.dumps(networkx.node_link_data(graph, edges="edges"), indent=1).encode())
    work.draft.write("tree.graphml", "\n".join(networkx.generate_graphml(graph)).encode())


@dataclass(frozen=True)
class Grown:
    """A tree as the stage wrote it, for those that read it.

    Args:
        tree: its nodes.
        data: rationales of all pictures, in the order of `rows`.
        rows: of the table `tree_images`.
        peak: (pictures, filters of the layer) cell of each filter's highest activation, -1 where silent.
        filters: numbers of the kept filters, to which `data` and the nodes are cut.
        size: (filters of the layer,) s_d.
        parts: (filters of the layer,) the part of each, or None.
        about: what the stage wrote down beside.
    """

    tree: Tree
    data: Rationales
    rows: list[dict[str, Any]]
    peak: NDArray[np.int32]
    filters: NDArray[np.int64]
    size: NDArray[np.float64]
    parts: list[str | None]
    about: dict[str, Any]

    @classmethod
    def of(cls, artifact: Artifact) -> Grown:
        """Read it."""
        from safetensors.numpy import load

        arrays = load(artifact.read("arrays.safetensors"))
        merges = [Merge(**row) for row in artifact.table("tree_merges").to_pylist()]
        members, parent, children = structure(len(arrays["b"]) - len(merges), merges)
        tree = Tree(arrays["w"], arrays["b"], arrays["kept"] > 0, parent, children, members, merges)
        x, g, y, norm = (arrays[name] for name in ("x", "g", "y", "norm"))
        return cls(
            tree,
            Rationales(x, g, y, y - (g * x).sum(1), norm),
            artifact.table("tree_images").to_pylist(),
            arrays["peak"],
            arrays["filters"],
            arrays["size"],
            artifact.table("tree_filters").column("part").to_pylist(),
            artifact.json("tree-about.json"),
        )
