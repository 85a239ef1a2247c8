"""Whether what a map marks is what the network uses: deletion, insertion, pointing, each beside chance.

Deletion and insertion (Petsiuk et al., arXiv 1806.07421): the class's probability while the picture's squares are
blacked out, or brought back into a blurred picture, those that the map marks most first; the area under that curve over
the share of squares. All maps are averaged over the same squares: single pixels would compare textures of holes, and a
random order of pixels is an attack by noise. Pointing (Zhang et al., arXiv 1608.00507): whether the map's highest pixel
lies in the object, or within a small distance of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from microtome.quantify.intervals import mean_interval, paired_shares, share_interval
from microtome.visualize.attribution import at_rest, over_channels
from microtome.visualize.names import MethodName

SQUARES, STEPS, RANDOM_ORDERS = 16, 16, 4
BLUR = 1 / 20  # of the shorter side: the deviation of the blurred picture's Gaussian
NEAR = 15 / 224  # of the shorter side: how close to the object counts as in it
LARGEST_OBJECT = 0.5  # of the picture: in a larger one anything points
SIGNED: frozenset[MethodName] = frozenset({"input x gradient", "integrated gradients", "grad-cam", "rise"})

Floats = NDArray[np.float64]


def evidence(method: MethodName, maps: torch.Tensor) -> torch.Tensor:
    """(pictures, height, width) how much a map marks each pixel.

    Contributions (SIGNED) are summed over channels with their sign; of gradients, which say how a pixel would have to
    change, the largest magnitude over channels counts (Simonyan et al.).

    Args:
        method: that made them.
        maps: (pictures, channels, height, width).
    """
    return over_channels(maps, "sum" if method in SIGNED else "max")


def order_of(heat: torch.Tensor) -> torch.Tensor:
    """(pictures, SQUARES ** 2) squares by falling mean evidence; the first of equals first.

    Args:
        heat: (pictures, height, width).
    """
    means = functional.adaptive_avg_pool2d(heat[:, None].double(), SQUARES).flatten(1)
    return torch.sort(means, dim=1, descending=True, stable=True).indices


def random_orders(pictures: int, seed: int) -> torch.Tensor:
    """(RANDOM_ORDERS, pictures, SQUARES ** 2) squares in drawn orders."""
    draw = torch.Generator().manual_seed(seed)
    return torch.stack(
        [
            torch.stack([torch.randperm(SQUARES**2, generator=draw) for _ in range(pictures)])
            for _ in range(RANDOM_ORDERS)
        ]
    )


@dataclass(frozen=True)
class Areas:
    """(pictures,) areas under the curves of deletion (should be small) and insertion (should be large), in [0, 1]."""

    deletion: Floats
    insertion: Floats


def areas(network: nn.Module, x: torch.Tensor, classes: torch.Tensor, order: torch.Tensor) -> Areas:
    """Black the squares out in their order, and bring them back into the blurred picture.

    Args:
        network: takes pixels in [0, 1].
        x: (pictures, 3, height, width).
        classes: (pictures,) whose probability is followed.
        order: (pictures, SQUARES ** 2).
    """
    black, blurred = torch.zeros_like(x), blur(x)
    found = []
    for under, over in ((x, black), (blurred, x)):
        curve = []
        for step in range(STEPS + 1):
            changed = _squares(order[:, : round(step * SQUARES**2 / STEPS)], x)
            with torch.no_grad(), at_rest(network):
                chance = network(torch.where(changed, over, under)).softmax(1)
            curve.append(chance[torch.arange(len(x)), classes].double())
        found.append(torch.trapezoid(torch.stack(curve, 1), dx=1 / STEPS, dim=1).cpu().numpy())
    return Areas(*found)


def _squares(chosen: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(pictures, 1, height, width) whether a pixel's centre lies in one of the chosen squares."""
    flags = torch.zeros(len(x), SQUARES**2, device=x.device).scatter_(1, chosen.to(x.device), 1)
    return functional.interpolate(flags.reshape(-1, 1, SQUARES, SQUARES), x.shape[2:], mode="nearest-exact") > 0


