"""Which pixels a score depends on: saliency, backprop, deconvolution, guided backprop (survey, section 3.1-3.2).

Three lines are enough:

    >>> network = scaled(load_network(spec), mean, std)         # maps are by pixels in [0, 1]
    >>> maps = attribute(network, pictures, Target(classes), method="guided")
    >>> heat = saliency(network, pictures, Target(classes))

The network is left as it was: no hook, no flag, no `.grad`, whatever happens inside.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from microtome.networks.geometry import LayerGeometry, walk
from microtome.visualize.rules import BackwardRule

Layer = LayerGeometry | str
"""A layer: its geometry, from `walk`, or its dotted name, which costs a walk wherever it answers with a map."""


@dataclass(frozen=True)
class Target:
    """What is explained: one number per picture.

    Args:
        units: (pictures,) class numbers, or units of `layer`; one number for all; None for the predicted class.
        layer: its geometry, or dotted name; None for the network's output, logits.
        cell: of a layer's map: `peak`, the unit's highest cell (the first of several), or `sum` over all cells; or the
            (row, column) of one cell.
    """

    units: Sequence[int] | torch.Tensor | int | None = None
    layer: Layer | None = None
    cell: str | tuple[int, int] = "peak"

    def score(self, answer: torch.Tensor) -> torch.Tensor:
        """(pictures,) scores.

        Args:
            answer: (pictures, classes), or (pictures, units, rows, columns) of a layer.

        Raises:
            ValueError: units missing for a layer, or outside.
        """
        units = self._units(answer)
        picked = answer[torch.arange(len(answer), device=answer.device), units]
        if picked.ndim == 1:
            return picked
        if isinstance(self.cell, tuple):
            return picked[:, self.cell[0], self.cell[1]]
        flat = picked.flatten(1)
        if self.cell == "sum":
            return flat.sum(1)
        return flat.gather(1, flat.argmax(1, keepdim=True))[:, 0]

    def _units(self, answer: torch.Tensor) -> torch.Tensor:
        if self.units is None:
            if self.layer is not None:
                raise ValueError(f"target: units of layer {name_of(self.layer)} must be given, got None")
            return answer.argmax(1)
        units = torch.as_tensor(self.units, device=answer.device).long().expand(len(answer))
        if bool(((units < 0) | (units >= answer.shape[1])).any()):
            raise ValueError(f"target: units must lie in 0..{answer.shape[1] - 1}, got {units.tolist()}")
        return units


class Scaled(nn.Module):
    """A network behind its normalisation: takes pixels in [0, 1].

    Args:
        network: takes (pixels - mean) / std.
        mean, std: per channel.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(pictures, 3, height, width) in [0, 1] -> what the network answers."""
        answer: torch.Tensor = self.network(self.normalised(pixels))
        return answer

    @property
    def scale(self) -> tuple[list[float], list[float]]:
        """Mean and deviation per channel."""
        return self.mean.flatten().tolist(), self.std.flatten().tolist()

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1] in the network's own coordinates."""
        return (pixels - self.mean) / self.std


