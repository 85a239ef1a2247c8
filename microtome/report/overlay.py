"""Masks over pictures: SVG paths, sharp at any zoom, or a sheet for a card's pictures; switched off by a class."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHEET = 5  # pictures of a card side by side
_SHADE = 148  # of 255: how much is dimmed
_OUTLINE = (255, 210, 63)
_TILE = 150  # pixels that a tile with an outline has at least, so that the outline may be thinner than a mask's pixel
_THIN = 75  # of a tile's height over the outline's width


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
    growing: dict[tuple[int, int], tuple[int, int]] = {}  # column and width -> first row and the one below the last
    done = []
    for y, x, width in _runs(mask):
        top, end = growing.get((x, width), (y, -1))
        if end != y and end >= 0:
            done.append((x, top, width, end - top))
            top = y
        growing[x, width] = top, y + 1
    done += [(x, top, width, end - top) for (x, width), (top, end) in growing.items()]
    return sorted(done, key=lambda item: (item[1], item[0]))


def outline_path(mask: NDArray[np.bool_]) -> str:
    """SVG path, to be stroked, of the border of a mask; empty for an empty one.

    Args:
        mask: (height, width).

    Returns:
        a path in mask pixels: straight pieces, each as long as the border runs straight.
    """
    padded = np.pad(mask.astype(np.int8), 1)
    down, across = np.diff(padded, axis=0) != 0, np.diff(padded, axis=1) != 0
    level = [f"M{x} {y}h{length}" for y, x, length in _runs(down[:, 1:-1])]
    upright = [f"M{x} {y}v{length}" for x, y, length in _runs(across[1:-1].T)]
    return "".join(level + upright)


def _runs(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Row, first column and length of each run of a row."""
    padded = np.pad(edges.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(padded, axis=1)
    (row, start), (_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return list(zip(row.tolist(), start.tolist(), (end - start).tolist(), strict=True))


def mask_sheet(masks: NDArray[np.bool_], annotated: NDArray[np.bool_] | None = None) -> bytes:
    """A PNG that lies over pictures, `SHEET` side by side, and dims what their masks leave out.

    Args:
        masks: (pictures, height, width).
        annotated: (pictures, height, width) what is outlined, from without; then the tiles are whole multiples larger.
    """
    times = 1 if annotated is None else -(-_TILE // masks.shape[1])
    tiles = _enlarged(masks, times).astype(np.uint8)
    if annotated is not None:
        tiles[_border(_enlarged(annotated, times), max(1, tiles.shape[1] // _THIN))] = 2
    count, height, width = tiles.shape
    rows = -(-count // SHEET)
    sheet = np.ones((rows * SHEET, height, width), np.uint8)
    sheet[:count] = tiles
    laid = sheet.reshape(rows, SHEET, height, width).swapaxes(1, 2).reshape(rows * height, SHEET * width)
    picture = Image.fromarray(laid, "P")
    picture.putpalette([0, 0, 0, 0, 0, 0, *_OUTLINE])
    content = io.BytesIO()
    picture.save(content, "PNG", transparency=bytes([_SHADE, 0, 255]), bits=1 if annotated is None else 2)
    return content.getvalue()


def _enlarged(masks: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    return masks.repeat(times, 1).repeat(times, 2)


def _border(masks: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """What lies outside each mask (pictures, height, width), but within so many pixels of it."""
    near = masks.copy()
    for axis in (1, 2):
        along, grown = near.swapaxes(axis, 2), near.swapaxes(axis, 2).copy()
        for step in range(1, width + 1):
            grown[..., step:] |= along[..., :-step]
            grown[..., :-step] |= along[..., step:]
        near = grown.swapaxes(axis, 2)
    return near & ~masks
