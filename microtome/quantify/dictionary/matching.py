"""How far dictionaries agree: each direction with the one that it is matched to, and no direction twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.dictionary.directions import Floats

SURE = 0.975  # quantile of the upper end


@dataclass(frozen=True)
class MatchedCosine:
    """Matched cosine of several dictionaries, mean over all pairs of them.

    Args:
        cosine: of all directions of all pairs.
        low, high: its 95 % interval over initialisations.
        of_direction: (directions,) of the first dictionary's directions, mean over all others.
    """

    cosine: float
    low: float
    high: float
    of_direction: NDArray[np.float64]


def matched(one: Floats, other: Floats) -> NDArray[np.float64]:
    """(directions,) cosine of each direction with its match: the assignment that makes their sum greatest.

    Args:
        one, other: (directions, channels), rows of norm 1 or 0.
    """
    from scipy.optimize import linear_sum_assignment

    cosine = one.astype(np.float64) @ other.astype(np.float64).T
    row, column = linear_sum_assignment(cosine, maximize=True)
    found: NDArray[np.float64] = cosine[row, column]
    return found


def matched_cosine(dictionaries: Sequence[Floats]) -> MatchedCosine:
    """How far dictionaries from several initialisations agree.

    What is exchangeable are initialisations, not directions of one dictionary, which were fitted together, nor pairs,
    which share initialisations. So the variance of the mean over pairs, a U-statistic, is the jackknife's over
    initialisations (Arvesen 1969): u_i the mean over pairs without i, of n,

        var = (n - 1) / n  Σ (u_i - mean u)²,    mean ± t_{n-1} sqrt(var).

    Args:
        dictionaries: (directions, channels) each, at least three.
    """
    from scipy.special import stdtrit

    count = len(dictionaries)
    if count < 3:
        raise ValueError(f"matched_cosine needs at least 3 dictionaries, got {count}")
    pairs = {(a, b): matched(dictionaries[a], dictionaries[b]) for a, b in combinations(range(count), 2)}
    means = {pair: float(cosine.mean()) for pair, cosine in pairs.items()}
    value = float(np.mean(list(means.values())))
    without = np.array([np.mean([mean for pair, mean in means.items() if i not in pair]) for i in range(count)])
    half = float(stdtrit(count - 1, SURE)) * float(np.sqrt((count - 1) * without.var()))
    first = np.mean([pairs[0, other] for other in range(1, count)], axis=0)
    return MatchedCosine(value, max(-1.0, value - half), min(1.0, value + half), first)
