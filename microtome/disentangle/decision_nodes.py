"""Fit a node of the decision tree to the rationales of its images (arXiv 1802.00121, equation 5).

    h(x) = w^T x + b,   w = alpha * g_bar,   g_bar = the normalised sum of the unit g_i
    (alpha, b) = argmin (1/n) sum_i (w^T x_i + b - y_i)^2 + lambda ||alpha||_1,   alpha in {0, 1}^D

alpha is relaxed to [0, 1] and starts at 1; STEPS projected gradient steps stop it where the fit has settled, and long
before lambda, a millionth, decides: run on, it would empty the node down to fewer filters than it has images. Then
alpha = [alpha >= 0.5], and b is fitted again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STEPS = 50
POWER_STEPS = 10
PENALTY = 1e-6
MARGIN = 1.1  # on the power method's estimate, which comes from below
SELECTIONS = ("projected", "lasso")


@dataclass(frozen=True)
class NodeFit:
    """A fitted node: w (filters,), b, and which filters it keeps (filters,)."""

    w: Floats
    b: float
    kept: NDArray[np.bool_]


def fit_node(x: Floats, g: Floats, y: Floats, selection: str = "projected") -> NodeFit:
    """The node of some images; of one image its own rationale.

    Args:
        x, g: (images, filters), g unit vectors.
        y: (images,).
        selection: `projected`, or `lasso`: a plain Lasso with an intercept, as published ports have it.

    Raises:
        ValueError: an unknown selection.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, got {selection!r}")
    if len(x) == 1:
        return NodeFit(g[0], float(y[0] - x[0] @ g[0]), np.ones(x.shape[1], bool))
    direction = g.sum(0)
    direction = direction / max(float(np.linalg.norm(direction)), 1e-30)
    parts = x * direction
    kept = (_projected if selection == "projected" else _lasso)(parts - parts.mean(0), y - y.mean())
    w = direction * kept
    return NodeFit(w, float((y - x @ w).mean()), kept)


def _projected(parts: Floats, y: Floats) -> NDArray[np.bool_]:
    images = len(parts)
    vector = np.ones(parts.shape[1])
    for _ in range(POWER_STEPS):
        vector = parts.T @ (parts @ vector)
        vector /= max(float(np.linalg.norm(vector)), 1e-30)
    steepest = 2 / images * float(np.square(parts @ vector).sum()) * MARGIN
    if steepest <= 0:
        return np.ones(parts.shape[1], bool)
    penalty = PENALTY * np.sqrt(images)
    alpha = np.ones(parts.shape[1])
    for _ in range(STEPS):
        slope = 2 / images * (parts.T @ (parts @ alpha - y)) + penalty
        alpha = np.clip(alpha - slope / steepest, 0, 1)
    return alpha >= 0.5


def _lasso(parts: Floats, y: Floats) -> NDArray[np.bool_]:
    from sklearn.linear_model import LassoLars  # exact; coordinate descent has not settled at so small a penalty

    model = LassoLars(alpha=PENALTY * np.sqrt(len(parts)) / 2, fit_intercept=True)
    kept: NDArray[np.bool_] = np.asarray(model.fit(parts, y).coef_) != 0
    return kept


@dataclass(frozen=True)
class FittedUnions:
    """Fitted unions of pairs of nodes.

    Args:
        direction: (pairs, filters) w / ||w||, float32.
        length: (pairs,) ||w||.
        b: (pairs,).
    """

    direction: torch.Tensor
    length: torch.Tensor
    b: torch.Tensor


