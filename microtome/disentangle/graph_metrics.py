"""What an explanatory graph is worth: steadiness of its nodes beside raw filters, purity, and how far they move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.graph import GraphLayer
from microtome.disentangle.graph_inference import Seen
from microtome.disentangle.graph_keys import Measure, Of
from microtome.networks.geometry import LayerGeometry
from microtome.quantify.intervals import paired_interval, resampled_interval
from microtome.quantify.shift import (
    CategoryShift,
    Shifted,
    category_shift,
    false_discovery_of_following,
    frozen_resampled,
    shift_summary,
)
from microtome.quantify.significance import LEVEL
from microtome.quantify.stability import (
    CategoryStability,
    Inferences,
    Protocol,
    category_stability,
    cell_centres,
    infer,
    resampled,
)

Floats = NDArray[np.float64]
TOP_IMAGES = 20  # in which a node, or a filter, is judged
PURITY_IMAGES = 20
RESAMPLES = 300
STRONGEST = 20  # nodes of a picture that are followed
STRONG = 64  # nodes of a layer among which those that follow best are chosen
SHOWN = 24  # nodes of a graph that its page shows, at most


@dataclass(frozen=True)
class GraphMetric:
    """One figure of a layer.

    Args:
        metric: what is measured.
        of: whose it is.
        value, low, high: with its interval, where it has one.
        n: how many it is the mean of.
    """

    metric: Measure
    of: Of
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class MovedLayer:
    """A layer in pictures whose show was moved: its nodes, and maps of the filters in the graph."""

    seen: Seen
    maps: NDArray[np.float32]
    shifted: Shifted


@dataclass(frozen=True)
class Steadiness:
    """Figures of a layer, and the resamples behind them: (resamples,) means over nodes, or filters; paired.

    Args:
        rows: the figures.
        drawn: instability: of nodes, and by rival (filters; nodes frozen at their own mean places).
        slopes: of nodes and of filters; empty where nothing was moved.
    """

    rows: Sequence[GraphMetric]
    drawn: Mapping[Of, Floats]
    slopes: Mapping[Of, Floats]


@dataclass(frozen=True)
class JudgedLayer:
    """A layer in pictures that it was not learned from.

    Args:
        seen: its nodes.
        maps: (images, filters, rows, columns) of the filters in the graph.
        geometry: of the layer.
        landmarks: by name (images, 2) x, y in input pixels, NaN where an image shows none.
        moved: the layer in the same pictures, moved; nothing is said of following without it.
    """

    seen: Seen
    maps: NDArray[np.float32]
    geometry: LayerGeometry
    landmarks: Mapping[str, Floats]
    moved: MovedLayer | None = None


def steadiness(
    layer: JudgedLayer,
    nodes: NDArray[np.int64],
    *,
    alike: NDArray[np.int64] | None = None,
    size: tuple[int, int],
    permutations: int,
) -> Steadiness:
    """Location instability of some nodes and of the raw filters, by one rule, on the same pictures.

    Each node and each filter in its own top pictures. Resamples are paired. Nodes must not have been chosen by looking
    at these pictures.

    Args:
        layer: in the pictures.
        nodes: places among its nodes.
        alike: places among its filters, chosen as the nodes were: chosen ones beside all would owe it to the choice.
        size: (height, width) of the network's input.
        permutations: of the tracking test.
    """
    protocol, maps, landmarks = Protocol(size, TOP_IMAGES), layer.maps, layer.landmarks
    found, places = _as_filters(layer.seen, nodes, size)
    groups = {Of.FILTERS: np.arange(maps.shape[1])} | ({} if alike is None else {Of.ALIKE: alike})
    entries = [(Of.NODES, found, places), *((name, infer(maps[:, some]), None) for name, some in groups.items())]
    judged = {
        name: category_stability(
            name, own, layer.geometry, landmarks, protocol=protocol, permutations=permutations, centres=centres
        )
        for name, own, centres in entries
    }
    drawn = {name: resampled([item], protocol, resamples=RESAMPLES, seed=0)[:, 0] for name, item in judged.items()}
    rows = [
        row for name, item in judged.items() for row in (_instability(name, item, drawn[name]), *_shares(name, item))
    ]
    still = _frozen_at_their_own(judged[Of.NODES], places_of(layer.seen, nodes, size), landmarks, protocol)
    rivals = {
        apart: (float(np.nanmean(judged[name].deviation)), np.nanmean(drawn[name], 1))
        for name, apart in ((Of.FILTERS, Of.DIFFERENCE), (Of.ALIKE, Of.ALIKE_DIFFERENCE))
        if name in judged
    }
    rivals[Of.OWN_FROZEN] = still
    own = float(np.nanmean(judged[Of.NODES].deviation)), np.nanmean(drawn[Of.NODES], 1)
    for name, rival in rivals.items():
        between = paired_interval((own[0], rival[0]), (own[1], rival[1]))
        rows.append(GraphMetric(Measure.INSTABILITY, name, *between, len(maps)))
    tested = _shift_tested(layer, nodes, groups, judged=judged, protocol=protocol)
    rows += [row for name, item in tested.items() for row in _followed(name, item)]
    bases = judged[Of.FILTERS].baselines
    frozen = {Of.RANDOM: bases.random, Of.CENTRE: bases.centre, Of.CONSTANT: bases.best_constant}
    rows += [GraphMetric(Measure.INSTABILITY, name, float(value)) for name, value in frozen.items()]
    slopes = {name: item.following.drawn[:, np.isfinite(item.deviation)].mean(1) for name, item in tested.items()}
    return Steadiness(rows, {Of.NODES: own[1], **{name: rival[1] for name, rival in rivals.items()}}, slopes)


def _frozen_at_their_own(
    judged: CategoryStability, places: Floats, landmarks: Mapping[str, Floats], protocol: Protocol
) -> tuple[float, Floats]:
    """Mean over nodes of their instability if they stood at their own mean places, and that of each resample."""
    pictures = len(places)
    weights = np.random.default_rng([0, 0]).multinomial(pictures, np.full(pictures, 1 / pictures), size=RESAMPLES)
    once = np.ones((1, pictures), np.int64)
    value, *drawn = (
        np.nanmean(frozen_resampled(judged, places, landmarks, protocol=protocol, weights=some), 1)
        for some in (once, weights)
    )
    return float(value[0]), drawn[0]


def _shift_tested(
    layer: JudgedLayer,
    nodes: NDArray[np.int64],
    groups: Mapping[Of, NDArray[np.int64]],
    *,
    judged: Mapping[Of, CategoryStability],
    protocol: Protocol,
) -> dict[Of, CategoryShift]:
    """The shift test of nodes, and of groups of filters; empty where nothing was moved."""
    moved, grid = layer.moved, cell_centres(layer.geometry)
    if moved is None:
        return {}
    pairs = {
        Of.NODES: (places_of(layer.seen, nodes, protocol.size), places_of(moved.seen, nodes, protocol.size)),
        **{
            name: (grid[infer(layer.maps[:, some]).cell], grid[infer(moved.maps[:, some]).cell])
            for name, some in groups.items()
        },
    }
    pictures = len(moved.shifted.offset)
    weights = np.random.default_rng(0).multinomial(pictures, np.full(pictures, 1 / pictures), size=RESAMPLES)
    return {
        name: category_shift(judged[name], pair, layer.landmarks, moved.shifted, protocol=protocol, weights=weights)
        for name, pair in pairs.items()
    }


def _followed(name: Of, tested: CategoryShift) -> list[GraphMetric]:
    """Who follows what is shown, and what standing still would reach."""
    found = shift_summary(
        [tested], np.ones(len(tested.deviation), bool), false_discovery_of_following([tested]) <= LEVEL
    )
    rows = [
        GraphMetric(Measure.SLOPE, name, found.slope or 0.0, found.low, found.high, found.positions),
        GraphMetric(Measure.FOLLOWS, name, found.follow / max(1, found.positions), n=found.positions),
        GraphMetric(Measure.FROZEN, name, found.frozen or 0.0, n=found.positions),
    ]
    if found.following_deviation is not None:
        rows.append(GraphMetric(Measure.FOLLOWING, name, found.following_deviation, n=found.follow))
    return rows


def chosen_nodes(seen: Seen, moved: Seen | None, offset: Floats | None, *, count: int) -> NDArray[np.int64]:
    """The nodes that a page shows and that are judged elsewhere: the ones that follow best among the STRONG highest.

    Those with the least mean of ||(q - p) - o||^2, p and q being a node's places before and after what is shown was
    moved by o; those with the highest mean score, where nothing was moved.

    Args:
        seen: a layer's nodes in the training pictures.
        moved: in the same, moved.
        offset: (pictures, 2) x, y in sides of the frame.
        count: how many at most.

    Returns:
        places among the layer's nodes, the best first.
    """
    score = seen.score.flatten(1).double().cpu().numpy().mean(0)
    if moved is None or offset is None:
        return _strong(score)[:count]
    before, after = (item.position.flatten(1, 2).double().cpu().numpy() for item in (seen, moved))
    return _best_followers(score, after - before - offset[:, None], count)


def chosen_filters(
    copies: tuple[NDArray[np.float32], NDArray[np.float32] | None],
    geometry: LayerGeometry,
    offset: Floats | None,
    *,
    size: tuple[int, int],
    count: int,
) -> NDArray[np.int64]:
    """Filters chosen as `chosen_nodes` are, on the same evidence: the fair ones to set beside these.

    Args:
        copies: (images, filters, rows, columns) maps in the training pictures, and in the same, moved.
        geometry: of the layer.
        offset: (pictures, 2) x, y in sides of the frame.
        size: (height, width) of the network's input.
        count: how many at most.

    Returns:
        places among the filters, the best first.
    """
    own, moved = copies
    found = infer(own)
    score = found.score.astype(np.float64).mean(0)
    if moved is None or offset is None:
        return _strong(score)[:count]
    grid = cell_centres(geometry) / np.array(size[::-1])
    return _best_followers(score, grid[infer(moved).cell] - grid[found.cell] - offset[:, None], count)


def _strong(score: Floats) -> NDArray[np.int64]:
    """The STRONG of the highest mean score, the highest first; none that is not above zero."""
    strong: NDArray[np.int64] = np.argsort(-score, kind="stable")[:STRONG]
    return strong[score[strong] > 0]


def _best_followers(score: Floats, left: Floats, count: int) -> NDArray[np.int64]:
    """Of the strong those with the least mean square of what is left of their (pictures, places, 2) displacement."""
    strong = _strong(score)
    square = np.square(left[:, strong]).sum(2).mean(0)
    best: NDArray[np.int64] = strong[np.argsort(square, kind="stable")[:count]]
    return best


def places_of(seen: Seen, nodes: NDArray[np.int64], size: tuple[int, int]) -> Floats:
    """(images, nodes, 2) where some nodes are, in input pixels."""
    places: Floats = (seen.position.flatten(1, 2).cpu().numpy()[:, nodes] * np.array(size[::-1])).astype(float)
    return places


def _as_filters(seen: Seen, best: NDArray[np.int64], size: tuple[int, int]) -> tuple[Inferences, Floats]:
    """Nodes as if they were filters, and the positions that `cell` counts through."""
    score = seen.score.flatten(1).cpu().numpy()
    place = places_of(seen, best, size)
    cell = np.arange(place.shape[0] * place.shape[1]).reshape(place.shape[:2])
    found = Inferences(cell, score[:, best].astype(np.float32), np.zeros(cell.shape, bool))
    return found, place.reshape(-1, 2)


def _instability(name: Of, judged: CategoryStability, drawn: Floats) -> GraphMetric:
    """Mean over nodes; the interval over pictures."""
    value = float(np.nanmean(judged.deviation))
    low, high = resampled_interval(value, np.nanmean(drawn, 1))
    return GraphMetric(Measure.INSTABILITY, name, value, low, high, int(np.isfinite(judged.deviation).sum()))


def _shares(name: Of, judged: CategoryStability) -> list[GraphMetric]:
    """Frozen positions are steady, too: who beats the best of them on the same pictures, or follows a landmark?"""
    marks, limits = judged.landmarks.values(), judged.baselines.best_by_landmark
    beats = np.any([mark.deviation < limit for mark, limit in zip(marks, limits, strict=True)], axis=0)
    shares = {
        Measure.BEATS_CONSTANT: beats,
        Measure.TRACKS: judged.tracking,
        Measure.EITHER: beats | judged.tracking,
    }
    rows = [GraphMetric(measure, name, float(flag.mean()), n=len(flag)) for measure, flag in shares.items()]
    spread = float(judged.spread.deviation.mean())
    return [*rows, GraphMetric(Measure.SPREAD, name, spread, n=len(judged.deviation))]


def learning_curve(layer: GraphLayer) -> list[GraphMetric]:
    """Log-likelihood of a layer, per unit of activation, in every round and after the last."""
    return [GraphMetric(Measure.LOG_LIKELIHOOD, Of.TRAINING, float(value)) for value in layer.log_likelihood]


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
