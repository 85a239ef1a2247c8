"""Stage `graph`: the explanatory graph of some layers, and every picture looked up in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.anchors import Anchors, learn_anchors
from microtome.disentangle.folds import split_by_file
from microtome.disentangle.graph import Hung, hung_on, learn
from microtome.disentangle.graph_inference import Seen
from microtome.disentangle.graph_layers import GraphFilters, LearnedLayer, raw_maps, seen_in
from microtome.disentangle.graph_metrics import SHOWN, JudgedLayer, MovedLayer, chosen_filters, chosen_nodes
from microtome.errors import InputError
from microtome.networks.geometry import LayerGeometry
from microtome.quantify.shift import Shifted
from storage import Draft
from tasks.activations.result import Maps
from tasks.graph import GraphOptions
from tasks.graph.category import Chosen, category_images, ordered_layers, shown_landmarks
from tasks.graph.columns import anchor_columns, edge_columns, inference_columns, node_columns
from tasks.graph.files import write_exports, write_known, write_learned
from tasks.graph.found import FoundLayer, numbered
from tasks.graph.metrics import metric_rows, purities
from tasks.index.result import Index
from tasks.landmarks.result import Landmarks
from tasks.session import Session
from tasks.shifted import shifted_pictures
from tasks.thumbnails import SIDE, keep_thumbnails

HALVES = 2
Stack = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Inputs:
    """Maps of the pictures, and where there are any, their landmarks and maps of the pictures moved."""

    index: Index
    activations: Maps
    landmarks: Landmarks | None = None
    moved: Maps | None = None


def run(options: GraphOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Learn from half of the pictures of a category; look all of them up, and judge the graph in the other half."""
    chosen = category_images(inputs.index, options, session.name)
    splits = split_by_file(chosen.files, [chosen.category] * len(chosen.files), seed=session.seed, folds=HALVES)
    scene = _Copies(options, inputs, chosen.images, np.array([split == "train" for split in splits]))
    learned = _learned(scene, session)
    seen, moved = (seen_in(learned, maps, scene.size, session.device) if maps else None for maps in scene.copies)
    found = numbered(learned, seen or [])
    best = _best(scene, found, moved)
    pure = purities(inputs.index, found, chosen.images, scene.held_out)
    nodes, edges = node_columns(found, pure, best), edge_columns(found)
    draft.table("graph_nodes", nodes)
    draft.table("graph_edges", edges)
    draft.table("graph_inferences", inference_columns(found, chosen.images))
    draft.table("graph_anchors", anchor_columns(learned[0].anchors))
    _write_images(draft, inputs.index, chosen, splits)
    write_exports(draft, nodes, edges)
    write_learned(draft, learned, chosen.category)
    write_known(draft, scene.copies[0][0])
    held = _held_out(scene, found, moved)
    figures = metric_rows(
        found, held, best, alike=_alike(scene, found, best), size=scene.size, permutations=options.permutations
    )
    draft.table("graph_metrics", figures)


@dataclass(frozen=True)
class _Copies:
    """Maps of a category's pictures, and of their moved copies where there are any.

    Args:
        options: of the stage.
        inputs: of the stage.
        images: numbers of the pictures.
        train: (pictures,) which of them are learned from.
    """

    options: GraphOptions
    inputs: Inputs
    images: NDArray[np.int64]
    train: NDArray[np.bool_]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.inputs.index.frame.size

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """(pictures,) those that are not learned from."""
        return ~self.train

    @cached_property
    def layers(self) -> list[LayerGeometry]:
        """The top one first."""
        return [geometry for _, geometry in ordered_layers(self.inputs.activations)]

    @cached_property
    def copies(self) -> tuple[Stack, Stack | None]:
        """(pictures, filters, rows, columns) of every layer, in the pictures and in their moved copies."""
        numbers = [number for number, _ in ordered_layers(self.inputs.activations)]
        own, moved = self.inputs.activations, self.inputs.moved
        maps = [own.of_images(number, self.images) for number in numbers]
        return maps, [moved.of_images(number, self.images) for number in numbers] if moved else None

    @cached_property
    def shifted(self) -> Shifted:
        """By what the moved copies were moved."""
        return shifted_pictures(self.inputs.index.source, self.options.shift, self.images)

    @property
    def offset(self) -> NDArray[np.float64]:
        """(training pictures, 2) the same, of those that are learned from, in sides of the frame."""
        offset: NDArray[np.float64] = self.shifted.offset[self.train] / np.array(self.size[::-1])
        return offset


