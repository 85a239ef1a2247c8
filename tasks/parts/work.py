"""Stage `parts`: parts mined from a few boxes, located in the other pictures, beside two baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.graph import infer
from microtome.disentangle.graph_keys import Locator
from microtome.disentangle.graph_layers import cell_axes
from microtome.disentangle.parts import (
    Boxes,
    Candidates,
    Template,
    best_filter,
    drawn_boxes,
    locate,
    location_error,
    mean_position,
    mine,
    node_candidates,
    peak_places,
    summarised,
    unit_candidates,
)
from microtome.errors import InputError
from storage import Draft
from storage.tables import ReadRow
from tasks.activations.result import Maps
from tasks.graph.category import category_images, ordered_layers, shown_landmarks
from tasks.graph.result import Graph
from tasks.index.result import Index
from tasks.landmarks.result import Landmarks
from tasks.parts import PartsOptions
from tasks.session import Session

Floats = NDArray[np.float64]
Row = ReadRow  # its errors are read again for their summary


@dataclass(frozen=True)
class Inputs:
    """Maps of pictures with landmarks, and a graph of the same pictures where there is one."""

    index: Index
    activations: Maps
    landmarks: Landmarks | None = None
    graph: Graph | None = None


def run(options: PartsOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Mine every landmark from each number of boxes, in several draws, and locate it in what is left."""
    chosen = category_images(inputs.index, options, session.name)
    marks = shown_landmarks(inputs.landmarks, chosen.images)
    if not marks:
        raise InputError("parts.dataset: needs landmarks that three pictures show, got none")
    minings = list(_minings(options, marks, session.seed))
    if not minings:
        raise InputError(f"parts.boxes: must be fewer than the pictures that show a part, got {options.boxes}")
    scene = _scene(inputs, chosen.images, options.filters)
    session.begin(len(minings), "minings")
    patterns: list[Row] = []
    errors: list[Row] = []
    for mining in minings:
        boxes, rest = mining.boxes(scene.size)
        templates = {method: mine(candidates, boxes) for method, candidates in scene.sources.items()}
        errors += [row for found in _located(scene, boxes, templates) for row in _errors(scene, mining, found, rest)]
        patterns += _patterns(scene, mining, templates[Locator.PATTERNS]) if mining.draw == 0 else []
        session.advance(1)
    for name, rows in {"parts": patterns, "part_errors": errors, "part_summary": _summary(errors)}.items():
        draft.rows(name, rows)


@dataclass(frozen=True)
class _Scene:
    """What the parts are looked for in.

    Args:
        images: numbers of the pictures.
        size: (height, width) of the network's input.
        sources: by method, what may become a pattern.
        layers: names of the units' layers.
        peaks: (images, filters, 2) highest cells of all filters, in the frame.
    """

    images: NDArray[np.int64]
    size: tuple[int, int]
    sources: Mapping[Locator, Candidates]
    layers: Sequence[str]
    peaks: Floats


@dataclass(frozen=True)
class _Mining:
    """One draw of annotated pictures of one part: where the part is, (images, 2), and which pictures tell."""

    part: str
    places: Floats
    count: int
    draw: int
    seed: int

    @property
    def about(self) -> Row:
        return {"part": self.part, "boxes": self.count}

    def boxes(self, size: tuple[int, int]) -> tuple[Boxes, NDArray[np.int64]]:
        """The boxes that are told, and the other pictures that show the part."""
        rng = np.random.default_rng([self.seed, self.count, self.draw])
        return drawn_boxes(self.places, self.count, size, rng)


def _minings(options: PartsOptions, marks: Mapping[str, Floats], seed: int) -> Iterator[_Mining]:
    """Every part, number of boxes and draw; none where hardly a picture would be left."""
    for part, places in marks.items():
        shown = np.isfinite(places).all(1).sum()
        for count in (count for count in options.boxes if count < shown):
            for draw in range(options.draws):
                yield _Mining(part, places, count, draw, seed)


@dataclass(frozen=True)
class _Found:
    """(images, 2) where a method finds a part in every picture, in the frame."""

    method: Locator
    where: Floats


def _located(scene: _Scene, boxes: Boxes, templates: Mapping[Locator, Sequence[Template]]) -> list[_Found]:
    """By every method, the baselines last."""
    return [
        *(_Found(method, locate(own, scene.sources[method])[0]) for method, own in templates.items()),
        _Found(Locator.MEAN_POSITION, mean_position(boxes, len(scene.images))),
        _Found(Locator.BEST_FILTER, best_filter(scene.peaks, boxes)[0]),
    ]


def _errors(scene: _Scene, mining: _Mining, found: _Found, rest: NDArray[np.int64]) -> list[Row]:
    """Rows of `part_errors`."""
    error = location_error(found.where, mining.places, scene.size)
    pixels = found.where * np.array(scene.size[::-1], float)
    about = {**mining.about, "method": found.method, "draw": mining.draw}
    return [{**about, "image": scene.images[n], "error": error[n], "x": pixels[n, 0], "y": pixels[n, 1]} for n in rest]


def _patterns(scene: _Scene, mining: _Mining, templates: Sequence[Template]) -> list[Row]:
    """Rows of `parts`."""
    units = scene.sources[Locator.PATTERNS]
    return [
        {
            **mining.about,
            "pattern": pattern,
            "layer": scene.layers[units.layer[pattern]],
            "filter": units.filter[pattern],
            "dx": moved[0],
            "dy": moved[1],
            "score": score,
            "template": number,
        }
        for number, own in enumerate(templates)
        for pattern, moved, score in zip(own.pattern, own.displacement, own.score, strict=True)
    ]


def _scene(inputs: Inputs, images: NDArray[np.int64], filters: int) -> _Scene:
    """Units of all layers, nodes of the graph where there is one, and peaks."""
    size, layers = inputs.index.frame.size, ordered_layers(inputs.activations)
    units, peaks = [], []
    for place, (number, layer) in enumerate(layers):
        maps = inputs.activations.of_images(number, images)
        units.append(unit_candidates(maps, *cell_axes(layer, size), layer=place, count=filters))
        peaks.append(peak_places(maps, layer, size))
    sources = {Locator.PATTERNS: reduce(Candidates.joined, units)}
    if inputs.graph:
        sources[Locator.NODES] = _nodes(inputs.graph, inputs, images)
    return _Scene(images, size, sources, [layer.name for _, layer in layers], np.concatenate(peaks, 1))


def _nodes(graph: Graph, inputs: Inputs, images: NDArray[np.int64]) -> Candidates:
    """Nodes of the explanatory graph, looked up in every picture."""
    numbers = {layer.name: number for number, layer in enumerate(inputs.activations.layers)}
    size = inputs.index.frame.size
    maps = [part.filters.maps(inputs.activations.of_images(numbers[part.name], images), size) for part in graph.learned]
    seen = infer([part.layer for part in graph.learned], maps)
    return node_candidates(seen, [part.node_filters for part in graph.learned])


def _summary(errors: Sequence[Row]) -> list[Row]:
    """Mean error and share of near hits per part, number of boxes and method: over pictures, draws averaged."""
    grouped: dict[tuple[str, int, Locator], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in errors:
        grouped[row["part"], row["boxes"], row["method"]][row["image"]].append(row["error"])
    return [
        {"part": part, "boxes": boxes, "method": method, **asdict(summarised(list(images.values())))}
        for (part, boxes, method), images in grouped.items()
    ]
