"""Location stability of filters (survey, eq. 1-2; Zhang et al., arXiv 1710.00935, 5.2.2), beside its baselines.

    d_I = ||p_k - p(mu_hat)|| / sqrt(w^2 + h^2)      D_{f,k} = std_I(d_I), unbiased      D_f = mean_k D_{f,k}

mu_hat is the cell in which filter f is highest in image I, p(mu_hat) its receptive field's centre, p_k the landmark.
Low means steady, and says nothing alone: a filter that always answers at the centre of the picture is steadier than any
ordinary one. So each layer stands beside random and constant positions, and each filter is asked whether it follows
its landmark (R^2 of p(mu_hat) regressed on p_k).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.networks.geometry import LayerGeometry
from microtome.quantify.significance import LEVEL, false_discovery

RANDOM_SEEDS = 200

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Inferences:
    """Where each filter is highest in each image: all arrays are (images, filters).

    Args:
        cell: row-major index of the first highest cell.
        score: its value.
        tied: another cell is as high, and the filter is not silent.
    """

    cell: NDArray[np.int32]
    score: NDArray[np.float32]
    tied: NDArray[np.bool_]

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Nothing in the image is above zero."""
        return self.score <= 0

    def of(self, images: NDArray[np.int64]) -> Inferences:
        """Those of some images."""
        return Inferences(self.cell[images], self.score[images], self.tied[images])

    def filters(self, kept: NDArray[np.bool_]) -> Inferences:
        """Those of some filters."""
        return Inferences(self.cell[:, kept], self.score[:, kept], self.tied[:, kept])


def joined(parts: Sequence[Inferences]) -> Inferences:
    """The inferences of consecutive images as one."""
    return Inferences(
        np.concatenate([part.cell for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.tied for part in parts]),
    )


def infer(maps: NDArray[np.float32]) -> Inferences:
    """The inference of every filter in every image.

    Args:
        maps: (images, filters, rows, columns).
    """
    flat = maps.reshape(*maps.shape[:2], -1)
    cell = flat.argmax(2)
    score = np.take_along_axis(flat, cell[..., None], 2)[..., 0]
    tied = ((flat == score[..., None]).sum(2) > 1) & (score > 0)
    return Inferences(cell.astype(np.int32), score.astype(np.float32), tied)


def cell_centres(layer: LayerGeometry) -> Floats:
    """(cells, 2) x, y of every cell's receptive field centre, in input pixels, cells in row-major order."""
    y, x = (layer.start[axis] + layer.jump[axis] * np.arange(layer.grid[axis]) for axis in (0, 1))
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), 2).reshape(-1, 2).astype(np.float64)


@dataclass(frozen=True)
class Protocol:
    """How deviations are taken.

    Args:
        size: (height, width) of the network's input.
        top_images: of those that show a landmark, the filter's highest-scoring; equal scores in file order.
        firing_only: leave out the images in which a filter is silent.
    """

    size: tuple[int, int]
    top_images: int = 100
    firing_only: bool = False

    @property
    def diagonal(self) -> float:
        """sqrt(w^2 + h^2)."""
        return float(np.hypot(*self.size))


@dataclass(frozen=True)
class LandmarkStability:
    """One category's landmark, for all filters; NaN where a filter has fewer than two images.

    Args:
        images: (filters,) how many count.
        deviation: (filters,) D_{f,k}.
        r2: (filters,) share of the variance of p(mu_hat) that a linear function of p_k explains.
        p_value: (filters,) of r2 under permutation of the landmarks.
        q_value: (filters,) of p_value, Benjamini-Hochberg over the filters.
        score: (filters,) mean score over all images that show the landmark: what the choice of a category goes by.
        top_score: (filters,) mean score of the images that count: what the choice of filters goes by.
        peak: (filters,) the highest of them.
        distance: (images, filters) d_I; 0 where the image does not show the landmark.
        shown: (images, filters) whether it does, and
        counts: (images, filters) whether it is among the filter's top images.
        order: (images, filters) images by falling score, those that show the landmark first.
    """

    images: NDArray[np.int64]
    deviation: Floats
    r2: Floats
    p_value: Floats
    q_value: Floats
    score: Floats
    top_score: Floats
    peak: Floats
    distance: Floats
    shown: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    order: NDArray[np.int64]


