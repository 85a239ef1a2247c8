"""Anchors: patches of a graph's top layer that are found again in every picture, wherever they are.

    z(c) = v(c) / |v(c)| - mean                        v: the layer's vector at cell c; mean over all training cells
    s(c) = sum_d g(d) T(d) . z(c + d) / sum_d g(d)     T: the anchor's template; g: Gauss of SPREAD
    P(c) ~= exp(BETA s(c) / deviation of s)            no cell is likelier before the picture is seen
    p    = sum_c P(c) c

They are learned without labels, from training pictures and copies of them that were moved by known offsets o. Patches
drawn at random are found again in every picture and averaged over the better half, a few times. With p and q the places
of an anchor before and after,

    slope = sum_xy cov(o, q - p) / sum_xy var(o)
    sigma^2 = mean over pictures of ||(q - p) / slope - o||^2 / 4                of one place, along one axis
    doubt = mean over pictures of sum_c P(c) ||c - p||^2 / 2 / slope^2           the same

Of the half with the least sigma, which follows what is shown, those with the least doubt are kept: what is found in one
place of a picture, and not in several. A picture has one displacement, on which all of them agree:

    d = mean over anchors of (p - home) / slope;  d' of the same picture, moved
    error^2 = mean over training pictures of ||d' - d - o||^2 / 4                of one d, along one axis
    usual^2 = variance of d over training pictures and their moved copies, along one axis, less error^2; at least 0
    unsure  = mean over anchors of sum_c P(c) ||c - p||^2 / 2 / slope^2          of one picture
    displacement = usual^2 / (usual^2 + error^2 + unsure) d

the mean of what it may be, once d is measured: Gauss's, about 0 before. So a picture counts as it is where its anchors
are found in one place, and as usual where they are not. All places are relative image coordinates. The constants were
chosen on cats, dogs and creatures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from microtome.disentangle.graph_inference import LayerMaps, Seen, Upper

PATCHES = 300  # drawn at random
KEPT = 30  # those of the half that follows best whose place is least in doubt
ROUNDS = 3
DIRECTIONS = 64  # of the vectors' space, those along which they vary most
SPREAD = 0.19  # of the weights about a patch's centre, in the frame
BETA = 10.0
LEAST_SLOPE, MOST_SLOPE = 0.2, 1.5
LEAST_SIGMA = 0.02


@dataclass(frozen=True)
class Anchors:
    """Learned anchors.

    Args:
        mean: (filters,) of the unit vectors.
        basis: (filters, directions) orthonormal.
        templates: (anchors, directions, side, side) g T.
        weights: (side, side) g.
        scale: (anchors,) deviation of s over the training cells.
        home: (anchors, 2) x, y: mean place in the training pictures and their moved copies.
        usual: (anchors,) mean over the training pictures of the highest s / scale.
        slope: (anchors,) on the offset, by which displacements are divided.
        sigma: (anchors,) deviation of a displacement, along one axis.
        usual_move, error: () deviations of what they agree on, along one axis: of displacements, and of measuring one.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    templates: torch.Tensor
    weights: torch.Tensor
    scale: torch.Tensor
    usual: torch.Tensor
    home: torch.Tensor
    slope: torch.Tensor
    sigma: torch.Tensor
    usual_move: torch.Tensor
    error: torch.Tensor

    def sureness(self, seen: Seen) -> torch.Tensor:
        """(pictures, anchors) BETA times the highest s / scale, less what it is in training pictures: in logarithms.

        Args:
            seen: the anchors in the pictures.
        """
        return BETA * (seen.score[:, 0] - self.usual)

    def above(self, layer: LayerMaps) -> tuple[Upper, Seen]:
        """The anchors in some pictures, as the parents of the layer's nodes.

        Args:
            layer: (pictures, all filters of the layer, rows, columns), as they come from the network.
        """
        fields = fields_of(layer.maps, self.mean, self.basis)
        found = torch.stack([similarity(field, self.templates, self.weights) for field in fields])
        found = found / self.scale[:, None, None]
        place, doubt = places(found, layer.x, layer.y)
        unsure = (doubt / self.slope.square()).mean(1, keepdim=True)
        measured = agreed(place, self.home, self.slope)
        moved = likeliest(measured, self.usual_move, (self.error.square() + unsure).sqrt())
        moved, score = moved[:, None].expand_as(place), found.flatten(2).amax(2)
        return Upper(moved, self.sigma, follows=True), anchors_seen(self.home + moved, score)


