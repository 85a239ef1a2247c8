"""Some pictures of many."""

from __future__ import annotations

import numpy as np


def sampled(count: int, wanted: int, seed: int) -> list[int]:
    """`wanted` of `count` numbers, drawn without replacement, in order; all of them where they are fewer."""
    drawn = np.random.default_rng([seed, count]).permutation(count)[:wanted]
    return sorted(drawn.tolist())