def scaled(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Scaled:
    """A network that takes pixels in [0, 1]; shares its weights, and its training flag."""
    return Scaled(network, mean, std).train(network.training)


@contextlib.contextmanager
def at_rest(network: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode with parameters that want no gradient; afterwards all as it was."""
    modules = {module: module.training for module in network.modules()}
    wanting = [value for value in network.parameters() if value.requires_grad]
    try:
        network.eval()
        for value in wanting:
            value.requires_grad_(False)
        yield network
    finally:
        for module, training in modules.items():
            module.training = training
        for value in wanting:
            value.requires_grad_(True)


def laid_out(network: nn.Module) -> nn.Module:
    """A copy for many passes: on a CPU its convolutions keep channels last, which takes half to two thirds of the time.

    It is the same function but for rounding.
    """
    own = copy.deepcopy(network)
    return own.to(memory_format=torch.channels_last) if next(own.parameters()).device.type == "cpu" else own


class _Reached(Exception):
    """The wanted layer has answered: what follows is not computed."""


def name_of(layer: Layer) -> str:
    """Dotted name of a layer."""
    return layer if isinstance(layer, str) else layer.name


def located(network: nn.Module, layer: Layer | None, size: Sequence[int]) -> Layer | None:
    """A layer by its geometry where it answers with a map, so that whoever asks it often walks the network once.

    Args:
        network: also behind its normalisation.
        layer: stays as it is where it is a geometry, None, or answers with no map.
        size: (height, width) of the pictures.
    """
    if not isinstance(layer, str):
        return layer
    with at_rest(network):
        return next((found for found in walk(unscaled(network), _pair(size)) if found.name == layer), layer)


def answer_of(network: nn.Module, pictures: torch.Tensor, layer: Layer | None = None) -> torch.Tensor:
    """What the network, or a layer of it, answers; the forward pass stops there. Gradients flow.

    Args:
        network: takes the pictures.
        pictures: (pictures, 3, height, width).
        layer: None for the network's own answer.

    Returns:
        (pictures, units, rows, columns) of a layer with a grid, wherever it keeps its units (tokens, channels last);
        (pictures, units) of one without; whatever the network answers.

    Raises:
        AttributeError: no such layer. ValueError: the layer was not called, gives no tensor, or has another grid than
        its geometry says. InputError: it has a grid that nobody can follow.
    """
    if layer is None:
        answer: torch.Tensor = network(pictures)
        return answer
    name = name_of(layer)
    raw = _raw_answer(network, pictures, name)
    if isinstance(layer, str):
        if math.prod(raw.shape[2:]) == 1:
            return raw.flatten(1)
        with at_rest(network):
            (layer,) = walk(unscaled(network), _pair(pictures.shape[2:]), [name])
    maps = layer.as_maps(raw)
    if tuple(maps.shape[1:]) != (layer.units, *layer.grid):
        raise ValueError(
            f"layer {name} must answer with {layer.units} units on a grid of {layer.grid}, got "
            f"{tuple(maps.shape[1:])}; walk the network at the size of these pictures"
        )
    return maps


def unscaled(network: nn.Module) -> nn.Module:
    """A network without its normalisation, whose layers have the names that users know."""
    return network.network if isinstance(network, Scaled) else network


def _pair(size: Sequence[int]) -> tuple[int, int]:
    return int(size[0]), int(size[1])


def _raw_answer(network: nn.Module, pictures: torch.Tensor, layer: str) -> torch.Tensor:
    """As the layer gives it, in whatever layout."""
    found: list[object] = []

    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        found.append(output)
        raise _Reached

    handle = unscaled(network).get_submodule(layer).register_forward_hook(hook)
    try:
        with contextlib.suppress(_Reached):
            network(pictures)
    finally:
        handle.remove()
    if not found or not isinstance(found[0], torch.Tensor):
        raise ValueError(
            f"layer {layer} must answer with a tensor, got {type(found[0]).__name__ if found else 'no call'}"
        )
    return found[0]


def attribute(
    network: nn.Module,
    pictures: torch.Tensor,
    target: Target,
    *,
    method: str = "gradient",
    dead_windows: str = "drop",
    unpool: str = "add",
    allow_gradient_fallback: bool = False,
) -> torch.Tensor:
    """Signal that a score hands back to the pixels under a rule. Each picture's map is its own, whatever its batch.

    Args:
        network: takes the pictures; `scaled` makes that pixels in [0, 1].
        pictures: (pictures, 3, height, width).
        target: the score.
        method: `gradient`, `deconvolution` or `guided`.
        dead_windows, unpool: see BackwardRule.
        allow_gradient_fallback: do not refuse a network that calls other units than rectifiers.

    Returns:
        (pictures, 3, height, width), signed.

    Raises:
        UnsupportedActivation: the method speaks of rectifiers, and the network calls none, or other units too.
    """
    layer = located(network, target.layer, pictures.shape[2:])
    with at_rest(network), torch.enable_grad():
        x = pictures.detach().clone().requires_grad_()
        rule = BackwardRule(method, dead_windows=dead_windows, unpool=unpool)
        with contextlib.nullcontext() if method == "gradient" else rule:  # which looks at every call
            answer = answer_of(network, x, layer)
        rule.check(network, allow_gradient_fallback=allow_gradient_fallback)
        return torch.autograd.grad(target.score(answer).sum(), x)[0]


def units_called(network: nn.Module, size: Sequence[int], layer: Layer | None = None) -> BackwardRule:
    """Which units a network calls, up to a layer, from one forward pass over a grey picture; see its `refusal`.

    Args:
        network: takes pixels in [0, 1].
        size: (height, width) of its pictures.
        layer: None for all of it.
    """
    parameter = next(network.parameters())
    grey = torch.full((1, 3, *size), 0.5, dtype=parameter.dtype, device=parameter.device)
    layer, rule = located(network, layer, size), BackwardRule("gradient")
    with at_rest(network), torch.no_grad(), rule:
        answer_of(network, grey, layer)
    return rule


CHANNELS = ("max", "sum", "l2")


def saliency(network: nn.Module, pictures: torch.Tensor, target: Target, *, channels: str = "max") -> torch.Tensor:
    """Saliency (Simonyan et al. 2014; survey, eq. 6-7): w = dS/dI, M = max over channels of |w|.

    Args:
        network, pictures, target: as of `attribute`.
        channels: `max` of the absolute values, signed `sum`, or `l2`.

    Returns:
        (pictures, height, width).
    """
    return over_channels(attribute(network, pictures, target), channels)


def over_channels(maps: torch.Tensor, channels: str = "max") -> torch.Tensor:
    """(pictures, 3, height, width) -> (pictures, height, width)."""
    if channels == "max":
        return maps.abs().amax(1)
    if channels == "sum":
        return maps.sum(1)
    if channels == "l2":
        return maps.square().sum(1).sqrt()
    raise ValueError(f"channels must be one of {', '.join(CHANNELS)}, got {channels!r}")


def contrast(signal: torch.Tensor) -> float:
    """The magnitude that all but a hundredth of a map's values stay below: what a picture of it is scaled by."""
    return float(signal.abs().flatten().quantile(0.99))


def on_grey(signal: torch.Tensor) -> torch.Tensor:
    """A signed map as a picture in [0, 1]: nothing is grey; each map has a scale of its own, `contrast`."""
    return (0.5 + 0.5 * signal / (contrast(signal) or 1.0)).clamp(0, 1)