def anchors_seen(position: torch.Tensor, score: torch.Tensor) -> Seen:
    """Anchors as if they were the nodes of one filter: (pictures, anchors, 2) and (pictures, anchors)."""
    none = position.new_zeros(1, position.shape[1])
    return Seen(
        none, position.new_zeros(1, position.shape[1], 2), none, position[:, None], score[:, None],
        log_likelihood=position.new_zeros(1), weight=position.new_zeros(1), delta=none,
    )  # fmt: skip


def learn_anchors(
    layer: LayerMaps,
    moved: LayerMaps,
    offset: torch.Tensor,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Anchors:
    """Learn the anchors of a layer.

    Args:
        layer: (pictures, all filters, rows, columns) of the training pictures, as they come from the network.
        moved: of the same pictures, moved.
        offset: (pictures, 2) x, y by which what is shown moved, in the frame.
        seed: of the patches.
        advance: told after every round.
    """
    mean, basis = _directions(layer.maps)
    fields = torch.cat([fields_of(maps, mean, basis) for maps in (layer.maps, moved.maps)])
    weights = patch_weights(layer)
    templates = _patches(fields, weights, torch.Generator().manual_seed(seed))
    for _ in range(ROUNDS):
        templates = _refound(fields, templates, weights)
        advance(1)
    found = torch.stack([similarity(field, templates, weights) for field in fields])
    scale = found[: len(offset)].transpose(0, 1).flatten(1).double().std(1).clamp(min=1e-12).to(found)
    found = found / scale[:, None, None]
    where, doubts = places(found, layer.x, layer.y)
    slope, sigma = followed(where[: len(offset)], where[len(offset) :], offset)
    doubt = doubts[: len(offset)].mean(0) / slope.square()
    kept = chosen_anchors(sigma, doubt)
    usual = found[: len(offset)].flatten(2).amax(2).mean(0)
    scale, usual, home, slope, sigma = (own[kept] for own in (scale, usual, where.mean(0), slope, sigma))
    moves = agreed(where[:, kept], home, slope)
    spread = usual_and_error(moves[: len(offset)], moves[len(offset) :], offset)
    return Anchors(mean, basis, templates[kept], weights, scale, usual, home, slope, sigma, *spread)


def agreed(place: torch.Tensor, home: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """(pictures, 2) d: the displacement on which anchors agree.

    Args:
        place: (pictures, anchors, 2).
        home, slope: (anchors, 2) and (anchors,).
    """
    return ((place - home) / slope[:, None]).mean(1)


def usual_and_error(
    before: torch.Tensor, after: torch.Tensor, offset: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """() deviation of displacements, and () that of measuring one, along one axis.

    Args:
        before, after: (pictures, 2) d of pictures, and of the same moved.
        offset: (pictures, 2) by which.
    """
    error = (after - before - offset).square().sum(1).mean() / 4
    both = torch.cat([before, after])
    whole = (both - both.mean(0)).square().sum(1).mean() / 2
    return (whole - error).clamp(min=0).sqrt(), error.sqrt()


def likeliest(measured: torch.Tensor, usual: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """(pictures, 2) displacements: means of the Gauss that is left of one about 0, `usual` wide, by a measurement.

    Args:
        measured: (pictures, 2).
        usual: () deviation of displacements, along one axis.
        error: (pictures, 1) of measuring each, along one axis.
    """
    whole = usual.square() + error.square()
    return measured * usual.square() / whole.clamp(min=1e-12)


def followed(before: torch.Tensor, after: torch.Tensor, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope of displacements on offsets, within limits, and sigma of what is left once they are divided by it.

    Args:
        before, after: (pictures, positions, 2).
        offset: (pictures, 2).

    Returns:
        (positions,) each.
    """
    apart = after - before
    centred, own = offset - offset.mean(0), apart - apart.mean(0)
    slope = (own * centred[:, None]).sum((0, 2)) / centred.square().sum().clamp(min=1e-12)
    slope = slope.clamp(LEAST_SLOPE, MOST_SLOPE)
    left = apart / slope[:, None] - offset[:, None]
    return slope, (left.square().sum(2).mean(0) / 4).sqrt().clamp(min=LEAST_SIGMA)


def chosen_anchors(sigma: torch.Tensor, doubt: torch.Tensor) -> torch.Tensor:
    """Places of the KEPT anchors with the least doubt among the half with the least sigma, the best first.

    Args:
        sigma, doubt: (anchors,).
    """
    follow = torch.argsort(sigma, stable=True)[: (len(sigma) + 1) // 2]
    return follow[torch.argsort(doubt[follow], stable=True)[:KEPT]]


def unit_vectors(maps: torch.Tensor) -> torch.Tensor:
    """(pictures, filters, rows, columns) of length 1, or 0 where a cell has nothing."""
    length: torch.Tensor = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    return maps / length.clamp(min=1e-12)


def fields_of(maps: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """(pictures, directions, rows, columns) z in the basis: one product a picture, whoever else is there."""
    return torch.stack(
        [torch.einsum("fyx,fd->dyx", unit_vectors(one[None])[0] - mean[:, None, None], basis) for one in maps]
    )


def _directions(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the unit vectors, and the directions along which they vary most about it."""
    vectors = unit_vectors(maps).permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = vectors.mean(0)
    apart = vectors - mean
    _, directions = torch.linalg.eigh(apart.T @ apart)  # by rising variance
    basis = directions.flip(1)[:, :DIRECTIONS]
    return mean.to(maps), basis.contiguous().to(maps)


def patch_weights(layer: LayerMaps) -> torch.Tensor:
    """(side, side) g: Gauss of SPREAD about the middle cell; it reaches a little more than SPREAD."""
    reach = _reach(layer)
    steps = torch.arange(-reach, reach + 1).to(layer.maps)
    across, down = (torch.exp(-(steps * _jump(axis)).square() / (2 * SPREAD**2)) for axis in (layer.x, layer.y))
    return down[:, None] * across


def _jump(axis: torch.Tensor) -> float:
    return float(axis[1] - axis[0]) if len(axis) > 1 else 1.0


def _reach(layer: LayerMaps) -> int:
    return max(1, math.ceil(SPREAD / min(_jump(layer.x), _jump(layer.y))))


def similarity(field: torch.Tensor, templates: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """s of every anchor at every cell; cells beyond the frame do not count.

    Args:
        field: (directions, rows, columns) of one picture.
        templates: (anchors, directions, side, side) g T.
        weights: (side, side) g.

    Returns:
        (anchors, rows, columns).
    """
    side, (rows, columns) = len(weights), field.shape[1:]
    windows = functional.unfold(field[None], side, padding=side // 2)[0]  # (directions x side x side, cells)
    inside = functional.unfold(torch.ones_like(field[None, :1]), side, padding=side // 2)[0]
    total = weights.flatten() @ inside
    return (templates.flatten(1) @ windows / total).reshape(-1, rows, columns)


def places(found: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean places under exp(BETA s), and their variances along one axis.

    Args:
        found: (pictures, anchors, rows, columns) s, in deviations.
        x, y: centres of columns and rows.

    Returns:
        (pictures, anchors, 2) and (pictures, anchors).
    """
    chance = (BETA * found).flatten(2).softmax(2).reshape(found.shape)
    axes = (x.to(found), y.to(found))
    chances = (chance.sum(2), chance.sum(3))  # of each column, and of each row
    place = torch.stack([(own * axis).sum(2) for own, axis in zip(chances, axes, strict=True)], 2)
    apart = [(axis - place[..., [number]]).square() for number, axis in enumerate(axes)]
    variance = torch.stack([(far * own).sum(2) for far, own in zip(apart, chances, strict=True)]).mean(0)
    return place, variance


def _patches(fields: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Templates of cells drawn at random, none at the border."""
    count, _, rows, columns = fields.shape
    side = len(weights)
    draw = [
        torch.randint(high, (PATCHES,), generator=generator) for high in (count, max(1, rows - 2), max(1, columns - 2))
    ]
    padded = functional.pad(fields, (side // 2,) * 4)
    found = []
    for picture, row, column in zip(*(values.tolist() for values in draw), strict=True):
        row, column = min(row + 1, rows - 1), min(column + 1, columns - 1)
        found.append(padded[picture, :, row : row + side, column : column + side])
    return _normal(torch.stack(found) * weights)


def _normal(templates: torch.Tensor) -> torch.Tensor:
    length: torch.Tensor = torch.linalg.vector_norm(templates.flatten(1), dim=1)
    return templates / length.clamp(min=1e-12)[:, None, None, None]


def _refound(fields: torch.Tensor, templates: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean of what is about each anchor's best cells, in the half of the pictures where it is likest."""
    side, columns = len(weights), fields.shape[3]
    best = [similarity(field, templates, weights).flatten(1).max(1) for field in fields]
    height, cell = torch.stack([own.values for own in best]), torch.stack([own.indices for own in best])
    half = torch.argsort(-height, dim=0, stable=True)[: (len(fields) + 1) // 2]
    padded = functional.pad(fields, (side // 2,) * 4)
    found = []
    for anchor in range(len(templates)):
        windows = [
            padded[picture, :, place // columns : place // columns + side, place % columns : place % columns + side]
            for picture, place in zip(half[:, anchor].tolist(), cell[half[:, anchor], anchor].tolist(), strict=True)
        ]
        found.append(torch.stack(windows).mean(0))
    return _normal(torch.stack(found) * weights)
