"""A sparse autoencoder with TopK activation (Gao et al. 2024, arXiv 2406.04093).

    z = ReLU(TopK(E (x - b))),    x̂ = z D + b,    loss = |x - x̂|² / E|x - mean|²  + |e - ê|² / 32 / E|x - mean|²

Rows of D, the directions, have norm 1. E begins as D. The second term revives the dead: e = x - x̂ is what is left,
ê what the best of those directions make of it that were in no code for as many cells as there are (AuxK of the paper).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from microtome.quantify.dictionary.directions import Directions, Floats

BATCH = 256  # cells of a step
RATE = 0.05  # of Adam, for entries of size 1; a direction's are of size 1 / sqrt(channels). It falls to zero
REVIVE = 1 / 32  # weight of what the dead are to explain, as in the paper


@dataclass(frozen=True)
class AutoencoderPlan:
    """What is fitted, and for how long.

    Args:
        directions: how many.
        active: that a cell may have at once, at most `directions`.
        steps: of Adam, of BATCH cells each.
    """

    directions: int
    active: int
    steps: int


class SparseAutoencoder(torch.nn.Module):
    """Encoder, decoder and offset.

    Args:
        decoder: (directions, channels), rows of norm 1.
        offset: (channels,).
        active: directions of a code, at most.
    """

    def __init__(self, decoder: torch.Tensor, offset: torch.Tensor, active: int) -> None:
        super().__init__()
        self.decoder = torch.nn.Parameter(decoder.clone())
        self.encoder = torch.nn.Parameter(decoder.clone())
        self.offset = torch.nn.Parameter(offset.clone())
        self.active = active

    def forward(self, cells: torch.Tensor, dead: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of a batch of cells.

        Args:
            cells: (cells, channels).
            dead: (directions,) which are in no code any more.

        Returns:
            squared error, mean over cells; what the dead leave of it, or 0 where none are; (directions,) which are in
            a code of the batch.
        """
        before = (cells - self.offset) @ self.encoder.T
        code = largest(before, self.active)
        left = cells - (code @ self.decoder + self.offset)
        error = (left**2).sum(1).mean()
        if not dead.any():
            return error, torch.zeros_like(error), (code > 0).any(0)
        helped = largest(before[:, dead], min(int(dead.sum()), max(1, cells.shape[1] // 2)))
        again = ((left.detach() - helped @ self.decoder[dead]) ** 2).sum(1).mean()
        return error, again, (code > 0).any(0)

    @torch.no_grad()
    def straighten(self) -> None:
        """Give every direction norm 1 again."""
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def across(self) -> None:
        """Take from the decoder's gradient what would only lengthen directions."""
        gradient = self.decoder.grad
        if gradient is not None:
            gradient -= (gradient * self.decoder).sum(1, keepdim=True) * self.decoder


def largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """ReLU of the `count` largest values of every row; all others are 0.

    Args:
        values: (rows, columns).
        count: at most `columns`.
    """
    top, place = values.topk(count, dim=1)
    return torch.zeros_like(values).scatter(1, place, top.relu())


def fitted(
    cells: Floats, plan: AutoencoderPlan, seed: int, *, device: str = "cpu", check: Callable[[], None] = lambda: None
) -> Directions:
    """Fit a dictionary from a random start.

    Args:
        cells: (cells, channels).
        plan: what, and for how long.
        seed: of start and order of cells.
        device: for computation.
        check: called at every step; what it raises ends the fit.
    """
    rng = np.random.default_rng(seed)
    mean = cells.mean(0, dtype=np.float64)
    scale = float(np.sqrt(((cells - mean) ** 2).sum(1).mean())) or 1.0  # so that rates suit any layer
    data = torch.from_numpy(cells / np.float32(scale)).to(device)
    start = torch.from_numpy(rng.standard_normal((plan.directions, cells.shape[1])).astype(np.float32))
    offset = torch.from_numpy((mean / scale).astype(np.float32))
    model = SparseAutoencoder(torch.nn.functional.normalize(start, dim=1), offset, plan.active).to(device)
    _train(model, data, plan.steps, rng=rng, check=check)
    vectors, encoder, offset = (part.detach().cpu() for part in (model.decoder, model.encoder, model.offset))
    return Directions("sae", vectors.numpy(), encoder.numpy(), offset.numpy() * np.float32(scale), plan.active)


def _train(
    model: SparseAutoencoder, data: torch.Tensor, steps: int, *, rng: np.random.Generator, check: Callable[[], None]
) -> None:
    highest = RATE / data.shape[1] ** 0.5
    rate = torch.optim.Adam(model.parameters(), lr=highest)
    silent = torch.zeros(len(model.decoder), dtype=torch.long, device=data.device)
    for step in range(steps):
        rate.param_groups[0]["lr"] = highest * (1 - step / steps)
        batch = data[torch.from_numpy(rng.integers(len(data), size=BATCH)).to(data.device)]
        error, again, fired = model(batch, silent >= len(data))
        rate.zero_grad()
        (error + REVIVE * again).backward()
        model.across()
        rate.step()
        model.straighten()
        silent = torch.where(fired, 0, silent + BATCH)
        check()


def codes(cells: Floats, encoder: Floats, offset: Floats, active: int) -> Floats:
    """(cells, directions) z of cells.

    Args:
        cells: (cells, channels).
        encoder: (directions, channels) E.
        offset: (channels,) b.
        active: directions of a code, at most.
    """
    before = torch.from_numpy((cells - offset) @ encoder.T)
    found: Floats = largest(before, active).numpy()
    return found
