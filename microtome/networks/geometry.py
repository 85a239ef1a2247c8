"""Receptive-field geometry: where in the input each cell of a layer looks.

One forward pass runs under a dispatch mode that sees every tensor operation, however the network is written (modules,
functions, branches, in place), and carries each map's geometry along. With kernel k, stride s, padding p, dilation e

    start += (e (k - 1) / 2 - p) jump;   rf += e (k - 1) jump;   jump *= s

from start = 0.5 (the centre of pixel 0), jump = 1, rf = 1. Rows and columns are walked apart. Where branches meet, the
field is the union of theirs; branches that disagree on the jump have no common grid, which is an error for the layers
that need one. Whatever mixes all positions (pooled gates, attention) is left out and flagged `is_global`. In which cell
each number lies is carried along, too (`microtome.networks.cells`): so the grid is found in tokens, and in windows that
were cut out of it and shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from microtome.errors import InputError
from microtome.importing import users_code
from microtome.networks.cells import Axis, CellField, Layout, gridded, layout, mixed, whole
from microtome.networks.following import CellWalk, field_of, mark
from microtome.networks.layers import match_layers

_PICTURES = 2  # of the blank batch, so that a batch of one is not mistaken for another dimension of size one


@dataclass(frozen=True)
class LayerGeometry:
    """A layer's maps and where their cells look. Pairs are (rows, columns); lengths are in input pixels.

    Args:
        name: dotted name of the layer.
        units: number of channels.
        grid: cells.
        start: centre of cell (0, 0), in coordinates in which the first pixel spans 0..1.
        jump: distance of neighbouring cells' centres.
        field: size of the theoretical receptive field; what `is_global` adds is left out.
        is_global: something upstream mixes all positions (squeeze-and-excitation, attention).
        dims: which dimensions of the layer's output are rows and columns, from the end; equal for tokens.
        offset: tokens before the grid's first (class token, registers).
        channel: which dimension of the output holds the units, from the end.
        order: where the cells are not in order (in windows): of each cell, row-major, its place among the places of a
            picture; empty where they are.
        parts: along the output's first dimension, of each picture; more than one in windows.
        apart: places of a picture's output that lie in no cell: class token, registers, padding of windows.
    """

    name: str
    units: int
    grid: tuple[int, int]
    start: tuple[float, float]
    jump: tuple[float, float]
    field: tuple[float, float]
    is_global: bool
    dims: tuple[int, int] = (-2, -1)
    offset: int = 0
    channel: int = -3
    order: tuple[int, ...] = ()
    parts: int = 1
    apart: int = 0

    def centres(self, axis: int) -> list[float]:
        """Centres of the cells along rows (0) or columns (1), in input pixels."""
        return [self.start[axis] + index * self.jump[axis] for index in range(self.grid[axis])]

    def field_box(self, cell: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of a cell's theoretical receptive field, cut to the picture, in whole input pixels.

        Args:
            cell: row-major.
            size: (height, width) of the picture.
        """
        low, high = [], []
        for axis, place in enumerate(divmod(cell, self.grid[1])):
            centre = self.start[axis] + place * self.jump[axis]
            low.append(max(0, round(centre - self.field[axis] / 2)))
            high.append(min(size[axis], round(centre + self.field[axis] / 2)))
        return low[1], low[0], high[1], high[0]

    def as_maps(self, output: torch.Tensor) -> torch.Tensor:
        """The layer's output as (images, units, rows, columns); a view where the layout allows."""
        rows, columns = self.grid
        if self.order:
            images = output.shape[0] // self.parts
            places = output.movedim(self.channel, -1).reshape(images, -1, self.units)
            return places[:, self._order].movedim(1, -1).reshape(images, self.units, rows, columns)
        if self.dims[0] == self.dims[1]:
            tokens = output.narrow(self.dims[0], self.offset, rows * columns).movedim(self.dims[0], -1)
            return tokens.reshape(output.shape[0], self.units, rows, columns)
        return output.movedim(self.dims, (-2, -1))

    @cached_property
    def _order(self) -> torch.Tensor:
        return torch.tensor(self.order)


