"""Infer the nodes of an explanatory graph's layer in images (Zhang et al., arXiv 1708.01785, section 3).

A feature map is a mass of activation entities, F_p = sum over cells of Gauss(distance; 0.025) max(z, 0), which the
nodes of its filter share out. Given its parents a node expects them around mu + shift, and

    A_p = lambda N(offset; 0, delta),   posterior(V|p) = A_p(V) / (sum over the filter's nodes of A_p + dummy)

Everything is in one frame: relative image coordinates, x and y in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

SPREAD = 0.025  # of an activation entity, in the frame
TAU = 0.1  # share of the mass that belongs to no node
OFFSETS = 6  # candidate positions along each axis
REACH = 0.15  # they reach no farther
CHUNK = 1 << 20  # floats of one intermediate: one that fits the cache is twice as fast as one that does not


@dataclass(frozen=True)
class LayerMaps:
    """A layer's activations.

    Args:
        maps: (images, filters, rows, columns) z, clipped at 0.
        x: (columns,) centres of the cells in the frame.
        y: (rows,).
    """

    maps: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor

    def of(self, images: slice | torch.Tensor) -> LayerMaps:
        """Those of some images, a slice or flags."""
        return LayerMaps(self.maps[images], self.x, self.y)


@dataclass(frozen=True)
class Nodes:
    """The nodes of a layer.

    Args:
        mu: (filters, nodes, 2) x, y.
        sigma: (filters, nodes).
        parents: (filters, nodes, M) places among the upper layer's nodes, flat; or None.
        present: (filters, nodes) which there are, where filters own different numbers of nodes; None for all.
        averaged: a node's place in a picture is the mean over F A, not its highest point.
    """

    mu: torch.Tensor
    sigma: torch.Tensor
    parents: torch.Tensor | None = None
    present: torch.Tensor | None = None
    averaged: bool = False

    @property
    def there(self) -> torch.Tensor:
        """(filters, nodes) which there are."""
        return torch.ones_like(self.sigma, dtype=torch.bool) if self.present is None else self.present


@dataclass(frozen=True)
class Upper:
    """What the layer above says of some images.

    Args:
        displacement: (images, upper nodes, 2) position minus the node's own mean position.
        sigma: (upper nodes,).
        follows: they follow what is shown; none of them stands still.
    """

    displacement: torch.Tensor
    sigma: torch.Tensor
    follows: bool = False

    def of(self, images: slice | torch.Tensor) -> Upper:
        """That of some of the images, a slice or flags."""
        return Upper(self.displacement[images], self.sigma, self.follows)


@dataclass(frozen=True)
class Expected:
    """Where nodes are looked for: shift (images, filters, nodes, 2), delta (filters, nodes), lambda (images, ...)."""

    shift: torch.Tensor
    delta: torch.Tensor
    factor: torch.Tensor


def expected(nodes: Nodes, upper: Upper | None, images: int) -> Expected:
    """The product of the parents' Gaussians, each to the power 1/M, as one Gaussian and the factor left over.

    With w_i = 1 / (M sigma_i^2): delta^2 = 1 / sum w_i, shift = delta^2 sum w_i displacement_i,
    lambda = delta^2 prod sigma_i^(-2/M) exp(-sum w_i ||displacement_i - shift||^2 / 2). Without parents 0, sigma, 1.
    """
    filters, count = nodes.sigma.shape
    if nodes.parents is None or upper is None:
        shift = nodes.mu.new_zeros(images, filters, count, 2)
        return Expected(shift, nodes.sigma, nodes.mu.new_ones(images, filters, count))
    degree = nodes.parents.shape[2]
    sigma = upper.sigma[nodes.parents]
    weight = 1 / (degree * sigma.square())
    delta2 = 1 / weight.sum(2)
    moved = upper.displacement[:, nodes.parents]
    shift = (moved * weight[..., None]).sum(3) * delta2[..., None]
    apart = ((moved - shift[:, :, :, None]).square().sum(4) * weight).sum(3)
    scale = delta2 * torch.exp(-2 / degree * sigma.log().sum(2))
    return Expected(shift, delta2.sqrt(), scale * torch.exp(-apart / 2))


def shift_of(parents: torch.Tensor, upper: Upper) -> torch.Tensor:
    """(images, 2) mean displacement of some nodes of the layer above, weighted by 1 / sigma^2."""
    weight = 1 / upper.sigma[parents].square()
    return (upper.displacement[:, parents] * weight[:, None]).sum(1) / weight.sum()


def entities_seen_from(layer: LayerMaps, shift: torch.Tensor) -> torch.Tensor:
    """(filters, rows, columns) mean over images of F at cell + shift.

    Args:
        layer: its maps.
        shift: (images, 2).
    """
    down, across = (_bells(axis + shift[:, [place]], axis) for place, axis in ((1, layer.y), (0, layer.x)))
    return (down[:, None] @ layer.maps @ across[:, None].transpose(2, 3)).mean(0)


@dataclass(frozen=True)
class Seen:
    """Nodes in images: what the E-step gathers, over the images.

    Args:
        mass: (filters, nodes) N_V = sum of F posterior.
        pull: (filters, nodes, 2) G_V = sum of F posterior offset / delta^2.
        square: (filters, nodes) sum of F posterior ||offset||^2.
        position: (images, filters, nodes, 2) where F A is highest; its mean of nodes that are averaged.
        score: (images, filters, nodes) its highest value.
        log_likelihood: (filters,) sum over images and cells of F log P(p).
        weight: (filters,) sum of F over the same.
        delta: (filters, nodes).
    """

    mass: torch.Tensor
    pull: torch.Tensor
    square: torch.Tensor
    position: torch.Tensor
    score: torch.Tensor
    log_likelihood: torch.Tensor
    weight: torch.Tensor
    delta: torch.Tensor

    def of(self, images: torch.Tensor) -> Seen:
        """Places and scores in some of the images, by flags; what is summed over images stays."""
        return replace(self, position=self.position[images], score=self.score[images])


def look(nodes: Nodes, layer: LayerMaps, upper: Upper | None = None) -> Seen:
    """The E-step, or inference on new images: mu, sigma and parents stay.

    Args:
        nodes: of the layer.
        layer: its maps.
        upper: the layer above in the same images; None for the top one.
    """
    parts = [_look(nodes, layer.of(some), upper.of(some) if upper else None) for some in _chunks(nodes, layer)]
    summed = ("mass", "pull", "square", "log_likelihood", "weight")
    return Seen(
        **{name: torch.stack([getattr(part, name) for part in parts]).sum(0) for name in summed},
        position=torch.cat([part.position for part in parts]),
        score=torch.cat([part.score for part in parts]),
        delta=parts[0].delta,
    )


def _chunks(nodes: Nodes, layer: LayerMaps) -> Iterator[slice]:
    """Images that fit memory together."""
    images, filters, rows, columns = layer.maps.shape
    count = nodes.sigma.shape[1]
    degree = 0 if nodes.parents is None else nodes.parents.shape[2]
    one = filters * count * max(OFFSETS * (rows + columns + 2 * count), 4 * degree, OFFSETS * OFFSETS)
    size = max(1, CHUNK // max(1, one))
    for start in range(0, images, size):
        yield slice(start, min(start + size, images))


def _look(nodes: Nodes, layer: LayerMaps, upper: Upper | None) -> Seen:
    where = expected(nodes, upper, len(layer.maps))
    centre = nodes.mu + where.shift
    reach = (3 * nodes.sigma).clamp(max=REACH)
    offset = reach[..., None] * torch.linspace(-1, 1, OFFSETS, dtype=centre.dtype, device=centre.device)
    x, y = (centre[..., axis, None] + offset for axis in (0, 1))  # (images, filters, nodes, offsets)
    entities = _entities(layer, x, y)
    height = where.factor / (2 * math.pi * where.delta.square()) * nodes.there
    bell = torch.exp(-offset.square() / (2 * where.delta.square()[..., None]))
    own = height[..., None, None] * (bell[..., :, None] * bell[..., None, :])  # rows by columns of offsets
    every = _summed(x, y, centre, delta=where.delta, height=height)
    dummy = TAU * own.sum((2, 3, 4)) / nodes.there.sum(1)
    share = entities * own / (every + dummy[:, :, None, None, None]).clamp(min=1e-30)
    across, down = share.sum(3), share.sum(4)
    precision = 1 / where.delta.square()
    pull = torch.stack([(across * offset).sum((0, 3)), (down * offset).sum((0, 3))], 2) * precision[..., None]
    answer = entities * own
    position = (_mean_place if nodes.averaged else _highest)(answer, x, y)
    likelihood, weight = _likelihood(layer, centre, where=where, height=height, dummy=dummy)
    return Seen(
        share.sum((0, 3, 4)),
        pull,
        (across * offset.square()).sum((0, 3)) + (down * offset.square()).sum((0, 3)),
        position,
        answer.amax((3, 4)),
        likelihood,
        weight,
        where.delta,
    )


def _highest(answer: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Where F A is highest among (images, filters, nodes, rows, columns) of offsets."""
    place = answer.flatten(3).argmax(3)[..., None]
    return torch.stack([x.gather(3, place % OFFSETS), y.gather(3, place // OFFSETS)], 3)[..., 0]


def _mean_place(answer: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean of the offsets' places under F A; of all of them alike, the expected place, where the filter is silent."""
    answer = answer + 1e-6 * answer.amax((3, 4), keepdim=True) + 1e-30
    total = answer.sum((3, 4))
    return torch.stack([(answer.sum(3) * x).sum(3) / total, (answer.sum(4) * y).sum(3) / total], 3)


def _bells(at: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Gauss(distance; SPREAD) of positions and cells: (..., positions, cells)."""
    return torch.exp(-(at[..., None] - cells).square() / (2 * SPREAD**2))


def _entities(layer: LayerMaps, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """F_p on each node's grid of positions: (images, filters, nodes, rows of offsets, columns of offsets)."""
    images, filters, count, steps = x.shape
    down = _bells(y, layer.y).reshape(images, filters, count * steps, -1) @ layer.maps
    return down.reshape(images, filters, count, steps, -1) @ _bells(x, layer.x).transpose(3, 4)


def _summed(
    x: torch.Tensor, y: torch.Tensor, centre: torch.Tensor, *, delta: torch.Tensor, height: torch.Tensor
) -> torch.Tensor:
    """Sum over the filter's nodes of A at each node's positions."""
    narrow = 1 / (2 * delta.square())[:, None, None]
    down = torch.exp(-(y[..., None] - centre[:, :, None, None, :, 1]).square() * narrow)
    across = torch.exp(-(x[..., None] - centre[:, :, None, None, :, 0]).square() * narrow)
    return (down * height[:, :, None, None]) @ across.transpose(3, 4)


def _likelihood(
    layer: LayerMaps, centre: torch.Tensor, *, where: Expected, height: torch.Tensor, dummy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(filters,) sum over cells of F log P, and of F; P = (sum of A + dummy) / (sum of lambda + dummy) has mass 1."""
    smooth = _bells(layer.y, layer.y) @ layer.maps @ _bells(layer.x, layer.x).T
    narrow = 1 / (2 * where.delta.square())
    down = torch.exp(-(layer.y - centre[..., 1, None]).square() * narrow[..., None]) * height[..., None]
    across = torch.exp(-(layer.x - centre[..., 0, None]).square() * narrow[..., None])
    every = down.transpose(2, 3) @ across
    whole = ((where.factor * (height > 0)).sum(2) + dummy).clamp(min=1e-30)
    p = (every + dummy[..., None, None]) / whole[..., None, None]
    return (smooth * p.clamp(min=1e-30).log()).double().sum((0, 2, 3)), smooth.double().sum((0, 2, 3))
