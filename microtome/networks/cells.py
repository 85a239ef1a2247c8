"""Which cell of a grid each number of a tensor belongs to.

The numbers of a tensor that stem from a picture lie in cells: of a convolution's maps, of tokens, of windows that were
cut out of them. `CellField.cells` says of every element in which: a tensor of the same shape, which whatever moves
elements about (views, permutations, rolls, slices, concatenations) can be applied to as it stands. So a grid is found
again however a network lays it out, and a shifted window is put back in place without anybody knowing what a window is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch

NOWHERE = -1  # of elements that belong to no cell: class tokens, registers, what stems from parameters alone
_NO_CELLS = torch.empty(0, dtype=torch.int32)


@dataclass(frozen=True)
class Axis:
    """Geometry along one axis: centre of cell 0, distance of neighbouring cells, field width (input pixels), cells."""

    start: float = 0.5
    jump: float = 1.0
    field: float = 1.0
    cells: int = 0

    def slide(self, kernel: int, stride: int, padding: float, dilation: int) -> Axis:
        """After a sliding window; the number of cells is filled in by the caller."""
        reach = dilation * (kernel - 1)
        return Axis(self.start + (reach / 2 - padding) * self.jump, self.jump * stride, self.field + reach * self.jump)

    def resample(self, cells: int) -> Axis:
        """After interpolation or uneven pooling to another number of cells over the same extent."""
        jump = self.jump * self.cells / cells
        return Axis(self.start + (jump - self.jump) / 2, jump, self.field + max(self.jump, jump - self.jump), cells)

    def every(self, first: int, step: int, cells: int) -> Axis:
        """Of every `step`-th cell, from a first one on."""
        return Axis(self.start + first * self.jump, self.jump * step, self.field, cells)

    def union(self, other: Axis) -> Axis:
        """Smallest window that covers both fields."""
        low = min(self.start - self.field / 2, other.start - other.field / 2)
        high = max(self.start + self.field / 2, other.start + other.field / 2)
        return Axis((low + high) / 2, self.jump, high - low, self.cells)

    def shares(self, other: Axis) -> bool:
        """Whether both have as many cells, as far apart."""
        return math.isclose(self.jump, other.jump) and self.cells == other.cells


@dataclass(frozen=True, eq=False)
class CellField:
    """What is known of one tensor; `reason` says why its grid was lost.

    Args:
        rows, columns: of the grid.
        cells: int32, of the tensor's own shape, on the CPU: picture * (cells of the grid) + cell, row-major; NOWHERE
            for what belongs to none.
        is_global: something mixed all positions on the way.
        reason: empty where the grid is known.
    """

    rows: Axis = Axis()
    columns: Axis = Axis()
    cells: torch.Tensor = field(default_factory=lambda: _NO_CELLS)
    is_global: bool = False
    reason: str = ""

    @property
    def count(self) -> int:
        """Cells of the grid."""
        return self.rows.cells * self.columns.cells

    def moved(self, cells: torch.Tensor) -> CellField:
        """The same grid, its cells elsewhere."""
        return replace(self, cells=packed(cells))

    def varies(self, dim: int) -> bool:
        """Whether a tensor's elements along a dimension lie in different cells."""
        return self.cells.shape[dim] > 1 and self.cells.stride(dim) != 0


def lost(reason: str) -> CellField:
    """The field of a tensor whose elements lie in no cells that are known."""
    return CellField(reason=reason)


def gridded(
    rows: Axis, columns: Axis, shape: tuple[int, ...], *, pictures: torch.Tensor | None = None, row: int = -2
) -> CellField:
    """The field of a tensor with a whole grid, in order.

    Args:
        rows, columns: of the grid.
        shape: of the tensor.
        pictures: along the first dimension, the number of the picture; each once where left out.
        row: dimension of the rows, from the end; that of the columns is the next.
    """
    pictures = torch.arange(shape[0], dtype=torch.int32) if pictures is None else pictures
    return CellField(rows, columns, _in_order(pictures, rows.cells, columns.cells, (len(shape), row)).expand(shape))


def _in_order(pictures: torch.Tensor, rows: int, columns: int, where: tuple[int, int]) -> torch.Tensor:
    """A whole grid for each of these pictures, in a tensor of so many dimensions, the rows along one of them."""
    sizes = [1] * where[0]
    sizes[0], sizes[where[1]], sizes[where[1] + 1] = len(pictures), rows, columns
    count = rows * columns
    return (pictures[:, None] * count + torch.arange(count, dtype=torch.int32)).view(sizes)


