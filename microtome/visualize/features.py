"""Feature visualisation (Olah, Mordvintsev, Schubert 2017): the picture that a unit answers to most.

A picture is a spectrum: z ~ N(0, 0.01) over the frequencies of a real Fourier transform, scaled by 1 / f, taken back to
space, mixed by a colour matrix, squeezed into [0, 1]. Adam climbs the objective through random transforms. Every random
number follows from (seed, layer, unit), and a batch always has the same size, so that a unit's picture does not depend
on which units share its batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from microtome.visualize.attribution import Layer, answer_of, at_rest, located, name_of
from microtome.visualize.rules import BackwardRule

# Rows R, G, B: square root of the colour covariance of ImageNet, scaled to a largest row norm of 1.
COLOURS = ((0.56283, 0.19483, 0.04329), (0.58448, 0.0, -0.10824), (0.58448, -0.19483, 0.06494))
REDIRECTED_STEPS = 16
HIGH_FREQUENCY = 0.25  # cycles per pixel: half the highest that a pixel grid can show
OBJECTIVES = ("channel", "neuron", "layer", "logit", "direction", "negative")

Objective = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class FeatureRecipe:
    """How pictures are made.

    Args:
        size: (height, width) in pixels.
        objective: `channel` mean, centre `neuron`, `layer` (mean of squares), class `logit`, `direction` in the layer's
            space, or `negative` channel mean.
        steps, rate: of Adam.
        transforms: pad, jitter, scale and rotate anew in every step.
        batch: pictures computed together; always full, padded with copies.
        seed: of everything random.
    """

    size: tuple[int, int]
    objective: str = "channel"
    steps: int = 512
    rate: float = 0.05
    transforms: bool = True
    batch: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Feature:
    """One unit's picture.

    Args:
        picture: (3, height, width) in [0, 1]; grey for a unit that no gradient reaches.
        objective: its value without transforms, and
        transformed: as the mean over the last steps, with them.
        peak: the unit's highest cell in the picture, without transforms.
        high_frequency: share of the picture's energy above a quarter cycle per pixel.
        unreached: the gradient stayed exactly zero.
    """

    picture: torch.Tensor
    objective: float
    transformed: float
    peak: float
    high_frequency: float
    unreached: bool


def visualise(network: nn.Module, layer: Layer | None, units: Sequence[int], recipe: FeatureRecipe) -> list[Feature]:
    """Make each unit's picture.

    Args:
        network: takes pixels in [0, 1]; see `attribution.scaled`.
        layer: its geometry, or dotted name; None for logits.
        units: channels, or classes.
        recipe: how.

    Raises:
        ValueError: an unknown objective.
    """
    if recipe.objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {recipe.objective!r}")
    found: list[Feature] = []
    layer = located(network, layer, recipe.size)
    with at_rest(network):
        for start in range(0, len(units), recipe.batch):
            some = list(units[start : start + recipe.batch])
            full = some + [some[-1]] * (recipe.batch - len(some))
            found += _batch(network, layer, full, recipe)[: len(some)]
    return found


def _batch(network: nn.Module, layer: Layer | None, units: Sequence[int], recipe: FeatureRecipe) -> list[Feature]:
    device = next(network.parameters()).device
    name = None if layer is None else name_of(layer)
    generators = [torch.Generator().manual_seed(_seed(recipe.seed, name, unit)) for unit in units]
    spectrum = torch.stack([initial_spectrum(recipe.size, one) for one in generators]).to(device).requires_grad_()
    optimiser = torch.optim.Adam([spectrum], lr=recipe.rate)
    score = objective_of(recipe.objective, units)
    alive = torch.zeros(len(units), dtype=torch.bool, device=device)
    last: list[torch.Tensor] = []
    for step in range(recipe.steps):
        thetas = torch.stack([random_transform(recipe.size, one) for one in generators]).to(device)
        values, slope = _slope(network, layer, spectrum, score=score, how=(thetas, recipe), rule="gradient")
        silent = ~slope.flatten(1).any(1)
        alive |= ~silent
        if step < REDIRECTED_STEPS and bool(silent.any()):
            rescued = _slope(network, layer, spectrum, score=score, how=(thetas, recipe), rule="redirected")[1]
            slope = torch.where(silent[:, None, None, None, None], rescued, slope)
        spectrum.grad = slope
        optimiser.step()
        last = [*last[-15:], values]
    return _finished(network, layer, spectrum, (units, score, alive, last), recipe=recipe)


def _slope(
    network: nn.Module,
    layer: Layer | None,
    spectrum: torch.Tensor,
    *,
    score: Objective,
    how: tuple[torch.Tensor, FeatureRecipe],
    rule: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    thetas, recipe = how
    with torch.enable_grad():
        picture = to_picture(spectrum, recipe.size)
        shown = transformed(picture, thetas) if recipe.transforms else picture
        with BackwardRule(rule):
            values = score(answer_of(network, shown, layer))
        # Maximise; each picture's own value alone moves its own spectrum.
        return values.detach(), torch.autograd.grad(-values.sum(), spectrum)[0]


def _finished(
    network: nn.Module,
    layer: Layer | None,
    spectrum: torch.Tensor,
    about: tuple[Sequence[int], Objective, torch.Tensor, list[torch.Tensor]],
    *,
    recipe: FeatureRecipe,
) -> list[Feature]:
    units, score, alive, last = about
    with torch.no_grad():
        picture = to_picture(spectrum, recipe.size)
        answer = answer_of(network, picture, layer)
        values = score(answer)
        peaks = answer.flatten(2).amax(2) if answer.ndim == 4 else answer
        mean = torch.stack(last).mean(0) if last else values
    found = []
    for place, unit in enumerate(units):
        unreached = not bool(alive[place])
        shown = torch.full_like(picture[place], 0.5) if unreached else picture[place]
        found.append(
            Feature(
                shown.cpu(), float(values[place]), float(mean[place]), float(peaks[place, unit]),
                high_frequency_share(shown), unreached,
            )
        )  # fmt: skip
    return found


def objective_of(name: str, units: Sequence[int]) -> Objective:
    """(pictures, ...) answers -> (pictures,) values.

    Args:
        name: of OBJECTIVES; a `direction` is the one in which the unit's axis lies, by cosine times length.
        units: a channel, or a class, per picture.
    """
    places = torch.arange(len(units))

    def score(answer: torch.Tensor) -> torch.Tensor:
        own = answer[places, list(units)]
        if name == "logit" or answer.ndim == 2:
            return -own if name == "negative" else own
        if name == "channel":
            return own.flatten(1).mean(1)
        if name == "negative":
            return -own.flatten(1).mean(1)
        if name == "neuron":
            return own[:, own.shape[1] // 2, own.shape[2] // 2]
        if name == "layer":
            return answer.square().flatten(1).mean(1)
        mean = answer.mean((2, 3))
        along = mean[places, list(units)]
        share: torch.Tensor = along / mean.norm(dim=1).clamp(min=1e-12)
        return along * share

    return score


def initial_spectrum(size: tuple[int, int], draw: torch.Generator) -> torch.Tensor:
    """(3, height, width // 2 + 1, 2) z ~ N(0, 0.01)."""
    return 0.01 * torch.randn(3, size[0], size[1] // 2 + 1, 2, generator=draw)


def to_picture(spectrum: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(pictures, 3, height, width) in (0, 1) from spectra."""
    height, width = size
    rows = torch.fft.fftfreq(height, device=spectrum.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=spectrum.device)[None, :]
    frequency = torch.hypot(rows, columns).clamp(min=1 / max(size))
    space = torch.fft.irfft2(torch.view_as_complex(spectrum) / frequency, s=size, norm="ortho") / 4
    mixed = torch.einsum("rc,nchw->nrhw", torch.tensor(COLOURS, device=spectrum.device), space)
    return mixed.sigmoid()


def random_transform(size: tuple[int, int], draw: torch.Generator) -> torch.Tensor:
    """(2, 3) one random jitter, scale 0.9-1.1, rotation by up to 10 degrees, and jitter again, as one affine map.

    Jitters of 8 and 4 pixels at 224, whole pixels, in proportion for smaller pictures.
    """
    height, width = size
    unit = min(size) / 224
    first, second = (max(1, round(pixels * unit)) for pixels in (8, 4))
    shift = torch.randint(-first, first + 1, (2,), generator=draw) + torch.randint(
        -second, second + 1, (2,), generator=draw
    )
    scale = 0.9 + 0.2 * float(torch.rand((), generator=draw))
    turn = math.radians(-10 + 20 * float(torch.rand((), generator=draw)))
    cos, sin = math.cos(turn) / scale, math.sin(turn) / scale
    x, y = 2 * float(shift[0]) / width, 2 * float(shift[1]) / height
    return torch.tensor([[cos, -sin * height / width, x], [sin * width / height, cos, y]])


def transformed(picture: torch.Tensor, thetas: torch.Tensor) -> torch.Tensor:
    """Pictures under affine maps, grey outside: what padding by grey and cropping back gives."""
    grid = functional.affine_grid(thetas.to(picture), list(picture.shape), align_corners=False)
    return functional.grid_sample(picture - 0.5, grid, mode="bilinear", align_corners=False) + 0.5


def diversity(answers: torch.Tensor) -> torch.Tensor:
    """Mean cosine between the Gram matrices of a batch's maps: (pictures, units, rows, columns) -> scalar."""
    flat = answers.flatten(2)
    gram = (flat @ flat.transpose(1, 2)).flatten(1)
    gram = functional.normalize(gram, dim=1)
    cosine = gram @ gram.T
    count = len(answers)
    return (cosine.sum() - cosine.diagonal().sum()) / max(1, count * (count - 1))


def diverse(
    network: nn.Module, layer: Layer, unit: int, recipe: FeatureRecipe, *, count: int = 4, penalty: float = 1e2
) -> list[Feature]:
    """Several different pictures of one unit: the objective minus `penalty` times their mean cosine."""
    units = [unit] * count
    where = located(network, layer, recipe.size)
    own = objective_of(recipe.objective, units)

    def score(answer: torch.Tensor) -> torch.Tensor:
        return own(answer) - penalty * diversity(answer) / count

    device = next(network.parameters()).device
    generators = [
        torch.Generator().manual_seed(_seed(recipe.seed, name_of(layer), unit, place)) for place in range(count)
    ]
    spectrum = torch.stack([initial_spectrum(recipe.size, one) for one in generators]).to(device).requires_grad_()
    optimiser = torch.optim.Adam([spectrum], lr=recipe.rate)
    last: list[torch.Tensor] = []
    alive = torch.zeros(count, dtype=torch.bool, device=device)
    with at_rest(network):
        for _ in range(recipe.steps):
            thetas = torch.stack([random_transform(recipe.size, one) for one in generators]).to(device)
            values, slope = _slope(network, where, spectrum, score=score, how=(thetas, recipe), rule="gradient")
            alive |= slope.flatten(1).any(1)
            spectrum.grad = slope
            optimiser.step()
            last = [*last[-15:], values]
        return _finished(network, where, spectrum, (units, own, alive, last), recipe=recipe)


def high_frequency_share(picture: torch.Tensor) -> float:
    """Share of a (3, height, width) picture's energy, the mean left out, above a quarter cycle per pixel."""
    power = torch.fft.rfft2(picture.double() - picture.double().mean((1, 2), keepdim=True)).abs().square()
    width = picture.shape[2]
    rows = torch.fft.fftfreq(picture.shape[1], device=picture.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=picture.device)[None, :]
    twice = torch.full((power.shape[2],), 2.0, device=picture.device)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    power = power * twice
    total = power.sum()
    return float(power[:, torch.hypot(rows, columns) > HIGH_FREQUENCY].sum() / total) if total > 0 else 0.0


def _seed(*parts: object) -> int:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