def walk(module: torch.nn.Module, size: tuple[int, int], layers: Sequence[str] | None = None) -> list[LayerGeometry]:
    """Geometry of the layers, from one forward pass over a blank input.

    Args:
        module: the network, in eval mode.
        size: input height and width, in pixels.
        layers: dotted names; None for every layer whose output is a map.

    Raises:
        InputError: a wanted layer that gives no map, runs more than once, or whose branches share no grid; all such.
    """
    called: dict[str, list[LayerGeometry | str]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: object, output: object) -> None:
            called.setdefault(name, []).append(_geometry(name, output))

        return hook

    handles = [sub.register_forward_hook(watch(name)) for name, sub in module.named_modules() if name]
    try:
        _blank_forward(module, size)
    finally:
        for handle in handles:
            handle.remove()
    found = {name: g for name, (g, *more) in called.items() if not more and isinstance(g, LayerGeometry)}
    if layers is None:
        return list(found.values())
    faults = {name: fault for name in layers if (fault := _refusal(called.get(name, [])))}
    if faults:
        order = [name for name, _ in module.named_modules()]
        raise InputError(
            [f"network.layers: {name}: {fault}{_nearest(name, found, order)}" for name, fault in faults.items()]
        )
    return [found[name] for name in layers]


def _nearest(name: str, found: Mapping[str, LayerGeometry], order: Sequence[str]) -> str:
    """A hint: the layer nearest to one, among those that give maps, of which it shares most of its name."""
    if not found:
        return ""
    parts, place = name.split("."), order.index(name) if name in order else 0

    def distance(other: str) -> tuple[int, int]:
        shared = 0
        for one, two in zip(parts, other.split("."), strict=False):
            if one != two:
                break
            shared += 1
        return -shared, abs(order.index(other) - place)

    return f"; the nearest layer with maps is {min(found, key=distance)}"


def walk_matching(
    module: torch.nn.Module, size: tuple[int, int], patterns: Sequence[str]
) -> tuple[list[LayerGeometry], list[str]]:
    """Geometry of the layers that patterns name; what only a glob names and gives no map is left out.

    Args:
        module: the network, in eval mode.
        size: input height and width, in pixels.
        patterns: dotted names or globs, as in `match_layers`.

    Returns:
        the layers, and the names of those left out.

    Raises:
        InputError: a pattern matches no layer; a layer that is named in full gives no map, or all that a glob names.
    """
    names = match_layers(module, patterns)
    found = {layer.name: layer for layer in walk(module, size)}
    absent = [name for name in names if name not in found]
    refused = [name for name in absent if name in patterns or not found.keys() & set(names)]
    if refused:
        walk(module, size, refused)  # which says why
    return [found[name] for name in names if name in found], absent