def packed(cells: torch.Tensor) -> torch.Tensor:
    """The same, with stride 0 along every dimension along which it is constant."""
    least = _least(cells)
    for dim in range(least.ndim):
        first = least.narrow(dim, 0, 1)
        if least.shape[dim] > 1 and bool((least == first).all()):
            least = first
    return least.expand(cells.shape)


def _least(cells: torch.Tensor) -> torch.Tensor:
    """One element along every dimension of stride 0."""
    for dim in range(cells.ndim):
        if cells.stride(dim) == 0 and cells.shape[dim] > 1:
            cells = cells.narrow(dim, 0, 1)
    return cells


@dataclass(frozen=True)
class Layout:
    """Where a tensor keeps its whole grid, in order.

    Args:
        dims: of rows and columns, from the end; equal for tokens.
        pictures: along the first dimension, the number of the picture.
        offset: tokens before the grid's first.
    """

    dims: tuple[int, int]
    pictures: torch.Tensor
    offset: int = 0


def layout(known: CellField) -> Layout | None:
    """Where a tensor keeps whole grids, in order, one at each place of its first dimension; None where it does not."""
    pictures = _pictures(known)
    if pictures is None:
        return None
    least, shape = _least(known.cells), known.cells.shape
    rows, columns = known.rows.cells, known.columns.cells
    for row in range(-2, -len(shape), -1):
        is_grid = (shape[row], shape[row + 1]) == (rows, columns)
        if is_grid and torch.equal(least, _in_order(pictures, rows, columns, (len(shape), row))):
            return Layout((row, row + 1), pictures)
    for dim in (*range(-2, -len(shape), -1), -1):
        offset = _offset(known, dim, pictures)
        if offset is not None:
            return Layout((dim, dim), pictures, offset)
    return None


