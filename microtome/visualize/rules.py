"""Backward rules: gradient, deconvolution, guided backprop, on any way of writing a rectifier (survey, section 3).

    ReLU backward, R the signal from above, f the input:
        gradient        (f > 0) R              Simonyan et al., arXiv 1312.6034
        deconvolution   max(R, 0)              Zeiler & Fergus, arXiv 1311.2901
        guided          (f > 0) max(R, 0)      Springenberg et al., arXiv 1412.6806

Rectifiers of other slopes (ReLU6, LeakyReLU, PReLU, RReLU, Threshold, Hardtanh from 0) follow the same table with their
own slope s(f) in the place of (f > 0): gradient s(f) R, guided s(f) max(R, 0); deconvolution knows no f, and stays.
Gates (a sigmoid that scales channels, a softmax that weighs positions) pass the ordinary gradient and are counted.
Whatever bends (GELU, SiLU, Hardswish ...) has no such rule: a network that calls it is refused by name.

Everything else is the ordinary gradient: transposed filters, pooling back to the switches, summed where windows
overlap. The calls themselves are replaced while they happen, not modules: `F.relu`, `torch.relu`, `Tensor.relu_`, a
module used twice or in parallel are all caught, and nothing is left on the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from microtome.errors import InputError

RULES = ("gradient", "deconvolution", "guided")
DEAD_WINDOWS = ("drop", "first", "spread")

_RELUS = {functional.relu, functional.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
_POOLS = {functional.max_pool2d, torch.max_pool2d}
_RECTIFIERS = ("relu6", "leaky_relu", "prelu", "rrelu", "threshold", "hardtanh")
_GATES = ("sigmoid", "hardsigmoid", "softmax", "scaled_dot_product_attention", "multi_head_attention_forward")
_BENT = (
    "gelu", "silu", "elu", "selu", "celu", "softplus", "hardswish", "mish", "tanh", "logsigmoid", "softsign",
    "tanhshrink", "softshrink", "hardshrink", "glu",
)  # fmt: skip


def _spelled(names: Sequence[str]) -> dict[object, str]:
    """Every function of torch that goes by one of the names, also in place."""
    places = (functional, torch, torch.Tensor)
    return {
        getattr(place, spelling): name
        for name in names
        for spelling in (name, f"{name}_")
        for place in places
        if hasattr(place, spelling)
    }


_RECTIFYING, _GATING, _BENDING = _spelled(_RECTIFIERS), _spelled(_GATES), _spelled(_BENT)


class UnsupportedActivation(InputError):
    """A network that calls something else than rectifiers: the rules say nothing about it."""


Arguments = Mapping[str, Any]
"""Keyword arguments of a pooling function, whatever it is called with."""


class _RuleContext(Protocol):
    """What autograd hands from the forward to the backward pass."""

    saved_tensors: tuple[torch.Tensor, ...]
    shape: torch.Size
    options: Arguments
    dead: str
    overwrite: bool

    def save_for_backward(self, *tensors: torch.Tensor) -> None:
        """Keep tensors."""

    def mark_dirty(self, *tensors: torch.Tensor) -> None:
        """Say that tensors were written over."""


def _rectified(context: _RuleContext, x: torch.Tensor, inplace: bool) -> torch.Tensor:
    if not inplace:
        return x.clamp(min=0)
    context.mark_dirty(x)
    return x.clamp_(min=0)


class _Deconvolution(torch.autograd.Function):
    @staticmethod
    def forward(context: _RuleContext, x: torch.Tensor, inplace: bool) -> torch.Tensor:
        return _rectified(context, x, inplace)

    @staticmethod
    def backward(context: _RuleContext, *above: torch.Tensor) -> tuple[torch.Tensor, None]:
        return above[0].clamp(min=0), None


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(context: _RuleContext, x: torch.Tensor, inplace: bool) -> torch.Tensor:
        out = _rectified(context, x, inplace)
        context.save_for_backward(out)
        return out

    @staticmethod
    def backward(context: _RuleContext, *above: torch.Tensor) -> tuple[torch.Tensor, None]:
        (out,) = context.saved_tensors
        # ReLU's own backward pass, then in place: a mask of its own would cost a fifth of the whole picture.
        return torch.ops.aten.threshold_backward(above[0], out, 0).clamp_(min=0), None


class _Redirected(torch.autograd.Function):
    """ReLU whose gradient passes, for each picture for which all of it would be lost (dead starts)."""

    @staticmethod
    def forward(context: _RuleContext, x: torch.Tensor, inplace: bool) -> torch.Tensor:
        context.save_for_backward(x > 0)
        return _rectified(context, x, inplace)

    @staticmethod
    def backward(context: _RuleContext, *above: torch.Tensor) -> tuple[torch.Tensor, None]:
        (positive,) = context.saved_tensors
        passed = above[0] * positive
        lost = ~passed.flatten(1).any(1).reshape(-1, *[1] * (passed.ndim - 1))
        return torch.where(lost, above[0], passed), None


class _Through(torch.autograd.Function):
    """Any rectifier under deconvolution: forward as it is, backward max(R, 0)."""

    @staticmethod
    def forward(context: _RuleContext, x: torch.Tensor, unit: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return unit(x.clone())

    @staticmethod
    def backward(context: _RuleContext, *above: torch.Tensor) -> tuple[torch.Tensor, None]:
        return above[0].clamp(min=0), None


class _Pool(torch.autograd.Function):
    """Max pooling whose way back is chosen: what happens in all-zero windows, and where windows overlap."""

    @staticmethod
    def forward(context: _RuleContext, x: torch.Tensor, options: Arguments, dead: str, overwrite: bool) -> torch.Tensor:
        out, switches = functional.max_pool2d(x, return_indices=True, **options)
        context.save_for_backward(switches, out == 0)
        context.shape, context.options, context.dead, context.overwrite = x.shape, options, dead, overwrite
        return out

    @staticmethod
    def backward(context: _RuleContext, *above: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        switches, silent = context.saved_tensors
        signal = above[0]
        below = torch.zeros(*context.shape[:2], context.shape[2] * context.shape[3]).to(signal)
        kept = signal if context.dead == "first" else signal.masked_fill(silent, 0)
        if context.overwrite:
            # The last window wins, row by row, as unpooling with switches does.
            below.scatter_(2, switches.flatten(2), kept.flatten(2))
        else:
            below.scatter_add_(2, switches.flatten(2), kept.flatten(2))
        below = below.reshape(context.shape)
        if context.dead == "spread":
            below = below + _spread(signal.masked_fill(~silent, 0), context.shape, context.options)
        return below, None, None, None


def _spread(signal: torch.Tensor, shape: torch.Size, options: Arguments) -> torch.Tensor:
    """Each window's signal in equal shares over its cells: the backward pass of average pooling."""
    names = ("kernel_size", "stride", "padding", "ceil_mode")
    given = {name: options[name] for name in names if name in options}
    with torch.enable_grad():
        x = torch.zeros(shape, dtype=signal.dtype, device=signal.device, requires_grad=True)
        return torch.autograd.grad(functional.avg_pool2d(x, count_include_pad=False, **given), x, signal)[0]


