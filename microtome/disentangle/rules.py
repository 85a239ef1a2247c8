"""Rules of a decision tree that is fitted to its visitors: linear models of the decision that keep to the rationales.

A rule h(x) = w^T x + b of some pictures says what is decided and why. It minimises, over its pictures i and features d,

    sum_i [ (h(x_i) - y_i)^2 + sum_d (w_d x_id - g_id x_id)^2 ]  +  worth [ sum_d q_d (w_d - w'_d)^2 + (b - b')^2 ]

The first term is the decision's error; the second that of the contributions, since g x is what a feature adds to the
network's own decision (arXiv 1802.00121, section 3); the third holds it to the rule above, (w', b'), as that many
pictures of typical activation would: q_d is the mean of x_d^2, plus that over all features. It is a ridge regression
towards the pictures' mean rationale and the rule above, in closed form: with m = sum_i x_i^2 + worth q and the centre
c = (sum_i x_i^2 g_i + worth q w') / m,

    w = c + X^T a / m,   b = b' + sum a / worth,   (I + X diag(1/m) X^T + 1 1^T / worth) a = y - X c - b'
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[Any]  # float64, or float32 where there is one for every cell
FOLDS = 5


@dataclass(frozen=True)
class Evidence:
    """What rules are fitted to.

    Args:
        x: (pictures, features) activations: of each filter, or of each cell of each filter, filter by filter.
        g: (pictures, features) gradient of the decision by them.
        y: (pictures,) the network's decisions, in logits.
        own: (pictures, filters) what each filter adds to them, exactly.
    """

    x: Numbers
    g: Numbers
    y: Floats
    own: Floats

    def of(self, pictures: NDArray[Any]) -> Evidence:
        """Those of some pictures."""
        return Evidence(self.x[pictures], self.g[pictures], self.y[pictures], self.own[pictures])

    def by_filter(self, contributions: Numbers) -> Floats:
        """(pictures, filters) from (pictures, features): summed over a filter's cells."""
        cells = contributions.reshape(len(contributions), self.own.shape[1], -1)
        return np.asarray(cells.sum(2), np.float64)


@dataclass(frozen=True)
class Rule:
    """h(x) = w^T x + b, in logits; w (features,)."""

    w: Numbers
    b: float

    def contributions(self, some: Evidence) -> Floats:
        """(pictures, filters) rho: what each filter adds by this rule."""
        return some.by_filter(some.x * self.w)

    def estimate(self, some: Evidence) -> Floats:
        """(pictures,) h(x)."""
        return np.asarray(some.x @ self.w, np.float64) + self.b


def fit_rule(some: Evidence, above: Rule, worth: float, typical: Numbers) -> Rule:
    """The rule of some pictures, see the module.

    Args:
        some: the pictures.
        above: the rule that it is held to.
        worth: how strongly: as that many pictures would.
        typical: (features,) q.
    """
    square = some.x**2
    metric = square.sum(0) + worth * typical
    centre = ((square * some.g).sum(0) + worth * typical * above.w) / metric
    left = some.y - some.x @ centre - above.b
    kernel = np.asarray((some.x / metric) @ some.x.T, np.float64) + 1 / worth
    dual = np.linalg.solve(kernel + np.eye(len(left)), left)
    w = centre + (dual.astype(some.x.dtype) @ some.x) / metric
    return Rule(w, above.b + float(dual.sum()) / worth)


def typical_of(some: Evidence) -> Numbers:
    """(features,) q: mean square of each feature, plus that of all of them, so that none is free."""
    square: Numbers = (some.x**2).mean(0)
    return square + max(float(square.mean()), 1e-30)


def first_rule(some: Evidence, typical: Numbers) -> Rule:
    """The rule of all pictures: held, as one picture would, to their mean rationale and the mean of y - <g, x>."""
    mean = Rule(some.g.mean(0), float((some.y - some.own.sum(1)).mean()))
    return fit_rule(some, mean, 1.0, typical)


def misfit(said: tuple[Floats, Floats], truth: Evidence, every: Evidence) -> Floats:
    """(pictures,) how wrong rules are: squared errors of decision and of contributions, each by its spread, added.

    Args:
        said: (pictures,) estimates and (pictures, filters) contributions.
        truth: of these pictures.
        every: the pictures whose spread counts.
    """
    estimate, rho = said
    decision = np.square(estimate - truth.y) / max(float(every.y.var()), 1e-30)
    size = max(float(np.square(every.own).sum(1).mean()), 1e-30)
    total: Floats = decision + np.square(rho - truth.own).sum(1) / size
    return total


def parts(pictures: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """FOLDS times: pictures to fit to, and pictures left out."""
    fold = np.random.default_rng([seed, 23, pictures]).permutation(pictures) % FOLDS
    for number in range(min(FOLDS, pictures)):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def left_out(every: Evidence, seed: int) -> float:
    """The misfit of one rule for all, summed over pictures that it was not fitted to.

    Args:
        every: the pictures that a tree grows from, by some features.
        seed: of the folds.
    """
    loss = 0.0
    for inside, outside in parts(len(every.y), seed):
        some, rest = every.of(inside), every.of(outside)
        rule = first_rule(some, typical_of(some))
        loss += float(misfit((rule.estimate(rest), rule.contributions(rest)), rest, every).sum())
    return loss