def blur(x: torch.Tensor) -> torch.Tensor:
    """Pictures under a Gaussian of a twentieth of their shorter side, mirrored at the edges."""
    sigma = BLUR * min(x.shape[2:])
    reach = min(round(3 * sigma), min(x.shape[2:]) - 1)
    bell = torch.exp(-(torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device) ** 2) / (2 * sigma**2))
    line = (bell / bell.sum())[None, None, None].expand(x.shape[1], 1, 1, -1)
    padded = functional.pad(x, (reach,) * 4, mode="reflect")
    across = functional.conv2d(padded, line, groups=x.shape[1])
    return functional.conv2d(across, line.transpose(2, 3), groups=x.shape[1])


@dataclass(frozen=True)
class Pointing:
    """The pointing game.

    Args:
        hit: (pictures,) 1 where the highest pixel lies in the object or near it.
        chance: (pictures,) share of the picture that does: what a random pixel hits.
    """

    hit: Floats
    chance: Floats


def pointing(heat: torch.Tensor, objects: NDArray[np.bool_]) -> Pointing:
    """Where the maps point.

    Args:
        heat: (pictures, height, width); the first of several highest pixels counts.
        objects: (pictures, height, width).
    """
    from scipy.ndimage import distance_transform_edt

    near = NEAR * min(heat.shape[1:])
    grown = np.stack([distance_transform_edt(~shown) <= near for shown in objects])
    highest = heat.flatten(1).argmax(1).cpu().numpy()
    hit = grown.reshape(len(grown), -1)[np.arange(len(grown)), highest]
    return Pointing(hit.astype(np.float64), grown.mean((1, 2)))


def pointable(objects: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(pictures,) whether there is an object, and it leaves half of the picture free."""
    share: Floats = objects.mean((1, 2))
    return (share > 0) & (share <= LARGEST_OBJECT)


def centred(size: tuple[int, int], pictures: int) -> torch.Tensor:
    """(pictures, height, width) a control that knows neither network nor picture: higher towards the centre."""
    rows, columns = (torch.arange(side) - (side - 1) / 2 for side in size)
    return -torch.hypot(rows[:, None] / size[0], columns[None, :] / size[1]).expand(pictures, -1, -1)


MEASURES = {"deletion": False, "insertion": True, "pointing": True}
"""Whether more is better."""


@dataclass(frozen=True)
class Scored:
    """A figure of a method beside chance and beside a control; intervals of 95 % over the pictures.

    Args:
        value, low, high: mean; Wilson's interval for pointing, else bootstrap.
        chance: mean of the same under random orders, or of a random pixel.
        apart, apart_low, apart_high: mean difference to chance in pairs, and its interval: Newcombe's for pointing,
            else bootstrap.
        better: whether that interval lies on the good side of 0.
        beyond, beyond_low, beyond_high: the same difference to the control.
        beats: whether that interval lies on the good side of 0.
        n: pictures.
    """

    value: float
    low: float
    high: float
    chance: float
    apart: float
    apart_low: float
    apart_high: float
    better: bool
    beyond: float
    beyond_low: float
    beyond_high: float
    beats: bool
    n: int


def scored(measure: str, values: Floats, *, chance: Floats, control: Floats) -> Scored:
    """Values beside chance and a control, in pairs.

    Args:
        measure: of MEASURES.
        values, chance, control: (pictures,).
    """
    shares = measure == "pointing"
    value, low, high = share_interval(values) if shares else mean_interval(values)
    apart, beyond = (
        paired_shares(values, other) if shares else mean_interval(values - other) for other in (chance, control)
    )
    better, beats = (is_good(measure, low, high) for _, low, high in (apart, beyond))
    return Scored(value, low, high, float(chance.mean()), *apart, better, *beyond, beats, len(values))


def is_good(measure: str, low: float, high: float) -> bool:
    """Whether an interval of differences lies on the good side of 0."""
    return low > 0 if MEASURES[measure] else high < 0


def strongest(measure: str, values: Mapping[str, Floats]) -> str:
    """The name whose mean is best."""
    pick = max if MEASURES[measure] else min
    return pick(values, key=lambda name: float(values[name].mean()))


def joined(parts: Sequence[Areas]) -> Areas:
    """Of several batches."""
    return Areas(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("deletion", "insertion")))
