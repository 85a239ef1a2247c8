"""Templates of an ideal part filter's map, and what is expected of them (survey, eq. 8; arXiv 1710.00935, section 3.1).

T_mu[i, j] = tau max(1 - beta ||[i, j] - mu||_1 / n, -1)        one for each of the n^2 places mu
T_minus    = -tau                                               the part is not there
p(T_mu) = alpha / n^2, p(T_minus) = 1 - alpha, alpha = n^2 / (1 + n^2), tau = 0.5 / n^2
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypedDict

import torch

BETA = 4.0


def tau(n: int) -> float:
    """Height of a template's peak on an n x n map."""
    return 0.5 / n**2


def shapes(n: int) -> torch.Tensor:
    """(n^2, n, n) positive templates without tau, values in [-1, 1]: what masks are made of. Places row by row."""
    place = torch.arange(n, dtype=torch.float64)
    apart = (place[:, None] - place).abs()
    distance = (apart[:, None, :, None] + apart[None, :, None, :]).reshape(n * n, n, n)
    return (1 - BETA * distance / n).clamp(min=-1)


@lru_cache(maxsize=8)
def templates(n: int) -> torch.Tensor:
    """(n^2 + 1, n, n) float64: the positive templates row by row, then the negative one."""
    return torch.cat([shapes(n), torch.full((1, n, n), -1.0, dtype=torch.float64)]) * tau(n)


@lru_cache(maxsize=8)
def log_priors(n: int) -> torch.Tensor:
    """(n^2 + 1,) float64 log p(T), in the order of `templates`; p sums to 1."""
    positive = torch.full((n * n,), 1.0 / (1 + n**2), dtype=torch.float64)
    return torch.cat([positive, positive[:1]]).log()


class MaskOptions(TypedDict, total=False):
    """What FilterMask takes beside its size."""

    centre: str
    learned: bool


class FilterMask(torch.nn.Module):
    """Keep what lies around each filter's highest cell: max(x * M, 0), M a positive template without tau.

    The mask is a constant in the backward pass. The highest cell keeps its value, so that where a filter is highest,
    and whether it fires, is the same before and after.

    Args:
        filters: number of filters.
        n: side of their maps, in cells.
        centre: `argmax`, or `centroid`: the rounded mean place, weighted by what is above zero (the authors' code).
        learned: let each filter's slope follow how widely it fires (the authors' code) instead of beta = 4.

    Raises:
        ValueError: an unknown centre.
    """

    slope: torch.Tensor

    def __init__(self, filters: int, n: int, *, centre: str = "argmax", learned: bool = False) -> None:
        super().__init__()
        if centre not in ("argmax", "centroid"):
            raise ValueError(f"mask centre must be argmax or centroid, got {centre!r}")
        self.n, self.centre, self.learned = n, centre, learned
        self.register_buffer("slope", torch.full((filters,), BETA))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(images, filters, n, n) -> the same, masked."""
        with torch.no_grad():
            row, column = self._centres(x.detach())
            place = torch.arange(self.n, device=x.device)
            distance = (place - row[..., None]).abs()[..., :, None] + (place - column[..., None]).abs()[..., None, :]
            if self.learned and self.training:
                self._follow(x.detach(), distance)
            mask = (1 - self.slope[:, None, None] * distance / self.n).clamp(min=0)
        return (x * mask.to(x.dtype)).relu()

    def _centres(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.centre == "argmax":
            cell = x.flatten(2).argmax(2)
            return cell // self.n, cell % self.n
        weight = x.clamp(min=0)
        total = weight.sum((2, 3)).clamp(min=1e-12)
        place = torch.arange(self.n, device=x.device, dtype=x.dtype)
        row, column = (weight.sum(3) * place).sum(2) / total, (weight.sum(2) * place).sum(2) / total
        return row.round().long(), column.round().long()

    def _follow(self, x: torch.Tensor, distance: torch.Tensor) -> None:
        """Slope 2 clip(3 / spread, 1.5, 3): spread is the mean distance in half map sides, weighted by activation."""
        weight = x.clamp(min=0)
        spread = (weight * distance).sum((0, 2, 3)) / weight.sum((0, 2, 3)).clamp(min=1e-12) / (self.n / 2)
        target = 2 * (3 / spread.clamp(min=1e-6)).clamp(1.5, 3.0)
        alive = weight.sum((0, 2, 3)) > 0
        self.slope.copy_(torch.where(alive, 0.9 * self.slope + 0.1 * target, self.slope))
