"""Masks as words: the bits of 8 x 8 pixels at a time, so that where two masks meet is an AND and a count of bits.

A tile is 8 x 8 pixels of a segmentation, tiles are numbered row by row, and pixel (row, column) of a tile is bit
8 row + column of its word. Tiles beyond the lower and the right edge are filled up with pixels that are neither lit nor
labelled. Only words that are not zero are kept: a unit lights some 1 % of the tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from microtome.compiling import compiled

if TYPE_CHECKING:
    from microtome.quantify.upsample import Lit

SIDE = 8
WHOLE = -1  # the tile of a label of the whole picture
LABEL = np.dtype([("word", "<u8"), ("concept", "<i4"), ("tile", "<i4")])
"""What one concept labels of one tile; of all tiles where `tile` is WHOLE."""


@dataclass(frozen=True)
class LitWords:
    """What the units light in a run of images: a word per cell and unit that are not zero, sorted by cell, then unit.

    Args:
        cell: image in the run * tiles + tile.
        unit: of the layer.
        word: lit pixels.
    """

    cell: NDArray[np.int64]
    unit: NDArray[np.int64]
    word: NDArray[np.uint64]


def tiling(masks: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tiles.

    Args:
        masks: (height, width) of the segmentation.
    """
    height, width = masks
    return -(-height // SIDE), -(-width // SIDE)


def tiles(masks: tuple[int, int]) -> int:
    """How many.

    Args:
        masks: (height, width) of the segmentation.
    """
    rows, columns = tiling(masks)
    return rows * columns


def lit_words(lit: Lit, images: int, masks: tuple[int, int]) -> LitWords:
    """The words of a batch's lit pixels.

    Args:
        lit: the lit pixels.
        images: in the batch.
        masks: (height, width) of the segmentation.
    """
    cell, unit, word = _lit_words(
        lit.map.cpu().numpy(), lit.place.cpu().numpy(), (lit.units, lit.pixels), _of_pixels(masks)
    )
    order = np.argsort(cell, kind="stable")
    return LitWords(cell[order], unit[order], word[order])


@compiled
def _lit_words(maps, places, sizes, pixel):  # type: ignore[no-untyped-def]
    """Cell, unit and word of each word that is not zero, map after map.

    Args:
        maps, places: of the lit pixels, as `Lit` has them.
        sizes: units; pixels of a segmentation.
        pixel: tile and bit of each pixel.
    """
    (units, pixels), (tile, bit) = sizes, pixel
    tiles = tile.max() + 1
    words, touched = np.zeros(tiles, np.uint64), np.empty(tiles, np.int64)
    cell, unit, word = np.empty(len(maps), np.int64), np.empty(len(maps), np.int64), np.empty(len(maps), np.uint64)
    count = lit = 0
    while lit < len(maps):
        number, many = maps[lit], 0
        image = number // units
        while lit < len(maps) and maps[lit] == number:
            at = places[lit] - image * pixels
            own = tile[at]
            if not words[own]:
                touched[many] = own
                many += 1
            words[own] |= bit[at]
            lit += 1
        for own in touched[:many]:
            cell[count], unit[count], word[count] = image * tiles + own, number % units, words[own]
            words[own] = 0
            count += 1
    return cell[:count], unit[:count], word[:count]


@lru_cache(4)
def _of_pixels(masks: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Tile and bit of each row-major pixel of a segmentation."""
    row, column = np.divmod(np.arange(masks[0] * masks[1]), masks[1])
    bit = np.left_shift(np.uint64(1), (row % SIDE * SIDE + column % SIDE).astype(np.uint64))
    return row // SIDE * tiling(masks)[1] + column // SIDE, bit


def pixels_of(words: NDArray[np.uint64], masks: tuple[int, int]) -> NDArray[np.bool_]:
    """(height, width) the pixels of one picture's words.

    Args:
        words: (tiles,).
        masks: (height, width) of the segmentation.
    """
    rows, columns = tiling(masks)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little").reshape(rows, columns, SIDE, SIDE)
    return bits.swapaxes(1, 2).reshape(rows * SIDE, columns * SIDE)[: masks[0], : masks[1]].astype(bool)


def label_words(plane: NDArray[np.uint16], concepts: NDArray[np.int64], masks: tuple[int, int]) -> NDArray[np.void]:
    """What one plane labels, as LABEL records.

    Args:
        plane: (pixels,) 0 for none, else 1 + an index into `concepts`.
        concepts: indices into the concept table.
        masks: (height, width) of the segmentation.
    """
    rows, columns = tiling(masks)
    whole = np.zeros((rows * SIDE, columns * SIDE), np.uint16)
    whole[: masks[0], : masks[1]] = plane.reshape(masks)
    tiled = whole.reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2).ravel()
    shown = np.flatnonzero(np.bincount(plane, minlength=1)[1:])
    masks_of = tiled == (shown[:, None] + 1).astype(np.uint16)
    words = np.packbits(masks_of, bitorder="little").view("<u8").reshape(len(shown), rows * columns)
    concept, tile = np.nonzero(words)
    found = np.empty(len(tile), LABEL)
    found["word"], found["concept"], found["tile"] = words[concept, tile], concepts[shown[concept]], tile
    return found


def whole_words(concepts: NDArray[np.int64]) -> NDArray[np.void]:
    """Labels of the whole picture, as LABEL records.

    Args:
        concepts: indices into the concept table.
    """
    found = np.zeros(len(concepts), LABEL)
    found["concept"], found["tile"] = concepts, WHOLE
    return found
