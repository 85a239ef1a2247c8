"""A learning rate by a range test: some steps at a rising rate show where training breaks (Smith, arXiv 1506.01186).

    rate_k = LOWEST (HIGHEST / LOWEST)^(k / (STEPS - 1))          k = 0 .. STEPS - 1
    broken at the first k whose loss exceeds the worst of the first steps and a guess's
    found: SHARE of the rate there, or of HIGHEST where it never breaks

On training pictures alone, in an order of its own, without filter loss; the network is as before afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from microtome.disentangle.training import FeatureSource, Trainer, seeded

LOWEST, HIGHEST, STEPS = 1e-4, 10.0, 24
CALM = 6  # first steps, whose losses are ordinary
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
        if broken(losses, trainer.network.classes):
            break
    trainer.restore(before)
    return SHARE * rate_of(len(losses) - 1)


def rate_of(step: int) -> float:
    """The rate of a step, counted from 0."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))


def broken(losses: Sequence[float], classes: int) -> bool:
    """Whether the last of some losses shows that training broke.

    Args:
        losses: of the steps so far.
        classes: outputs of the network.
    """
    limit = max([*losses[:CALM], math.log(max(classes, 2))])
    return len(losses) > CALM and not losses[-1] <= limit  # NaN is broken, too


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