def gradient_footprint(
    module: torch.nn.Module, size: tuple[int, int], layer: LayerGeometry, cell: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Which input pixels one cell depends on, by its gradient: a numerical check of the walk.

    What is differentiated is a drawn combination of the cell's units: after a layer norm their plain sum is constant.

    Args:
        module: the network, on the CPU.
        size: input height and width.
        layer: the cell's layer.
        cell: (row, column) in the layer's grid.

    Returns:
        first row, last row + 1, first column, last column + 1 of the pixels with a gradient that is not zero.
    """
    caught: list[torch.Tensor] = []
    handle = module.get_submodule(layer.name).register_forward_hook(lambda _m, _i, output: caught.append(output))
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    image = torch.rand(1, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    try:
        module(image)
    finally:
        handle.remove()
    units = layer.as_maps(caught[0])[0, :, cell[0], cell[1]]
    target = units @ torch.rand(layer.units, dtype=dtype, generator=torch.Generator().manual_seed(1))
    touched = torch.autograd.grad(target, image)[0][0].abs().sum(0) > 0
    rows, columns = touched.any(1).nonzero()[:, 0], touched.any(0).nonzero()[:, 0]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _blank_forward(module: torch.nn.Module, size: tuple[int, int]) -> None:
    parameter = next(module.parameters(), torch.empty(0))
    with torch.inference_mode():
        blank = torch.zeros(_PICTURES, 3, *size, dtype=parameter.dtype, device=parameter.device)
        mark(blank, gridded(Axis(cells=size[0]), Axis(cells=size[1]), tuple(blank.shape)))
        what = f"the network fails on a blank input of {size[0]} x {size[1]} pixels (network.input.size)"
        with users_code("network.load", what), CellWalk():  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
            module(blank)


def _refusal(called: list[LayerGeometry | str]) -> str:
    """Why a layer that was called so often, with these outputs, gives no maps; empty where it does."""
    if not called:
        return "never runs in a forward pass"
    if len(called) > 1:
        return f"must run once in a forward pass, got {len(called)} times; name a layer around or after it"
    return called[0] if isinstance(called[0], str) else ""


def _geometry(name: str, output: object) -> LayerGeometry | str:
    """The geometry of a layer by its output, or why it has none."""
    known = field_of(output)
    if known is None or not isinstance(output, torch.Tensor):
        return "its output is not a map"
    if known.reason:
        return known.reason
    channel = _channel(known)
    if isinstance(channel, str):
        return channel
    if known.varies(channel):
        known = mixed(known, (channel,))
        known = known if known.reason else known.moved(known.cells.expand(output.shape))
    known = whole(known) if not known.reason else known
    if known.reason:
        return known.reason
    found = layout(known) if len(known.cells) == _PICTURES else None
    order = () if found else _order(known, channel)
    if isinstance(order, str):
        return order
    return _described(name, known, (found, order, channel))


def _channel(known: CellField) -> int | str:
    """Which dimension of an output holds its units: the one along which nothing else changes; or why none does."""
    shape, found = known.cells.shape, layout(known)
    held = {dim % len(shape) for dim in found.dims} if found else {d for d in range(len(shape)) if known.varies(d)}
    free = [dim for dim in range(1, len(shape)) if dim not in held]
    several = [dim for dim in free if shape[dim] > 1]
    if len(several) > 1:
        return f"each of its places has numbers along {len(several)} dimensions, {tuple(shape[d] for d in several)}"
    if not several and not free:
        free = [1] if len(shape) == 4 and not found else []
    chosen = several or free
    return chosen[0] - len(shape) if chosen else "its output is not a map"


def _order(known: CellField, channel: int) -> tuple[int, ...] | str:
    """Of each cell, its place among a picture's, where they are not in order; or why they cannot be put in order."""
    places = known.cells.movedim(channel, -1)[..., 0]
    if places.shape[0] % _PICTURES:
        return "its places cannot be put back: its first dimension does not count pictures"
    of_picture = places.reshape(_PICTURES, -1)
    first, second = of_picture
    there = (first >= 0).nonzero()[:, 0]
    cells = first[there]
    if not torch.equal(torch.where(first < 0, first, first + known.count), second):
        return "its places cannot be put back: pictures do not come one after another in it"
    if not torch.equal(cells.sort().values, torch.arange(known.count, dtype=cells.dtype)):
        return "its places cannot be put back: some come twice, or not at all"
    return tuple(there[cells.argsort()].tolist())


def _described(name: str, known: CellField, where: tuple[Layout | None, tuple[int, ...], int]) -> LayerGeometry:
    found, order, channel = where
    shape, (rows, columns) = known.cells.shape, (known.rows, known.columns)
    units = shape[channel]
    return LayerGeometry(
        name=name,
        units=units,
        grid=(rows.cells, columns.cells),
        start=(rows.start, columns.start),
        jump=(rows.jump, columns.jump),
        field=(rows.field, columns.field),
        is_global=known.is_global,
        dims=found.dims if found else (channel, channel),
        offset=found.offset if found else 0,
        channel=channel,
        order=order,
        parts=shape[0] // _PICTURES,
        apart=shape.numel() // (_PICTURES * units) - known.count,
    )
