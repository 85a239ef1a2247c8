"""The explanatory graph: part patterns that share out what filters answer to (arXiv 1708.01785, 1812.07997).

Each filter owns nodes; each node has a position that moves with its parents, nodes of the layer above. Learned top
layer first, by rounds of expectation and maximisation, without labels; then images can be looked up in it, frozen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from microtome.disentangle.graph_inference import LayerMaps, Nodes, Seen, Upper, look

ROUNDS = 20
PARENTS = 15
CANDIDATES = 600
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


def learn(
    layers: Sequence[LayerMaps], *, rounds: int = ROUNDS, seed: int = 0, advance: Callable[[int], None] = lambda _: None
) -> list[GraphLayer]:
    """Learn a graph.

    Args:
        layers: maps of the chosen layers in the same images, the top one first.
        rounds: of EM in each layer.
        seed: of the first positions.
        advance: told after every round.

    Returns:
        the layers, in the same order.
    """
    found: list[GraphLayer] = []
    above: tuple[Upper, Seen] | None = None
    for number, layer in enumerate(layers):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        made, seen = _learn_layer(layer, above, rounds=rounds, generator=generator, advance=advance)
        found.append(made)
        above = upper_of(made, seen), seen
    return found


def infer(graph: Sequence[GraphLayer], layers: Sequence[LayerMaps]) -> list[Seen]:
    """Look images up: the same E-step with positions, deviations and parents frozen.

    Args:
        graph: from `learn`.
        layers: maps of the same layers, in the same order.
    """
    found: list[Seen] = []
    upper: Upper | None = None
    for made, layer in zip(graph, layers, strict=True):
        found.append(look(made.nodes, layer, upper))
        upper = upper_of(made, found[-1])
    return found


def upper_of(made: GraphLayer, seen: Seen) -> Upper:
    """A layer as the one below sees it."""
    moved = (seen.position - made.home).flatten(1, 2)
    return Upper(moved, made.nodes.sigma.flatten())


def first_nodes(layer: LayerMaps, generator: torch.Generator) -> Nodes:
    """Distinct random cells for each filter's nodes."""
    _, filters, rows, columns = layer.maps.shape
    count = node_count(rows, columns)
    cells = torch.stack([torch.randperm(rows * columns, generator=generator)[:count] for _ in range(filters)])
    mu = torch.stack([layer.x.cpu()[cells % columns], layer.y.cpu()[cells // columns]], 2).to(layer.maps)
    return Nodes(mu, torch.full_like(mu[..., 0], SIGMA))


def _learn_layer(
    layer: LayerMaps,
    above: tuple[Upper, Seen] | None,
    *,
    rounds: int,
    generator: torch.Generator,
    advance: Callable[[int], None],
) -> tuple[GraphLayer, Seen]:
    nodes = first_nodes(layer, generator)
    upper, affinity = None, None
    seen: Seen | None = None
    curve = []
    for number in range(1, rounds + 1):
        if above is not None and seen is not None:
            upper = above[0]
            parents, affinity = choose_parents(seen, *above)
            nodes = replace(nodes, parents=parents)
        seen = look(nodes, layer, upper)
        curve.append(seen.log_likelihood / max(seen.weight, 1e-30))
        nodes = maximised(nodes, seen, number)
        advance(1)
    seen = look(nodes, layer, upper)
    curve.append(seen.log_likelihood / max(seen.weight, 1e-30))
    return GraphLayer(nodes, affinity, seen.position.mean(0), curve), seen


def maximised(nodes: Nodes, seen: Seen, number: int) -> Nodes:
    """The M-step of a round, counted from 1; nodes without mass stay.

    mu += eta (min delta / round^0.25)^2 G / N;   sigma = sqrt(sum F post |offset|^2 / 2 / N) in [max / 10, max],
    max = 1 / sqrt(nodes per filter).
    """
    alive = seen.mass > 1e-12
    mass = torch.where(alive, seen.mass, torch.ones_like(seen.mass))
    step = RATE * (seen.delta.min() / number**0.25) ** 2
    mu = (nodes.mu + step * seen.pull / mass[..., None] * alive[..., None]).clamp(0, 1)
    widest = 1 / nodes.sigma.shape[1] ** 0.5
    sigma = (seen.square / 2 / mass).sqrt().clamp(widest / 10, widest)
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
    """Nodes by total probability, without the half that moves least, and without those at the border."""
    moves = upper.displacement.square().sum((0, 2))
    home = above.position.mean(0).flatten(0, 1)
    inside = ((home > BORDER) & (home < 1 - BORDER)).all(1)
    lively = moves >= moves.median()
    total = above.score.sum(0).flatten()
    fit = torch.nonzero(inside & lively)[:, 0]
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
