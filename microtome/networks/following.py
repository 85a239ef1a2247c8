"""How operations move and mix the cells of their inputs: a dispatch mode that sees every tensor operation of a network.

However the network is written (modules, functions, branches, in place), each operation's output gets the field that
follows from its inputs' fields (`microtome.networks.cells`). Sliding windows make another grid; what moves elements
about moves their cells with them; a product of two tensors keeps the cells of its rows (a query's, in attention), and
is flagged; all else works element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from microtome.networks.cells import (
    NOWHERE,
    Axis,
    CellField,
    gridded,
    layout,
    lost,
    merged,
    mixed,
    scattered,
    together,
    whole,
)

_Operation = torch._ops.OpOverload[..., object]
_NO_PICTURES = torch.empty(0, dtype=torch.int32)
_NO_GRID = "a window slides over something that is not its grid"
_SCATTERED = "its positions are mixed or moved before it"


@dataclass(frozen=True)
class Call:
    """One call of an operation.

    Args:
        function: the operation.
        bound: its arguments, by the names in its schema: whatever an aten operation takes.
        output: a tensor that it returned.
        place: of that tensor among those that it returned.
    """

    function: _Operation
    bound: Mapping[str, Any]
    output: torch.Tensor
    place: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the output."""
        return tuple(self.output.shape)

    @property
    def name(self) -> str:
        """Of the operation, without underscores of its in-place form."""
        return str(self.function._schema.name).removeprefix("aten::").rstrip("_")

    def dims(self, key: str = "dim") -> tuple[int, ...]:
        """Dimensions that an argument names, counted from the first; all of them where it names none."""
        count = self.bound[self.main].ndim
        named = self.bound.get(key)
        wanted = [named] if isinstance(named, int) else named or range(count)
        return tuple(dim % count for dim in wanted)

    @property
    def main(self) -> str:
        """The argument that is worked on."""
        return next(iter(self.bound))


def mark(tensor: torch.Tensor, known: CellField) -> None:
    """Note a tensor's field on it."""
    tensor._microtome_field = known  # type: ignore[attr-defined]  # a mark of ours, on torch's object


def field_of(thing: object) -> CellField | None:
    """The field of a tensor; None where nothing of it stems from the pictures, or it is no tensor."""
    found: CellField | None = getattr(thing, "_microtome_field", None)
    return found


