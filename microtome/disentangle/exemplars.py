"""A part by what its boxes look like and by where they are: one template, one place, weighed by leave-one-out.

    z(c)  = v(c) / |v(c)|,   mu = mean of z over all cells         v: the layer's vector at cell c
    T(d)  = mean over boxes of z(b + d) - mu                       b: the boxed cell, d: steps of a square about it
    s(c)  = sum_d g(d) T(d) . z(c + d) / sum_d g(d)                g: Gauss of `spread` cells
    P(c) ~= exp(beta s(c)) N(c; m, S)                              m, S: of the boxes' centres, S shrunk to a broad one
    place = sum_c P(c) c

Cells outside the frame do not count. `beta` says how much looks count beside the place: 0 gives the mean position of
the boxes, a high one the best match. `spread` says how much of what is about the part counts. Both are chosen for each
set of boxes: those under which each box is likeliest by all the others, log(beta) being drawn towards log(BETA).
Everything is in relative image coordinates, x and y in 0..1. The constants were chosen on cats, dogs and creatures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from microtome.disentangle.parts import Boxes

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
SPREADS = (1.5, 2.5, 4.0)  # cells: deviation of the weights about the boxed one
REACH = 1.5  # spreads: half the side of the square
BETA = 60.0  # of looks, where the boxes say nothing
BETAS = (10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0, 160.0, 240.0)
DOUBT = 0.5  # deviation of log(beta) about log(BETA)
BROAD = 0.3  # deviation of a part's place, of which nothing is known
PSEUDO = 3.0  # boxes that BROAD counts for
TOLERANCE = 0.75  # jumps: how far from a cell's centre a part may be that is in it


@dataclass(frozen=True)
class Looks:
    """What every cell of a layer looks like.

    Args:
        vectors: (images, rows, columns, filters) of length 1, or 0 where a cell has nothing above zero.
        mean: (filters,) over all cells of all images.
        x, y: (columns,) and (rows,) centres of the cells in the frame.
    """

    vectors: Vectors
    mean: Vectors
    x: Floats
    y: Floats

    @classmethod
    def of(cls, maps: Vectors, x: Floats, y: Floats) -> Looks:
        """Of a layer's maps.

        Args:
            maps: (images, filters, rows, columns).
            x, y: centres of the cells in the frame.
        """
        vectors = np.ascontiguousarray(maps.transpose(0, 2, 3, 1), np.float32)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=3, keepdims=True), 1e-12)
        return cls(vectors, vectors.mean((0, 1, 2), dtype=np.float64).astype(np.float32), x, y)

    def joined(self, other: Looks) -> Looks:
        """These images, then others, judged beside the mean of these."""
        return Looks(np.concatenate([self.vectors, other.vectors]), self.mean, self.x, self.y)

    @property
    def cells(self) -> Floats:
        """(cells, 2) x, y of their centres, row by row."""
        return np.stack(np.meshgrid(self.x, self.y), -1).reshape(-1, 2)

    @property
    def jump(self) -> float:
        """Between neighbouring cells, the wider of both ways."""
        steps = [float(axis[1] - axis[0]) for axis in (self.x, self.y) if len(axis) > 1]
        return max(steps, default=1.0)

    def cell(self, place: tuple[float, float]) -> tuple[int, int]:
        """Row and column of the cell that is nearest to a place."""
        return int(np.abs(self.y - place[1]).argmin()), int(np.abs(self.x - place[0]).argmin())


def exemplar(looks: Looks, boxes: Boxes) -> Floats:
    """Rival: the cell of the highest cosine with any boxed cell, moved by what that box's centre lies off its cell.

    Returns:
        (images, 2).
    """
    flat = looks.vectors.reshape(len(looks.vectors), -1, looks.vectors.shape[3])
    best, where = np.full(len(flat), -np.inf), np.zeros((len(flat), 2))
    for image, centre in boxes.items():
        row, column = looks.cell(centre)
        cosine = flat @ looks.vectors[image, row, column]
        nearer = cosine.max(1) > best
        found = looks.cells[cosine.argmax(1)] + np.array(centre) - (looks.x[column], looks.y[row])
        best[nearer], where[nearer] = cosine.max(1)[nearer], found[nearer]
    return where


def template(looks: Looks, boxes: Boxes, spread: float) -> Vectors:
    """(side, side, filters) T: mean over boxes of what is about them, less the mean of all cells; 0 where unseen."""
    reach = _reach(spread)
    side = 2 * reach + 1
    total, count = np.zeros((side, side, len(looks.mean)), np.float32), np.zeros((side, side, 1), np.float32)
    for image, centre in boxes.items():
        row, column = looks.cell(centre)
        (there_y, here_y), (there_x, here_x) = _about(row, len(looks.y), reach), _about(column, len(looks.x), reach)
        total[here_y, here_x] += looks.vectors[image, there_y, there_x] - looks.mean
        count[here_y, here_x] += 1
    total /= np.maximum(count, 1)
    return total


def _reach(spread: float) -> int:
    """Cells on each side of the boxed one."""
    return round(REACH * spread)


def _about(at: int, size: int, reach: int) -> tuple[slice, slice]:
    """Cells of the frame in a window about a cell, and which of the window's they are."""
    first, last = max(0, at - reach), min(size, at + reach + 1)
    return slice(first, last), slice(first - at + reach, last - at + reach)


