"""A learning rate by a range test: some steps at a rising rate show where training breaks (Smith, arXiv 1506.01186).

    rate_k = LOWEST (HIGHEST / LOWEST)^(k / (STEPS - 1))          k = 0 .. STEPS - 1
    the end is the first k whose loss exceeds both the worst of the first steps and a guess's, or is below LEARNED of
    their mean: training broke there, or has nothing left to learn
    found: SHARE of the rate there

On training pictures alone, in an order of its own, without filter loss; the network is as before afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from microtome.disentangle.training import FeatureSource, Trainer, seeded

LOWEST, HIGHEST, STEPS = 1e-4, 10.0, 24
CALM = 6  # first steps, whose losses are ordinary
LEARNED = 0.1
SHARE = 0.2


def found_rate(trainer: Trainer, source: FeatureSource, images: Sequence[int]) -> float:
    """Learning rate to begin with.

    Args:
        trainer: of the network as training begins.
        source: of the images.
        images: those to train on.
    """
    before = trainer.state()
    losses = []
    for step in range(STEPS):
        losses.append(_loss(trainer, source, images, step))
        if ended(losses, trainer.network.classes):
            break
    trainer.restore(before)
    return SHARE * rate_of(len(losses) - 1)


def rate_of(step: int) -> float:
    """The rate of a step, counted from 0."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))


def ended(losses: Sequence[float], classes: int) -> bool:
    """Whether the last of some losses shows that training broke, or has nothing left to learn.

    Args:
        losses: of the steps so far.
        classes: outputs of the network.
    """
    first = losses[:CALM]
    highest, lowest = max(*first, math.log(max(classes, 2))), LEARNED * sum(first) / len(first)
    return len(losses) > CALM and not lowest <= losses[-1] <= highest  # NaN is an end, too


def _loss(trainer: Trainer, source: FeatureSource, images: Sequence[int], step: int) -> float:
    """Of one step, before it."""
    recipe = trainer.recipe
    draw = torch.Generator().manual_seed(seeded(recipe.seed, STEPS, step))
    chosen = [images[place] for place in torch.randperm(len(images), generator=draw)[: recipe.batch].tolist()]
    trainer.begin(rate_of(step))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(recipe.seed, STEPS, step))
        features = source.features(chosen, [False] * len(chosen))
        return trainer.step(features, source.labels[chosen], 0.0).task_loss
