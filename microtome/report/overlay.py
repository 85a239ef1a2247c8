"""Masks as SVG paths: small, sharp at any zoom, and switched off with a class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dim_path(mask: NDArray[np.bool_]) -> str:
    """SVG path, to be filled even-odd, of the whole picture with the mask's rectangles cut out.

    Args:
        mask: (height, width).

    Returns:
        a path in mask pixels.
    """
    height, width = mask.shape
    parts = [f"M0 0h{width}v{height}h-{width}z"]
    parts += [f"M{x} {y}h{w}v{h}h-{w}z" for x, y, w, h in rectangles(mask)]
    return "".join(parts)


def rectangles(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Disjoint rectangles x, y, width, height that make up a mask: runs of a row, joined while they stay the same.

    Args:
        mask: (height, width).
    """
    padded = np.zeros((mask.shape[0] + 1, mask.shape[1] + 2), np.int8)
    padded[:-1, 1:-1] = mask
    edges = np.diff(padded, axis=1)
    growing: dict[tuple[int, int], int] = {}
    done = []
    for y, row in enumerate(edges):
        runs = set(zip(np.flatnonzero(row == 1).tolist(), np.flatnonzero(row == -1).tolist(), strict=True))
        for run in [run for run in growing if run not in runs]:
            done.append((run[0], growing[run], run[1] - run[0], y - growing.pop(run)))
        for run in runs:
            growing.setdefault(run, y)
    return sorted(done, key=lambda item: (item[1], item[0]))