def matched(looks: Looks, wanted: Vectors, images: NDArray[np.int64], spread: float) -> Floats:
    """(images, cells) s: how much every cell, and what is about it, looks like a template.

    Args:
        looks: of all images.
        wanted: from `template`.
        images: numbers of those to look in.
        spread: of the template.
    """
    vectors, reach = looks.vectors[images], _reach(spread)
    count, rows, columns, filters = vectors.shape
    product = vectors.reshape(-1, filters) @ wanted.reshape(-1, filters).T
    product = product.reshape(count, rows, columns, *wanted.shape[:2])
    total, weight = np.zeros((count, rows, columns)), np.zeros((rows, columns))
    for down in range(-min(reach, rows - 1), min(reach, rows - 1) + 1):
        (to_y, from_y) = _shifted(down, rows)
        for right in range(-min(reach, columns - 1), min(reach, columns - 1) + 1):
            (to_x, from_x) = _shifted(right, columns)
            share = np.exp(-(down**2 + right**2) / (2 * spread**2))
            total[:, to_y, to_x] += share * product[:, from_y, from_x, down + reach, right + reach]
            weight[to_y, to_x] += share
    return (total / weight).reshape(count, -1)


def _shifted(step: int, size: int) -> tuple[slice, slice]:
    """Cells whose neighbour so many steps on is in the frame, and these neighbours."""
    return slice(max(0, -step), size - max(0, step)), slice(max(0, step), size + min(0, step))


def placed(looks: Looks, boxes: Boxes) -> Floats:
    """(cells,) log N(c; m, S) but for its constant.

    S is diagonal: (n variance + PSEUDO BROAD^2) / (n + PSEUDO), of n boxes.
    """
    centres = np.array(list(boxes.values()))
    count = len(centres)
    variance = centres.var(0, ddof=1) if count > 1 else np.zeros(2)
    variance = (count * variance + PSEUDO * BROAD**2) / (count + PSEUDO)
    log: Floats = -(np.square(looks.cells - centres.mean(0)) / (2 * variance)).sum(1)
    return log


@dataclass(frozen=True)
class Weighing:
    """What is chosen for a set of boxes: how much looks count beside the place, and how many cells about it."""

    beta: float
    spread: float


def weighed(looks: Looks, boxes: Boxes) -> Weighing:
    """The weighing under which each box is likeliest by all the others.

    A box's likelihood is that of its centre under the mixture of Gausses of TOLERANCE jumps about the cells, each with
    the P of its cell; log(beta) is drawn towards log(BETA) by a Gauss of DOUBT.

    Args:
        looks: of all images.
        boxes: two at least.
    """
    betas = np.array(BETAS)
    worth = np.tile(-np.square(np.log(betas / BETA)) / (2 * DOUBT**2), (len(SPREADS), 1))
    for image, centre in boxes.items():
        others = {other: place for other, place in boxes.items() if other != image}
        place = placed(looks, others)
        there = -np.square(looks.cells - centre).sum(1) / (2 * (TOLERANCE * looks.jump) ** 2)
        for row, spread in zip(worth, SPREADS, strict=True):
            score = matched(looks, template(looks, others, spread), np.array([image]), spread)
            log = betas[:, None] * score + place
            row += logsumexp(log + there, axis=1) - logsumexp(log, axis=1)
    which, beta = np.unravel_index(worth.argmax(), worth.shape)
    return Weighing(BETAS[beta], SPREADS[which])


def blend(looks: Looks, boxes: Boxes) -> tuple[Floats, Weighing]:
    """Locate a part in all images.

    Args:
        looks: of all images.
        boxes: centre of the part's box in each annotated image.

    Returns:
        (images, 2) x, y in the frame, and what was chosen.

    Raises:
        ValueError: fewer than two boxes.
    """
    if len(boxes) < 2:
        raise ValueError(f"a blend needs two boxes or more, got {len(boxes)}")
    chosen = weighed(looks, boxes)
    score = matched(looks, template(looks, boxes, chosen.spread), np.arange(len(looks.vectors)), chosen.spread)
    log = chosen.beta * score + placed(looks, boxes)
    where: Floats = np.exp(log - logsumexp(log, axis=1, keepdims=True)) @ looks.cells
    return where, chosen
