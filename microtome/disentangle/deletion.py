"""Faithfulness by intervention: do the filters that a node names matter to the network itself?

The filters that speak most for what a node decides are set to zero, and beside them, as often as drawn, as many others
that are as active. What moves is the network's own decision, not the tree's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.ablation import DRAWS, drawn_alike

Floats = NDArray[np.float64]
Groups = NDArray[np.bool_]
NAMED = 8  # filters that a node names, as many as the page shows


def groups_of(rho: Floats, activation: Floats, seed: int) -> tuple[Groups, float]:
    """The filters that a node names, and DRAWS times others of the same activation.

    Args:
        rho: (filters,) what each adds at the node, mean over the pictures that it was fitted to.
        activation: (filters,) of each in them.
        seed: of the draw.

    Returns:
        (1 + DRAWS, filters) the groups, the named one first; and +1 or -1, what the node decides.
    """
    sign = 1.0 if rho.sum() >= 0 else -1.0
    named = np.argsort(-sign * rho, kind="stable")[: min(NAMED, len(rho) // 2)]
    own = np.zeros(len(rho), bool)
    own[named] = True
    others = drawn_alike(named, activation, DRAWS, np.random.default_rng([seed, 31, len(rho)]))
    return np.concatenate([own[None], others]), sign


def moved(y: Floats, without: Floats, sign: float) -> tuple[Floats, Floats]:
    """How far the decision moves against what the node decides, in logits.

    Args:
        y: (pictures,) the network's decisions.
        without: (pictures, 1 + DRAWS) the same without each group.
        sign: what the node decides.

    Returns:
        (pictures,) without the named filters, and without others, mean over the draws.
    """
    apart = sign * (y[:, None] - without)
    return apart[:, 0], apart[:, 1:].mean(1)