def tensors(value: object) -> Iterator[torch.Tensor]:
    """All tensors in nested lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


class CellWalk(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
    """Gives every tensor that an operation returns the field that follows from its inputs' fields."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: torch must not import its compiler, which takes a second, to be told to skip it."""
        return False

    def __torch_dispatch__(
        self,
        func: _Operation,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        names = [argument.name for argument in func._schema.arguments]
        bound = dict(zip(names, args, strict=False)) | dict(kwargs or {})
        fields = [known for tensor in tensors(list(bound.values())) if (known := field_of(tensor))]
        if fields and func._schema.name == "aten::einsum":
            with self:  # as permutations, views and products, each of which is followed
                return func.decompose(*args, **(kwargs or {}))
        output = func(*args, **(kwargs or {}))
        for place, tensor in enumerate(tensors(output) if fields else ()):
            after = _after(Call(func, bound, tensor, place), fields)
            if after is not None:
                mark(tensor, after)
        return output


def _after(call: Call, fields: list[CellField]) -> CellField | None:
    """The field after one operation; what has no rule works element by element if the shapes say so."""
    if call.name.startswith("new_") or call.name.endswith("_like"):
        return None
    known = [f for f in fields if not f.reason]
    if not known:
        return fields[0]
    after = _rule(call.name)(known, call)
    if after is None:
        return lost(f"its output is not a map: {call.name} gives {call.shape}")
    if after.reason:
        return after
    if not bool((after.cells >= 0).any()):
        return lost("it holds no place of the picture (a class token alone?)")
    return replace(after, is_global=True) if len(known) < len(fields) else after


def _rule(name: str) -> _Rule:
    for prefix, rule in _FAMILIES.items():
        if name.startswith(prefix):
            return rule
    return _RULES.get(name, _elementwise)


def _elementwise(fields: list[CellField], call: Call) -> CellField | None:
    return merged(fields, call.shape)


def _taken(_fields: list[CellField], call: Call) -> CellField | None:
    """A copy into a tensor: whatever that held is gone."""
    source = field_of(call.bound["src"])
    return source and (source if source.reason else merged([source], call.shape))


def _pair(value: int | Sequence[int] | None, default: tuple[int, int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1]) if value else default


def _maps(known: CellField, why: str) -> tuple[CellField, torch.Tensor]:
    """The field with its grid along the last two dimensions, which windows slide over, and whose picture each is of."""
    known = whole(known)
    if known.reason:
        return known, _NO_PICTURES
    found = layout(known) if known.cells.ndim == 4 else None
    return (known, found.pictures) if found and found.dims == (-2, -1) else (lost(why), _NO_PICTURES)


def _regridded(known: CellField, axes: Sequence[Axis], call: Call, pictures: torch.Tensor) -> CellField:
    """The field of maps with another grid."""
    return replace(gridded(axes[0], axes[1], call.shape, pictures=pictures), is_global=known.is_global)


def _slide(known: CellField, kernel: tuple[int, int], call: Call) -> CellField:
    known, pictures = _maps(known, _NO_GRID)
    if known.reason:
        return known
    stride = _pair(call.bound.get("stride"), (1, 1))
    dilation = _pair(call.bound.get("dilation"), (1, 1))
    padding: tuple[float, float] = (0, 0)
    if call.bound.get("padding") == "same":
        padding = (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
    elif call.bound.get("padding") != "valid":
        padding = _pair(call.bound.get("padding"), (0, 0))
    axes = [
        replace(axis.slide(kernel[i], stride[i], padding[i], dilation[i]), cells=call.shape[i - 2])
        for i, axis in enumerate((known.rows, known.columns))
    ]
    return _regridded(known, axes, call, pictures)


def _convolution(fields: list[CellField], call: Call) -> CellField:
    if call.bound.get("transposed"):
        return lost("a transposed convolution comes before it, whose grid is not walked")
    weight = call.bound["weight"]
    if weight.ndim != 4 or fields[0].cells.ndim != 4:
        return lost(_NO_GRID)
    known = mixed(fields[0], (1,)) if fields[0].varies(1) else fields[0]
    return known if known.reason else _slide(known, (weight.shape[-2], weight.shape[-1]), call)


def _pool(fields: list[CellField], call: Call) -> CellField:
    kernel = _pair(call.bound["kernel_size"], (1, 1))
    strided = {**call.bound, "stride": _pair(call.bound.get("stride"), kernel)}
    return _slide(fields[0], kernel, replace(call, bound=strided))


def _resample(fields: list[CellField], call: Call) -> CellField:
    """Adaptive pooling and interpolation: the same extent in another number of cells."""
    known, pictures = _maps(fields[0], "its grid is resampled along other dimensions")
    if known.reason:
        return known
    if call.shape[-2:] == (1, 1) and known.count > 1:
        return lost("it comes after pooling over all positions")
    axes = [
        axis if axis.cells == cells else axis.resample(cells)
        for axis, cells in zip((known.rows, known.columns), call.shape[-2:], strict=True)
    ]
    return _regridded(known, axes, call, pictures)


def _reshaped(fields: list[CellField], call: Call) -> CellField:
    return fields[0].moved(fields[0].cells.reshape(call.shape))


def _moved(fields: list[CellField], call: Call) -> CellField:
    """What moves elements about moves their cells in the same way."""
    source = call.bound[call.main]
    others = [tensor for tensor in tensors(list(call.bound.values())) if tensor is not source]
    if field_of(source) is not fields[0] or any(field_of(tensor) for tensor in others):
        return lost(f"{call.name} chooses its places by what the picture shows")
    bound = {**call.bound, call.main: fields[0].cells}
    cells = next(found for place, found in enumerate(tensors(_called(call.function, bound))) if place == call.place)
    return fields[0].moved(cells)


def _called(function: _Operation, bound: Mapping[str, object]) -> object:
    """The operation on cells, on the CPU."""
    arguments = {name: _on_cpu(value) for name, value in bound.items()}
    names = [argument.name for argument in function._schema.arguments if not argument.kwarg_only]
    first = [arguments[name] for name in names if name in arguments]
    return function(*first, **{name: value for name, value in arguments.items() if name not in names})


def _on_cpu(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    return [_on_cpu(item) for item in value] if isinstance(value, list) else value


def _joined(fields: list[CellField], call: Call) -> CellField:
    """Tensors side by side: of what has no cells, the others' where they lie in another direction, else none."""
    parts, known = list(call.bound["tensors"]), together(fields)
    if known[0].reason:
        return known[0]
    waiting = iter(known)
    stacked = call.name == "stack"
    dim = (call.bound.get("dim") or 0) % len(call.shape)
    found = [next(waiting) if (f := field_of(part)) and not f.reason else None for part in parts]
    across = stacked or any(f.varies(dim) for f in known)
    like = None if across else known[0].cells.narrow(dim, 0, 1)
    cells = [f.cells if f else _without(part, like, dim) for f, part in zip(found, parts, strict=True)]
    arranged = torch.stack(cells, dim) if stacked else torch.cat([one for one in cells if one.numel()], dim)
    return known[0].moved(arranged)


def _without(part: torch.Tensor, like: torch.Tensor | None, dim: int) -> torch.Tensor:
    """Cells of a part that has none of its own."""
    beside = like is not None and like.ndim == part.ndim
    if beside and like is not None and all(like.shape[d] == part.shape[d] for d in range(part.ndim) if d != dim):
        return like.expand(part.shape)
    return torch.full((1,), NOWHERE, dtype=torch.int32).expand(part.shape)


def _padded(fields: list[CellField], call: Call) -> CellField:
    """A grid that is padded goes on beyond the picture; in any other arrangement the new places are none."""
    known, pads = fields[0], list(call.bound.get("pad") or call.bound.get("padding") or ())
    found = layout(known)
    by_dim = {-1 - index: pads[2 * index] for index in range(len(pads) // 2)}
    if found is None or found.dims[0] == found.dims[1]:
        return known.moved(torch.nn.functional.pad(known.cells, pads, value=NOWHERE))
    rows, columns = (
        replace(axis, start=axis.start - by_dim.get(dim, 0) * axis.jump, cells=call.shape[dim])
        for axis, dim in zip((known.rows, known.columns), found.dims, strict=True)
    )
    padded = gridded(rows, columns, call.shape, pictures=found.pictures, row=found.dims[0])
    return replace(padded, is_global=known.is_global)


def _linear(fields: list[CellField], call: Call) -> CellField:
    """Features along the last dimension are mixed."""
    known = mixed(fields[0], (fields[0].cells.ndim - 1,)) if fields[0].varies(-1) else fields[0]
    return known if known.reason else replace(known, cells=known.cells[..., :1].expand(call.shape))


def _normalised(fields: list[CellField], call: Call) -> CellField:
    """A layer norm: over features of one place, of a block of them, or over places."""
    count, known = len(call.bound["normalized_shape"]), fields[0]
    dims = tuple(range(known.cells.ndim - count, known.cells.ndim))
    if not any(known.varies(dim) for dim in dims):
        return known
    block = mixed(known, dims)
    return replace(known, is_global=True) if block.reason else replace(block, cells=block.cells.expand(call.shape))


def _reduced(fields: list[CellField], call: Call) -> CellField:
    dims = call.dims()
    known = mixed(fields[0], dims)
    if known.reason:
        return lost("it comes after pooling over all positions")
    return replace(known, cells=known.cells.reshape(call.shape))


def _along(fields: list[CellField], call: Call) -> CellField:
    """A softmax: over features, or over places."""
    mixes = any(fields[0].varies(dim) for dim in call.dims())
    return replace(fields[0], is_global=fields[0].is_global or mixes)


def _product(_fields: list[CellField], call: Call) -> CellField:
    """Matrices multiplied: places that lie along its rows, else along its columns; mixed if both are of the picture."""
    operands = [value for value in call.bound.values() if isinstance(value, torch.Tensor)][-2:]
    fields = [field_of(operand) for operand in operands]
    shapes_fit = all(operand.ndim >= 2 for operand in operands)
    kept = [_kept(known, free, gone) for known, free, gone in zip(fields, (-2, -1), (-1, -2), strict=True)]
    usable = [one for one in kept if one is not None]
    if not shapes_fit or not usable:
        return lost(_SCATTERED)
    known, varying, gone = max(usable, key=lambda one: one[1])
    del varying
    cells = known.cells.narrow(gone, 0, 1)
    try:
        cells = cells.expand(call.shape)
    except RuntimeError:
        return lost(_SCATTERED)
    both = sum(field is not None for field in fields) == 2
    if both and scattered(known):
        return lost(_SCATTERED)
    return replace(known, cells=cells, is_global=known.is_global or both)


def _kept(known: CellField | None, free: int, gone: int) -> tuple[CellField, bool, int] | None:
    """A factor whose places outlive a product, which sums along `gone`, and whether they lie along `free`."""
    if known is None or known.reason or known.cells.ndim < 2 or known.varies(gone):
        return None
    return known, known.varies(free), gone


def _attention(_fields: list[CellField], call: Call) -> CellField | None:
    """Each query gets values from all keys."""
    query = field_of(call.bound.get("query", call.bound.get("src")))
    if query is None or query.reason or scattered(query):
        return lost(_SCATTERED)
    if call.output.ndim != query.cells.ndim or call.shape[:-1] != tuple(query.cells.shape[:-1]) or query.varies(-1):
        return None
    return replace(query, cells=query.cells[..., :1].expand(call.shape), is_global=True)


def _mixes(fields: list[CellField], _call: Call) -> CellField:
    return replace(fields[0], is_global=True)


def _scatters(_fields: list[CellField], _call: Call) -> CellField:
    return lost(_SCATTERED)


_Rule = Callable[[list[CellField], Call], CellField | None]
_FAMILIES: Mapping[str, _Rule] = {
    "upsample": _resample,
    "_upsample": _resample,
    "scaled_dot_product": _attention,
    "_scaled_dot_product": _attention,
    "fft_": _scatters,
}
_RESHAPES = (
    "view reshape _unsafe_view _reshape_alias flatten unflatten unsqueeze squeeze view_as reshape_as contiguous clone"
)
_MOVES = (
    "transpose swapaxes swapdims permute movedim moveaxis t numpy_T mT roll flip fliplr flipud rot90 select slice "
    "narrow split split_with_sizes chunk unsafe_split unsafe_chunk unsafe_split_with_sizes tensor_split hsplit vsplit "
    "unbind expand repeat tile repeat_interleave index index_select gather take_along_dim diagonal unfold as_strided "
    "pixel_shuffle pixel_unshuffle channel_shuffle"
)
_REDUCES = (
    "mean sum amax amin max min prod norm linalg_vector_norm var std logsumexp median nanmean any all argmax argmin"
)
_LOSES = (
    "conv_transpose2d conv1d conv3d im2col col2im cumsum cumprod sort topk argsort scatter scatter_add index_put "
    "index_add grid_sampler grid_sampler_2d grid_sample dot mv cdist"
)
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("conv2d", "convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution"), _convolution),
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "max_pool2d_with_indices"), _pool),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d", "_adaptive_avg_pool2d"), _resample),
    **dict.fromkeys(_RESHAPES.split(), _reshaped),
    **dict.fromkeys(_MOVES.split(), _moved),
    **dict.fromkeys(_REDUCES.split(), _reduced),
    **dict.fromkeys(_LOSES.split(), _scatters),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _joined),
    **dict.fromkeys(("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _padded),
    **dict.fromkeys(("group_norm", "instance_norm", "native_group_norm"), _mixes),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), _normalised),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax"), _along),
    **dict.fromkeys(("matmul", "bmm", "mm", "baddbmm", "addmm"), _product),
    **dict.fromkeys(("_native_multi_head_attention", "_transformer_encoder_layer_fwd"), _attention),
    "linear": _linear,
    "copy": _taken,
}
