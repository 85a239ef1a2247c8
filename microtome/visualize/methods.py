"""Methods that say which pixels a class depends on, as galleries draw them and reliability tests them.

Maps are by pixels in [0, 1], of a network behind its normalisation (`attribution.scaled`): where a method needs a
picture that shows nothing, it is black, 0 in these coordinates, for gallery and verdict alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from microtome.errors import InputError
from microtome.networks.geometry import LayerGeometry, walk
from microtome.visualize.attribution import Target, at_rest, attribute, units_called, unscaled
from microtome.visualize.gradcam import gradcam, spatial_layer
from microtome.visualize.names import MORE_THAN_ONCE, MethodName
from microtome.visualize.rules import counted

IG_STEPS, SMOOTH_SAMPLES = MORE_THAN_ONCE["integrated gradients"][1], MORE_THAN_ONCE["smoothgrad"][1]
RISE_MASKS = MORE_THAN_ONCE["rise"][0]
SMOOTH_SHARE, GRADIENT_BATCH = 0.15, 16
RISE_CELLS, RISE_KEPT, RISE_BATCH = 7, 0.5, 25


class Method(Protocol):
    """A method: a signed map per picture, (pictures, 3 or 1, height, width)."""

    def __call__(
        self, network: nn.Module, x: torch.Tensor, classes: torch.Tensor, of: torch.Tensor | None = None, /
    ) -> torch.Tensor:
        """Maps.

        Args:
            network: takes the pictures.
            x: (pictures, 3, height, width).
            classes: (pictures,).
            of: the same pictures before a shift of the coordinates, x by default: what is drawn for a picture follows
                from it, so that a network and its shifted twin are shown the same.
        """


def methods(cam: LayerGeometry | None = None, *, seed: int = 0) -> dict[MethodName, Method]:
    """The methods, by name.

    Args:
        cam: the layer of Grad-CAM; found in each network by default.
        seed: of SmoothGrad's noise and of RISE's masks.
    """
    return {
        "gradient": lambda network, x, c, of=None: attribute(network, x, Target(c)),
        "deconvolution": lambda network, x, c, of=None: attribute(network, x, Target(c), method="deconvolution"),
        "guided": lambda network, x, c, of=None: attribute(network, x, Target(c), method="guided"),
        "input x gradient": lambda network, x, c, of=None: x * attribute(network, x, Target(c)),
        "integrated gradients": lambda network, x, c, of=None: integrated_gradients(network, x, c),
        "smoothgrad": lambda network, x, c, of=None: smoothgrad(network, x, c, of, seed=seed),
        "grad-cam": lambda network, x, c, of=None: gradcam(network, x, c, cam or spatial_layer(network, _size(x))),
        "rise": lambda network, x, c, of=None: rise(network, x, c, seed=seed),
    }


def _size(x: torch.Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


def integrated_gradients(
    network: nn.Module, x: torch.Tensor, classes: torch.Tensor, baseline: torch.Tensor | None = None
) -> torch.Tensor:
    """Sundararajan et al., arXiv 1703.01365: the mean gradient on the way from a baseline, times how far that is.

    The mean is an integral, by Gauss and Legendre's rule of IG_STEPS points, which captum takes, too.

    Args:
        network, x, classes: as of any method.
        baseline: what shows nothing, 0 by default.
    """
    start = torch.zeros_like(x) if baseline is None else baseline.expand_as(x)
    nodes, weights = np.polynomial.legendre.leggauss(IG_STEPS)
    total, steps = torch.zeros_like(x), max(1, GRADIENT_BATCH // len(x))
    for first in range(0, IG_STEPS, steps):
        share, weight = (torch.from_numpy(part[first : first + steps]).to(x) for part in ((1 + nodes) / 2, weights / 2))
        points = start + share[:, None, None, None, None] * (x - start)
        slopes = attribute(network, points.flatten(0, 1), Target(classes.repeat(len(share))))
        total += torch.einsum("s,snchw->nchw", weight, slopes.reshape(points.shape))
    return total * (x - start)


def smoothgrad(
    network: nn.Module, x: torch.Tensor, classes: torch.Tensor, of: torch.Tensor | None = None, *, seed: int = 0
) -> torch.Tensor:
    """Smilkov et al., arXiv 1706.03825: the mean gradient over noisy copies, signed.

    Args:
        network, x, classes: as of any method.
        of: the pictures whose own range scales the noise (a standard deviation of SMOOTH_SHARE of it), and whose own
            content seeds it: a picture has the same noise alone, among others, and in shifted coordinates.
        seed: of the noise, too.
    """
    own = x if of is None else of
    spread = own.flatten(1).amax(1) - own.flatten(1).amin(1)
    draws = [torch.Generator().manual_seed(_seed(seed, picture)) for picture in own]
    total = torch.zeros_like(x)
    copies = max(1, GRADIENT_BATCH // len(x))
    for first in range(0, SMOOTH_SAMPLES, copies):
        some = range(first, min(first + copies, SMOOTH_SAMPLES))
        noise = torch.stack([torch.stack([torch.randn(x.shape[1:], generator=draw) for draw in draws]) for _ in some])
        noisy = x + noise.to(x) * SMOOTH_SHARE * spread[:, None, None, None]
        slopes = attribute(network, noisy.flatten(0, 1), Target(classes.repeat(len(some))))
        for slope in slopes.reshape(len(some), *x.shape):
            total += slope
    return total / SMOOTH_SAMPLES


def _seed(seed: int, picture: torch.Tensor) -> int:
    content = picture.detach().cpu().contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(seed.to_bytes(8, "big") + content).digest()[:8], "big") >> 1


def rise(
    network: nn.Module, x: torch.Tensor, classes: torch.Tensor, *, seed: int = 0, masks: int = RISE_MASKS
) -> torch.Tensor:
    """RISE (Petsiuk et al., arXiv 1806.07421): what a class's probability owes to each pixel being seen.

        S = sum over masks of (p_m - mean p) m / (masks E[m])

    It asks the network for answers alone, no gradient and no layer: the control that knows nothing of what is within.
    The mean is taken off, which moves every pixel alike: what is above 0 raises the class.

    Args:
        network, x, classes: as of any method; what a mask hides is black.
        seed: of the masks, the same for every picture.
        masks: how many.

    Returns:
        (pictures, 1, height, width).
    """
    chances, total, seen = [], torch.zeros_like(x[:, :1]), torch.zeros_like(x[:1, :1])
    with at_rest(network), torch.no_grad():
        for some in _masks(_size(x), masks, seed):
            shown = some.to(x)
            answer = network((x[:, None] * shown[None]).flatten(0, 1)).softmax(1).reshape(len(x), len(shown), -1)
            chance = answer[torch.arange(len(x)), :, classes].to(x)
            chances.append(chance)
            total += torch.einsum("nm,mchw->nchw", chance, shown)
            seen += shown.sum(0)
    mean = torch.cat(chances, 1).mean(1)[:, None, None, None]
    return (total - mean * seen) / (masks * RISE_KEPT)


def _masks(size: tuple[int, int], count: int, seed: int) -> Iterator[torch.Tensor]:
    """(masks, 1, height, width) in [0, 1], in batches: coarse random grids, enlarged smoothly, at random offsets."""
    draw = torch.Generator().manual_seed(seed)
    cell = [-(-side // RISE_CELLS) for side in size]
    whole = [(RISE_CELLS + 1) * side for side in cell]
    for start in range(0, count, RISE_BATCH):
        some = min(RISE_BATCH, count - start)
        coarse = (torch.rand(some, 1, RISE_CELLS, RISE_CELLS, generator=draw) < RISE_KEPT).float()
        fine = functional.interpolate(coarse, whole, mode="bilinear", align_corners=False)
        places = [torch.randint(side, (some,), generator=draw).tolist() for side in cell]
        yield torch.stack([one[:, y : y + size[0], x : x + size[1]] for one, y, x in zip(fine, *places, strict=True)])


@dataclass(frozen=True)
class MethodNote:
    """Whether a network can have a method, and what to know about it there.

    Args:
        method: its name.
        drawn: whether it can.
        note: why it cannot; or its layer, baseline, noise, and what it leaves plain.
    """

    method: MethodName
    drawn: bool
    note: str


def cam_layer(network: nn.Module, size: tuple[int, int], name: str | None) -> LayerGeometry:
    """The layer of Grad-CAM: the named one, else the last maps that the head reads.

    Raises:
        InputError: no such layer, or none with a grid.
    """
    if name is None:
        return spatial_layer(network, size)
    try:
        with at_rest(network):
            return walk(unscaled(network), size, [name])[0]
    except InputError as error:
        raise InputError([fault.replace("network.layers:", "cam_layer:") for fault in error.faults]) from error


def notes(
    network: nn.Module, size: tuple[int, int], wanted: Sequence[MethodName], *, cam: str | None = None
) -> list[MethodNote]:
    """What is to be known of each wanted method on a network, from two forward passes.

    Args:
        network: takes pixels in [0, 1].
        size: (height, width) of its pictures.
        wanted: names.
        cam: name of Grad-CAM's layer.

    Raises:
        InputError: none of them can be had, or Grad-CAM's layer was named and has no grid.
    """
    found = [_note(network, size, name, cam=cam) for name in wanted]
    if not any(note.drawn for note in found):
        reasons = "; ".join(f"{note.method}: {note.note}" for note in found)
        raise InputError(f"methods: at least one must suit {type(unscaled(network)).__name__}, got none: {reasons}")
    return found


FIXED: Mapping[MethodName, str] = {
    "gradient": "of the logit",
    "input x gradient": "black is 0",
    "integrated gradients": f"from black, in {IG_STEPS} steps",
    "smoothgrad": f"{SMOOTH_SAMPLES} copies, noise of {SMOOTH_SHARE:.0%} of each picture's range",
    "rise": f"{RISE_MASKS} masks of {RISE_CELLS} × {RISE_CELLS} cells; black where they hide",
}


def _note(network: nn.Module, size: tuple[int, int], name: MethodName, *, cam: str | None) -> MethodNote:
    if name in FIXED:
        return MethodNote(name, True, FIXED[name])
    if name != "grad-cam":
        calls = units_called(network, size)
        plain = f"; left plain: {counted(calls.gates)}" if calls.gates else ""
        ruled = f"{counted(calls.rectifiers)} by its rule{plain}"
        return MethodNote(name, not calls.refusal, calls.refusal or ruled)
    try:
        layer = cam_layer(network, size, cam)
    except InputError as error:
        if cam is not None:
            raise
        return MethodNote(name, False, error.faults[0])
    return MethodNote(name, True, f"{layer.name}: {layer.units} units on {layer.grid[0]} × {layer.grid[1]} cells")
