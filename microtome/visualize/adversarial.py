"""Adversarial pictures: FGSM (Goodfellow et al., arXiv 1412.6572) and PGD (Madry et al., arXiv 1706.06083)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from microtome.visualize.attribution import Layer, Target, answer_of, at_rest, attribute, located, name_of
from microtome.visualize.reliability import similarity

NORMS = ("linf", "l2")
STRONGEST = 0.05  # share of a layer's units that counts as its most active

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Attack:
    """How pictures are changed.

    Args:
        eps: largest change, in pixel values of [0, 1]; of an L2 attack the root mean square over the picture, so that
            both norms speak of pixel values.
        norm: `linf` or `l2`.
        steps: of PGD; 1 without a random start is FGSM.
        step: size of a step, eps / 4 by default (eps for one step).
        random_start: begin anywhere in the ball.
        targeted: lower the loss of the given classes instead of raising that of the true ones.
        seed: of the start.
    """

    eps: float
    norm: str = "linf"
    steps: int = 20
    step: float | None = None
    random_start: bool = True
    targeted: bool = False
    seed: int = 0


def fgsm(eps: float) -> Attack:
    """One step along the sign of the gradient."""
    return Attack(eps, steps=1, random_start=False)


def attack(network: nn.Module, pictures: torch.Tensor, classes: torch.Tensor, how: Attack) -> torch.Tensor:
    """Changed pictures, within eps of the given ones and within [0, 1].

    Args:
        network: takes pixels in [0, 1]; see `attribution.scaled`.
        pictures: (pictures, 3, height, width).
        classes: (pictures,) true classes, or wanted ones.
        how: the attack.
    """
    if how.norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {how.norm!r}")
    size = how.step if how.step is not None else (how.eps if how.steps == 1 else how.eps / 4)
    changed = noise(pictures, how) if how.random_start else pictures.clone()
    with at_rest(network), torch.enable_grad():
        for _ in range(how.steps):
            x = changed.detach().requires_grad_()
            loss = functional.cross_entropy(network(x), classes, reduction="sum")
            slope = torch.autograd.grad(-loss if how.targeted else loss, x)[0]
            changed = _project(changed + size * _direction(slope, how.norm), pictures, how)
    return changed.detach()


def noise(pictures: torch.Tensor, how: Attack) -> torch.Tensor:
    """Pictures with random noise from the attack's ball: its start, and (on the sphere) its control.

    Of `linf` uniform in the cube; of `l2` uniform on the sphere.
    """
    draw = torch.Generator().manual_seed(how.seed)
    if how.norm == "linf":
        step = (2 * torch.rand(pictures.shape, generator=draw) - 1) * how.eps
    else:
        step = _direction(torch.randn(pictures.shape, generator=draw), "l2") * how.eps
    return (pictures + step.to(pictures)).clamp(0, 1)


def same_size_noise(pictures: torch.Tensor, changed: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The control of an attack: every pixel moved as far as the attack moved it, in a random direction."""
    draw = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, pictures.shape, generator=draw).to(pictures) * 2 - 1
    return (pictures + sign * (changed - pictures).abs()).clamp(0, 1)


def _direction(slope: torch.Tensor, norm: str) -> torch.Tensor:
    if norm == "linf":
        return slope.sign()
    length = slope.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)
    return slope / length[:, None, None, None]


def _project(changed: torch.Tensor, pictures: torch.Tensor, how: Attack) -> torch.Tensor:
    moved = changed - pictures
    if how.norm == "linf":
        moved = moved.clamp(-how.eps, how.eps)
    else:
        length = moved.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)
        moved = moved * (how.eps / length).clamp(max=1)[:, None, None, None]
    return (pictures + moved).clamp(0, 1)


@dataclass(frozen=True)
class UnitsMoved:
    """What a layer's units did, by their peaks: (pictures,) each.

    Args:
        change: ||after - before|| / ||before||.
        kept: share of the most active units that are so afterwards, too.
    """

    change: Floats
    kept: Floats


@dataclass(frozen=True)
class Moved:
    """What changed pictures changed in the network: (pictures,) each.

    Args:
        flipped: 1 where the prediction is another one, else 0.
        logit_lost: of the class.
        layers: by name.
        saliency: Spearman correlation of the class's gradient maps.
    """

    flipped: Floats
    logit_lost: Floats
    layers: Mapping[str, UnitsMoved]
    saliency: Floats


def moved(
    network: nn.Module, pictures: torch.Tensor, changed: torch.Tensor, classes: torch.Tensor, *, layers: Sequence[Layer]
) -> Moved:
    """Compare what a network makes of pictures and of changed ones.

    Args:
        network: takes both.
        pictures, changed: (pictures, 3, height, width).
        classes: (pictures,) what the network said of the pictures.
        layers: by geometry, or dotted name.
    """
    with torch.no_grad(), at_rest(network):
        before, after = network(pictures), network(changed)
        rows = torch.arange(len(pictures), device=pictures.device)
        flipped = (after.argmax(1) != classes).double()
        lost = (before[rows, classes] - after[rows, classes]).double()
        places = [located(network, layer, pictures.shape[2:]) for layer in layers]
        inside = {
            name_of(layer): _units_moved(*(answer_of(network, x, place) for x in (pictures, changed)))
            for layer, place in zip(layers, places, strict=True)
        }
    own = attribute(network, pictures, Target(classes))
    alike = similarity(own, attribute(network, changed, Target(classes)))
    return Moved(flipped.cpu().numpy(), lost.cpu().numpy(), inside, alike.spearman)


def _units_moved(before: torch.Tensor, after: torch.Tensor) -> UnitsMoved:
    one, other = (answer.flatten(2).amax(2) if answer.ndim == 4 else answer for answer in (before, after))
    change = (one - other).norm(dim=1) / one.norm(dim=1).clamp(min=1e-12)
    return UnitsMoved(change.double().cpu().numpy(), strongest_kept(one, other).cpu().numpy())


def strongest_kept(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """(pictures,) share of the STRONGEST units of each picture that are among the strongest afterwards, float64.

    Args:
        before, after: (pictures, units).
    """
    count = max(1, round(STRONGEST * before.shape[1]))
    first, second = before.topk(count, 1).indices, after.topk(count, 1).indices
    return (first[:, :, None] == second[:, None, :]).any(2).double().mean(1)
