"""The border of a mask as closed lines along pixels' edges, and these as an SVG path, their corners cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.compiling import compiled

_RIGHT, _DOWN, _LEFT, _UP = range(4)  # ways along an edge; the next one is a turn to the right
_ACROSS, _ALONG = np.array([1, 0, -1, 0]), np.array([0, 1, 0, -1])  # columns and rows of a step
_M, _Z, _L, _H, _V, _MINUS, _SPACE, _ZERO = map(ord, "Mzlhv- 0")
_MOST = 24  # signs of a step


def border_path(mask: NDArray[np.bool_], fine: int, cut: int) -> str:
    """The border of a mask as an SVG path, empty for an empty mask: of each side of a line a piece is left.

    Lines have the mask to their right; pixels that touch at a corner stay apart.

    Args:
        mask: (height, width).
        fine: steps of a pixel's side in which it is drawn; an even number.
        cut: of these, what is cut off both ends of a side; of a side of one pixel only the middle is left.
    """
    found: bytes = _path(*_traced(np.ascontiguousarray(mask)), fine, cut).tobytes()
    return found.decode("ascii")


@compiled
def _traced(mask):  # type: ignore[no-untyped-def]
    """Corners of all lines, (corners, 2) columns and rows, and (lines,) where each line ends among them."""
    height, width = mask.shape
    edges, many = _edges(mask)
    corners, ends = np.empty((many, 2), np.int64), np.empty(many // 4, np.int64)
    seen = np.zeros((height + 1, width + 1), np.bool_)
    count = lines = 0
    for first in range(width - 1, -1, -1):  # each line goes up somewhere
        for last in range(height, 0, -1):
            if not edges[_UP, last, first] or seen[last, first]:
                continue
            x, y, way, turn = first, last, _UP, 1
            while True:
                if turn:
                    corners[count, 0], corners[count, 1] = x, y  # as a pair it takes a second to compile
                    count += 1
                if way == _UP:
                    seen[y, x] = True
                x, y = x + _ACROSS[way], y + _ALONG[way]
                right, on = edges[(way + 1) % 4, y, x], edges[way, y, x]
                turn = 1 if right else 0 if on else 3  # to the right first: the same pixel's other edge
                way = (way + turn) % 4
                if way == _UP and x == first and y == last:
                    break
            ends[lines] = count
            lines += 1
    return corners[:count], ends[:lines]


@compiled
def _edges(mask):  # type: ignore[no-untyped-def]
    """(ways, rows + 1, columns + 1) whether an edge begins at a corner and goes that way, the mask to its right; and
    how many do."""
    height, width = mask.shape
    edges = np.zeros((4, height + 1, width + 1), np.bool_)
    many = 0
    for y in range(height):
        for x in range(width):
            if not mask[y, x]:
                continue
            if y == 0 or not mask[y - 1, x]:
                edges[_RIGHT, y, x] = True
                many += 1
            if x == width - 1 or not mask[y, x + 1]:
                edges[_DOWN, y, x + 1] = True
                many += 1
            if y == height - 1 or not mask[y + 1, x]:
                edges[_LEFT, y + 1, x + 1] = True
                many += 1
            if x == 0 or not mask[y, x - 1]:
                edges[_UP, y + 1, x] = True
                many += 1
    return edges, many


@compiled
def _path(corners, ends, fine, cut):  # type: ignore[no-untyped-def]
    """The path as ASCII; see `border_path` and `_traced`."""
    text = np.empty(2 * _MOST * len(corners), np.uint8)
    count = begin = 0
    for end in ends:
        was_x = was_y = 0
        for place in range(begin, end):
            after = begin if place + 1 == end else place + 1
            x, y, to_x, to_y = corners[place, 0], corners[place, 1], corners[after, 0], corners[after, 1]
            length = abs(to_x - x) + abs(to_y - y)
            right, down = (to_x - x) // length, (to_y - y) // length
            off = cut if length > 1 else fine // 2
            at_x, at_y = fine * x + off * right, fine * y + off * down
            count = _moved(text, count, (at_x - was_x, at_y - was_y), place == begin)
            if length > 1:
                was_x, was_y = at_x, at_y
                at_x, at_y = fine * to_x - off * right, fine * to_y - off * down
                count = _moved(text, count, (at_x - was_x, at_y - was_y), False)
            was_x, was_y = at_x, at_y
        text[count] = _Z
        count, begin = count + 1, end
    return text[:count]


@compiled
def _moved(text, count, step, begins):  # type: ignore[no-untyped-def]
    """Write a step, of a line or to where one begins, behind what is written; gives how many signs there are then."""
    right, down = step
    if begins:
        text[count] = _M
    elif not down:
        text[count] = _H
        return _written(text, count + 1, right)
    elif not right:
        text[count] = _V
        return _written(text, count + 1, down)
    else:
        text[count] = _L
    count = _written(text, count + 1, right)
    text[count] = _SPACE
    return _written(text, count + 1, down)


@compiled
def _written(text, count, value):  # type: ignore[no-untyped-def]
    """Write an integer."""
    if value < 0:
        text[count] = _MINUS
        count, value = count + 1, -value
    digits = 1
    rest = value // 10
    while rest:
        digits, rest = digits + 1, rest // 10
    for place in range(count + digits - 1, count - 1, -1):
        text[place] = _ZERO + value % 10
        value //= 10
    return count + digits
