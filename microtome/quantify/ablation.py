"""Does the network use a unit? Its values are taken away, and what the network says of each picture moves.

The score of a picture is the log-odds of its class c, from the network's outputs z:

    s = log p_c / (1 - p_c) = z_c - log sum_{j != c} exp z_j

and drop = s - s without the unit, in nats: positive where the network needs it. A probability near 1 hides what its
log-odds show. Beside each unit stand others from which as much is taken away, the control: for a single unit all
of the AROUND nearest by size, for a group of units DRAWS groups of as many, drawn from the nearest of each. In
insertion everything else is at its mean, and regained = (s_kept - s_base) / (s - s_base), means over pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.intervals import mean_intervals, ratio_intervals

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Remove = Literal["zero", "mean", "resampled"]
AROUND = 10  # units next to one by size that are its control, or that one is drawn from
DRAWS = 5  # groups that a group is compared with
LEAST = 20  # pictures of a class that is judged: ten choose, ten judge


def removed_size(mean: Floats, std: Floats, remove: Remove) -> Floats:
    """(units,) root mean square of what removal takes from a unit's values.

    sqrt(mean^2 + std^2) to zero, std to the mean; to the value of another picture sqrt(2) std, as of two that are
    independent.

    Args:
        mean, std: (units,) of each unit's values.
        remove: what they become.
    """
    found: Floats = {"zero": np.hypot(mean, std), "mean": std, "resampled": np.sqrt(2) * std}[remove]
    return found


def alike(size: Floats, concept: NDArray[np.int64]) -> Floats:
    """(units, units) of each unit, by row, the weights of its control: equal ones of the nearest others by size.

    Args:
        size: (units,) of what removal takes.
        concept: (units,) that each detects, -1 for none: detectors of one concept are not each other's control.

    Returns:
        rows that sum to 1, or to 0 where every other unit detects the same.
    """
    weights = np.zeros((len(size), len(size)))
    for unit, own in enumerate(concept):
        other = np.arange(len(size)) != unit
        free = np.flatnonzero(other & ((concept != own) | (own < 0)))
        near = free[np.argsort(np.abs(size[free] - size[unit]), kind="stable")[:AROUND]]
        weights[unit, near] = 1 / max(len(near), 1)
    return weights


def drawn_alike(named: NDArray[np.int64], size: Floats, draws: int, rng: np.random.Generator) -> Flags:
    """(draws, units) groups of as many others as are named, each drawn from the AROUND nearest of one of them.

    Args:
        named: their numbers, in the order in which others are drawn; at most half of the units.
        size: (units,) by which they are near.
        draws: how many groups.
        rng: the source of chance.
    """
    groups = np.zeros((draws, len(size)), bool)
    for group in groups:
        for number in named:
            free = np.setdiff1d(np.flatnonzero(~group), named)
            near = free[np.argsort(np.abs(size[free] - size[number]), kind="stable")[:AROUND]]
            group[rng.choice(near)] = True
    return groups


def choosing(classes: NDArray[np.int64], rng: np.random.Generator) -> Flags:
    """(pictures,) the half of each class that chooses; the other half judges.

    Args:
        classes: (pictures,) number of each picture's class.
        rng: the source of chance.
    """
    first = np.zeros(len(classes), bool)
    for number in np.unique(classes):
        members = np.flatnonzero(classes == number)
        first[rng.permutation(members)[: len(members) // 2]] = True
    return first


def dearest(drop: Floats, classes: Sequence[Flags]) -> NDArray[np.int64]:
    """(removals,) the class whose pictures lose most by each.

    Args:
        drop: (removals, pictures).
        classes: (pictures,) of each class, which they are.
    """
    if len(classes) == 1:
        return np.zeros(len(drop), np.int64)
    found: NDArray[np.int64] = np.stack([drop[:, inside].mean(1) for inside in classes]).argmax(0)
    return found


@dataclass(frozen=True)
class Effect:
    """Means over pictures: (removals, 3) value, low and high, at 95 %.

    Args:
        drop: of the score.
        random: what the control drops.
        beyond: drop - random, picture by picture.
        p: (removals,) of beyond being none; Student's paired t, two-sided.
    """

    drop: Floats
    random: Floats
    beyond: Floats
    p: Floats


def effect(drop: Floats, random: Floats) -> Effect:
    """How far removals move the score of some pictures, beside their controls.

    Args:
        drop, random: (removals, pictures).
    """
    beyond = drop - random
    return Effect(mean_intervals(drop), mean_intervals(random), mean_intervals(beyond), paired_p(beyond))


def paired_p(apart: Floats) -> Floats:
    """(rows,) two-sided p of a mean of zero, Student's t; 1 where all are zero, and of a single picture.

    Args:
        apart: (rows, pictures).
    """
    from scipy.special import stdtr  # here: who compares runs needs none

    count = apart.shape[1]
    if count < 2:
        return np.ones(len(apart))
    mean, error = apart.mean(1), apart.std(1, ddof=1) / np.sqrt(count)
    t = np.divide(np.abs(mean), error, out=np.where(mean == 0, 0.0, np.inf), where=error > 0)
    found: Floats = 2 * stdtr(count - 1, -t)
    return found


def regained(kept: Floats, base: Floats, score: Floats) -> Floats:
    """(removals, 3) share of the score that what is kept brings back, low and high; NaN where nothing was lost.

    Args:
        kept: (removals, pictures) with everything else at its mean.
        base: (pictures,) with everything at its mean.
        score: (pictures,) with everything as it is.
    """
    return ratio_intervals(kept - base, score - base)


def probability(score: Floats) -> Floats:
    """Of log-odds."""
    from scipy.special import expit

    found: Floats = expit(score)
    return found
