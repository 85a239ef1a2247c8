"""The explanatory graph: part patterns that share out what filters answer to (arXiv 1708.01785, 1812.07997).

Each filter owns nodes; each node has a position that moves with its parents, nodes of the layer above. Learned top
layer first, by rounds of expectation and maximisation, without labels; then images can be looked up in it, frozen.

In the papers nodes of the top layer have no parents: their positions are absolute. Here they may hang on anchors
(`anchors`), which are found anywhere in a picture. Nodes that hang on something begin where their filter is strongest
as seen from it, and each filter has as many as explain pictures best that they were not learned from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from microtome.disentangle.anchors import Anchors
from microtome.disentangle.graph_inference import (
    LayerMaps,
    Nodes,
    Seen,
    Upper,
    entities_seen_from,
    look,
    shift_of,
)

ROUNDS = 10  # the papers have 20; nothing changes after some 10
PARENTS = 15
CANDIDATES = 600
COUNTS = (1, 2, 4, 8)  # nodes of a filter that are tried
TRIAL_ROUNDS = 4
APART = 0.1  # deviation of what a first node takes for itself
BORDER = 0.1
SIGMA = 0.15  # to begin with
RATE = 1.0  # eta: with equal deltas a whole step of EM in the first round
FINE_CELLS = 400  # maps with more cells get half as many nodes per cell
DENSITY, FINE_DENSITY = 0.1, 0.05
AFFINITY_CHUNK = 1 << 24


def node_count(rows: int, columns: int) -> int:
    """Nodes per filter, ceil(density x cells): 0.05 for fine maps, 0.1 for others (28 x 28: 40; 14 x 14: 20)."""
    cells = rows * columns
    return math.ceil((FINE_DENSITY if cells > FINE_CELLS else DENSITY) * cells)


@dataclass(frozen=True)
class GraphLayer:
    """A learned layer.

    Args:
        nodes: positions, deviations, parents.
        affinity: (filters, nodes, M) of each parent; None for the top layer.
        home: (filters, nodes, 2) mean inferred position over the images that it was learned from.
        log_likelihood: per round, and after the last, per unit of mass.
    """

    nodes: Nodes
    affinity: torch.Tensor | None
    home: torch.Tensor
    log_likelihood: Sequence[float]


@dataclass(frozen=True)
class Hung:
    """What the top layer hangs on in the images that a graph is learned from.

    Args:
        upper, seen: the anchors there.
        second: (images,) those of the second half, in which numbers of nodes are judged. Copies of an image are in the
            same half.
    """

    upper: Upper
    seen: Seen
    second: torch.Tensor


def hung_on(anchors: Anchors, layer: LayerMaps, moved: LayerMaps) -> Hung:
    """Anchors in the training pictures, then in their moved copies; every other picture is in the second half.

    Args:
        anchors: learned from them.
        layer, moved: maps of the top layer, all filters, as they come from the network.
    """
    (upper, seen), (other, again) = anchors.above(layer), anchors.above(moved)
    both = Upper(torch.cat([upper.displacement, other.displacement]), upper.sigma, follows=True)
    position, score = torch.cat([seen.position, again.position]), torch.cat([seen.score, again.score])
    second = torch.arange(len(layer.maps), device=position.device) % 2 == 1
    return Hung(both, replace(seen, position=position, score=score), second.repeat(2))


def learn(
    layers: Sequence[LayerMaps],
    hung: Hung | None = None,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[GraphLayer]:
    """Learn a graph.

    Args:
        layers: maps of the chosen layers in the same images, the top one first.
        hung: what the top layer hangs on; without it positions of its nodes are absolute, as in the papers.
        rounds: of EM in each layer.
        seed: of the first positions, where these are absolute.
        advance: told after every round.

    Returns:
        the layers, in the same order.
    """
    found: list[GraphLayer] = []
    above: tuple[Upper, Seen] | None = (hung.upper, hung.seen) if hung else None
    for number, layer in enumerate(layers):
        if hung is None or above is None:
            nodes = first_nodes(layer, torch.Generator().manual_seed(seed * 1_000_003 + number))
        else:
            nodes = evident_nodes(layer, above, hung.second)
        made, seen = learned(nodes, layer, above, rounds=rounds, advance=advance)
        found.append(made)
        above = upper_of(made, seen), seen
    return found


def infer(graph: Sequence[GraphLayer], layers: Sequence[LayerMaps], upper: Upper | None = None) -> list[Seen]:
    """Look images up: the same E-step with positions, deviations and parents frozen.

    Args:
        graph: from `learn`.
        layers: maps of the same layers, in the same order.
        upper: what the top layer hangs on in these images, if anything.
    """
    found: list[Seen] = []
    for made, layer in zip(graph, layers, strict=True):
        found.append(look(made.nodes, layer, upper))
        upper = upper_of(made, found[-1])
    return found


def evidence(graph: Sequence[GraphLayer], above: torch.Tensor) -> list[torch.Tensor]:
    """How surely what each node hangs on was found in images: mean over its parents, (images, filters, nodes) a layer.

    Args:
        graph: a graph that hangs on anchors.
        above: (images, anchors) how surely they were found.
    """
    found: list[torch.Tensor] = []
    for made in graph:
        if made.nodes.parents is not None:
            above = above.flatten(1)[:, made.nodes.parents].mean(3)
        found.append(above)
    return found


def upper_of(made: GraphLayer, seen: Seen) -> Upper:
    """A layer as the one below sees it."""
    moved = (seen.position - made.home).flatten(1, 2)
    return Upper(moved, made.nodes.sigma.flatten(), made.nodes.averaged)


def first_nodes(layer: LayerMaps, generator: torch.Generator) -> Nodes:
    """Distinct random cells for each filter's nodes."""
    _, filters, rows, columns = layer.maps.shape
    count = node_count(rows, columns)
    cells = torch.stack([torch.randperm(rows * columns, generator=generator)[:count] for _ in range(filters)])
    mu = torch.stack([layer.x.cpu()[cells % columns], layer.y.cpu()[cells // columns]], 2).to(layer.maps)
    return Nodes(mu, torch.full_like(mu[..., 0], SIGMA))


def hung_nodes(layer: LayerMaps, above: tuple[Upper, Seen], count: int) -> Nodes:
    """First nodes where their filter is strongest as seen from what they hang on, the strongest first.

    The mean over images of F at cell + shift, shift being that of the first M candidates for parents; the highest cell
    is a node, what is within APART of it counts as taken, and so on.

    Args:
        layer: its maps.
        above: what it hangs on, in the same images.
        count: nodes of each filter.
    """
    filters, parents = layer.maps.shape[1], _candidates(*above)[:PARENTS]
    nodes = Nodes(
        layer.maps.new_zeros(filters, count, 2),
        layer.maps.new_full((filters, count), SIGMA),
        parents.expand(filters, count, len(parents)).contiguous(),
        averaged=True,
    )
    left = entities_seen_from(layer, shift_of(parents, above[0]))
    y, x = torch.meshgrid(layer.y, layer.x, indexing="ij")
    cells = torch.stack([x, y], 2).flatten(0, 1)
    found = []
    for _ in range(count):
        found.append(cells[left.flatten(1).argmax(1)])
        near = (cells[None] - found[-1][:, None]).square().sum(2)
        left = left.flatten(1) * (1 - torch.exp(-near / (2 * APART**2)))
    return replace(nodes, mu=torch.stack(found, 1))


def evident_nodes(layer: LayerMaps, above: tuple[Upper, Seen], second: torch.Tensor) -> Nodes:
    """First nodes, of each filter as many of COUNTS as make the second half of the images likeliest.

    For each number they are learned from the first half, in a few rounds; of equal likelihoods the fewest nodes win.
    """
    most = min(max(COUNTS), node_count(*layer.maps.shape[2:]))
    counts = [count for count in COUNTS if count <= most]
    halves = [(layer.of(half), (above[0].of(half), above[1].of(half))) for half in (~second, second)]
    likelihood = []
    for count in counts:
        made, _ = learned(hung_nodes(*halves[0], count), *halves[0], rounds=TRIAL_ROUNDS, advance=lambda _: None)
        seen = look(made.nodes, halves[1][0], halves[1][1][0])
        likelihood.append(seen.log_likelihood / seen.weight.clamp(min=1e-30))
    best = torch.tensor(counts, device=layer.maps.device)[torch.stack(likelihood).argmax(0)]
    nodes = hung_nodes(layer, above, int(best.max()))
    return replace(nodes, present=torch.arange(nodes.sigma.shape[1], device=best.device) < best[:, None])


def learned(
    nodes: Nodes,
    layer: LayerMaps,
    above: tuple[Upper, Seen] | None,
    *,
    rounds: int,
    advance: Callable[[int], None],
) -> tuple[GraphLayer, Seen]:
    """Learn a layer from its first nodes; parents are chosen anew in every round from the second.

    Args:
        nodes: to begin with.
        layer: its maps.
        above: the layer above in the same images; None for a top layer that hangs on nothing.
        rounds: of expectation and maximisation.
        advance: told after every round.
    """
    upper = above[0] if above is not None and nodes.parents is not None else None
    floor = least_sigma(nodes, layer)
    affinity: torch.Tensor | None = None
    seen: Seen | None = None
    curve = []
    for number in range(1, rounds + 1):
        if above is not None and seen is not None:
            upper = above[0]
            parents, affinity = choose_parents(seen, *above)
            nodes = replace(nodes, parents=parents)
        seen = look(nodes, layer, upper)
        curve.append(_per_unit(seen))
        nodes = maximised(nodes, seen, number, floor)
        advance(1)
    seen = look(nodes, layer, upper)
    curve.append(_per_unit(seen))
    return GraphLayer(nodes, affinity, seen.position.mean(0), curve), seen


def _per_unit(seen: Seen) -> float:
    return float(seen.log_likelihood.sum()) / max(float(seen.weight.sum()), 1e-30)


def least_sigma(nodes: Nodes, layer: LayerMaps) -> float:
    """A tenth of 1 / sqrt(nodes per filter), as published; of nodes that hang on something half a cell.

    Published, it goes down as the number of nodes goes up, far below what a map can tell.
    """
    if not nodes.averaged:
        return 0.1 / math.sqrt(nodes.sigma.shape[1])
    jumps = [float(axis[1] - axis[0]) if len(axis) > 1 else SIGMA for axis in (layer.x, layer.y)]
    return 0.5 * max(jumps)


def maximised(nodes: Nodes, seen: Seen, number: int, floor: float) -> Nodes:
    """The M-step of a round, counted from 1; nodes without mass stay.

    mu += eta (min delta / round^0.25)^2 G / N;   sigma = sqrt(sum F post |offset|^2 / 2 / N) in [floor, max],
    max = 1 / sqrt(nodes per filter).
    """
    alive = seen.mass > 1e-12
    mass = torch.where(alive, seen.mass, torch.ones_like(seen.mass))
    step = RATE * (seen.delta.min() / number**0.25) ** 2
    mu = (nodes.mu + step * seen.pull / mass[..., None] * alive[..., None]).clamp(0, 1)
    widest = 1 / nodes.there.sum(1, keepdim=True).to(mass).sqrt()
    sigma = (seen.square / 2 / mass).sqrt().clamp(min=floor).minimum(widest)
    return replace(nodes, mu=mu, sigma=torch.where(alive, sigma, nodes.sigma))


def choose_parents(seen: Seen, upper: Upper, above: Seen) -> tuple[torch.Tensor, torch.Tensor]:
    """The M parents of every node, by affinity, and their affinities: (filters, nodes, M).

    Affinity(V, V') = sum_I exp(-||disp_V - disp_V'||^2 / (2 mean ||.||^2)) S_{V', I}; the mean runs over images and
    candidates.

    Args:
        seen: the layer's nodes, as last inferred.
        upper, above: the layer above in the same images.
    """
    chosen = _candidates(upper, above)
    other = upper.displacement[:, chosen]
    score = above.score.flatten(1)[:, chosen]
    filters, count = seen.mass.shape
    own = (seen.position - seen.position.mean(0)).flatten(1, 2)
    degree = min(PARENTS, len(chosen))
    block = max(1, AFFINITY_CHUNK // max(1, other.shape[0] * len(chosen)))
    found = []
    for start in range(0, own.shape[1], block):
        mine = own[:, start : start + block]
        apart = (mine[:, :, None, 0] - other[:, None, :, 0]).square() + (
            mine[:, :, None, 1] - other[:, None, :, 1]
        ).square()
        scale = 2 * apart.mean((0, 2)).clamp(min=1e-30)
        affinity = (torch.exp(-apart / scale[None, :, None]) * score[:, None]).sum(0)
        found.append(affinity.topk(degree, dim=1))
    parents = torch.cat([chosen[top.indices] for top in found]).reshape(filters, count, degree)
    return parents, torch.cat([top.values for top in found]).reshape(filters, count, degree)


def _candidates(upper: Upper, above: Seen) -> torch.Tensor:
    """Nodes by total probability, without those at the border; nor, where they may stand still, the half that does."""
    moves = upper.displacement.square().sum((0, 2))
    home = above.position.mean(0).flatten(0, 1)
    inside = ((home > BORDER) & (home < 1 - BORDER)).all(1)
    lively = moves >= (0 if upper.follows else moves.median())
    total = above.score.sum(0).flatten()
    fit = torch.nonzero(inside & lively & (total > 0))[:, 0]
    if not len(fit):
        fit = torch.arange(len(total), device=total.device)
    order = torch.argsort(total[fit], descending=True, stable=True)
    return fit[order[:CANDIDATES]]


def standardised(maps: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """z = response / its deviation, clipped at 0.

    Args:
        maps: (images, filters, rows, columns).
        spread: (filters,) from `deviations`.
    """
    return (maps / spread[:, None, None]).clamp(min=0)


def deviations(maps: torch.Tensor) -> torch.Tensor:
    """(filters,) each filter's standard deviation over (images, filters, rows, columns); 1 where it never changes."""
    spread = maps.double().std((0, 2, 3), correction=0).to(maps.dtype)
    return torch.where(spread > 0, spread, torch.ones_like(spread))


def most_active(maps: torch.Tensor, count: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The filters with the highest mean peak in deviations: their numbers, rising, and their deviations.

    Args:
        maps: (images, filters, rows, columns).
        count: how many; all for None.
    """
    spread = deviations(maps)
    peaks = (maps.amax((2, 3)) / spread).mean(0)
    filters = torch.sort(torch.argsort(peaks, descending=True, stable=True)[: count or len(peaks)]).values
    return filters, spread[filters]
