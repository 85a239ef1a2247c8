"""Part mining from a few boxes: an And-Or graph from a part down to units (arXiv 1611.04246).

    semantic part (OR) -> a template per annotated picture (AND) -> latent patterns (OR over shifts) -> units

A pattern votes for the part's centre: where it is, plus its displacement in the template's picture. Everything is in
relative image coordinates, x and y in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.graph_inference import Seen
from microtome.networks.geometry import LayerGeometry
from microtome.quantify.stability import cell_centres, infer

Floats = NDArray[np.float64]
Boxes = Mapping[int, tuple[float, float]]  # centre of a part's box, x and y in the frame, in annotated images
SHIFT = 1 / 3  # of the map: how far a unit's pattern may move
DEFORMATION = 0.2  # deviation of the shift
VOTE = 0.1  # deviation of a reliable vote
TOP_SHARE = 0.1  # of the sorted scores, to which the curve is fitted
KEPT = 0.4  # ceil(0.4 / l) patterns are kept
MOST = 300
LEAST = 0.01
TOP_FILTERS = 10


@dataclass(frozen=True)
class Candidates:
    """What may become a pattern: units at a cell, or nodes of an explanatory graph.

    Args:
        position: (images, candidates, 2) where each is in each image.
        response: (images, candidates) how strongly, log Gauss of its shift included.
        layer, filter: (candidates,) where each comes from.
    """

    position: Floats
    response: Floats
    layer: NDArray[np.int64]
    filter: NDArray[np.int64]

    def joined(self, other: Candidates) -> Candidates:
        """Both together."""
        return Candidates(
            np.concatenate([self.position, other.position], 1),
            np.concatenate([self.response, other.response], 1),
            np.concatenate([self.layer, other.layer]),
            np.concatenate([self.filter, other.filter]),
        )

    def of(self, images: Sequence[int] | NDArray[np.int64]) -> Candidates:
        """The same in some images."""
        return Candidates(self.position[images], self.response[images], self.layer, self.filter)


def cell_candidates(maps: NDArray[np.float32], x: Floats, y: Floats, layer: int) -> Candidates:
    """Every unit at every cell: OR over shifts by up to a third of the map, each at the price of its log Gauss.

    Args:
        maps: (images, filters, rows, columns) z.
        x, y: centres of the cells in the frame.
        layer: its number.
    """
    images, filters, rows, columns = maps.shape
    across, right = _best_shift(maps, x, 3)
    best, down = _best_shift(across, y, 2)
    at_row = np.arange(rows)[:, None] + down
    at_column = np.arange(columns) + np.take_along_axis(right, at_row, 2)
    where = np.stack([x[at_column], y[at_row]], -1)
    number = np.repeat(np.arange(filters), rows * columns)
    return Candidates(
        where.reshape(images, -1, 2), best.reshape(images, -1).astype(float), np.full(len(number), layer), number
    )


def unit_candidates(maps: NDArray[np.float32], x: Floats, y: Floats, *, layer: int, count: int) -> Candidates:
    """Units at cells, of a layer's most active filters: those with the highest mean peak in deviations.

    Args:
        maps: (images, filters, rows, columns).
        x, y: centres of the cells in the frame.
        layer: its number.
        count: of filters.
    """
    spread = maps.std((0, 2, 3), dtype=np.float64)
    spread[spread == 0] = 1
    peaks = (maps.max((2, 3)) / spread).mean(0)
    kept = np.sort(np.argsort(-peaks, kind="stable")[:count])
    z = np.clip(maps[:, kept] / spread[kept, None, None], 0, None).astype(np.float32)
    found = cell_candidates(z, x, y, layer)
    return Candidates(found.position, found.response, found.layer, kept[found.filter])


def node_candidates(seen: Sequence[Seen], filters: Sequence[NDArray[np.int64]]) -> Candidates:
    """Nodes of an explanatory graph; a response counts in its layer's own deviations.

    Args:
        seen: the graph's layers in the images.
        filters: per layer the filter of each of its nodes.
    """
    position = np.concatenate([item.position.flatten(1, 2).numpy() for item in seen], 1).astype(float)
    score = [item.score.flatten(1).numpy().astype(float) for item in seen]
    response = np.concatenate([part / max(float(part.std()), 1e-30) for part in score], 1)
    source = np.repeat(np.arange(len(filters)), [len(part) for part in filters])
    return Candidates(position, response, source, np.concatenate(filters))


def _best_shift(maps: NDArray[np.float32], places: Floats, axis: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Highest of the values along an axis, less ||shift||^2 / (2 DEFORMATION^2), and the shift in cells."""
    count = maps.shape[axis]
    jump = float(places[1] - places[0]) if count > 1 else 1.0
    reach = max(1, round(SHIFT * count))
    best, shift = np.full(maps.shape, -np.inf, np.float32), np.zeros(maps.shape, np.int64)
    for step in sorted(range(-reach, reach + 1), key=abs):  # of equal values the nearest
        to, start = [slice(None)] * 4, [slice(None)] * 4
        to[axis], start[axis] = slice(max(0, -step), count - max(0, step)), slice(max(0, step), count + min(0, step))
        value = maps[tuple(start)] - np.float32((step * jump) ** 2 / (2 * DEFORMATION**2))
        better = value > best[tuple(to)]
        best[tuple(to)][better] = value[better]
        shift[tuple(to)][better] = step
    return best, shift