def landmark_stability(
    found: Inferences, centres: Floats, landmark: Floats, protocol: Protocol, *, permutations: int, seed: int
) -> LandmarkStability:
    """How steadily each filter sits on a landmark.

    Args:
        found: inferences in the category's images.
        centres: from `cell_centres`.
        landmark: (images, 2) x, y in input pixels; NaN where the image shows none, or several.
        protocol: which images count.
        permutations: for the p-values of R^2.
        seed: of the permutations.
    """
    position = centres[found.cell]
    distance = np.linalg.norm(position - landmark[:, None], axis=2) / protocol.diagonal
    shown = np.isfinite(landmark).all(axis=1, keepdims=True) & (~found.silent | (not protocol.firing_only))
    order = np.argsort(np.where(shown, -found.score.astype(np.float64), np.inf), axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(len(order))[:, None], order.shape), 0)
    counts = shown & (rank < protocol.top_images)
    images = counts.sum(0)
    enough = images >= 2
    r2, p_value = track(position, landmark, counts, permutations=permutations, seed=seed)
    score, top_score = (
        np.where(some, found.score, 0).sum(0, dtype=np.float64) / np.maximum(some.sum(0), 1) for some in (shown, counts)
    )
    peak = np.where(counts, found.score, -np.inf).max(0)
    deviation = np.where(enough, _deviation(np.where(counts, distance, 0.0), counts), np.nan)
    q_value = false_discovery(p_value)
    distance = np.where(shown, distance, 0.0)
    return LandmarkStability(
        images, deviation, r2, p_value, q_value, score, top_score, peak, distance, shown, counts, order
    )


def _deviation(distance: Floats, weight: NDArray[np.int64] | NDArray[np.bool_]) -> Floats:
    """Unbiased standard deviation along axis 0 under integer weights; `distance` must be 0 where the weight is."""
    total = weight.sum(0)
    mean = (distance * weight).sum(0) / np.maximum(total, 1)
    square = (weight * np.square(distance - mean)).sum(0)
    deviation: Floats = np.sqrt(square / np.maximum(total - 1, 1))
    return deviation


def track(
    position: Floats, landmark: Floats, counts: NDArray[np.bool_], *, permutations: int, seed: int
) -> tuple[Floats, Floats]:
    """R^2 of p(mu_hat) regressed on p_k with an intercept, and its p-value under permutation of the landmarks.

    R^2 pools both coordinates: 1 - (residual sum of squares) / (total sum of squares). A constant position explains
    nothing and scores 0 with p = 1. The p-value is (1 + permutations at least as good) / (1 + permutations).

    Args:
        position: (images, filters, 2).
        landmark: (images, 2).
        counts: (images, filters) which images count for which filter.
        permutations: their number; 0 leaves the p-values NaN.
        seed: of the permutations.

    Returns:
        (filters,) R^2 and p; NaN for filters with fewer than two images.
    """
    r2, p_value = np.full(counts.shape[1], np.nan), np.full(counts.shape[1], np.nan)
    for number, members in enumerate(_same_images(counts)):
        rows = np.flatnonzero(counts[:, members[0]])
        if len(rows) < 2:
            continue
        outcome = position[rows][:, members].reshape(len(rows), -1)
        outcome = outcome - outcome.mean(0)
        total = np.square(outcome).sum(0).reshape(-1, 2).sum(1)
        basis = _basis(landmark[rows])
        seen = _explained(basis[None], outcome)[0]
        r2[members] = np.divide(seen, total, out=np.zeros(len(total)), where=total > 0)
        if permutations:
            rng = np.random.default_rng([seed, number])
            orders = rng.permuted(np.tile(np.arange(len(rows)), (permutations, 1)), axis=1)
            chance = _explained(basis[orders], outcome)
            beaten = (chance >= seen * (1 - 1e-12) - 1e-12).sum(0)  # rounding is no evidence
            p_value[members] = (1 + beaten) / (1 + permutations)
    return r2, p_value


