"""Fine-tune an interpretable CNN: task loss plus filter losses, resumable at every epoch, bit for bit on a CPU.

A linear head begins where it answers best, as the linear probe of the new layers as they are: training bends features,
and does not have to find the head first (Kumar et al., arXiv 2202.10054). The last layer of another head, whose hidden
layers begin at random, is fitted anew at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from microtome.disentangle.filter_loss import filter_loss
from microtome.disentangle.interpretable import HeadScale, InterpretableCNN
from microtome.disentangle.pressure import FilterPressure
from microtome.disentangle.probe import fit_probe
from microtome.errors import InputError

MOMENTUM, DECAY = 0.9, 5e-4
WARM = 0.2  # share of the steps over which the filter gradient grows to its full share
FALL = 0.1  # of a rate that was found, from the first epoch to the last
EXPLODED = 10.0  # a loss above so many times that of a guess has diverged: over an epoch, or after it
HALVINGS = 20  # of the rate, before training gives up
SURE = 0.9  # probability of its own class in a picture by whose pull the filter loss is measured
AT_ONCE = 32  # pictures whose answers are read together


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network is trained.

    Args:
        epochs: passes over the training images.
        batch: images per step; the last batch of an epoch is smaller.
        rate: learning rates of the first and the last epoch, geometric in between.
        strength: norm of the filter gradient at each of the two layers, as a share of the mean norm of the gradient
            that would reach the layer if each picture's own class got a probability of `SURE`; grows linearly to it
            over the first fifth of the steps. 0 trains the twin.
        seed: of order, mirroring and dropout.
    """

    epochs: int
    batch: int
    rate: tuple[float, float]
    strength: float
    seed: int = 0

    def rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        first, last = self.rate
        return float(first * (last / first) ** (epoch / max(1, self.epochs - 1)))


Reader = Callable[[torch.Tensor], torch.Tensor]


class FeatureSource(Protocol):
    """Images as the trained part of the network sees them."""

    labels: torch.Tensor
    """(images,) class numbers; for a single category 1 for its images, 0 for the others."""

    def features(self, images: Sequence[int], mirrored: Sequence[bool]) -> torch.Tensor:
        """What the frozen part of the network answers, of each image or its mirror image."""


@dataclass(frozen=True)
class Result:
    """One pass: mean task loss, mean filter loss (-MI, over filters of both layers), share of right answers."""

    task_loss: float
    filter_loss: float
    accuracy: float


def together(steps: Sequence[tuple[int, Result]]) -> Result:
    """The steps of an epoch as one pass: means over their images.

    Args:
        steps: how many images each took, and what it came to.
    """
    total = sum(count for count, _ in steps)
    return Result(
        sum(count * result.task_loss for count, result in steps) / total,
        sum(count * result.filter_loss for count, result in steps) / total,
        sum(count * result.accuracy for count, result in steps) / total,
    )