@dataclass(frozen=True)
class Template:
    """The patterns of one annotated picture.

    Args:
        image: the picture.
        pattern: (patterns,) numbers of candidates.
        displacement: (patterns, 2) from a pattern to the part's centre.
        score: (patterns,).
    """

    image: int
    pattern: NDArray[np.int64]
    displacement: Floats
    score: Floats


def mine(candidates: Candidates, boxes: Boxes) -> list[Template]:
    """Patterns of one part.

    Args:
        candidates: in all images, annotated or not: patterns should be there in both.
        boxes: centre of the part's box in each annotated image, x and y in the frame.

    Returns:
        a template per annotated image. A pattern's score is its mean response over all images, and what its votes for
        the centre miss in the other annotated ones: minus mean ||vote - centre||^2 / (2 VOTE^2).

    Raises:
        ValueError: fewer than two boxes.
    """
    if len(boxes) < 2:
        raise ValueError(f"mining needs two boxes or more, got {len(boxes)}")
    images = list(boxes)
    centres = np.array([boxes[image] for image in images])
    general = candidates.response.mean(0)
    there = candidates.position[images]
    templates = []
    for place, image in enumerate(images):
        displacement = centres[place] - there[place]
        others = [n for n in range(len(images)) if n != place]
        missed = np.square(there[others] + displacement - centres[others][:, None]).sum(2).mean(0)
        score = general - missed / (2 * VOTE**2)
        order = np.argsort(-score, kind="stable")
        kept = order[: kept_patterns(score[order])]
        templates.append(Template(image, kept, displacement[kept], score[kept]))
    return templates


def kept_patterns(score: Floats) -> int:
    """How many of the falling scores are kept: y = a exp(-(l x)^0.5) + b fitted to the top tenth, ceil(0.4 / l).

    l is searched on a grid, a and b follow by least squares: no start to be chosen, nothing to diverge.
    """
    top = score[: max(10, math.ceil(TOP_SHARE * len(score)))]
    x = np.arange(len(top), dtype=float)
    best, rate = np.inf, KEPT
    for tried in np.geomspace(KEPT / MOST, KEPT, 60):
        basis = np.stack([np.exp(-np.sqrt(tried * x)), np.ones(len(x))], 1)
        answer, *_ = np.linalg.lstsq(basis, top, rcond=None)
        error = float(np.square(basis @ answer - top).sum())
        if error < best:
            best, rate = error, float(tried)
    return min(len(score), math.ceil(round(KEPT / rate, 9)))


