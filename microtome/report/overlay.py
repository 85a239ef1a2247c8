"""Masks over pictures: SVG paths, sharp at any zoom, or a sheet for a card's pictures; switched off by a class."""

from __future__ import annotations

import io
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHEET = 5  # pictures of a card side by side
_SHADE = 120  # of 255: how much is dimmed
_OUTLINE, _EDGE = (255, 210, 63), (255, 255, 255)
_TILE = 150  # pixels that a tile has at least, so that lines may be thinner than a mask's pixel
_THIN = 75  # of a tile's height over the outline's width
FINE = 4  # steps of a mask's pixel in which paths are drawn
_CUT = 3  # of these: what is cut off a corner, along both of its sides


def dim_path(mask: NDArray[np.bool_]) -> str:
    """SVG path, to be filled even-odd, of more than the whole picture, with the mask cut out.

    Args:
        mask: (height, width).

    Returns:
        a path in `FINE`ths of a mask's pixel; its outer frame lies outside of the picture, so that a stroke shows the
        mask's border alone.
    """
    height, width = (FINE * (side + 2) for side in mask.shape)
    return f"M-{FINE}-{FINE}h{width}v{height}h-{width}z{outline_path(mask)}"


def outline_path(mask: NDArray[np.bool_]) -> str:
    """SVG path, to be stroked or filled even-odd, of the border of a mask; empty for an empty one.

    Corners are cut, so that a slope that was sampled as a staircase looks like one: no point of the line is farther
    from the pixels' own border than 0.54 pixels, and the centre of each pixel lies on the side on which it was.

    Args:
        mask: (height, width).

    Returns:
        a path in `FINE`ths of a mask's pixel: closed lines.
    """
    from microtome.quantify.borders import border_path  # here, since pages without a mask need no compiler

    return border_path(mask, FINE, _CUT)


def mask_sheet(masks: NDArray[np.bool_], annotated: NDArray[np.bool_] | None = None) -> bytes:
    """A PNG that lies over pictures, `SHEET` side by side, and dims what their masks leave out, with a fine edge.

    Args:
        masks: (pictures, height, width).
        annotated: (pictures, height, width) what is outlined, from without.
    """
    times = -(-_TILE // masks.shape[1])
    lit = _smooth(masks, times)
    tiles = lit.astype(np.uint8)
    tiles[_border(lit, 1)] = 2
    if annotated is not None:
        tiles[_border(_smooth(annotated, times), max(1, tiles.shape[1] // _THIN))] = 3
    picture = Image.fromarray(_laid(tiles), "P")
    picture.putpalette([0, 0, 0, 0, 0, 0, *_EDGE, *_OUTLINE])
    content = io.BytesIO()
    # Of areas of one value runs are all that there is to find: no larger, in a third of the time.
    picture.save(content, "PNG", transparency=bytes([_SHADE, 0, 170, 255]), bits=2, compress_type=zlib.Z_RLE)
    return content.getvalue()


def _laid(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tiles (pictures, height, width) side by side in rows; clear where there is none."""
    count, height, width = tiles.shape
    rows = -(-count // SHEET)
    sheet = np.ones((rows * SHEET, height, width), np.uint8)
    sheet[:count] = tiles
    return sheet.reshape(rows, SHEET, height, width).swapaxes(1, 2).reshape(rows * height, SHEET * width)


def _smooth(masks: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """Enlarged, corners cut as by `outline_path`: what is nearer than half to the mask, between pixels' centres."""
    large = masks.repeat(times, 1).repeat(times, 2)
    reach = times // 2
    if times < 3:  # an even window that is wider than a pixel would lose single ones; nothing to see at this size
        return large
    sums = large.astype(np.int32)
    for axis in (1, 2):
        edges = [(0, 0)] * 3
        edges[axis] = (reach + 1, reach)
        total = np.pad(sums, edges, "edge").cumsum(axis)
        along = np.arange(sums.shape[axis])
        sums = total.take(along + 2 * reach + 1, axis) - total.take(along, axis)
    return sums * 2 > (2 * reach + 1) ** 2


def _border(masks: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """What lies outside each mask (pictures, height, width), but within so many pixels of it."""
    near = masks
    for axis in (1, 2):
        grown = near.copy()
        for step in range(1, width + 1):
            here, there = ((slice(None),) * axis + (part,) for part in (slice(step, None), slice(None, -step)))
            grown[here] |= near[there]
            grown[there] |= near[here]
        near = grown
    return near & ~masks
