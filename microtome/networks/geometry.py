"""Receptive-field geometry: where in the input each cell of a layer looks.

One forward pass runs under a dispatch mode that sees every tensor operation, however the network is written (modules,
functions, branches, in place), and carries each map's geometry along. With kernel k, stride s, padding p, dilation e

    start += (e (k - 1) / 2 - p) jump;   rf += e (k - 1) jump;   jump *= s

from start = 0.5 (the centre of pixel 0), jump = 1, rf = 1. Rows and columns are walked apart. Where branches meet, the
field is the union of theirs; branches that disagree on the jump have no common grid, which is an error for the layers
that need one. Whatever mixes all positions (pooled gates, attention) is left out and flagged `is_global`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from microtome.errors import InputError
from microtome.importing import users_code
from microtome.networks.layers import match_layers


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

    def union(self, other: Axis) -> Axis:
        """Smallest window that covers both fields."""
        low = min(self.start - self.field / 2, other.start - other.field / 2)
        high = max(self.start + self.field / 2, other.start + other.field / 2)
        return Axis((low + high) / 2, self.jump, high - low, self.cells)


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
        if self.dims[0] == self.dims[1]:
            tokens = output.narrow(self.dims[0], self.offset, rows * columns).movedim(self.dims[0], -1)
            return tokens.reshape(output.shape[0], self.units, rows, columns)
        return output.movedim(self.dims, (-2, -1))


@dataclass(frozen=True)
class _Field:
    """What is known of one tensor; `dims` count from the end; `reason` says why a grid was lost."""

    rows: Axis = Axis()
    columns: Axis = Axis()
    dims: tuple[int, int] = (-2, -1)
    offset: int = 0
    is_global: bool = False
    reason: str = ""

    @property
    def is_tokens(self) -> bool:
        return self.dims[0] == self.dims[1]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape still has the grid where `dims` say."""
        if len(shape) < -min(self.dims):
            return False
        if self.is_tokens:
            return shape[self.dims[0]] >= self.offset + self.rows.cells * self.columns.cells
        return (shape[self.dims[0]], shape[self.dims[1]]) == (self.rows.cells, self.columns.cells)


def _lost(reason: str) -> _Field:
    return _Field(reason=reason)


def walk(module: torch.nn.Module, size: tuple[int, int], layers: Sequence[str] | None = None) -> list[LayerGeometry]:
    """Geometry of the layers, from one forward pass over a blank input.

    Args:
        module: the network, in eval mode.
        size: input height and width, in pixels.
        layers: dotted names; None for every layer whose output is a map.

    Raises:
        InputError: a wanted layer that gives no map, runs more than once, or whose branches share no grid; all such.
    """
    seen: dict[str, list[_Field | None]] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: object, output: object) -> None:
            seen.setdefault(name, []).append(getattr(output, "_microtome_field", None))
            shapes[name] = tuple(output.shape) if isinstance(output, torch.Tensor) else ()

        return hook

    handles = [sub.register_forward_hook(watch(name)) for name, sub in module.named_modules() if name]
    try:
        _blank_forward(module, (2, 3, *size))
    finally:
        for handle in handles:
            handle.remove()
    wanted = list(seen) if layers is None else layers
    faults = {name: fault for name in wanted if (fault := _fault(name, seen.get(name)))}
    if faults and layers is not None:
        raise InputError([f"network.layers: {name}: {fault}" for name, fault in faults.items()])
    return [_geometry(name, seen[name][0], shapes[name]) for name in wanted if name not in faults]


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


