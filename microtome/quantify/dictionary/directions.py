"""A dictionary: unit vectors of a layer's channel space, and what each of them is at every cell of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["one-hot", "rotation", "nmf", "sae"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Directions:
    """Directions that some method found.

    Args:
        method: one-hot and rotation read a cell x as x · d; nmf and sae as a code z >= 0 with x ≈ z D + offset.
        vectors: (directions, channels) D, rows of norm 1; 0 where a direction is of no use.
        encoder: (directions, channels) of `sae`; empty otherwise.
        offset: (channels,) of `sae`; zeros otherwise.
        active: directions that a cell may have at once in `sae`; 0 otherwise.
    """

    method: Method
    vectors: Floats
    encoder: Floats
    offset: Floats
    active: int = 0

    @classmethod
    def plain(cls, method: Method, vectors: Floats) -> Directions:
        """Directions without an encoder of their own."""
        channels = vectors.shape[1]
        return cls(method, vectors, np.zeros((0, channels), np.float32), np.zeros(channels, np.float32))

    def codes(self, cells: Floats) -> Floats:
        """(cells, directions) what the directions are at some cells.

        A cell's code is a function of the cells that it is given with, to the last bit: a map is read whole, and alone.

        Args:
            cells: (cells, channels).
        """
        if self.method == "nmf":
            from microtome.quantify.dictionary.nmf import codes

            return codes(cells, self.vectors)
        if self.method == "sae":
            from microtome.quantify.dictionary.autoencoder import codes as sparse_codes

            return sparse_codes(cells, self.encoder, self.offset, self.active)
        return cells @ self.vectors.T  # for one-hot vectors exact: x · 1, and zeros that change no bit

    def of_map(self, maps: Floats) -> Floats:
        """(directions, rows, columns) one picture's maps, read along the directions.

        Args:
            maps: (channels, rows, columns).
        """
        channels, *grid = maps.shape
        codes = self.codes(np.ascontiguousarray(maps.reshape(channels, -1).T))
        return np.ascontiguousarray(codes.T).reshape(-1, *grid)

    def decoded(self, codes: Floats) -> Floats:
        """(cells, channels) the cells that codes stand for: z D + offset.

        Args:
            codes: (cells, directions).
        """
        found: Floats = codes @ self.vectors + self.offset
        return found


def normalised(vectors: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Rows of norm 1, and what the norms were; a row of zeros stays one, with norm 0.

    Args:
        vectors: (directions, channels).
    """
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1)
    safe = np.where(norm > 0, norm, 1.0)
    return (vectors / safe[:, None]).astype(np.float32), norm.astype(np.float32)


@dataclass(frozen=True)
class Reading:
    """How well codes stand for one picture's cells, as sums over its cells.

    Args:
        error: squared distance of cells from what their codes stand for.
        square: squared norm of cells.
        total: (channels,) sum of cells.
        active: effective number of directions, (Σ|z|)² / Σz², summed over cells that have any.
        cells: that have any.
    """

    error: float
    square: float
    total: NDArray[np.float64]
    active: float
    cells: int

    @classmethod
    def of(cls, directions: Directions, maps: Floats, codes: Floats) -> Reading:
        """Of a picture.

        Args:
            directions: of the codes.
            maps: (channels, rows, columns).
            codes: (directions, rows, columns) from `of_map`.
        """
        cells = maps.reshape(len(maps), -1).T.astype(np.float64)
        z = codes.reshape(len(codes), -1).T
        apart = cells - directions.decoded(np.ascontiguousarray(z)).astype(np.float64)
        size, square = np.abs(z).sum(1, dtype=np.float64), (z.astype(np.float64) ** 2).sum(1)
        some = square > 0
        return cls(
            float((apart**2).sum()),
            float((cells**2).sum()),
            cells.sum(0),
            float((size[some] ** 2 / square[some]).sum()),
            int(some.sum()),
        )
