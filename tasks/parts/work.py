"""Stage `parts`: parts mined from a few boxes, located in the other pictures, beside two baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.graph import infer
from microtome.disentangle.parts import (
    Candidates,
    best_filter,
    locate,
    location_error,
    mean_position,
    mine,
    node_candidates,
    summarised,
    unit_candidates,
)
from microtome.errors import InputError
from microtome.quantify.stability import cell_centres
from microtome.quantify.stability import infer as peaks_of
from tasks.graph_reading import (
    category_images,
    frame_of,
    landmarks_of,
    learned_graph,
    maps_of,
    ordered_layers,
)
from tasks.rows import Rows, append
from tasks.stage import Work


def run(work: Work) -> None:
    """Mine every landmark from each number of boxes, in several draws, and locate it in what is left."""
    torch.set_num_threads(work.session.threads)
    chosen = category_images(work)
    marks = landmarks_of(work, chosen.images)
    if not marks:
        raise InputError("parts.dataset: needs landmarks that three pictures show, got none")
    size = np.array(work.job.reach["frame"].size[::-1], float)
    sources = {"patterns": _units(work, chosen.images)}
    if "graph" in work.inputs:
        sources["graph nodes"] = _nodes(work, chosen.images)
    peaks = _peaks(work, chosen.images)
    tables: dict[str, Rows] = {name: defaultdict(list) for name in ("parts", "part_errors")}
    counts, draws = work.parameters["boxes"], work.parameters["draws"]
    work.begin(len(marks) * len(counts) * draws, "minings")
    for name, places in marks.items():
        shown = np.flatnonzero(np.isfinite(places).all(1))
        for count in counts:
            if count >= len(shown):
                continue
            for draw in range(draws):
                rng = np.random.default_rng([work.parameters["seed"], count, draw])
                taken = np.sort(rng.permutation(shown)[:count])
                boxes = {int(image): (places[image] / size[0:2]).tolist() for image in taken}
                rest = np.setdiff1d(shown, taken)
                about = {"part": name, "boxes": count}
                found = _located(tables["parts"], about, draw, sources, boxes)
                found["mean position"] = mean_position(boxes, len(places))
                found["best filter"] = best_filter(peaks, boxes)[0]
                for method, where in found.items():
                    error = location_error(where, places, work.job.reach["frame"].size)
                    for image in rest:
                        row = {**about, "method": method, "draw": draw, "image": int(chosen.images[image])}
                        x, y = where[image] * size
                        append(tables["part_errors"], {**row, "error": float(error[image]), "x": x, "y": y})
                work.advance(1)
    for table, rows in tables.items():
        work.draft.table(table, rows)
    work.draft.table("part_summary", _summary(tables["part_errors"]))


def _located(
    rows: Rows, about: Mapping[str, object], draw: int, sources: Mapping[str, tuple[Candidates, list[str]]], boxes: dict
) -> dict[str, NDArray[np.float64]]:
    """Mine in every source; the patterns of the first draw are written down."""
    found = {}
    for method, (candidates, layers) in sources.items():
        templates = mine(candidates, boxes)
        found[method] = locate(templates, candidates)[0]
        if draw == 0 and method == "patterns":
            for number, template in enumerate(templates):
                for pattern, moved, score in zip(template.pattern, template.displacement, template.score, strict=True):
                    where = {"layer": layers[candidates.layer[pattern]], "filter": int(candidates.filter[pattern])}
                    row = {**about, **where, "pattern": int(pattern), "template": number}
                    append(rows, {**row, "dx": moved[0], "dy": moved[1], "score": float(score)})
    return found


def _units(work: Work, images: NDArray[np.int64]) -> tuple[Candidates, list[str]]:
    """Units at cells, of the layers' most active filters."""
    found: Candidates | None = None
    layers = ordered_layers(work)
    for place, (number, layer) in enumerate(layers):
        x, y = frame_of(work, layer)
        maps = maps_of(work, number, images)
        some = unit_candidates(maps, x, y, layer=place, count=work.parameters["filters"])
        found = some if found is None else found.joined(some)
    if found is None:
        raise InputError("parts: needs a layer, got none")
    return found, [layer.name for _, layer in layers]


def _nodes(work: Work, images: NDArray[np.int64]) -> tuple[Candidates, list[str]]:
    """Nodes of the explanatory graph, looked up in every picture."""
    learned = learned_graph(work.inputs["graph"])
    numbers = {layer.name: number for number, layer in ordered_layers(work)}
    size = work.job.reach["frame"].size
    maps = [part.maps(maps_of(work, numbers[part.geometry.name], images), size) for part in learned]
    names = [part.geometry.name for part in learned]
    filters = [np.repeat(part.filters, part.layer.nodes.sigma.shape[1]) for part in learned]
    seen = infer([part.layer for part in learned], maps)
    return node_candidates(seen, filters), names


def _peaks(work: Work, images: NDArray[np.int64]) -> NDArray[np.float64]:
    """(images, filters, 2) highest cells of all filters of all layers, in the frame."""
    size = np.array(work.job.reach["frame"].size[::-1], float)
    places = [
        cell_centres(layer)[peaks_of(maps_of(work, number, images)).cell] / size
        for number, layer in ordered_layers(work)
    ]
    return np.concatenate(places, 1)


def _summary(errors: Rows) -> Rows:
    """Mean error and share of near hits per part, number of boxes and method: over pictures, draws averaged."""
    grouped: dict[tuple[str, int, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for part, boxes, method, image, error in zip(
        *(errors[name] for name in ("part", "boxes", "method", "image", "error")), strict=True
    ):
        grouped[part, boxes, method][image].append(error)
    rows: Rows = defaultdict(list)
    for (part, boxes, method), images in grouped.items():
        about = {"part": part, "boxes": boxes, "method": method}
        append(rows, {**about, **asdict(summarised(list(images.values())))})
    return rows