class Membership(nn.Module):
    """The category of each filter: argmax_c mean_{I in c} sum_ij x_ij, running over the epoch.

    An epoch begins with the last one's means, weighted as one image. A single category's filters all belong to it.

    Args:
        filters: number of filters.
        classes: outputs of the network.
        background: class number that is no category, or None.
    """

    total: torch.Tensor
    count: torch.Tensor

    def __init__(self, filters: int, classes: int, background: int | None) -> None:
        super().__init__()
        self.classes, self.background = classes, background
        self.register_buffer("total", torch.zeros(max(classes, 2), filters))
        self.register_buffer("count", torch.zeros(max(classes, 2)))

    def begin_epoch(self) -> None:
        """Reduce what is known to one image a class."""
        self.total /= self.count.clamp(min=1)[:, None]
        self.count.clamp_(max=1)

    @torch.no_grad()
    def update(self, maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Take a batch; gives (images, filters) whether the image is of the filter's category."""
        self.total.index_add_(0, labels, maps.sum((2, 3)))
        self.count.index_add_(0, labels, torch.ones(len(labels)).to(self.count))
        return labels[:, None] == self.categories()

    def categories(self) -> torch.Tensor:
        """(filters,) class number of each filter."""
        if self.classes == 1:
            return torch.ones(self.total.shape[1], dtype=torch.long, device=self.total.device)
        mean = self.total / self.count.clamp(min=1)[:, None]
        mean = torch.where(self.count[:, None] > 0, mean, -torch.inf)
        if self.background is not None:
            mean[self.background] = -torch.inf
        return mean.argmax(0)


class Trainer:
    """Trains what lies above the frozen part of a network.

    Every random number follows from (seed, epoch, step) alone: a trainer that is given back its state continues as if
    it had never stopped.

    Args:
        network: to be trained in place.
        frozen: how many children of its `features` stay as they are; batch norm keeps its statistics everywhere.
        recipe: how.
        background: class number that is no category, or None.
    """

    def __init__(
        self, network: InterpretableCNN, frozen: int, recipe: TrainingRecipe, *, background: int | None = None
    ) -> None:
        self.network, self.recipe = network, recipe
        self.base, self.tail = network.features[:frozen], network.features[frozen:]
        self.base.eval().requires_grad_(False)
        trained = [self.tail, network.extra, network.classifier]
        named = [(name, value) for part in trained for name, value in part.named_parameters()]
        for _, value in named:
            value.requires_grad_(True)
        biases = [value for name, value in named if name.endswith("bias")]
        weights = [value for name, value in named if not name.endswith("bias")]
        groups = [{"params": weights, "weight_decay": DECAY}, {"params": biases, "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=recipe.rate[0], momentum=MOMENTUM)
        device = next(network.parameters()).device
        filters, classes = network.filters, network.classes
        self.membership = [Membership(filters, classes, background).to(device) for _ in range(2)]
        extra = FilterPressure(filters, network.n)
        self.pressure = [FilterPressure(filters, network.n, extra).to(device), extra.to(device)]
        self.single = classes == 1
        self.halvings = 0

    def start(self, source: FeatureSource, images: Sequence[int]) -> None:
        """Let a linear head begin at the probe of the new layers as they are.

        Args:
            source: of the images.
            images: those to train on.
        """
        first = self.network.classifier[0]
        if isinstance(first, HeadScale):
            read, _ = self._read(self.network.read, source, images)
            first.unit.fill_(float(np.sqrt(np.square(read).sum(1).mean())) or 1.0)
            self._fit_last(source, images)

    def finish(self, source: FeatureSource, images: Sequence[int]) -> None:
        """Fit the last layer to what reaches it in the end: filters have moved away from what it was trained on."""
        self._fit_last(source, images)

    def _fit_last(self, source: FeatureSource, images: Sequence[int]) -> None:
        """To the probe of what reaches it, of the images and their mirror images."""
        read, labels = self._read(self.network.read, source, images)
        probe = fit_probe(read, labels)
        with torch.no_grad():
            self.network.last.weight.copy_(torch.from_numpy(probe.weight))
            self.network.last.bias.copy_(torch.from_numpy(probe.bias))

    @torch.no_grad()
    def _read(
        self, reader: Reader, source: FeatureSource, images: Sequence[int], *, mirror: bool = True
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(images, units) what a reader makes of the backbone's output, and class numbers; mirror images come last."""
        self.network.eval()
        sides = (False, True) if mirror else (False,)
        read = [
            reader(self.tail(source.features(some, [side] * len(some)))).double().cpu().numpy()
            for side in sides
            for some in _some(images)
        ]
        labels = source.labels[list(images)].cpu().numpy()
        return np.concatenate(read), np.concatenate([labels] * len(sides))

    def train_at(self, first: float, last: float | None = None) -> None:
        """Take other learning rates than the recipe's; a tenth of the first in the last epoch, if only one is given."""
        self.recipe = replace(self.recipe, rate=(first, FALL * first if last is None else last))

    def backbone(
        self, source: FeatureSource, images: Sequence[int], *, mirror: bool = True
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(images, filters) mean over cells of the top map, and class numbers; then of the mirror images, if wanted."""
        return self._read(_pooled, source, images, mirror=mirror)

    def rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0, after what divergence took from it."""
        return float(self.recipe.rate_at(epoch) * 0.5**self.halvings)

    def epoch(
        self,
        number: int,
        source: FeatureSource,
        images: Sequence[int],
        seen: Callable[[int], None] = lambda count: None,
    ) -> list[tuple[int, Result]]:
        """Train for one epoch; where it diverges, again from its beginning at half the rate, from then on.

        Args:
            number: of the epoch, from 0.
            source: of the images.
            images: those to train on.
            seen: is told how many images each step took.

        Returns:
            of each step how many images it took, and its losses.

        Raises:
            InputError: it diverges at any rate.
        """
        before = self.state()
        while self.halvings <= HALVINGS:
            steps = []
            for count, result in self._steps(number, source, images):
                steps.append((count, result))
                seen(count)
            if self._sane(together(steps).task_loss) and self._sane(self._glance(source, images)):
                return steps
            self.restore(before)
            self.halvings += 1
            before = self.state()
        raise InputError(
            f"finetuning.rate, finetuning.strength: the loss must stay finite, got {steps[-1][1].task_loss:g} in epoch "
            f"{number + 1} at any rate down to {self.rate_at(number):g} (strength {self.recipe.strength:g}); lower them"
        )

    @torch.inference_mode()
    def _glance(self, source: FeatureSource, images: Sequence[int]) -> float:
        """Task loss of a batch of evenly chosen images, without training."""
        self.network.eval()
        some = list(images[:: math.ceil(len(images) / self.recipe.batch)])
        logits, _ = self.network.above(self.tail(source.features(some, [False] * len(some))))
        return float(self._task_loss(logits, source.labels[some]))

    def _sane(self, loss: float) -> bool:
        return loss <= EXPLODED * math.log(max(self.network.classes, 2))  # False of NaN

    def _steps(self, number: int, source: FeatureSource, images: Sequence[int]) -> Iterator[tuple[int, Result]]:
        """An epoch, step by step, until it ends or its loss is no number."""
        self.begin(self.rate_at(number))
        for member in self.membership:
            member.begin_epoch()
        draw = torch.Generator().manual_seed(seeded(self.recipe.seed, number))
        order = torch.randperm(len(images), generator=draw).tolist()
        mirrored = (torch.rand(len(images), generator=draw) < 0.5).tolist()
        starts = range(0, len(order), self.recipe.batch)
        for step, start in enumerate(starts):
            places = order[start : start + self.recipe.batch]
            chosen = [images[place] for place in places]
            features = source.features(chosen, [mirrored[place] for place in places])
            done = (number * len(starts) + step + 1) / (self.recipe.epochs * len(starts))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seeded(self.recipe.seed, number, step))
                result = self.step(features, source.labels[chosen], self.recipe.strength * min(1.0, done / WARM))
            yield len(chosen), result
            if not math.isfinite(result.task_loss):
                return

    def begin(self, rate: float) -> None:
        """Be ready for steps at a rate; batch norm keeps its statistics."""
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def step(self, features: torch.Tensor, labels: torch.Tensor, strength: float) -> Result:
        """One step of gradient descent.

        Args:
            features: (images, ...) output of the frozen part.
            labels: (images,) class numbers.
            strength: of the filter gradient in this step.
        """
        logits, maps = self.network.above(self.tail(features))
        task = self._task_loss(logits, labels)
        measured = self._press(maps, labels, strength, self._pull(logits.detach(), labels))
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(task)
        self.optimiser.step()
        right = float(self._right(logits.detach(), labels).float().mean())
        return Result(float(task.detach()), measured, right)

    def _pull(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(images,) norm of the loss's slope on an image's logits, beside that of an image whose class gets `SURE`."""
        if self.single:
            return (logits[:, 0].sigmoid() - labels.to(logits)).abs() / (1 - SURE)
        classes = logits.shape[1]
        off = logits.softmax(1) - functional.one_hot(labels, classes)
        pull: torch.Tensor = off.norm(dim=1) / ((1 - SURE) * (1 + 1 / (classes - 1)) ** 0.5)
        return pull

    def _press(self, maps: Sequence[torch.Tensor], labels: torch.Tensor, strength: float, pull: torch.Tensor) -> float:
        """Have the filter gradient added to what comes back to both layers; gives the batch's mean -MI."""
        measured = []
        for item, membership, pressure in zip(maps, self.membership, self.pressure, strict=True):
            wanted = membership.update(item.detach(), labels)
            measured.append(float(filter_loss(item.detach()).mean()))
            if strength and item.requires_grad:
                pressure.press(item, wanted, strength, pull)
        return sum(measured) / len(measured)

    @torch.inference_mode()
    def evaluate(self, source: FeatureSource, images: Sequence[int]) -> tuple[Result, torch.Tensor]:
        """Losses and accuracy without training, and (images, classes) logits."""
        self.network.eval()
        batches = [
            list(images[start : start + self.recipe.batch]) for start in range(0, len(images), self.recipe.batch)
        ]
        logits, filters = [], []
        for chosen in batches:
            answer, maps = self.network.above(self.tail(source.features(chosen, [False] * len(chosen))))
            logits.append(answer)
            filters.append(len(chosen) * float(torch.stack([filter_loss(item).mean() for item in maps]).mean()))
        together, labels = torch.cat(logits), source.labels[list(images)]
        right = self._right(together, labels).float().mean()
        return Result(float(self._task_loss(together, labels)), sum(filters) / len(images), float(right)), together

    def predicted(self, logits: torch.Tensor) -> torch.Tensor:
        """(images,) class numbers that (images, classes) logits stand for."""
        return (logits[:, 0] > 0).long() if self.single else logits.argmax(1)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that training changes, by name."""
        momentum = {
            f"momentum.{place}": self.optimiser.state[value]["momentum_buffer"]
            for place, value in enumerate(self._parameters())
            if "momentum_buffer" in self.optimiser.state.get(value, {})
        }
        kept = {
            f"{part}.{name}": value for part, module in self._parts() for name, value in module.state_dict().items()
        }
        every = {**kept, **momentum, "halvings": torch.tensor(self.halvings)}
        return {name: value.detach().clone().contiguous() for name, value in every.items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take a state back."""
        self.halvings = int(state["halvings"])
        self.optimiser.state.clear()
        for part, module in self._parts():
            prefix = f"{part}."
            module.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        for place, value in enumerate(self._parameters()):
            if f"momentum.{place}" in state:
                self.optimiser.state[value]["momentum_buffer"] = state[f"momentum.{place}"].to(value).clone()

    def _parts(self) -> list[tuple[str, nn.Module]]:
        states = {"membership": nn.ModuleList(self.membership), "pressure": nn.ModuleList(self.pressure)}
        return [("network", self.network), *states.items()]

    def _parameters(self) -> list[nn.Parameter]:
        return [value for group in self.optimiser.param_groups for value in group["params"]]

    def _task_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.single:
            return functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits))
        return functional.cross_entropy(logits, labels)

    def _right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.predicted(logits) == labels


def _pooled(maps: torch.Tensor) -> torch.Tensor:
    return maps.mean((2, 3))


def _some(images: Sequence[int]) -> Iterator[list[int]]:
    return (list(images[start : start + AT_ONCE]) for start in range(0, len(images), AT_ONCE))


def seeded(*parts: int) -> int:
    """One number from several, as different as their tuples."""
    value = 0
    for part in parts:
        value = (value * 1_000_003 + part + 1) % (2**63 - 1)
    return value
