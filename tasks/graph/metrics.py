"""What a graph is worth: log-likelihood, steadiness beside raw filters under one rule, purity of its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.graph_metrics import GraphMetric, MovedLayer, learning_curve, purity, steadiness
from storage.tables import Gathered, Row, from_rows
from tasks.graph.found import FoundLayer
from tasks.index.result import Index

COLUMNS = ("layer", "metric", "of", "round", "value", "low", "high", "n")
Pure = tuple[float, str]


def metric_rows(
    found: Sequence[FoundLayer],
    marks: Mapping[str, NDArray[np.float64]],
    moved: Sequence[MovedLayer] | None,
    *,
    size: tuple[int, int],
    permutations: int,
) -> Gathered:
    """Columns of `graph_metrics`.

    Args:
        found: the graph.
        marks: landmarks, (images, 2) x, y each; without any, nothing is said of steadiness.
        moved: its layers in the same pictures, moved.
        size: (height, width) of the network's input.
        permutations: of the tracking test.
    """
    rows = [
        _row(part, metric, number)
        for part in found
        for number, metric in enumerate(learning_curve(part.learned.layer), 1)
    ]
    for place, part in enumerate(found if marks else ()):
        maps, geometry = part.maps.maps.cpu().numpy(), part.learned.filters.geometry
        steady = steadiness(
            part.seen,
            maps,
            geometry,
            marks,
            size=size,
            permutations=permutations,
            moved=moved[place] if moved else None,
        )
        rows += [_row(part, metric, None) for metric in steady]
    return from_rows(COLUMNS, rows)


def _row(part: FoundLayer, metric: GraphMetric, number: int | None) -> Row:
    return {"layer": part.name, "round": number, **asdict(metric)}


def purities(index: Index, found: Sequence[FoundLayer], images: NDArray[np.int64]) -> list[list[Pure] | None]:
    """Per layer and node: share of its top pictures in which it is on one part, and that part; None without parts."""
    wanted = index.concepts.of_category("part")
    if not wanted:
        return [None] * len(found)
    masks, names = index.masks(images, wanted), [index.concepts.name[concept] for concept in wanted]
    pure = [purity(part.seen, masks, index.frame.masks) for part in found]
    return [[(float(s), names[p]) for s, p in zip(layer.share, layer.part, strict=True)] for layer in pure]