def fit_leaf_pairs(x: torch.Tensor, g: torch.Tensor, y: torch.Tensor, pairs: torch.Tensor) -> FittedUnions:
    """Unions of two single images each, all at once.

    Args:
        x, g: (images, filters) float32.
        y: (images,).
        pairs: (pairs, 2) numbers of images.
    """
    one, two = pairs[:, 0], pairs[:, 1]
    direction = torch.nn.functional.normalize(g[one] + g[two], dim=1, eps=1e-30)
    # Two centred images are +-half their difference: everything happens on a line.
    half = (x[one] - x[two]) * direction / 2
    wanted = (y[one] - y[two]) / 2
    steepest = (2 * half.square().sum(1) * MARGIN).clamp(min=1e-30)
    rate = (1 / steepest)[:, None]
    alpha = torch.ones_like(half)
    penalty = PENALTY * 2**0.5
    for _ in range(STEPS):
        error = (half * alpha).sum(1) - wanted
        alpha.sub_((2 * error[:, None] * half + penalty) * rate).clamp_(0, 1)
    w = direction * (alpha >= 0.5)
    b = (y[one] + y[two] - ((x[one] + x[two]) * w).sum(1)) / 2
    return _unions(w, b)


@dataclass(frozen=True)
class Members:
    """Images sorted into nodes.

    Args:
        x, g: (images, filters) float32.
        y: (images,).
        node: (images,) which node each is in, 0 .. nodes - 1.
        nodes: how many.
    """

    x: torch.Tensor
    g: torch.Tensor
    y: torch.Tensor
    node: torch.Tensor
    nodes: int

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over each node's images: (nodes, ...)."""
        total = values.new_zeros(self.nodes, *values.shape[1:])
        return total.index_add_(0, self.node, values)


def fit_unions(own: Members, others: Members) -> FittedUnions:
    """Unions of one node with each of several others, all at once.

    Args:
        own: the images of the one node (`nodes` is 1).
        others: those of the others.
    """
    count = torch.bincount(others.node, minlength=others.nodes).to(own.y) + len(own.y)
    direction = torch.nn.functional.normalize(others.sums(others.g) + own.g.sum(0), dim=1, eps=1e-30)
    problem = _Problem(own, others, direction, count)
    steepest = problem.steepest()
    alpha = torch.ones_like(direction)
    penalty = (PENALTY * count.sqrt())[:, None]
    for _ in range(STEPS):
        alpha = (alpha - (problem.slope(alpha) + penalty) / steepest[:, None]).clamp_(0, 1)
    w = direction * (alpha >= 0.5)
    error_own, error_others = problem.errors(w)
    return _unions(w, -(error_own.sum(0) + others.sums(error_others)) / count)


class _Problem:
    """The least squares problems of `fit_unions`: the one node's images are shared by all of them."""

    def __init__(self, own: Members, others: Members, direction: torch.Tensor, count: torch.Tensor) -> None:
        self._own, self._others, self._direction, self._count = own, others, direction, count

    def errors(self, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """w^T x - y: (own images, nodes) and (other images,)."""
        own = self._own.x @ w.T - self._own.y[:, None]
        return own, (self._others.x * w[self._others.node]).sum(1) - self._others.y

    def slope(self, alpha: torch.Tensor) -> torch.Tensor:
        """(nodes, filters) gradient of the mean squared error."""
        return self._back(*self._centred(*self.errors(alpha * self._direction)))

    def steepest(self) -> torch.Tensor:
        """(nodes,) largest curvature, by the power method."""
        vector = torch.ones_like(self._direction)
        for _ in range(POWER_STEPS + 1):
            vector = torch.nn.functional.normalize(vector, dim=1, eps=1e-30)
            own = self._own.x @ (vector * self._direction).T
            others = (self._others.x * (vector * self._direction)[self._others.node]).sum(1)
            own, others = self._centred(own, others)
            size = (own.square().sum(0) + self._others.sums(others.square())) * 2 / self._count
            vector = self._back(own, others)
        return (size * MARGIN).clamp(min=1e-30)

    def _centred(self, own: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = (own.sum(0) + self._others.sums(others)) / self._count
        return own - mean, others - mean[self._others.node]

    def _back(self, own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        gathered = own.T @ self._own.x + self._others.sums(others[:, None] * self._others.x)
        return gathered * self._direction * (2 / self._count)[:, None]


def _unions(w: torch.Tensor, b: torch.Tensor) -> FittedUnions:
    length = w.norm(dim=1)
    return FittedUnions(w / length.clamp(min=1e-30)[:, None], length, b)