def _same_images(counts: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Filters in groups of those for which the same images count."""
    _, group = np.unique(counts, axis=1, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group.ravel()[order])) + 1)


def _basis(points: Floats) -> Floats:
    """(points, <= 2) orthonormal basis of centred coordinates."""
    centred = points - points.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, size > 1e-9 * max(size[0], 1e-12)]


def _explained(bases: Floats, outcome: Floats) -> Floats:
    """(bases, filters) sum of squares of (points, 2 x filters) outcomes that each basis explains."""
    share = np.square(np.swapaxes(bases, 1, 2) @ outcome).sum(1)
    together: Floats = share.reshape(len(bases), -1, 2).sum(2)
    return together


@dataclass(frozen=True)
class Baselines:
    """What positions reach that know nothing of the filter, as means over landmarks of D.

    Args:
        random, random_sd: uniform cells of the grid, mean and deviation over RANDOM_SEEDS seeds.
        centre: the constant centre of the input.
        best_constant: the constant cell that is best for all landmarks together, and
        best_cell: which one it is.
        best_by_landmark: (landmarks,) that cell's D for each landmark.
    """

    random: float
    random_sd: float
    centre: float
    best_constant: float
    best_cell: int
    best_by_landmark: Floats


def baselines(centres: Floats, landmarks: Sequence[Floats], protocol: Protocol, *, seed: int = 0) -> Baselines:
    """Baselines of one category, over all its annotated images.

    Args:
        centres: from `cell_centres`.
        landmarks: per landmark (images, 2) in the same images, NaN where there is none.
        protocol: for the size of the input.
        seed: of the random cells.

    Raises:
        ValueError: no landmark is shown in two images.
    """
    height, width = protocol.size
    kept = [marks for marks in landmarks if np.isfinite(marks).all(1).sum() >= 2]
    if not kept:
        raise ValueError("baselines need a landmark that two images show, got none")

    def score(positions: Floats) -> Floats:
        """(landmarks, candidates) D of (images or 1, candidates, 2) positions."""
        return np.stack([_spread_of_distance(positions, marks, protocol.diagonal) for marks in kept])

    constant = score(centres[None])
    best = int(constant.mean(0).argmin())
    rng = np.random.default_rng([seed, 1])
    cells = rng.integers(len(centres), size=(len(landmarks[0]), RANDOM_SEEDS))
    chance = score(centres[cells]).mean(0)
    centre = score(np.array([[[width / 2, height / 2]]])).mean()
    return Baselines(
        float(chance.mean()), float(chance.std(ddof=1)), float(centre), float(constant.mean(0)[best]), best,
        np.array([_spread_of_distance(centres[None, [best]], marks, protocol.diagonal)[0] for marks in landmarks]),
    )  # fmt: skip


def _spread_of_distance(positions: Floats, marks: Floats, diagonal: float) -> Floats:
    shown = np.isfinite(marks).all(1)
    where = positions[shown] if len(positions) > 1 else positions
    if shown.sum() < 2:
        return np.full(positions.shape[1], np.nan)
    deviation: Floats = (np.linalg.norm(where - marks[shown, None], axis=2) / diagonal).std(0, ddof=1)
    return deviation


@dataclass(frozen=True)
class Spread:
    """How much each filter's own position moves: (filters,).

    Args:
        deviation: sqrt(var x + var y) / diagonal.
        entropy: of the distribution over cells, in bits.
    """

    deviation: Floats
    entropy: Floats


def spread(found: Inferences, centres: Floats, protocol: Protocol) -> Spread:
    """Spread of the inferences over all given images."""
    position = centres[found.cell]
    deviation = np.sqrt(position.var(0, ddof=1).sum(1)) / protocol.diagonal
    entropy = np.zeros(found.cell.shape[1])
    for number, cells in enumerate(found.cell.T):
        share = np.bincount(cells) / len(cells)
        share = share[share > 0]
        entropy[number] = max(0.0, float(-(share * np.log2(share)).sum()))
    return Spread(deviation, entropy)


@dataclass(frozen=True)
class CategoryStability:
    """One category: its landmarks, filters and baselines.

    Args:
        name: the category.
        landmarks: by name.
        deviation: (filters,) D_f, NaN for NULL filters.
        score: (filters,) mean score over the images, and over landmarks.
        reasons: (filters,) why a filter is NULL; empty where it is not.
        baselines: what it has to beat.
        spread: of the filters' own positions.
        localising: landmark -> (filters,) beats the best constant cell there, or tracks the landmark.
        tracking: (filters,) tracks at least one landmark, at a false discovery rate of 5 %.
    """

    name: str
    landmarks: Mapping[str, LandmarkStability]
    deviation: Floats
    score: Floats
    reasons: Sequence[str]
    baselines: Baselines
    spread: Spread
    localising: Mapping[str, NDArray[np.bool_]]
    tracking: NDArray[np.bool_]


def category_stability(
    name: str,
    found: Inferences,
    layer: LayerGeometry,
    landmarks: Mapping[str, Floats],
    *,
    protocol: Protocol,
    permutations: int = 1000,
    seed: int = 0,
    centres: Floats | None = None,
) -> CategoryStability:
    """Stability of a layer's filters in one category's images.

    Args:
        name: the category.
        found: inferences in its images.
        layer: geometry of the layer.
        landmarks: by name (images, 2) x, y in input pixels, NaN where an image shows none or several.
        protocol: which images count.
        permutations, seed: of the tracking test.
        centres: (positions, 2) that `found.cell` counts through, where those are not the layer's cells.
    """
    grid = cell_centres(layer)
    centres = grid if centres is None else centres
    each = {
        key: landmark_stability(found, centres, marks, protocol, permutations=permutations, seed=seed)
        for key, marks in landmarks.items()
    }
    bases = baselines(grid, list(landmarks.values()), protocol, seed=seed)
    reasons = _reasons(each)
    null = np.array([bool(reason) for reason in reasons])
    deviation = np.where(null, np.nan, np.mean([mark.deviation for mark in each.values()], axis=0))
    localising = {
        key: ~null & ((mark.deviation < limit) | (mark.q_value <= LEVEL))
        for (key, mark), limit in zip(each.items(), bases.best_by_landmark, strict=True)
    }
    tracking = ~null & np.any([mark.q_value <= LEVEL for mark in each.values()], axis=0)
    score = np.mean([mark.score for mark in each.values()], axis=0)
    return CategoryStability(
        name, each, deviation, score, reasons, bases, spread(found, centres, protocol), localising, tracking
    )


def _reasons(landmarks: Mapping[str, LandmarkStability]) -> list[str]:
    filters = len(next(iter(landmarks.values())).images)
    reasons = [""] * filters
    for number in range(filters):
        few = [name for name, mark in landmarks.items() if mark.images[number] < 2]
        dark = [name for name, mark in landmarks.items() if mark.images[number] >= 2 and mark.peak[number] <= 0]
        if few:
            reasons[number] = f"fewer than 2 images for {', '.join(few)}"
        elif dark:
            reasons[number] = "silent: its highest score is not above 0"
    return reasons


def resampled(
    categories: Sequence[CategoryStability], protocol: Protocol, *, resamples: int, seed: int
) -> NDArray[np.float64]:
    """(resamples, categories, filters) D_f over images drawn anew with replacement, within each category.

    A filter's top images are chosen anew in every resample, its NULL stays. Which category a filter is judged in is
    for the caller to hold: chosen anew, the lowest of several noisy values would fall below the lowest of the truth.
    Two layers, or two networks, over the same images and seed share their resamples: their difference is paired.
    """
    out = np.full((resamples, len(categories), len(categories[0].deviation)), np.nan)
    for number, item in enumerate(categories):
        rng = np.random.default_rng([seed, number])
        images = len(next(iter(item.landmarks.values())).distance)
        weights = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
        alive = np.isfinite(item.deviation)
        for place, weight in enumerate(weights):
            values = [_resampled_deviation(mark, weight, protocol.top_images) for mark in item.landmarks.values()]
            out[place, number, alive] = np.mean(values, axis=0)[alive]
    return out


def _resampled_deviation(mark: LandmarkStability, weight: NDArray[np.int64], top: int) -> Floats:
    if (weight[:, None] * mark.shown).sum(0).max(initial=0) <= top:  # all that show it count: no order to follow
        return _deviation(mark.distance, weight[:, None] * mark.shown)
    drawn = weight[mark.order] * np.take_along_axis(mark.shown, mark.order, 0)
    before = np.cumsum(drawn, 0) - drawn
    taken = np.clip(top - before, 0, drawn)
    return _deviation(np.take_along_axis(mark.distance, mark.order, 0), taken)
