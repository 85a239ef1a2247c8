"""How far a saliency method can be trusted: tests that a method has to pass before its pictures mean anything.

1. Input invariance (Kindermans et al. 2017): a second network that undoes a shift of its input computes the same
   function; a method whose map changes with the shift describes the coordinates, not the network.
2. Parameter randomisation (Adebayo et al. 2018): a map that stays when the weights are drawn anew does not show them.
3. Class sensitivity: maps of two classes of one picture should differ.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn
from torch.nn import functional

from microtome.errors import InputError
from microtome.visualize.attribution import Scaled, at_rest
from microtome.visualize.methods import Method
from microtome.visualize.names import REDRAWN

SAME_FUNCTION = 1e-4  # of the logits' standard deviation: beyond it the shifted twin is another network


# 1. input invariance


class _Shifted(nn.Module):
    """The first convolution as a network needs it whose input is shifted: same answers for x + m as its own for x.

    A convolution is affine, however it pads and whatever it makes of its weights: c(x + m) - (c(m) - c(0)) = c(x).
    """

    def __init__(self, own: nn.Conv2d, shift: torch.Tensor) -> None:
        super().__init__()
        self.own, self.shift = own, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.own(x)
        return answer - self._response(x.shape[1:])

    def _response(self, shape: torch.Size) -> torch.Tensor:
        """(1, units, rows, columns) what the shift alone adds."""
        shift = self.shift[:, None, None] if self.shift.ndim == 1 else self.shift
        moved = shift.expand(shape)[None]
        with torch.no_grad():
            added: torch.Tensor = self.own(moved) - self.own(torch.zeros_like(moved))
        return added


class _Exact(nn.Module):
    """A first convolution in float64, its answer rounded to float32 for all that follows."""

    def __init__(self, own: nn.Conv2d) -> None:
        super().__init__()
        self.own = own.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.own(x.double())
        return answer.float()


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d] | None:
    return next(((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), None)


def exactly_shifted(network: nn.Module, x: torch.Tensor) -> nn.Module:
    """A copy whose twins are the same function to the bit, all but always, for pictures in float64.

    In float32 network and twin differ by rounding, and a ReLU that flips can move a map by a percent. Only the first
    convolution sees the shift. In float64 its answer is the same to some 16 digits, and then, rounded to the 7 of
    float32, the same: all that follows is given the same numbers. A network that looks at the picture elsewhere too,
    where float64 and float32 do not go together, is float64 as a whole, at twice the time.

    Args:
        network: float32.
        x: a picture, (1, channels, height, width).
    """
    exact = copy.deepcopy(network)
    found = _first_convolution(exact)
    if found is not None:
        name, own = found
        setattr(exact.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], _Exact(own))
        with contextlib.suppress(RuntimeError), torch.no_grad(), at_rest(exact):
            exact(x.double())
            return exact
    return copy.deepcopy(network).double()


def shifted_twin(network: nn.Module, shift: torch.Tensor) -> nn.Module:
    """A copy of the network with f2(x + shift) = f1(x).

    Args:
        network: whose first convolution sees the input itself, or what its normalisation makes of it.
        shift: (channels,) a constant per channel, or (channels, height, width) a picture.

    Raises:
        InputError: no convolution.
    """
    twin = copy.deepcopy(network)
    first = _first_convolution(twin)
    if first is None:
        raise InputError(f"reliability: the network must begin with a convolution, got {type(network).__name__}")
    name, own = first
    parent = twin.get_submodule(name.rpartition(".")[0])
    moved = shift.to(own.weight)
    if isinstance(network, Scaled):
        moved = moved / network.std.to(moved).reshape(-1, *[1] * (moved.ndim - 1))
    setattr(parent, name.rpartition(".")[2], _Shifted(own, moved))
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


def shifts(size: tuple[int, int], mean: Sequence[float], std: Sequence[float], *, seed: int) -> dict[str, torch.Tensor]:
    """The shifts under test, by name, of pixels in [0, 1]: constants per channel, and a drawn picture.

    Args:
        size: (height, width) of the pictures.
        mean, std: per channel, of the network's input; minus the mean makes 0 what the network calls 0.
        seed: of the drawn picture, whose pixels have the input's deviation.
    """
    drawn = torch.randn(len(std), *size, generator=torch.Generator().manual_seed(seed))
    return {
        "-1": torch.full((len(mean),), -1.0),
        "minus channel mean": -torch.tensor(mean),
        "+0.5": torch.full((len(mean),), 0.5),
        "drawn image": drawn * torch.tensor(std)[:, None, None],
    }


def dithered(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Pictures, by pixels in [0, 1], with noise of less than half a grey level.

    In flat areas neighbouring cells are equal, pooling picks one of them by rounding, and the twin rounds differently:
    without this, gradients of photographs with white backgrounds seem to depend on the shift, by some five per cent.

    Args:
        x: (pictures, channels, height, width).
        seed: of the noise.
    """
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype) - 0.5
    return x + (noise / 255).to(x.device)