class BackwardRule(TorchFunctionMode):
    """Context manager: inside it every rectifier that is called answers the backward pass by the rule.

    Args:
        rule: `gradient`, `deconvolution`, `guided`; `redirected` for dead starts of feature visualisation.
        dead_windows: what a pooling window that is zero everywhere hands down: `drop` nothing, `first` all to its
            first cell (what captum's deconvolution does), `spread` equal shares.
        unpool: `add` what overlapping windows hand to one cell, or `overwrite` it with the last (for comparison: a
            3 x 3 pool of stride 2 then loses a third of the signal).

    Attributes:
        rectifiers: calls that follow the rule, by name.
        gates: calls that multiply what passes, and hand back the ordinary gradient, by name.
        bent: calls of units that no rule is about, by name.
    """

    _FUNCTIONS: Mapping[str, Callable[..., torch.Tensor]] = {
        "deconvolution": _Deconvolution.apply,
        "guided": _Guided.apply,
        "redirected": _Redirected.apply,
    }

    def __init__(self, rule: str, *, dead_windows: str = "drop", unpool: str = "add") -> None:
        super().__init__()
        if rule not in (*RULES, "redirected"):
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        if dead_windows not in DEAD_WINDOWS or unpool not in ("add", "overwrite"):
            raise ValueError(
                f"dead_windows must be one of {', '.join(DEAD_WINDOWS)}, unpool add or overwrite, "
                f"got {dead_windows!r}, {unpool!r}"
            )
        self.rule = rule
        self.rectifiers: Counter[str] = Counter()
        self.gates: Counter[str] = Counter()
        self.bent: Counter[str] = Counter()
        self._dead, self._overwrite = dead_windows, unpool == "overwrite"
        # The ordinary gradient of pooling gives a dead window's signal to its first cell.
        self._own_pool = rule == "deconvolution" and (dead_windows != "first" or self._overwrite)

    def __torch_function__(
        self,
        func: Callable[..., torch.Tensor],
        types: object,
        args: tuple[torch.Tensor, ...] = (),
        kwargs: Arguments | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func in _RELUS:
            self.rectifiers["relu"] += 1
            return self._relu(func, args[0] if args else kwargs["input"], kwargs)
        if func in _RECTIFYING:
            return self._rectifier(func, args, kwargs)
        for known, calls in ((_GATING, self.gates), (_BENDING, self.bent)):
            calls.update([known[func]] if func in known else [])
        if func in _POOLS and self._own_pool:
            return self._pool(*args, **kwargs)
        return func(*args, **kwargs)

    def _relu(self, func: Callable[..., torch.Tensor], x: torch.Tensor, kwargs: Arguments) -> torch.Tensor:
        if self.rule == "gradient":
            return func(x, **{name: value for name, value in kwargs.items() if name == "inplace"})
        inplace = bool(kwargs.get("inplace")) or getattr(func, "__name__", "").endswith("_")
        # A leaf cannot be written over while it wants a gradient; nobody but the caller holds it.
        return self._FUNCTIONS[self.rule](x, inplace and not (x.requires_grad and x.is_leaf))

    def _rectifier(
        self, func: Callable[..., torch.Tensor], args: tuple[torch.Tensor, ...], kwargs: Arguments
    ) -> torch.Tensor:
        name, lowest = _RECTIFYING[func], kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)
        if name == "hardtanh" and lowest != 0:
            self.bent[name] += 1
            return func(*args, **kwargs)
        self.rectifiers[name] += 1
        if self.rule == "deconvolution":
            x, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
            named = {key: value for key, value in kwargs.items() if key != "input"}
            through: torch.Tensor = _Through.apply(x, lambda copied: func(copied, *rest, **named))
            return through
        out = func(*args, **kwargs)
        if self.rule == "guided" and out.requires_grad:
            # Before the unit's own slope.
            out.register_hook(lambda above: above.clamp(min=0))  # type: ignore[no-untyped-call]  # torch's own
        return out

    def _pool(self, x: torch.Tensor, kernel_size: object, *args: object, **kwargs: object) -> object:
        names = ("stride", "padding", "dilation", "ceil_mode")
        options: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs, "kernel_size": kernel_size}
        if options.pop("return_indices", False):
            return functional.max_pool2d(x, return_indices=True, **options)
        return _Pool.apply(x, options, self._dead, self._overwrite)

    def check(self, network: torch.nn.Module, *, allow_gradient_fallback: bool = False) -> None:
        """Refuse a network that calls no rectifier, or bent units too: its picture would silently be a plain gradient.

        Raises:
            UnsupportedActivation: naming what was called.
        """
        if self.rule == "gradient" or allow_gradient_fallback or not self.refusal:
            return
        raise UnsupportedActivation(
            f"{self.rule}: {self.refusal} in {type(network).__name__}; use the gradient, or "
            "allow_gradient_fallback=True to have it under this name"
        )

    @property
    def refusal(self) -> str:
        """Why deconvolution and guided backprop say nothing about what was called; empty where they do."""
        if self.rectifiers and not self.bent:
            return ""
        found = counted(self.bent + self.gates) or "no activation function"
        beside = f" beside {counted(self.rectifiers)}" if self.rectifiers else ""
        return (
            f"the network must call rectifiers (ReLU, ReLU6, LeakyReLU ...) and no unit that bends, got {found}{beside}"
        )


def counted(calls: Mapping[str, int]) -> str:
    """Calls in words: `sigmoid (16 calls)`."""
    return ", ".join(f"{name} ({count} call{'s' if count > 1 else ''})" for name, count in sorted(calls.items()))
