"""Masks over pictures: SVG paths, sharp at any zoom, or a sheet for a card's pictures; switched off by a class."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

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

Corner = tuple[int, int]
"""Column and row of a corner of pixels."""


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
    return "".join(_line(loop) for loop in borders(mask))


def _line(loop: Sequence[Corner]) -> str:
    """A closed line, its corners cut: of each side a piece is left, and of a side of one pixel its middle."""
    points: list[Corner] = []
    for (x, y), (to_x, to_y) in pairwise([*loop, loop[0]]):
        right, down = to_x - x, to_y - y
        length = abs(right) + abs(down)
        cut = _CUT if length > 1 else FINE // 2
        right, down = right // length, down // length
        points.append((FINE * x + cut * right, FINE * y + cut * down))
        if length > 1:
            points.append((FINE * to_x - cut * right, FINE * to_y - cut * down))
    steps = [_step(x - was_x, y - was_y) for (was_x, was_y), (x, y) in pairwise(points)]
    return f"M{points[0][0]} {points[0][1]}{''.join(steps)}z"


@lru_cache(1 << 12)
def _step(right: int, down: int) -> str:
    if not down:
        return f"h{right}"
    return f"l{right} {down}" if right else f"v{down}"


def borders(mask: NDArray[np.bool_]) -> list[list[Corner]]:
    """The border of a mask as closed lines, along pixels' edges. Pixels that touch at a corner stay apart.

    Args:
        mask: (height, width).

    Returns:
        the corners of each line, in an order that has the mask to the right.
    """
    ends = _directed(mask)
    lines = []
    while ends:
        begin, end = ends.popitem()
        line, (right, down) = [begin[0]], begin[1]
        while True:
            piece = end, (-down, right)  # to the right first: the same pixel's other edge
            if piece != begin and piece not in ends:
                piece = end, (down, -right)
            if piece == begin:
                break
            line.append(end)
            right, down = piece[1]
            end = ends.pop(piece)
        lines.append(line)
    return lines


def _directed(mask: NDArray[np.bool_]) -> dict[tuple[Corner, tuple[int, int]], Corner]:
    """Where each straight piece of the border ends, by where it begins and the way that it takes."""
    inside = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), bool)
    inside[1:-1, 1:-1] = mask
    above, below = inside[:-1, 1:-1], inside[1:, 1:-1]
    left, right = inside[1:-1, :-1].T, inside[1:-1, 1:].T
    ends = {((x, y), (1, 0)): (x + length, y) for y, x, length in _runs(below & ~above)}
    ends |= {((x + length, y), (-1, 0)): (x, y) for y, x, length in _runs(above & ~below)}
    ends |= {((x, y), (0, 1)): (x, y + length) for x, y, length in _runs(left & ~right)}
    return ends | {((x, y + length), (0, -1)): (x, y) for x, y, length in _runs(right & ~left)}


def _runs(edges: NDArray[np.bool_]) -> Iterable[tuple[int, int, int]]:
    """Row, first column and length of each run of a row."""
    padded = np.zeros((edges.shape[0], edges.shape[1] + 2), bool)  # no run goes on in the next row
    padded[:, 1:-1] = edges
    flat = padded.ravel()
    steps = np.flatnonzero(flat[1:] != flat[:-1])  # a run's beginning and its end take turns
    row, column = np.divmod(steps[::2], padded.shape[1])
    return zip(row.tolist(), column.tolist(), (steps[1::2] - steps[::2]).tolist(), strict=True)


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
    picture.save(content, "PNG", transparency=bytes([_SHADE, 0, 170, 255]), bits=2)
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
