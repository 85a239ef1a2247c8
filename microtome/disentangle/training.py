"""Fine-tune an interpretable CNN: task loss plus filter losses, resumable at every epoch, bit for bit on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

from microtome.disentangle.filter_loss import FilterLoss, Partition, filter_loss, fitted_templates
from microtome.disentangle.interpretable import InterpretableCNN
from microtome.errors import InputError

MOMENTUM, DECAY = 0.9, 5e-4


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network is trained.

    Args:
        epochs: passes over the training images.
        batch: images per step; the last batch of an epoch is smaller.
        rate: learning rates of the first and the last epoch, geometric in between.
        strength: of the filter loss; lambda of a filter in epoch t is strength / t times the mean over images of its
            maps' maxima. 0 trains the twin.
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
        self.partition = [Partition(filters, network.n).to(device) for _ in range(2)]
        self.single = classes == 1

    def epoch(self, number: int, source: FeatureSource, images: Sequence[int]) -> Iterator[tuple[int, Result]]:
        """Train for one epoch, step by step.

        Args:
            number: of the epoch, from 0.
            source: of the images.
            images: those to train on.

        Yields:
            how many images the step took, and its losses.
        """
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(number)
        for member in self.membership:
            member.begin_epoch()
        draw = torch.Generator().manual_seed(_seed(self.recipe.seed, number))
        order = torch.randperm(len(images), generator=draw).tolist()
        mirrored = (torch.rand(len(images), generator=draw) < 0.5).tolist()
        for step, start in enumerate(range(0, len(order), self.recipe.batch)):
            places = order[start : start + self.recipe.batch]
            chosen = [images[place] for place in places]
            features = source.features(chosen, [mirrored[place] for place in places])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_seed(self.recipe.seed, number, step))
                yield len(chosen), self.step(features, source.labels[chosen], number)

    def step(self, features: torch.Tensor, labels: torch.Tensor, epoch: int) -> Result:
        """One step of gradient descent.

        Args:
            features: (images, ...) output of the frozen part.
            labels: (images,) class numbers.
            epoch: from 0.
        """
        logits, maps = self.network.above(self.tail(features))
        task = self._task_loss(logits, labels)
        pressure, measured = self._pressure(maps, labels, epoch)
        total = task + pressure
        if not torch.isfinite(total.detach()):
            raise InputError(
                f"finetuning.rate, finetuning.strength: the loss must stay finite, got {total.item()} in epoch "
                f"{epoch + 1} (rate {self.recipe.rate[0]:g}, strength {self.recipe.strength:g}); use a lower one"
            )
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        self.optimiser.step()
        return Result(float(task.detach()), measured, float(self._right(logits, labels).float().mean()))

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
        return {name: value.detach().clone().contiguous() for name, value in {**kept, **momentum}.items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take a state back."""
        for part, module in self._parts():
            prefix = f"{part}."
            module.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        for place, value in enumerate(self._parameters()):
            if f"momentum.{place}" in state:
                self.optimiser.state[value]["momentum_buffer"] = state[f"momentum.{place}"].to(value).clone()

    def _parts(self) -> list[tuple[str, nn.Module]]:
        states = {"membership": nn.ModuleList(self.membership), "partition": nn.ModuleList(self.partition)}
        return [("network", self.network), *states.items()]

    def _parameters(self) -> list[nn.Parameter]:
        return [value for group in self.optimiser.param_groups for value in group["params"]]

    def _task_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.single:
            return functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits))
        return functional.cross_entropy(logits, labels)

    def _right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.predicted(logits) == labels

    def _pressure(self, maps: Sequence[torch.Tensor], labels: torch.Tensor, epoch: int) -> tuple[torch.Tensor, float]:
        """The weighted filter losses, and the batch's mean -MI."""
        pressure, measured = torch.zeros((), device=labels.device), []
        for item, membership, partition in zip(maps, self.membership, self.partition, strict=True):
            fixed = item.detach()
            wanted = membership.update(fixed, labels)
            log_z = partition.update(fixed)
            measured.append(float(filter_loss(fixed).mean()))
            if self.recipe.strength:
                by = self.recipe.strength / (epoch + 1) * fixed.amax((2, 3)).mean(0)
                pressure = pressure + FilterLoss.apply(item, fitted_templates(fixed, wanted), log_z, by)
        return pressure, sum(measured) / len(measured)


def _seed(*parts: int) -> int:
    """One number from several, as different as their tuples."""
    value = 0
    for part in parts:
        value = (value * 1_000_003 + part + 1) % (2**63 - 1)
    return value