def _blank_forward(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    """Two images, so that a batch of one is not mistaken for another dimension of size one."""
    parameter = next(module.parameters(), torch.empty(0))
    with torch.inference_mode():
        blank = torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
        _mark(blank, _Field(Axis(cells=shape[2]), Axis(cells=shape[3])))
        what = f"the network fails on a blank input of {shape[2]} x {shape[3]} pixels (network.input.size)"
        with users_code("network.load", what), _Walk():  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
            module(blank)


def _fault(name: str, fields: list[_Field | None] | None) -> str:
    if not fields:
        return "never runs in a forward pass"
    if len(fields) > 1:
        return f"must run once in a forward pass, got {len(fields)} times; name a layer around or after it"
    if fields[0] is None:
        return "its output is not a map"
    return fields[0].reason


def _geometry(name: str, field: _Field | None, shape: tuple[int, ...]) -> LayerGeometry:
    if field is None:
        raise InputError(f"network.layers: {name}: its output is not a map")
    rows, columns = field.rows, field.columns
    grid_dims = {dim % len(shape) for dim in field.dims}
    units = next(size for dim, size in enumerate(shape) if dim > 0 and dim not in grid_dims)
    return LayerGeometry(
        name=name,
        units=units,
        grid=(rows.cells, columns.cells),
        start=(rows.start, columns.start),
        jump=(rows.jump, columns.jump),
        field=(rows.field, columns.field),
        is_global=field.is_global,
        dims=field.dims,
        offset=field.offset,
    )


def _mark(tensor: torch.Tensor, field: _Field) -> None:
    tensor._microtome_field = field  # type: ignore[attr-defined]  # a mark of ours, on torch's object


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


Bound = Mapping[str, Any]
"""Arguments of an operation by the names in its schema: whatever an aten operation takes."""


class _Walk(TorchDispatchMode):  # type: ignore[no-untyped-call]  # as above
    """Gives every tensor that an operation returns the field that follows from its inputs' fields."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: torch must not import its compiler, which takes a second, to be told to skip it."""
        return False

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        names = [argument.name for argument in func._schema.arguments]
        bound = dict(zip(names, args, strict=False)) | dict(kwargs or {})
        fields = [
            (tensor, tensor._microtome_field)
            for tensor in _tensors(list(bound.values()))
            if hasattr(tensor, "_microtome_field")
        ]
        output = func(*args, **(kwargs or {}))
        if fields:
            name = func._schema.name.removeprefix("aten::").removesuffix("_")
            for tensor in _tensors(output):
                _mark(tensor, _after(name, bound, [field for _, field in fields], tensor))
        return output


def _after(name: str, bound: Bound, fields: list[_Field], output: torch.Tensor) -> _Field:
    """The field after one operation; operations without a rule keep the grid if its size stays, else lose it."""
    field = _merge(fields)
    if field.reason:
        return field
    rule = _RULES.get(name, _RULES.get(name.partition("_")[0]) if name.startswith("upsample") else None)
    after = rule(field, bound, output) if rule else field
    if after.reason or after.fits(output.shape):
        return after
    return _lost(f"its output is not a map: {name} gives {tuple(output.shape)}")


def _merge(fields: list[_Field]) -> _Field:
    """Where branches meet: union of the fields, one grid."""
    known = [field for field in fields if not field.reason]
    if not known:
        return fields[0]
    first = known[0]
    rows, columns = first.rows, first.columns
    for other in known[1:]:
        for mine, theirs in ((rows, other.rows), (columns, other.columns)):
            if not math.isclose(mine.jump, theirs.jump) or mine.cells != theirs.cells:
                return _lost(f"its branches share no grid: strides {mine.jump:g} and {theirs.jump:g}")
        rows, columns = rows.union(other.rows), columns.union(other.columns)
    mixed = len(known) < len(fields) or any(field.is_global for field in known)
    return replace(first, rows=rows, columns=columns, is_global=mixed)


def _pair(value: int | Sequence[int] | None, default: tuple[int, int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1]) if value else default


def _slide(field: _Field, kernel: tuple[int, int], bound: Bound, output: torch.Tensor) -> _Field:
    if field.dims != (-2, -1):
        return _lost("a window slides over something that is not its grid")
    stride = _pair(bound.get("stride"), (1, 1))
    dilation = _pair(bound.get("dilation"), (1, 1))
    padding: tuple[float, float] = (0, 0)
    if bound.get("padding") == "same":
        padding = (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
    elif bound.get("padding") != "valid":
        padding = _pair(bound.get("padding"), (0, 0))
    axes = [
        replace(axis.slide(kernel[i], stride[i], padding[i], dilation[i]), cells=output.shape[i - 2])
        for i, axis in enumerate((field.rows, field.columns))
    ]
    return replace(field, rows=axes[0], columns=axes[1])


def _convolution(field: _Field, bound: Bound, output: torch.Tensor) -> _Field:
    if bound.get("transposed"):
        return _lost("a transposed convolution comes before it, whose grid is not walked")
    weight = bound["weight"]
    return _slide(field, (weight.shape[-2], weight.shape[-1]), bound, output)


def _pool(field: _Field, bound: Bound, output: torch.Tensor) -> _Field:
    kernel = _pair(bound["kernel_size"], (1, 1))
    return _slide(field, kernel, {**bound, "stride": _pair(bound.get("stride"), kernel)}, output)


def _resample(field: _Field, _bound: Bound, output: torch.Tensor) -> _Field:
    """Adaptive pooling and interpolation: the same extent in another number of cells."""
    if field.dims != (-2, -1):
        return _lost("its grid is resampled along other dimensions")
    if tuple(output.shape[-2:]) == (1, 1) and (field.rows.cells, field.columns.cells) != (1, 1):
        return _lost("it comes after pooling over all positions")
    rows, columns = (
        axis if axis.cells == cells else axis.resample(cells)
        for axis, cells in zip((field.rows, field.columns), output.shape[-2:], strict=True)
    )
    return replace(field, rows=rows, columns=columns)


def _moved(field: _Field, order: Sequence[int]) -> _Field:
    """After a permutation: `order[i]` is the old dimension at place i."""
    count = len(order)
    places = [order.index(dim % count) - count for dim in field.dims]
    return replace(field, dims=(places[0], places[1]))


def _permute(field: _Field, bound: Bound, output: torch.Tensor) -> _Field:
    return _moved(field, [dim % output.ndim for dim in bound["dims"]])


def _transpose(field: _Field, bound: Bound, output: torch.Tensor) -> _Field:
    order = list(range(output.ndim))
    first, second = bound.get("dim0", bound.get("axis0", 0)), bound.get("dim1", bound.get("axis1", 1))
    order[first], order[second] = order[second], order[first]
    return _moved(field, order)


def _reshape(field: _Field, bound: Bound, output: torch.Tensor) -> _Field:
    """A dimension survives a reshape if as many elements come before it as did, and its size is the same."""
    source = bound["self"].shape
    row = field.dims[0] % len(source)
    before = math.prod(source[:row])
    rows, columns = field.rows.cells, field.columns.cells
    adjacent = field.is_tokens or field.dims[1] == field.dims[0] + 1
    for place in range(output.ndim):
        if math.prod(output.shape[:place]) != before:
            continue
        if field.is_tokens and output.shape[place] == source[row]:
            return replace(field, dims=(place - output.ndim,) * 2)
        if adjacent and not field.offset and output.shape[place] == rows * columns:
            return replace(field, dims=(place - output.ndim,) * 2)
        if adjacent and not field.offset and tuple(output.shape[place : place + 2]) == (rows, columns):
            return replace(field, dims=(place - output.ndim, place + 1 - output.ndim))
    return _lost("its grid is cut up by a reshape")


def _concatenate(field: _Field, bound: Bound, output: torch.Tensor) -> _Field:
    dim = (bound.get("dim") or 0) % output.ndim - output.ndim
    if dim not in field.dims:
        return replace(field, is_global=field.is_global)
    if not field.is_tokens:
        return _lost("it joins maps side by side")
    before = 0
    for tensor in bound["tensors"]:
        if getattr(tensor, "_microtome_field", None) is not None:
            break
        before += tensor.shape[dim]
    return replace(field, offset=field.offset + before)


def _pad(field: _Field, bound: Bound, output: torch.Tensor) -> _Field:
    axes = {field.dims[0]: field.rows, field.dims[1]: field.columns}
    for index, before in enumerate(bound["pad"][::2]):
        dim = -1 - index
        if dim in axes:
            axis = axes[dim]
            axes[dim] = replace(axis, start=axis.start - before * axis.jump, cells=output.shape[dim])
    return replace(field, rows=axes[field.dims[0]], columns=axes[field.dims[1]])


def _slice(field: _Field, bound: Bound, output: torch.Tensor) -> _Field:
    dim = bound.get("dim", 0) % output.ndim - output.ndim
    if dim not in field.dims:
        return field
    first = bound.get("start") or 0
    first = first + bound["self"].shape[dim] if first < 0 else first
    if field.is_tokens:
        return replace(field, offset=field.offset - first) if first <= field.offset else _lost("its tokens are cut")
    step = bound.get("step", 1)
    axes = {field.dims[0]: field.rows, field.dims[1]: field.columns}
    axis = axes[dim]
    axes[dim] = Axis(axis.start + first * axis.jump, axis.jump * step, axis.field, output.shape[dim])
    return replace(field, rows=axes[field.dims[0]], columns=axes[field.dims[1]])


def _linear(field: _Field, _bound: Bound, _output: torch.Tensor) -> _Field:
    return _lost("it comes after a linear layer over positions") if -1 in field.dims else field


def _layer_norm(field: _Field, bound: Bound, _output: torch.Tensor) -> _Field:
    mixes = any(dim >= -len(bound["normalized_shape"]) for dim in field.dims)
    return replace(field, is_global=field.is_global or mixes)


def _mixes(field: _Field, _bound: Bound, _output: torch.Tensor) -> _Field:
    return replace(field, is_global=True)


def _scatters(_field: _Field, _bound: Bound, _output: torch.Tensor) -> _Field:
    return _lost("its positions are mixed or moved before it")


_Rule = Callable[[_Field, Bound, torch.Tensor], _Field]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("conv2d", "convolution", "_convolution"), _convolution),
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "max_pool2d_with_indices"), _pool),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d", "_adaptive_avg_pool2d", "upsample"), _resample),
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "_unsafe_view"), _reshape),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("group_norm", "instance_norm"), _mixes),
    **dict.fromkeys(("matmul", "bmm", "einsum", "roll", "flip", "index", "gather", "movedim", "select"), _scatters),
    **dict.fromkeys(("scaled_dot_product_attention", "_native_multi_head_attention", "conv_transpose2d"), _scatters),
    "permute": _permute,
    "cat": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "linear": _linear,
    "layer_norm": _layer_norm,
}
