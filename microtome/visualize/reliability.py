"""How far a saliency method can be trusted: tests that a method has to pass before its pictures mean anything.

1. Input invariance (Kindermans et al. 2017): a second network that undoes a shift of its input computes the same
   function; a method whose map changes with the shift describes the coordinates, not the network.
2. Parameter randomisation (Adebayo et al. 2018): a map that stays when the weights are drawn anew does not show them.
3. Class sensitivity: maps of two classes of one picture should differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn
from torch.nn import functional

from microtome.errors import InputError
from microtome.visualize.attribution import Target, at_rest, attribute

Method = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
"""(network, (pictures, 3, height, width) in the network's own coordinates, (pictures,) classes) -> maps, signed."""

SAME_FUNCTION = 1e-4  # of the logits' standard deviation: beyond it the shifted twin is another network
IG_STEPS, SMOOTH_SAMPLES, SMOOTH_SHARE = 32, 16, 0.15


def methods(*, seed: int = 0) -> Mapping[str, Method]:
    """The methods under test, by name. The last three are captum's.

    Args:
        seed: of SmoothGrad's noise.
    """
    return {
        "gradient": lambda network, x, c: attribute(network, x, Target(c), method="gradient"),
        "deconvolution": lambda network, x, c: attribute(network, x, Target(c), method="deconvolution"),
        "guided": lambda network, x, c: attribute(network, x, Target(c), method="guided"),
        "input x gradient": lambda network, x, c: x * attribute(network, x, Target(c), method="gradient"),
        "integrated gradients": integrated_gradients,
        "smoothgrad": lambda network, x, c: _smoothgrad(network, x, c, seed),
        "grad-cam": _gradcam,
    }


def integrated_gradients(
    network: nn.Module, x: torch.Tensor, classes: torch.Tensor, baseline: torch.Tensor | None = None
) -> torch.Tensor:
    """Sundararajan et al. 2017, by captum; a zero baseline unless one is given."""
    from captum.attr import IntegratedGradients

    with at_rest(network):
        start = torch.zeros_like(x) if baseline is None else baseline.expand_as(x)
        found: torch.Tensor = IntegratedGradients(network).attribute(
            x, start, target=classes, n_steps=IG_STEPS, internal_batch_size=len(x) * 4
        )
    return found.detach()


def _smoothgrad(network: nn.Module, x: torch.Tensor, classes: torch.Tensor, seed: int) -> torch.Tensor:
    """Smilkov et al. 2017, by captum: the mean gradient over noisy copies, signed."""
    from captum.attr import NoiseTunnel, Saliency

    spread = float(x.max() - x.min())
    with at_rest(network), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found: torch.Tensor = NoiseTunnel(Saliency(network)).attribute(
            x, nt_type="smoothgrad", nt_samples=SMOOTH_SAMPLES, nt_samples_batch_size=4,
            stdevs=SMOOTH_SHARE * spread, target=classes, abs=False,
        )  # fmt: skip
    return found.detach()


def _gradcam(network: nn.Module, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Selvaraju et al. 2017, by captum, on the last convolution; (pictures, 1, height, width)."""
    from captum.attr import LayerAttribution, LayerGradCam

    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    wide = [module for module in last if module.kernel_size != (1, 1)] or last
    with at_rest(network):
        found = LayerGradCam(network, wide[-1]).attribute(x, target=classes)
    wide_map: torch.Tensor = LayerAttribution.interpolate(found, x.shape[2:], "bilinear")
    return wide_map.detach()


# 1. input invariance


class _Shifted(nn.Module):
    """The first convolution as a network needs it whose input is shifted: same answers for x + m as its own for x."""

    def __init__(self, own: nn.Conv2d, shift: torch.Tensor) -> None:
        super().__init__()
        self.own, self.shift = own, shift
        with torch.no_grad():
            if shift.ndim == 1:  # constant per channel: pad with it, and take what it adds off the bias
                added = torch.einsum("ocij,c->o", _full_weight(own), shift)
                bias = torch.zeros_like(added) if own.bias is None else own.bias
                self.bias = bias - added
            else:
                self.response = functional.conv2d(
                    shift[None], own.weight, None, own.stride, own.padding, own.dilation, own.groups
                )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = self.own
        if self.shift.ndim == 1:
            top, left = (int(value) for value in own.padding)
            height, width = x.shape[2] + 2 * top, x.shape[3] + 2 * left
            padded = self.shift[None, :, None, None].expand(len(x), -1, height, width).clone()
            padded[:, :, top : height - top, left : width - left] = x
            return functional.conv2d(padded, own.weight, self.bias, own.stride, 0, own.dilation, own.groups)
        answer: torch.Tensor = own(x)
        return answer - self.response


def _full_weight(own: nn.Conv2d) -> torch.Tensor:
    if own.groups != 1:
        raise InputError(f"reliability: the first convolution must have one group, got {own.groups}")
    return own.weight


def shifted_twin(network: nn.Module, shift: torch.Tensor) -> nn.Module:
    """A copy of the network with f2(x + shift) = f1(x).

    Args:
        network: whose first convolution sees the input itself.
        shift: (channels,) a constant per channel, or (channels, height, width) a picture.

    Raises:
        InputError: no convolution, or one that pads otherwise than with zeros.
    """
    twin = copy.deepcopy(network)
    first = next(((name, module) for name, module in twin.named_modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise InputError(f"reliability: the network must begin with a convolution, got {type(network).__name__}")
    name, own = first
    if own.padding_mode != "zeros" or isinstance(own.padding, str):
        raise InputError(f"reliability: {name} must pad with zeros by a number, got {own.padding_mode} {own.padding}")
    parent = twin.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], _Shifted(own, shift.to(own.weight)))
    return twin


@dataclass(frozen=True)
class Invariance:
    """One method under one shift.

    Args:
        error: (pictures,) e = ||A1 - A2|| / ||A1||.
        gate: max |f1 - f2| / std(f1); beyond SAME_FUNCTION the test is void.
    """

    error: NDArray[np.float64]
    gate: float

    @property
    def void(self) -> bool:
        """Whether the twin is not the same function, so that the test says nothing."""
        return self.gate > SAME_FUNCTION

    @property
    def alike(self) -> NDArray[np.float64]:
        """(pictures,) 1 - e, at least 0."""
        return np.maximum(0.0, 1.0 - self.error)


def joined_invariance(parts: Sequence[Invariance]) -> Invariance:
    """Of several batches: void where one of them is."""
    return Invariance(np.concatenate([part.error for part in parts]), max(0.0, *(part.gate for part in parts)))


def shifts(x: torch.Tensor, mean: Sequence[float], std: Sequence[float], *, seed: int) -> dict[str, torch.Tensor]:
    """The shifts under test, by name, in the network's own coordinates: constants per channel, and a drawn picture.

    Args:
        x: (pictures, channels, height, width), for the shape.
        mean, std: per channel, of the network's input.
        seed: of the drawn picture.
    """
    channels = x.shape[1]
    return {
        "-1": torch.full((channels,), -1.0),
        "channel mean": torch.tensor(mean) / torch.tensor(std),
        "+0.5": torch.full((channels,), 0.5),
        "drawn image": torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed)),
    }


def dithered(x: torch.Tensor, std: Sequence[float], seed: int) -> torch.Tensor:
    """Pictures, in the network's own coordinates, with noise of less than half a grey level.

    In flat areas neighbouring cells are equal, pooling picks one of them by rounding, and the twin rounds differently:
    without this, gradients of photographs with white backgrounds seem to depend on the shift, by some five per cent.

    Args:
        x: (pictures, channels, height, width).
        std: per channel, of the network's input.
        seed: of the noise.
    """
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype) - 0.5
    return x + (noise / 255 / torch.tensor(std, dtype=x.dtype)[:, None, None]).to(x.device)


def invariance(
    network: nn.Module, method: Method, x: torch.Tensor, classes: torch.Tensor, *, shift: torch.Tensor
) -> Invariance:
    """Compare a method's maps of a network and of its shifted twin."""
    twin = shifted_twin(network, shift)
    moved = x + (shift[None, :, None, None] if shift.ndim == 1 else shift[None])
    with torch.no_grad(), at_rest(network), at_rest(twin):
        one, other = network(x), twin(moved)
    gate = float((one - other).abs().max() / one.std().clamp(min=1e-30))
    first, second = method(network, x, classes), method(twin, moved, classes)
    length = first.flatten(1).norm(dim=1).clamp(min=1e-30)
    return Invariance(((first - second).flatten(1).norm(dim=1) / length).double().cpu().numpy(), gate)


# 2. parameter randomisation


def parameter_layers(network: nn.Module) -> list[str]:
    """Names of the layers with weights that can draw themselves anew, from the input to the output."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm)
    ]


def spread_evenly(layers: Sequence[str], most: int) -> list[str]:
    """At most so many of the layers, the first and the last among them, evenly spread."""
    places = sorted({round(at) for at in np.linspace(0, len(layers) - 1, min(most, len(layers)))})
    return [layers[place] for place in places]


def randomised(network: nn.Module, order: Sequence[str], seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Copies with ever more layers drawn anew, in the given order; each keeps what came before.

    A convolution's or linear layer's new weights have the scale of the old ones (normal, same standard deviation), so
    that the answers stay in range; biases and batch norm's factors are those of a new layer.
    """
    changed = copy.deepcopy(network)
    draw = torch.Generator().manual_seed(seed)
    for name in order:
        module = changed.get_submodule(name)
        with torch.no_grad():
            if isinstance(module, nn.Conv2d | nn.Linear):
                spread = module.weight.std()
                new = torch.randn(module.weight.shape, generator=draw)
                module.weight.copy_(new.to(module.weight) * spread)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_parameters()
        yield name, changed


@dataclass(frozen=True)
class Similarity:
    """How alike two maps of a picture are: (pictures,) each; `cosine` signed, `spearman` and `ssim` of magnitudes."""

    cosine: NDArray[np.float64]
    spearman: NDArray[np.float64]
    ssim: NDArray[np.float64]


def similarity(one: torch.Tensor, other: torch.Tensor) -> Similarity:
    """Compare (pictures, channels, height, width) maps. A map without any signal is like nothing: 0."""
    first, second = one.double().flatten(1), other.double().flatten(1)
    cosine = functional.cosine_similarity(first, second, dim=1, eps=1e-30)
    size = [item.double().abs().sum(1).cpu().numpy() for item in (one, other)]
    ranks = [torch.from_numpy(rankdata(item.reshape(len(item), -1), axis=1)) for item in size]
    centred = [item - item.mean(1, keepdim=True) for item in ranks]
    spearman = functional.cosine_similarity(centred[0], centred[1], dim=1, eps=1e-30)
    return Similarity(cosine.cpu().numpy(), spearman.numpy(), ssim(*size))


def ssim(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(pictures,) structural similarity (Wang et al. 2004) of (pictures, height, width) maps, by scikit-image.

    Each map is scaled to a maximum of 1; Gaussian windows of 11 x 11 that lie in the map as a whole.
    """
    from skimage.metrics import structural_similarity

    scaled = ([picture / max(picture.max(), 1e-30) for picture in maps] for maps in (one, other))
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    pairs = zip(*scaled, strict=True)
    return np.array([structural_similarity(a, b, **how) for a, b in pairs])  # type: ignore[no-untyped-call]  # no types


def edges(x: torch.Tensor) -> torch.Tensor:
    """Sobel edges of the pictures, (pictures, 1, height, width): what a map looks like that ignores the network."""
    grey = x.mean(1, keepdim=True)
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], dtype=x.dtype, device=x.device)[None, None]
    padded = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    return torch.hypot(functional.conv2d(padded, across), functional.conv2d(padded, across.transpose(2, 3)))


def noise_maps(maps: torch.Tensor, seed: int) -> torch.Tensor:
    """Random maps of the same shape: what no similarity looks like."""
    return torch.randn(maps.shape, generator=torch.Generator().manual_seed(seed)).to(maps)


# 3. class sensitivity


def class_cosine(
    network: nn.Module, method: Method, x: torch.Tensor, classes: torch.Tensor, *, others: torch.Tensor
) -> NDArray[np.float64]:
    """(pictures,) signed cosine between a method's maps for two classes."""
    return similarity(method(network, x, classes), method(network, x, others)).cosine


# verdicts


@dataclass(frozen=True)
class Limits:
    """What a method must not exceed to pass.

    Args:
        invariance_error: the largest e over the pictures, under a shift.
        randomised_cosine: mean signed cosine with its maps of the network whose last layer is drawn anew.
        class_cosine: mean signed cosine between its maps for two classes.
    """

    invariance_error: float
    randomised_cosine: float
    class_cosine: float

    def invariant(self, found: Invariance) -> bool | None:
        """Input invariance; None where the test is void."""
        return None if found.void else bool(found.error.max() <= self.invariance_error)

    def forgets(self, cosine: NDArray[np.float64]) -> bool:
        """Parameter randomisation, of the last layer alone."""
        return bool(np.mean(cosine) <= self.randomised_cosine)

    def tells_classes_apart(self, cosine: NDArray[np.float64]) -> bool:
        """Class sensitivity."""
        return bool(np.mean(cosine) <= self.class_cosine)
