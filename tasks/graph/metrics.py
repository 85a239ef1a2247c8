"""What a graph is worth: log-likelihood, steadiness beside raw filters under one rule, purity of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.graph_metrics import GraphMetric, JudgedLayer, learning_curve, purity, steadiness
from storage.tables import Gathered, Row, from_rows
from tasks.graph.found import FoundLayer
from tasks.index.result import Index

COLUMNS = ("layer", "metric", "of", "round", "value", "low", "high", "n")
Pure = tuple[float, str]


def metric_rows(
    found: Sequence[FoundLayer],
    held: Sequence[JudgedLayer],
    best: Sequence[NDArray[np.int64]],
    *,
    alike: Sequence[NDArray[np.int64]],
    size: tuple[int, int],
    permutations: int,
) -> Gathered:
    """Columns of `graph_metrics`.

    Args:
        found: the graph.
        held: its layers in the pictures that it was not learned from; without landmarks there are none, and nothing is
            said of steadiness.
        best: per layer places of the nodes that are judged.
        alike: per layer places of the filters that were chosen alike.
        size: (height, width) of the network's input.
        permutations: of the tracking test.
    """
    rows = [
        _row(part, metric, number)
        for part in found
        for number, metric in enumerate(learning_curve(part.learned.layer), 1)
    ]
    for part, layer, nodes, filters in zip(found, held, best, alike, strict=True) if held else ():
        steady = steadiness(layer, nodes, alike=filters, size=size, permutations=permutations)
        rows += [_row(part, metric, None) for metric in steady.rows]
    return from_rows(COLUMNS, rows)


def _row(part: FoundLayer, metric: GraphMetric, number: int | None) -> Row:
    return {"layer": part.name, "round": number, **asdict(metric)}


def purities(
    index: Index, found: Sequence[FoundLayer], images: NDArray[np.int64], kept: NDArray[np.bool_]
) -> list[list[Pure] | None]:
    """Per layer and node: share of its top pictures in which it is on one part, and that part; None without parts.

    Args:
        index: of the data set.
        found: the graph.
        images: numbers of the pictures.
        kept: (pictures,) those that it was not learned from: only they count.
    """
    wanted = index.concepts.of_category("part")
    if not wanted:
        return [None] * len(found)
    masks, names = index.masks(images[kept], wanted), [index.concepts.name[concept] for concept in wanted]
    pure = [purity(part.seen.of(torch.from_numpy(kept)), masks, index.frame.masks) for part in found]
    return [[(float(s), names[p]) for s, p in zip(layer.share, layer.part, strict=True)] for layer in pure]
