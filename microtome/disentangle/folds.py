"""Split examples into those that are learned from and those that are held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

FOLDS, FOLD = 5, 0  # one picture of five is held out: those of the first fold


def split_by_file(
    files: Sequence[str], names: Sequence[str], *, seed: int, folds: int = FOLDS, fold: int = FOLD
) -> list[str]:
    """`train` or `val` for each example: by picture file, so that no picture is on both sides; each class in shares.

    Args:
        files: of each example's picture.
        names: of each example's class; a picture of several counts for that of its first example.
        seed: of the order.
        folds: one of so many is held out,
        fold: this one, from 0.
    """
    classes: dict[str, dict[str, None]] = defaultdict(dict)
    home: dict[str, str] = {}
    for file, name in zip(files, names, strict=True):
        classes[home.setdefault(file, name)][file] = None
    held: set[str] = set()
    for name in sorted(classes):
        members = sorted(classes[name])
        order = np.random.default_rng([seed, 17, len(members)]).permutation(len(members))
        held |= {members[place] for rank, place in enumerate(order) if rank % folds == fold}
    return ["val" if file in held else "train" for file in files]
