"""What chance alone reaches: p-values by permutation, and the false discovery rate over many units."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
LEVEL = 0.05  # of the false discovery rate


def p_values(observed: Floats, null: Floats) -> Floats:
    """p = (1 + b) / (1 + permutations), b permutations at least as large as observed.

    Args:
        observed: (units,).
        null: (permutations, units).
    """
    reached: NDArray[np.int64] = (null >= observed).sum(0)
    return (1 + reached) / (1 + len(null))


def permutations_needed(p: Floats, permutations: int) -> int:
    """Permutations with which the units that no permutation reached could pass LEVEL under Benjamini-Hochberg.

    Returns:
        the number given if it suffices, or if no unit is at the floor; else the smallest that does.
    """
    at_floor = int((p <= 1 / (1 + permutations)).sum())
    if not at_floor or len(p) / ((1 + permutations) * at_floor) <= LEVEL:
        return permutations
    return int(np.ceil(len(p) / (LEVEL * at_floor))) - 1


def null_p95(null: Floats) -> Floats:
    """(units,) what a unit exceeds in one permutation of twenty.

    Args:
        null: (permutations, units).
    """
    found: Floats = np.quantile(null, 0.95, axis=0)
    return found


def false_discovery(p: ArrayLike) -> Floats:
    """Smallest false discovery rate at which each unit is believed (Benjamini-Hochberg 1995), over those tested.

    q of the i-th smallest of n p-values is the least p_j n / j over j >= i.

    Args:
        p: (units,) p-values; NaN of units that were not tested, which stays.
    """
    found: Floats = np.array(p, np.float64)
    tested = np.flatnonzero(~np.isnan(found))
    rising = tested[np.argsort(found[tested])]
    q = found[rising] * (len(rising) / np.arange(1, len(rising) + 1))
    found[rising] = np.minimum(np.minimum.accumulate(q[::-1])[::-1], 1.0)
    return found


def any_of(p: Floats) -> Floats:
    """(units,) p-value of each unit's being null in every one of several tests (Simes 1986).

    The least p_j m / j, p_j the j-th smallest of a unit's m p-values: never above Bonferroni's m times the smallest,
    and sound where the tests depend on each other positively, as those of one unit on the same pictures do.

    Args:
        p: (tests, units); NaN where a unit was not tested. NaN for a unit that was tested nowhere.
    """
    rising = np.sort(p, axis=0)  # NaN come last
    tests = np.isfinite(p).sum(0)
    found: Floats = np.fmin.reduce(rising * tests / np.arange(1, len(p) + 1)[:, None], axis=0)
    return found


def false_discovery_of_pairs(p: Floats) -> Floats:
    """(tests, units) smallest false discovery rate at which a pair is believed, over all pairs and over all units.

    The larger of a pair's own among all pairs, and of its unit's among all units, whose p-value is `any_of` its tests:
    of the pairs that are believed and of the units that they belong to, so small a share is false.

    Args:
        p: (tests, units) p-values; NaN of pairs that were not tested, which stays.
    """
    found: Floats = np.maximum(false_discovery(p.ravel()).reshape(p.shape), false_discovery(any_of(p)))
    return found
