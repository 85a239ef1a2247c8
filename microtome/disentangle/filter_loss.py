"""The filter loss: minus the mutual information between a filter's maps and the templates (survey, eq. 9-11).

    s(x, T) = sum_ij x_ij T_ij          p(x|T) = exp(s) / Z_T          p(x) = sum_T p(T) p(x|T)
    Loss_f = -MI(X; T) = -sum_T p(T) sum_x p(x|T) log(p(x|T) / p(x))
    dLoss_f / dx_ij = -sum_T p(T) t_ij p(x|T) {s(x, T) - log Z_T - log p(x)}           with Z_T held constant

For training the sum of the gradient keeps one template per map, the paper's approximation: the one at the map's highest
cell if the image is of the filter's category, the negative one if not. Everything stays in log-space, so that no map
can overflow the exponential.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch

from microtome.disentangle.templates import log_priors, templates

KEEP = 0.9  # share of the running mean of exp s that a batch leaves in place


def scores(maps: torch.Tensor) -> torch.Tensor:
    """s(x, T): (images, filters, n^2 + 1) of (images, filters, n, n) maps.

    Raises:
        ValueError: maps that are not square.
    """
    if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
        raise ValueError(f"maps must be (images, filters, n, n), got {tuple(maps.shape)}")
    return maps.flatten(2) @ _flat_templates(maps)


def log_partition(score: torch.Tensor) -> torch.Tensor:
    """log Z_T over the given maps: (filters, n^2 + 1)."""
    return score.logsumexp(0)


def filter_loss(maps: torch.Tensor, log_z: torch.Tensor | None = None) -> torch.Tensor:
    """(filters,) Loss_f of (images, filters, n, n) maps, exact over all templates.

    Args:
        maps: all maps of the set X.
        log_z: (filters, n^2 + 1) log Z_T; that of the maps by default.
    """
    score = scores(maps)
    given, ratio, prior = _terms(score, log_partition(score) if log_z is None else log_z)
    return -(prior.exp() * (given.exp() * ratio).sum(0)).sum(1)


def filter_gradient(maps: torch.Tensor, log_z: torch.Tensor | None = None) -> torch.Tensor:
    """(images, filters, n, n) gradient of each filter's loss by its maps, exact over all templates, Z_T constant."""
    score = scores(maps)
    given, ratio, prior = _terms(score, log_partition(score) if log_z is None else log_z)
    weight = -prior.exp() * given.exp() * ratio
    return (weight @ _flat_templates(maps).T).reshape(maps.shape)


def fitted_templates(maps: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """(images, filters) the template that each map is judged by: that of its highest cell, or the negative one.

    Args:
        maps: (images, filters, n, n).
        wanted: (images, filters) whether the image is of the filter's category.
    """
    return torch.where(wanted, maps.flatten(2).argmax(2), maps.shape[2] * maps.shape[3])


class _LossContext(Protocol):
    """What autograd hands from the forward to the backward pass."""

    shape: torch.Size
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None:
        """Keep tensors."""


class FilterLoss(torch.autograd.Function):
    """Loss with the approximated gradient: one template per map. Apply as `FilterLoss.apply(maps, fitted, log_z, by)`.

    Forward gives sum_f by_f Loss_f over the fitted templates alone; backward is the formula above for these, times
    `by`: not the derivative of the running mean behind Z_T.
    """

    @staticmethod
    def forward(
        context: _LossContext, maps: torch.Tensor, fitted: torch.Tensor, log_z: torch.Tensor, by: torch.Tensor
    ) -> torch.Tensor:
        """Scalar.

        Args:
            maps: (images, filters, n, n).
            fitted: (images, filters) from `fitted_templates`.
            log_z: (filters, n^2 + 1).
            by: (filters,) lambda of each filter.
        """
        given, ratio, prior = _terms(scores(maps), log_z)
        picked = fitted[..., None]
        share = by * prior[fitted].exp() * given.gather(2, picked)[..., 0].exp() * ratio.gather(2, picked)[..., 0]
        context.save_for_backward(fitted, share, _flat_templates(maps))
        context.shape = maps.shape
        return -share.sum()

    @staticmethod
    def backward(context: _LossContext, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """-p(T) t p(x|T) {s - log Z_T - log p(x)}, one template per map."""
        fitted, share, flat = context.saved_tensors
        picked = flat.T[fitted]
        return (picked * (-share * upstream[0])[..., None]).reshape(context.shape), None, None, None


class Partition(torch.nn.Module):
    """log Z_T as training sees it: a running mean of exp s over recent batches, times the number of maps.

    Args:
        filters: number of filters.
        n: side of their maps.
    """

    log_mean: torch.Tensor

    def __init__(self, filters: int, n: int) -> None:
        super().__init__()
        self.register_buffer("log_mean", torch.full((filters, n * n + 1), float("nan")))

    @torch.no_grad()
    def update(self, maps: torch.Tensor) -> torch.Tensor:
        """Take a batch; gives log Z_T for it, (filters, n^2 + 1)."""
        images = math.log(len(maps))
        batch = log_partition(scores(maps)) - images
        mixed = torch.logaddexp(self.log_mean + math.log(KEEP), batch + math.log(1 - KEEP))
        self.log_mean.copy_(torch.where(self.log_mean.isnan(), batch, mixed))
        return self.log_mean + images


def _terms(score: torch.Tensor, log_z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log p(x|T), log p(x|T) / p(x), log p(T)."""
    n = round((score.shape[2] - 1) ** 0.5)
    prior = log_priors(n).to(score)
    given = score - log_z
    return given, given - (given + prior).logsumexp(2, keepdim=True), prior


def _flat_templates(maps: torch.Tensor) -> torch.Tensor:
    return templates(maps.shape[2]).to(maps).flatten(1).T