def _pictures(known: CellField) -> torch.Tensor | None:
    """Along the first dimension, the number of the picture; None where several share a place."""
    places = _least(known.cells).flatten(1) if known.cells.ndim > 1 else None
    if places is None or not known.count:
        return None
    highest = places.amax(1)
    numbers = highest // known.count
    inside = (places < 0) | (places // known.count == numbers[:, None])
    return numbers if bool((highest >= 0).all()) and bool(inside.all()) else None


def _offset(known: CellField, dim: int, pictures: torch.Tensor) -> int | None:
    """Tokens before the grid's first along a dimension; None where there is no such run of tokens."""
    least = _least(known.cells)
    if least.numel() != least.shape[0] * least.shape[dim] or least.shape[dim] < known.count:
        return None
    tokens = least.reshape(least.shape[0], -1)
    begin = (tokens[0] == pictures[0] * known.count).nonzero()
    if len(begin) != 1 or int(begin) + known.count > tokens.shape[1]:
        return None
    offset = int(begin)
    wanted = torch.full_like(tokens, NOWHERE)
    numbers = pictures[:, None] * known.count + torch.arange(known.count, dtype=torch.int32)
    wanted[:, offset : offset + known.count] = numbers
    return offset if torch.equal(tokens, wanted) else None


def scattered(known: CellField) -> bool:
    """Whether cells lie in more than one place of a tensor, features apart."""
    least = _least(known.cells)
    there = least[least >= 0]
    return len(torch.unique(there)) < len(there)


def whole(known: CellField) -> CellField:
    """The field with its grid cut down to the cells that the tensor still has, if they make a grid of their own.

    A slice with a step leaves every second row; a crop, the inner ones.
    """
    least = _least(known.cells)
    there = torch.unique(least[least >= 0] % known.count) if known.count else least[:0]
    if len(there) == known.count or not len(there):
        return known if len(there) else lost("it holds no place of the picture (a class token alone?)")
    rows, columns = (torch.unique(part) for part in (there // known.columns.cells, there % known.columns.cells))
    if len(there) == 1 or len(rows) * len(columns) != len(there) or not (_even(rows) and _even(columns)):
        return lost("only some of its places are kept, which make no grid")
    axes = [
        axis.every(int(kept[0]), int(kept[1] - kept[0]) if len(kept) > 1 else 1, len(kept))
        for axis, kept in ((known.rows, rows), (known.columns, columns))
    ]
    inner = torch.full((known.count,), NOWHERE, dtype=torch.int32)
    inner[there] = torch.arange(len(there), dtype=torch.int32)
    moved = torch.where(least < 0, least, least // known.count * len(there) + inner[least % known.count])
    return replace(known, rows=axes[0], columns=axes[1], cells=moved.expand(known.cells.shape))


def _even(kept: torch.Tensor) -> bool:
    steps = kept.diff()
    return bool((steps == steps[:1]).all())


def mixed(known: CellField, dims: tuple[int, ...]) -> CellField:
    """What is made of all elements along some dimensions, which then have size 1.

    Where they lie in one cell, that stays it; where they fill blocks of cells side by side (patches brought into the
    channels), each block is a cell of a coarser grid.
    """
    least, far = _least(known.cells), torch.iinfo(torch.int32).max
    low = torch.where(least < 0, far, least).amin(dims, keepdim=True)
    high = least.amax(dims, keepdim=True)
    low = torch.where(high < 0, high, low)
    shape = [1 if dim in {d % least.ndim for d in dims} else size for dim, size in enumerate(known.cells.shape)]
    if torch.equal(low, high):
        return replace(known, cells=low.expand(shape))
    if bool((low // known.count != high // known.count).any()):
        return lost("it comes after something that mixes pictures")
    return _blocks(known, least, dims, shape)


def _blocks(known: CellField, least: torch.Tensor, dims: tuple[int, ...], shape: list[int]) -> CellField:
    inside = least % known.count
    firsts, sizes = [], []
    for place in (inside // known.columns.cells, inside % known.columns.cells):
        first = torch.where(least < 0, known.count, place).amin(dims, keepdim=True)
        last = torch.where(least < 0, NOWHERE, place).amax(dims, keepdim=True)
        size = torch.unique((last - first + 1)[last >= 0])
        if len(size) != 1:
            return lost("it comes after something that mixes places unevenly")
        firsts.append(torch.where(last < 0, NOWHERE, first))
        sizes.append(int(size))
    axes, places = [], []
    for axis, first, size in zip((known.rows, known.columns), firsts, sizes, strict=True):
        there = torch.unique(first[first >= 0])
        if (size == axis.cells > 1) or bool(((there - there[0]) % size).any()) or not _even(there):
            return lost("it comes after a linear layer over positions")
        axes.append(replace(axis.every(int(there[0]), 1, 0).slide(size, size, 0, 1), cells=len(there)))
        places.append(torch.div(first - there[0], size, rounding_mode="floor"))
    picture = torch.where(least < 0, NOWHERE, least // known.count).amax(dims, keepdim=True)
    count = axes[0].cells * axes[1].cells
    cells = torch.where(picture < 0, NOWHERE, picture * count + places[0] * axes[1].cells + places[1])
    return replace(known, rows=axes[0], columns=axes[1], cells=packed(cells.int()).expand(shape))


def together(fields: list[CellField]) -> list[CellField]:
    """Fields of tensors that meet, brought to one grid: the union of what they see; all lost if there is none."""
    if not all(f.rows.shares(fields[0].rows) and f.columns.shares(fields[0].columns) for f in fields):
        fields = [whole(f) for f in fields]
    first = fields[0]
    if any(f.reason for f in fields):
        return [next(f for f in fields if f.reason)] * len(fields)
    rows, columns = first.rows, first.columns
    for other in fields[1:]:
        for mine, theirs in ((rows, other.rows), (columns, other.columns)):
            if not mine.shares(theirs):
                return [lost(f"its branches share no grid: {_grids(mine, theirs)}")] * len(fields)
        rows, columns = rows.union(other.rows), columns.union(other.columns)
    is_global = any(f.is_global for f in fields)
    return [replace(f, rows=rows, columns=columns, is_global=is_global) for f in fields]


def _grids(mine: Axis, theirs: Axis) -> str:
    if math.isclose(mine.jump, theirs.jump):
        return f"{mine.cells} and {theirs.cells} cells"
    return f"strides {mine.jump:g} and {theirs.jump:g}"


def merged(fields: list[CellField], shape: tuple[int, ...]) -> CellField | None:
    """The field of what is made of several tensors element by element; None where they do not fit the shape."""
    met = together(fields)
    if met[0].reason:
        return met[0]
    try:
        spread = [f.cells.expand(shape) for f in met]
    except RuntimeError:
        return None
    cells = spread[0]
    for other in spread[1:]:
        one, two = _least(cells), _least(other)
        if bool(((one != two) & (one >= 0) & (two >= 0)).any()):
            return lost("its branches put different places of the picture into one")
        cells = torch.where(one < 0, two, one).expand(shape)
    return replace(met[0], cells=cells)