def invariance(
    network: nn.Module,
    method: Method,
    x: torch.Tensor,
    classes: torch.Tensor,
    *,
    shift: torch.Tensor,
    own: torch.Tensor | None = None,
) -> Invariance:
    """Compare a method's maps of a network and of its shifted twin; what the method draws is the same for both.

    Args:
        network, method, x, classes: as of any method.
        shift: of the pictures.
        own: the network's maps, where they are at hand.
    """
    twin = shifted_twin(network, shift)
    moved = x + (shift[None, :, None, None] if shift.ndim == 1 else shift[None])
    with torch.no_grad(), at_rest(network), at_rest(twin):
        one, other = network(x), twin(moved)
    gate = float((one - other).abs().max() / one.std().clamp(min=1e-30))
    first = method(network, x, classes, x) if own is None else own
    second = method(twin, moved, classes, x)
    length = first.flatten(1).norm(dim=1).clamp(min=1e-30)
    return Invariance(((first - second).flatten(1).norm(dim=1) / length).double().cpu().numpy(), gate)


# 2. parameter randomisation


def parameter_layers(network: nn.Module) -> list[str]:
    """Names of the modules with parameters of their own, from the input to the output: every parameter is in one.

    A network's own (a class token) are those of the module "".
    """
    return [name for name, module in network.named_modules() if list(module.parameters(recurse=False))]


def layer_label(network: nn.Module, layer: str) -> str:
    """A layer's name; of the network's own parameters theirs."""
    return layer or ", ".join(name for name, _ in network.named_parameters(recurse=False))


def spread_evenly(layers: Sequence[str], most: int) -> list[str]:
    """At most so many of the layers, the first and the last among them, evenly spread."""
    places = sorted({round(at) for at in np.linspace(0, len(layers) - 1, min(most, len(layers)))})
    return [layers[place] for place in places]


def randomised(network: nn.Module, order: Sequence[str], seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Copies with ever more layers drawn anew, in the given order; each keeps what came before.

    New weights have the scale of the old ones (normal; of convolutions and linear layers the same standard deviation,
    of others, tokens and tables of positions among them, the same root mean square), so that the answers stay in range;
    biases and the factors of norms are those of a new layer.
    """
    changed = copy.deepcopy(network)
    draw = torch.Generator().manual_seed(seed)
    for name in order:
        with torch.no_grad():
            _draw_anew(changed.get_submodule(name), draw)
        yield name, changed


def redrawn(network: nn.Module, layer: str, seed: int) -> Iterator[nn.Module]:
    """REDRAWN copies with one layer drawn anew, each otherwise: what a single draw leaves of a map is chance, too.

    The first is the first of `randomised` from there, at the same seed.
    """
    for draw in range(REDRAWN):
        _, changed = next(randomised(network, [layer], seed + draw))
        yield changed


_NORMS = nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm


def _draw_anew(module: nn.Module, draw: torch.Generator) -> None:
    """A module's own parameters, not those of modules within."""
    if isinstance(module, _NORMS):
        module.reset_parameters()
        return
    plain = isinstance(module, nn.Conv2d | nn.Linear)
    for name, value in module.named_parameters(recurse=False):
        if plain and name == "bias":
            value.zero_()
            continue
        size = value.std() if plain else value.square().mean().sqrt()
        value.copy_(torch.randn(value.shape, generator=draw).to(value) * size)


@dataclass(frozen=True)
class Similarity:
    """How alike two maps of a picture are: (pictures,) each; `cosine` signed, `spearman` and `ssim` of magnitudes."""

    cosine: NDArray[np.float64]
    spearman: NDArray[np.float64]
    ssim: NDArray[np.float64]


def similarity(one: torch.Tensor, other: torch.Tensor) -> Similarity:
    """Compare (pictures, channels, height, width) maps. A map without any signal is like nothing: 0.

    The cosine of a map that is nowhere negative (Grad-CAM's) is taken about its mean: as they are, two such maps have a
    cosine well above 0 whatever they show.
    """
    first, second = (_about_its_mean(item.double().flatten(1)) for item in (one, other))
    cosine = functional.cosine_similarity(first, second, dim=1, eps=1e-30)
    size = [item.double().abs().sum(1).cpu().numpy() for item in (one, other)]
    ranks = [torch.from_numpy(rankdata(item.reshape(len(item), -1), axis=1)) for item in size]
    centred = [item - item.mean(1, keepdim=True) for item in ranks]
    spearman = functional.cosine_similarity(centred[0], centred[1], dim=1, eps=1e-30)
    return Similarity(cosine.cpu().numpy(), spearman.numpy(), ssim(*size))


def _about_its_mean(flat: torch.Tensor) -> torch.Tensor:
    """(pictures, values), centred where a picture's values are nowhere negative."""
    never = (flat >= 0).all(1, keepdim=True)
    return torch.where(never, flat - flat.mean(1, keepdim=True), flat)


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
        """Parameter randomisation, of the last layer alone: over draws and pictures."""
        return bool(np.mean(cosine) <= self.randomised_cosine)

    def tells_classes_apart(self, cosine: NDArray[np.float64]) -> bool:
        """Class sensitivity."""
        return bool(np.mean(cosine) <= self.class_cosine)
