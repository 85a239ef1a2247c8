"""What an explanatory graph is worth: steadiness of its nodes beside raw filters, purity, and how far they move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.graph_inference import Seen
from microtome.networks.geometry import LayerGeometry
from microtome.quantify.intervals import paired_interval, resampled_interval
from microtome.quantify.stability import (
    CategoryStability,
    Inferences,
    Protocol,
    category_stability,
    infer,
    resampled,
)

Floats = NDArray[np.float64]
TOP_IMAGES = 20  # in which a node, or a filter, is judged
PURITY_IMAGES = 20
RESAMPLES = 300
STRONGEST = 20  # nodes of a picture that are followed
BASELINES = ("random", "centre", "best_constant")


@dataclass(frozen=True)
class GraphMetric:
    """One figure of a layer.

    Args:
        metric: what is measured.
        of: whose it is: `nodes`, `filters`, their difference or a baseline.
        value, low, high: with its interval, where it has one.
        n: how many it is the mean of.
    """

    metric: str
    of: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


def steadiness(
    seen: Seen,
    maps: NDArray[np.float32],
    geometry: LayerGeometry,
    landmarks: Mapping[str, Floats],
    *,
    size: tuple[int, int],
    permutations: int,
) -> list[GraphMetric]:
    """Location instability of a layer's nodes and of its raw filters, by one rule, on the same pictures.

    As many nodes are judged as there are filters, those with the highest mean score; each node and each filter in its
    own top pictures. Resamples are paired.

    Args:
        seen: the layer's nodes.
        maps: (images, filters, rows, columns) of the filters in the graph.
        geometry: of the layer.
        landmarks: by name (images, 2) x, y in input pixels, NaN where an image shows none.
        size: (height, width) of the network's input.
        permutations: of the tracking test.
    """
    protocol = Protocol(size, TOP_IMAGES)
    nodes, places = _top_nodes(seen, maps.shape[1], size)
    judged = {
        name: category_stability(
            name, found, geometry, landmarks, protocol=protocol, permutations=permutations, centres=centres
        )
        for name, found, centres in (("nodes", nodes, places), ("filters", infer(maps), None))
    }
    drawn = {name: resampled([item], protocol, resamples=RESAMPLES, seed=0)[:, 0] for name, item in judged.items()}
    found = [row for name, item in judged.items() for row in (_instability(name, item, drawn[name]), *_shares(item))]
    values = [float(np.nanmean(item.deviation)) for item in judged.values()]
    means = [np.nanmean(values_, 1) for values_ in drawn.values()]
    between = paired_interval((values[0], values[1]), (means[0], means[1]))
    found.append(GraphMetric("instability", "nodes minus filters", *between, len(maps)))
    bases = judged["filters"].baselines
    return [
        *found,
        *(GraphMetric("instability", name.replace("_", " "), float(getattr(bases, name))) for name in BASELINES),
    ]


def _top_nodes(seen: Seen, count: int, size: tuple[int, int]) -> tuple[Inferences, Floats]:
    """The nodes with the highest mean score, as if they were filters, and the positions that `cell` counts through."""
    score = seen.score.flatten(1).cpu().numpy()
    best = np.argsort(-score.mean(0), kind="stable")[:count]
    place = seen.position.flatten(1, 2).cpu().numpy()[:, best] * np.array(size[::-1])
    cell = np.arange(place.shape[0] * place.shape[1]).reshape(place.shape[:2])
    found = Inferences(cell, score[:, best].astype(np.float32), np.zeros(cell.shape, bool))
    return found, place.reshape(-1, 2).astype(float)


def _instability(name: str, judged: CategoryStability, drawn: Floats) -> GraphMetric:
    """Mean over nodes; the interval over pictures."""
    value = float(np.nanmean(judged.deviation))
    low, high = resampled_interval(value, np.nanmean(drawn, 1))
    return GraphMetric("instability", name, value, low, high, int(np.isfinite(judged.deviation).sum()))


def _shares(judged: CategoryStability) -> list[GraphMetric]:
    """Frozen positions are steady, too: who beats the best of them on the same pictures, or follows a landmark?"""
    marks, limits = judged.landmarks.values(), judged.baselines.best_by_landmark
    beats = np.any([mark.deviation < limit for mark, limit in zip(marks, limits, strict=True)], axis=0)
    shares = {"beats best constant": beats, "tracks a landmark": judged.tracking, "either": beats | judged.tracking}
    rows = [GraphMetric(name, judged.name, float(flag.mean()), n=len(flag)) for name, flag in shares.items()]
    spread = float(judged.spread.deviation.mean())
    return [*rows, GraphMetric("own spread", judged.name, spread, n=len(judged.deviation))]


@dataclass(frozen=True)
class Purity:
    """Which part each node of a layer is on: (nodes,) number of the part, and share of the node's top pictures."""

    part: NDArray[np.int64]
    share: Floats


def purity(seen: Seen, masks: NDArray[np.bool_], size: tuple[int, int]) -> Purity:
    """The part that a node is on in most of its top pictures, and in what share of them.

    Args:
        seen: the layer's nodes.
        masks: (images, parts, pixels) of the parts in the same images.
        size: (height, width) of the masks.
    """
    height, width = size
    position = seen.position.flatten(1, 2).cpu().numpy()
    score = seen.score.flatten(1).cpu().numpy()
    top = np.argsort(-score, axis=0, kind="stable")[:PURITY_IMAGES]
    column = np.clip((position[..., 0] * width).astype(int), 0, width - 1)
    row = np.clip((position[..., 1] * height).astype(int), 0, height - 1)
    pixel = row * width + column
    nodes = np.arange(pixel.shape[1])
    share = np.stack([masks[images, :, pixel[images, nodes]] for images in top]).mean(0)
    return Purity(share.argmax(1), share.max(1))


@dataclass(frozen=True)
class NodesMoved:
    """What became of the strongest nodes of each picture: (pictures,) each.

    Args:
        shift: mean distance to where they are afterwards, in sides of the picture.
        kept: share of them that are among the strongest afterwards.
    """

    shift: Floats
    kept: Floats


def nodes_moved(before: Sequence[Seen], after: Sequence[Seen]) -> NodesMoved:
    """Follow the strongest nodes of pictures into changed pictures.

    Args:
        before, after: all layers of one graph in the same pictures. Layers differ in scale: a score counts by its
            layer's own deviation over these pictures.
    """
    one, two = (_all_nodes(seen) for seen in (before, after))
    top, other = (scores.topk(min(STRONGEST, scores.shape[1]), 1).indices for _, scores in (one, two))
    rows = torch.arange(len(top))[:, None]
    shift = (one[0][rows, top] - two[0][rows, top]).norm(dim=2).mean(1)
    kept = (top[:, :, None] == other[:, None, :]).any(2).double().mean(1)
    return NodesMoved(shift.double().numpy(), kept.numpy())


def _all_nodes(seen: Sequence[Seen]) -> tuple[torch.Tensor, torch.Tensor]:
    """(pictures, nodes, 2) positions and (pictures, nodes) scores in deviations, over all layers."""
    positions = torch.cat([item.position.flatten(1, 2) for item in seen], 1)
    scores = torch.cat([(item.score / item.score.std().clamp(min=1e-30)).flatten(1) for item in seen], 1)
    return positions, scores
