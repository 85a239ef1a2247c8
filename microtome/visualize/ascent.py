"""Gradient ascent on a class score (Simonyan et al. 2014; survey, eq. 5): argmax_I S_c(I) - lambda ||I||^2."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from microtome.visualize.attribution import Target, answer_of, at_rest, located

INITS = ("noise", "zero")
NOISE = 0.01


@dataclass(frozen=True)
class Ascended:
    """A picture by gradient ascent.

    Args:
        picture: (3, height, width) in the network's normalised coordinates, centred on the mean picture.
        scores: S_c at the start and after every step.
        weight: lambda.
    """

    picture: torch.Tensor
    scores: list[float]
    weight: float


def ascend(
    network: nn.Module,
    size: tuple[int, int],
    target: Target,
    *,
    init: str = "noise",
    weight: float | None = None,
    steps: int = 200,
    rate: float = 0.01,
    seed: int = 0,
) -> Ascended:
    """Climb S_c(I) - lambda ||I||^2 by plain gradient steps.

    Args:
        network: takes normalised pictures, so that I = 0 is the mean picture.
        size: (height, width).
        target: a logit, or a unit.
        init: `noise` (sd 0.01, the survey) or `zero` (the paper).
        weight: lambda; by default ||grad S(0)|| / (2 sqrt(D)), D the number of input values: at the mean picture an
            average pixel is pulled back as hard as it is pushed once it has moved by 1.
        steps, rate: of the ascent; a step moves the picture by `rate`, as a root mean square, along the gradient.
        seed: of the noise.
    """
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
    draw = torch.Generator().manual_seed(seed)
    device = next(network.parameters()).device
    target = replace(target, layer=located(network, target.layer, size))
    start = torch.zeros(1, 3, *size) if init == "zero" else NOISE * torch.randn(1, 3, *size, generator=draw)
    with at_rest(network), torch.enable_grad():
        if weight is None:
            slope = _gradient(network, torch.zeros(1, 3, *size, device=device), target)[1]
            weight = float(slope.norm() / (2 * slope.numel() ** 0.5))
        x, scores = start.to(device), []
        for _ in range(steps):
            score, slope = _gradient(network, x, target)
            scores.append(score)
            climb = slope - 2 * weight * x
            x = x + rate * climb / climb.square().mean().sqrt().clamp(min=1e-12)
        scores.append(float(target.score(answer_of(network, x, target.layer)).detach()))
    return Ascended(x[0].detach(), scores, weight)


def _gradient(network: nn.Module, x: torch.Tensor, target: Target) -> tuple[float, torch.Tensor]:
    x = x.detach().requires_grad_()
    score = target.score(answer_of(network, x, target.layer)).sum()
    return float(score.detach()), torch.autograd.grad(score, x)[0]
