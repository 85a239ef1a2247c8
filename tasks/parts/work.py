"""Stage `parts`: parts located from a few boxes in the other pictures, by their looks and place, beside every rival."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.exemplars import Looks, Weighing, blend, exemplar
from microtome.disentangle.graph_keys import Locator
from microtome.disentangle.graph_layers import cell_axes, seen_in
from microtome.disentangle.part_errors import PartShift, Tried, comparisons, part_shift, summaries
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
    top_filters,
    unit_candidates,
)
from microtome.errors import InputError
from microtome.quantify.shift import Shifted
from storage import Draft
from storage.tables import ReadRow
from tasks.activations.result import Maps
from tasks.graph.category import category_images, ordered_layers, shown_landmarks
from tasks.graph.result import Graph
from tasks.index.result import Index
from tasks.landmarks.result import Landmarks
from tasks.parts import PartsOptions
from tasks.session import Session
from tasks.shifted import shifted_pictures

Floats = NDArray[np.float64]
Row = ReadRow
_Each = dict[tuple[str, int], dict[Locator, list[Floats]]]
"""By part and number of boxes, then by method: an array per draw."""


@dataclass(frozen=True)
class Inputs:
    """Maps of pictures with landmarks, maps of these moved, and a graph of the same pictures where there is one."""

    index: Index
    activations: Maps
    moved: Maps | None = None
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
    scene = _scene(options, inputs, chosen.images)
    session.begin(len(minings), "minings")
    found = _Found()
    for mining in minings:
        found.take(scene, mining)
        session.advance(1)
    for name, rows in {**found.tables, **found.judged(scene.moved)}.items():
        draft.rows(name, rows)


class _Found:
    """What comes of the minings: rows by table, and errors by part, number of boxes and method."""

    def __init__(self) -> None:
        self.tables: dict[str, list[Row]] = {"parts": [], "part_choices": [], "part_errors": []}
        self.errors: _Each = defaultdict(lambda: defaultdict(list))
        self.places: _Each = defaultdict(lambda: defaultdict(list))

    def take(self, scene: _Scene, mining: _Mining) -> None:
        """Mine one draw of boxes, and locate its part by every method."""
        boxes, rest = mining.boxes(scene.size)
        templates = {method: mine(candidates, boxes) for method, candidates in scene.sources.items()}
        located, weighing = _located(scene, boxes, templates)
        for method, everywhere in located.items():
            where = everywhere[: len(scene.images)]
            error = mining.error(where, rest, scene.size)
            self.places[mining.part, mining.count][method].append(everywhere * np.array(scene.size[::-1]))
            self.errors[mining.part, mining.count][method].append(error)
            self.tables["part_errors"] += _error_rows(scene, mining, method, where=where, error=error)
        self.tables["part_choices"].append(_choice(mining, boxes, weighing))
        self.tables["parts"] += _patterns(scene, mining, templates[Locator.PATTERNS]) if mining.draw == 0 else []

    def judged(self, moved: Shifted | None) -> dict[str, list[Row]]:
        """Rows of `part_summary`, `part_comparisons` and `part_shift`."""
        tried = [
            Tried(part, count, {method: np.stack(draws) for method, draws in own.items()})
            for (part, count), own in self.errors.items()
        ]
        return {
            "part_summary": [asdict(row) for row in summaries(tried)],
            "part_comparisons": [asdict(row) for row in comparisons(tried)],
            "part_shift": [asdict(row) for item in tried for row in self._shift(item, moved)],
        }

    def _shift(self, item: Tried, moved: Shifted | None) -> Iterator[PartShift]:
        """Of the methods that were asked for places in the moved pictures, too."""
        for method, draws in self.places[item.part, item.boxes].items():
            if moved and len(draws[0]) == 2 * len(moved.offset):
                before, after = np.split(np.stack(draws), 2, axis=1)
                yield part_shift(item, method, (before, after), moved.offset)


@dataclass(frozen=True)
class _Scene:
    """What the parts are looked for in.

    Args:
        images: numbers of the pictures.
        size: (height, width) of the network's input.
        sources: by method, what may become a pattern.
        layers: names of the units' layers.
        peaks: (images, filters, 2) highest cells of all filters, in the frame.
        looks: of the top layer's cells.
        moved: by what what is shown was moved; then the moved pictures come after the others in `peaks` and `looks`.
    """

    images: NDArray[np.int64]
    size: tuple[int, int]
    sources: Mapping[Locator, Candidates]
    layers: Sequence[str]
    peaks: Floats
    looks: Looks
    moved: Shifted | None


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

    def error(self, where: Floats, rest: NDArray[np.int64], size: tuple[int, int]) -> Floats:
        """(images,) distance to the truth, in diagonals; NaN but in the pictures that are left."""
        error = np.full(len(self.places), np.nan)
        error[rest] = location_error(where[rest], self.places[rest], size)
        return error


def _minings(options: PartsOptions, marks: Mapping[str, Floats], seed: int) -> Iterator[_Mining]:
    """Every part, number of boxes and draw; none where hardly a picture would be left."""
    for part, places in marks.items():
        shown = np.isfinite(places).all(1).sum()
        for count in (count for count in options.boxes if count < shown):
            for draw in range(options.draws):
                yield _Mining(part, places, count, draw, seed)


def _located(
    scene: _Scene, boxes: Boxes, templates: Mapping[Locator, Sequence[Template]]
) -> tuple[dict[Locator, Floats], Weighing]:
    """(images, 2) where every method finds the part, in the frame, the baselines last; and what the blend chose.

    Methods that need no more than looks and peaks find it in the moved pictures, too, after the others.
    """
    blended, weighing = blend(scene.looks, boxes)
    return {
        Locator.BLEND: blended,
        Locator.EXEMPLAR: exemplar(scene.looks, boxes),
        **{method: locate(own, scene.sources[method])[0] for method, own in templates.items()},
        Locator.MEAN_POSITION: mean_position(boxes, len(scene.peaks)),
        Locator.BEST_FILTER: best_filter(scene.peaks, boxes)[0],
        Locator.TOP_FILTERS: top_filters(scene.peaks, boxes),
    }, weighing


def _error_rows(scene: _Scene, mining: _Mining, method: Locator, *, where: Floats, error: Floats) -> list[Row]:
    """Rows of `part_errors`."""
    pixels = where * np.array(scene.size[::-1], float)
    about = {**mining.about, "method": method, "draw": mining.draw}
    return [
        {**about, "image": scene.images[n], "error": error[n], "x": pixels[n, 0], "y": pixels[n, 1]}
        for n in np.flatnonzero(np.isfinite(error))
    ]


def _choice(mining: _Mining, boxes: Boxes, weighing: Weighing) -> Row:
    """Row of `part_choices`."""
    x, y = np.mean(list(boxes.values()), axis=0)
    return {**mining.about, "draw": mining.draw, **asdict(weighing), "x": x, "y": y}


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


def _scene(options: PartsOptions, inputs: Inputs, images: NDArray[np.int64]) -> _Scene:
    """Units of all layers, nodes of the graph where there is one, peaks, and the top layer's cells."""
    size, layers = inputs.index.frame.size, ordered_layers(inputs.activations)
    units, peaks = [], []
    both = [inputs.activations, *([inputs.moved] if inputs.moved else [])]
    top, of_top = layers[0]
    looks = reduce(Looks.joined, [Looks.of(own.of_images(top, images), *cell_axes(of_top, size)) for own in both])
    for place, (number, layer) in enumerate(layers):
        maps = inputs.activations.of_images(number, images)
        units.append(unit_candidates(maps, *cell_axes(layer, size), layer=place, count=options.filters))
        peaks.append(np.concatenate([peak_places(own.of_images(number, images), layer, size) for own in both]))
    sources = {Locator.PATTERNS: reduce(Candidates.joined, units)}
    if inputs.graph:
        sources[Locator.NODES] = _nodes(inputs.graph, inputs, images)
    moved = shifted_pictures(inputs.index.source, options.shift, images) if inputs.moved else None
    return _Scene(images, size, sources, [layer.name for _, layer in layers], np.concatenate(peaks, 1), looks, moved)


def _nodes(graph: Graph, inputs: Inputs, images: NDArray[np.int64]) -> Candidates:
    """Nodes of the explanatory graph, looked up in every picture."""
    numbers = {layer.name: number for number, layer in enumerate(inputs.activations.layers)}
    maps = [inputs.activations.of_images(numbers[part.name], images) for part in graph.learned]
    seen = seen_in(graph.learned, maps, inputs.index.frame.size)
    return node_candidates(seen, [part.node_filters for part in graph.learned])
