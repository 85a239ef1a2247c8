"""Rationales: what a decision rests on, by the filters of one layer (arXiv 1802.00121, section 3).

Above a layer x a network of convolutions, ReLUs, pooling, batch norm and linear layers is piecewise linear:

    y = <g, x> + b,   g = dy/dx,   b = y - <g, x>

Summed over positions, each filter d counts with x^(d) = (1/s_d) sum_hw x_hwd and g^(d) = s_d mean_hw g_hwd, the mean
weighted by x or, as in the paper, plain.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from microtome.errors import InputError
from microtome.visualize.attribution import at_rest

Floats = NDArray[np.float64]
CURVATURE = 1e-4  # ||H v|| / ||g|| beyond which a tail counts as curved
_LINEAR = (
    "Conv1d", "Conv2d", "Conv3d", "Linear", "ReLU", "ReLU6", "LeakyReLU", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d", "BatchNorm2d", "Dropout", "Dropout2d", "Identity", "Flatten",
)  # fmt: skip


def decision(logits: torch.Tensor, output: int) -> torch.Tensor:
    """(images,) y: whether the category, by its sign. A bare logit of several is no decision.

    Args:
        logits: (images, classes); of one class its logit is the decision.
        output: the category's column.

    Returns:
        logit_c - max of the other logits.
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    others = logits.clone()
    others[:, output] = -torch.inf
    return logits[:, output] - others.amax(1)


@dataclass(frozen=True)
class RawRationales:
    """Sums over positions, as one pass over the images gives them, before anything is scaled.

    Args:
        x: (images, filters) sum_hw x.
        g: (images, filters) sum_hw g.
        product: (images, filters) sum_hw g x.
        y: (images,) decisions, in logits.
        peak: (images, filters) cell of the highest activation, row-major; -1 where the filter is silent.
        cells: L^2.
    """

    x: Floats
    g: Floats
    product: Floats
    y: Floats
    peak: NDArray[np.int32]
    cells: int

    def of(self, images: NDArray[np.int64]) -> RawRationales:
        """Those of some images."""
        names = [field.name for field in fields(self) if field.name != "cells"]
        return RawRationales(**{name: getattr(self, name)[images] for name in names}, cells=self.cells)


def joined(parts: list[RawRationales]) -> RawRationales:
    """Batches put together."""
    names = [field.name for field in fields(RawRationales) if field.name != "cells"]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return RawRationales(**columns, cells=parts[0].cells)