def _learned(scene: _Copies, session: Session) -> list[LearnedLayer]:
    """Learn from the training pictures; where nodes hang on anchors, from their moved copies, too."""
    (maps, moved), train, options = scene.copies, scene.train, scene.options
    session.begin(len(scene.layers) * options.rounds, "rounds")
    filters = [
        GraphFilters.most_active(geometry, own[train], options.filters)
        for geometry, own in zip(scene.layers, maps, strict=True)
    ]
    anchors, hung = _anchors(scene, session) if options.rule == "anchors" else (None, None)
    copies = [maps, moved] if hung and moved else [maps]
    layers = [
        part.maps(np.concatenate([copy[number][train] for copy in copies]), scene.size, session.device)
        for number, part in enumerate(filters)
    ]
    graph = learn(layers, hung, rounds=options.rounds, seed=session.seed, advance=session.advance)
    return [
        LearnedLayer(part, layer, None if number else anchors)
        for number, (part, layer) in enumerate(zip(filters, graph, strict=True))
    ]


def _anchors(scene: _Copies, session: Session) -> tuple[Anchors, Hung]:
    """Learned from the training pictures and their moved copies, and where they are in both."""
    maps, moved = scene.copies
    if moved is None:
        raise InputError("graph.shift: must be above 0 where nodes hang on anchors, got 0; or set graph.rule: paper")
    raw = [raw_maps(scene.layers[0], copy[0][scene.train], scene.size, session.device) for copy in (maps, moved)]
    offset = torch.from_numpy(scene.offset).to(raw[0].maps)
    anchors = learn_anchors(raw[0], raw[1], offset, seed=session.seed)
    return anchors, hung_on(anchors, raw[0], raw[1])


def _best(scene: _Copies, found: Sequence[FoundLayer], moved: Sequence[Seen] | None) -> list[NDArray[np.int64]]:
    """Per layer the nodes that the page shows, chosen in the training pictures."""
    train = torch.from_numpy(scene.train)
    return [
        chosen_nodes(
            part.seen.of(train),
            moved[number].of(train) if moved else None,
            scene.offset if moved else None,
            count=max(1, SHOWN // len(found)),
        )
        for number, part in enumerate(found)
    ]


def _alike(scene: _Copies, found: Sequence[FoundLayer], best: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Per layer as many filters as nodes are shown, chosen in the training pictures as those were."""
    maps, moved = scene.copies
    return [
        chosen_filters(
            (
                maps[number][scene.train][:, part.learned.filters.numbers],
                moved[number][scene.train][:, part.learned.filters.numbers] if moved else None,
            ),
            part.learned.filters.geometry,
            scene.offset if moved else None,
            size=scene.size,
            count=len(nodes),
        )
        for number, (part, nodes) in enumerate(zip(found, best, strict=True))
    ]


def _held_out(scene: _Copies, found: Sequence[FoundLayer], moved: Sequence[Seen] | None) -> list[JudgedLayer]:
    """The layers in the pictures that they were not learned from; none where no landmark is shown there."""
    kept = scene.held_out
    marks = shown_landmarks(scene.inputs.landmarks, scene.images[kept])
    if not marks:
        return []
    maps, copies = scene.copies
    shown = Shifted(scene.shifted.offset[kept], scene.shifted.inside[kept]) if moved else None
    return [
        JudgedLayer(
            part.seen.of(torch.from_numpy(kept)),
            maps[number][kept][:, part.learned.filters.numbers],
            part.learned.filters.geometry,
            marks,
            MovedLayer(
                moved[number].of(torch.from_numpy(kept)), copies[number][kept][:, part.learned.filters.numbers], shown
            )
            if moved and copies and shown
            else None,
        )
        for number, part in enumerate(found)
    ]


def _write_images(draft: Draft, index: Index, chosen: Chosen, splits: list[str]) -> None:
    """Which pictures were looked up, and what they look like."""
    category = [chosen.category] * len(splits)
    rows = {"image": chosen.images, "file": chosen.files, "split": splits, "category": category}
    draft.table("graph_images", rows)
    keep_thumbnails(draft, (index.source.thumbnail(image, SIDE) for image in chosen.images.tolist()))
