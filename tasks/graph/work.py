"""Stage `graph`: the explanatory graph of some layers, and every picture looked up in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.folds import split_by_file
from microtome.disentangle.graph import infer, learn
from microtome.disentangle.graph_inference import LayerMaps
from microtome.disentangle.graph_layers import GraphFilters, LearnedLayer
from microtome.disentangle.graph_metrics import MovedLayer
from microtome.networks.geometry import LayerGeometry
from storage import Draft
from tasks.activations.result import Maps
from tasks.graph import GraphOptions
from tasks.graph.category import Chosen, category_images, ordered_layers, shown_landmarks
from tasks.graph.columns import edge_columns, inference_columns, node_columns
from tasks.graph.files import write_exports, write_learned
from tasks.graph.found import FoundLayer, numbered
from tasks.graph.metrics import metric_rows, purities
from tasks.index.result import Index
from tasks.landmarks.result import Landmarks
from tasks.session import Session
from tasks.shifted import shifted_pictures
from tasks.thumbnails import SIDE, keep_thumbnails


@dataclass(frozen=True)
class Inputs:
    """Maps of the pictures, and where there are any, their landmarks and maps of the pictures moved."""

    index: Index
    activations: Maps
    landmarks: Landmarks | None = None
    moved: Maps | None = None


def run(options: GraphOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Learn from the training pictures of a category; look all of its pictures up."""
    chosen = category_images(inputs.index, options, session.name)
    splits = split_by_file(chosen.files, [chosen.category] * len(chosen.files), seed=session.seed)
    preparing = _Preparing(options, inputs, chosen.images, np.array([split == "train" for split in splits]))
    layers = [preparing(*layer, session.device) for layer in ordered_layers(inputs.activations)]
    found = _learned(layers, preparing.train, options.rounds, session)
    nodes, edges = node_columns(found, purities(inputs.index, found, chosen.images)), edge_columns(found)
    draft.table("graph_nodes", nodes)
    draft.table("graph_edges", edges)
    draft.table("graph_inferences", inference_columns(found, chosen.images))
    _write_images(draft, inputs.index, chosen, splits)
    write_exports(draft, nodes, edges)
    write_learned(draft, [part.learned for part in found], chosen.category)
    marks = shown_landmarks(inputs.landmarks, chosen.images)
    moved = _moved(options, inputs, found, chosen.images) if marks else None
    rows = metric_rows(found, marks, moved, size=inputs.index.frame.size, permutations=options.permutations)
    draft.table("graph_metrics", rows)


@dataclass(frozen=True)
class _Preparing:
    """Makes maps what a graph takes: of the filters that are most active in the training pictures."""

    options: GraphOptions
    inputs: Inputs
    images: NDArray[np.int64]
    train: NDArray[np.bool_]

    def __call__(self, number: int, geometry: LayerGeometry, device: str) -> tuple[GraphFilters, LayerMaps]:
        maps = self.inputs.activations.of_images(number, self.images)
        filters = GraphFilters.most_active(geometry, maps[self.train], self.options.filters)
        return filters, filters.maps(maps, self.inputs.index.frame.size, device)


def _learned(
    layers: list[tuple[GraphFilters, LayerMaps]], train: NDArray[np.bool_], rounds: int, session: Session
) -> list[FoundLayer]:
    """Learn from some pictures, look up in all."""
    session.begin(len(layers) * rounds, "rounds")
    kept = torch.from_numpy(train)
    own = [LayerMaps(maps.maps[kept], maps.x, maps.y) for _, maps in layers]
    graph = learn(own, rounds=rounds, seed=session.seed, advance=session.advance)
    seen = infer(graph, [maps for _, maps in layers])
    learned = [LearnedLayer(filters, layer) for (filters, _), layer in zip(layers, graph, strict=True)]
    return numbered(learned, [maps for _, maps in layers], seen)


def _moved(
    options: GraphOptions, inputs: Inputs, found: Sequence[FoundLayer], images: NDArray[np.int64]
) -> list[MovedLayer] | None:
    """The graph in the same pictures, moved; None without these."""
    if inputs.moved is None:
        return None
    size, numbers = inputs.index.frame.size, [number for number, _ in ordered_layers(inputs.activations)]
    maps = [
        part.learned.filters.maps(inputs.moved.of_images(number, images), size)
        for part, number in zip(found, numbers, strict=True)
    ]
    seen = infer([part.learned.layer for part in found], maps)
    shifted = shifted_pictures(inputs.index.source, options.shift, images)
    return [MovedLayer(nodes, own.maps.numpy(), shifted) for nodes, own in zip(seen, maps, strict=True)]


def _write_images(draft: Draft, index: Index, chosen: Chosen, splits: list[str]) -> None:
    """Which pictures were looked up, and what they look like."""
    category = [chosen.category] * len(splits)
    rows = {"image": chosen.images, "file": chosen.files, "split": splits, "category": category}
    draft.table("graph_images", rows)
    keep_thumbnails(draft, (index.source.thumbnail(image, SIDE) for image in chosen.images.tolist()))