class LayersAbove:
    """A network, read as the function of one layer's maps.

    Args:
        network: takes pictures, answers with (images, classes).
        layer: dotted name; called once in a forward pass.
        output: the category's column of the logits.
    """

    def __init__(self, network: nn.Module, layer: str, output: int) -> None:
        self.network, self.layer, self.output = network, layer, output

    def rationales(self, pictures: torch.Tensor) -> RawRationales:
        """One forward and one backward pass.

        Args:
            pictures: (images, 3, height, width), normalised.
        """
        return self.whole(pictures)[0]

    def whole(self, pictures: torch.Tensor) -> tuple[RawRationales, torch.Tensor, torch.Tensor]:
        """The same, and x and g of every cell: (images, filters, rows, columns) each, on the CPU.

        Args:
            pictures: (images, 3, height, width), normalised.
        """
        with at_rest(self.network), torch.enable_grad():
            maps, y = self._split(pictures)
            slope = torch.autograd.grad(y.sum(), maps)[0]
        flat = maps.detach().flatten(2)
        peak = torch.where(flat.amax(2) > 0, flat.argmax(2), -1)
        x, g = maps.detach().double(), slope.double()
        sums = {"x": x, "g": g, "product": g * x}
        raw = RawRationales(
            **{name: value.sum((2, 3)).cpu().numpy() for name, value in sums.items()},
            y=y.detach().double().cpu().numpy(),
            peak=peak.int().cpu().numpy(),
            cells=flat.shape[2],
        )
        return raw, maps.detach().cpu(), slope.cpu()

    def without(self, pictures: torch.Tensor, groups: NDArray[np.bool_]) -> Floats:
        """y with each group of filters set to zero: (images, groups). The part below the layer runs once.

        Args:
            pictures: (images, 3, height, width), normalised.
            groups: (groups, filters) which filters each holds.
        """
        kept = torch.from_numpy(~groups).to(pictures.device)

        def silence(x: torch.Tensor) -> torch.Tensor:
            return (x[:, None] * kept[:, :, None, None].to(x)).flatten(0, 1)

        with at_rest(self.network), torch.no_grad(), self._hooked(silence):
            y = decision(self.network(pictures), self.output)
        return y.double().reshape(len(pictures), len(groups)).cpu().numpy()

    def check(self, pictures: torch.Tensor) -> float:
        """How far the tail is from piecewise linear: ||H v|| / ||g||, v the maps themselves, unevenly scaled.

        In a piecewise linear tail g does not change when x is scaled a little, so that H v is exactly 0.

        Raises:
            InputError: it is curved; named with what is not piecewise linear in it.
        """
        with at_rest(self.network), torch.enable_grad():
            x, y = self._split(pictures)
            g = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
            curved = 0.0
            if g.requires_grad:
                scale = torch.linspace(0.5, 1.5, x[0].numel(), device=x.device, dtype=x.dtype).reshape(x[0].shape)
                (change,) = torch.autograd.grad((g * x.detach() * scale).sum(), x, allow_unused=True)
                curved = 0.0 if change is None else float(change.norm() / g.detach().norm().clamp(min=1e-30))
        if curved > CURVATURE:
            found = ", ".join(self._suspects(pictures)) or "a function that is no module"
            raise InputError(
                f"tree.layer: what follows {self.layer} must be piecewise linear (ReLU, pooling, linear layers, batch "
                f"norm), got {found} in {type(self.network).__name__}: its gradient changes by {curved:.2g} with the "
                "scale of the maps; choose a later layer or a ReLU network"
            )
        return curved

    def _split(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's maps as a leaf, and the decision as a function of it."""
        leaves: list[torch.Tensor] = []

        def cut(x: torch.Tensor) -> torch.Tensor:
            leaves.append(x.detach().requires_grad_())
            return leaves[-1].clone()  # what follows may work in place

        with self._hooked(cut):
            y = decision(self.network(pictures), self.output)
        if len(leaves) != 1 or leaves[0].ndim != 4 or not y.requires_grad:
            raise InputError(
                f"tree.layer: {self.layer} must answer once with (images, filters, rows, columns) and lead to the "
                f"output, got {len(leaves)} calls{f' of {leaves[0].ndim} dimensions' if leaves else ''}"
            )
        return leaves[0], y

    @contextlib.contextmanager
    def _hooked(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
        module = self.network.get_submodule(self.layer)
        handle = module.register_forward_hook(lambda _module, _inputs, output: change(output))
        try:
            yield
        finally:
            handle.remove()

    def _suspects(self, pictures: torch.Tensor) -> list[str]:
        """Names of the leaf modules that run after the layer and are not known to be piecewise linear."""
        order: list[str] = []
        leaves = {name: module for name, module in self.network.named_modules() if not any(module.children())}
        wanted = {**leaves, self.layer: self.network.get_submodule(self.layer)}
        handles = [
            module.register_forward_hook(lambda _m, _i, _o, name=name: order.append(name))
            for name, module in wanted.items()
        ]
        try:
            with torch.no_grad():
                self.network(pictures)
        finally:
            for handle in handles:
                handle.remove()
        after = order[order.index(self.layer) + 1 :]
        kinds = {name: type(self.network.get_submodule(name)).__name__ for name in after}
        return sorted({f"{kind} {name}" for name, kind in kinds.items() if kind not in _LINEAR})


@dataclass(frozen=True)
class Rationales:
    """Scaled rationales of some images: g is a unit vector, y and b are divided by ||g||.

    Args:
        x: (images, filters) x^(d).
        g: (images, filters) g^(d) / ||g||.
        y: (images,) y / ||g||.
        b: (images,) y - g^T x of these.
        norm: (images,) ||g||: times it, everything is in logits again.
    """

    x: Floats
    g: Floats
    y: Floats
    b: Floats
    norm: Floats

    def of(self, images: NDArray[np.int64]) -> Rationales:
        """Those of some images."""
        return Rationales(*(getattr(self, field.name)[images] for field in fields(self)))


POSITIONS = ("weighted", "uniform")


@dataclass(frozen=True)
class FilterScale:
    """Size of each filter's activation, s_d = mean of x_d over images and cells; filters with 0 are dropped.

    Args:
        size: (filters,) s_d.
        filters: numbers of the kept filters, to which rationales are cut.
        positions: how g is averaged over positions. `weighted`: by x, so that g^(d) x^(d) is exactly the filter's share
            sum_hw g x of the decision. `uniform`: the paper's plain mean, under which sum_d g^(d) x^(d) says little
            about y as soon as g differs between the cells (max pooling, a fully connected head).
    """

    size: Floats
    filters: NDArray[np.int64]
    positions: str = "weighted"

    @classmethod
    def of(cls, raw: RawRationales, positions: str = "weighted") -> FilterScale:
        """The sizes over a set of images, those that the tree is grown from.

        Raises:
            ValueError: an unknown way to average.
        """
        if positions not in POSITIONS:
            raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, got {positions!r}")
        size = raw.x.mean(0) / raw.cells
        return cls(size, np.flatnonzero(size > 0), positions)

    def apply(self, raw: RawRationales) -> tuple[Rationales, NDArray[np.int64]]:
        """Scaled rationales of the images whose gradient is not zero, and which those are."""
        x, g = self.sums(raw)
        norm = np.linalg.norm(g, axis=1)
        kept = np.flatnonzero(norm > 0)
        x, g, norm, y = x[kept], g[kept] / norm[kept, None], norm[kept], raw.y[kept] / norm[kept]
        return Rationales(x, g, y, y - (g * x).sum(1), norm), kept

    def sums(self, raw: RawRationales) -> tuple[Floats, Floats]:
        """(images, filters) x^(d) and g^(d), of the kept filters, in logits."""
        size, total = self.size[self.filters], raw.x[:, self.filters]
        g = raw.g[:, self.filters] / raw.cells
        if self.positions == "weighted":
            there = total > 0
            g = np.where(there, raw.product[:, self.filters] / np.where(there, total, 1), g)
        return total / size, g * size
