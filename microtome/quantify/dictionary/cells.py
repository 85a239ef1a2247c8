"""The cells that dictionaries are fitted on: drawn from some pictures' maps, and the same with nothing in common."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.dictionary.directions import Floats


def drawn_cells(
    blocks: Iterable[tuple[int, NDArray[np.floating]]],
    pictures: NDArray[np.int64],
    most: int,
    rng: np.random.Generator,
) -> Floats:
    """(cells, channels) cells of some pictures, drawn without repetition; all of them where these are few enough.

    Args:
        blocks: number of the first picture and (pictures, channels, rows, columns), at least one.
        pictures: numbers of the pictures that cells are drawn from, rising.
        most: how many cells.
        rng: the source of chance.
    """
    chosen: NDArray[np.int64] | None = None
    parts: list[Floats] = []
    for first, maps in blocks:
        each = maps.shape[2] * maps.shape[3]
        if chosen is None:
            whole = len(pictures) * each
            chosen = np.sort(rng.choice(whole, min(most, whole), replace=False))
        low, high = np.searchsorted(pictures, (first, first + len(maps)))
        mine = chosen[slice(*np.searchsorted(chosen, (low * each, high * each)))]
        image, cell = pictures[mine // each] - first, mine % each
        parts.append(maps.reshape(*maps.shape[:2], -1)[image, :, cell].astype(np.float32))
    return np.concatenate(parts)


def shuffled(cells: Floats, rng: np.random.Generator) -> Floats:
    """The same values of every channel, each channel's at other cells: no two channels have anything in common.

    Args:
        cells: (cells, channels).
        rng: the source of chance.
    """
    return rng.permuted(cells, axis=0)