def locate(templates: Sequence[Template], candidates: Candidates) -> tuple[Floats, Floats]:
    """Where a part is: the best template's patterns vote, each by its response (at least LEAST).

    Args:
        templates: from `mine`.
        candidates: the same ones, in any images.

    Returns:
        (images, 2) x, y in the frame, and (images,) the score of the template that won.
    """
    votes, scores = [], []
    for template in templates:
        response = candidates.response[:, template.pattern]
        where = candidates.position[:, template.pattern] + template.displacement
        weight = np.maximum(response, LEAST)
        votes.append((where * weight[..., None]).sum(1) / weight.sum(1)[:, None])
        scores.append(response.mean(1) + template.score.mean())
    best = np.argmax(scores, 0)
    rows = np.arange(len(best))
    return np.stack(votes)[best, rows], np.stack(scores)[best, rows]


def drawn_boxes(
    places: Floats, count: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Boxes, NDArray[np.int64]]:
    """Draw the images in which a part is annotated.

    Args:
        places: (images, 2) x, y of the part in input pixels; NaN where an image does not show it.
        count: of boxes.
        size: (height, width) of the input.
        rng: draws.

    Returns:
        the boxes, and the images beside them that show the part.
    """
    shown = np.flatnonzero(np.isfinite(places).all(1))
    taken = np.sort(rng.permutation(shown)[:count])
    whole = np.array(size[::-1], float)
    boxes = {int(image): (float(x), float(y)) for image, (x, y) in zip(taken, places[taken] / whole, strict=True)}
    return boxes, np.setdiff1d(shown, taken)


def peak_places(maps: NDArray[np.float32], layer: LayerGeometry, size: tuple[int, int]) -> Floats:
    """(images, filters, 2) x, y of each filter's highest cell, in the frame.

    Args:
        maps: (images, filters, rows, columns).
        layer: their geometry.
        size: (height, width) of the input.
    """
    places: Floats = cell_centres(layer)[infer(maps).cell] / np.array(size[::-1], float)
    return places


def mean_position(boxes: Boxes, images: int) -> Floats:
    """Baseline: the mean annotated position, everywhere."""
    return np.tile(np.mean(list(boxes.values()), 0), (images, 1))


def best_filter(peaks: Floats, boxes: Boxes) -> tuple[Floats, int]:
    """Baseline: the filter whose peak, plus its mean displacement, comes nearest to the annotated centres.

    Args:
        peaks: (images, filters, 2) highest cells, in the frame.
        boxes: as of `mine`.

    Returns:
        (images, 2) positions, and the filter.
    """
    displacement, missed = _moved_peaks(peaks, boxes)
    chosen = int(missed.argmin())
    return peaks[:, chosen] + displacement[chosen], chosen


def top_filters(peaks: Floats, boxes: Boxes) -> Floats:
    """Baseline: the mean of where the TOP_FILTERS best filters say, each by its peak plus its mean displacement.

    Args:
        peaks: (images, filters, 2) highest cells, in the frame.
        boxes: as of `mine`.

    Returns:
        (images, 2) positions.
    """
    displacement, missed = _moved_peaks(peaks, boxes)
    chosen = np.argsort(missed, kind="stable")[:TOP_FILTERS]
    together: Floats = (peaks[:, chosen] + displacement[chosen]).mean(1)
    return together


def _moved_peaks(peaks: Floats, boxes: Boxes) -> tuple[Floats, Floats]:
    """(filters, 2) mean displacement from each filter's peak to the centres, and (filters,) its mean miss."""
    images, centres = list(boxes), np.array(list(boxes.values()))
    displacement = (centres[:, None] - peaks[images]).mean(0)
    return displacement, np.linalg.norm(peaks[images] + displacement - centres[:, None], axis=2).mean(0)


def location_error(found: Floats, places: Floats, size: tuple[int, int]) -> Floats:
    """(images,) distance to the truth, in diagonals of the picture.

    Args:
        found: (images, 2) x, y in the frame.
        places: (images, 2) x, y in input pixels.
        size: (height, width) of the input.
    """
    whole = np.array(size[::-1], float)
    error: Floats = np.linalg.norm(found * whole - places, axis=1) / np.linalg.norm(whole)
    return error
