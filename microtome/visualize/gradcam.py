"""Grad-CAM (Selvaraju et al., arXiv 1610.02391), on the last maps that a network's head reads, whatever their layout.

    L_c = ReLU(sum over k of a_k A_k),   a_k = mean over cells of dS_c / dA_k

Which maps those are is found, not guessed from a list of modules: the last output with a grid (by its geometry) that
stands before the last weights, is no mere pooling, dropping or normalising of another, and of whose cells the logits
depend (a class token reads the grid of the block before).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from microtome.errors import InputError
from microtome.networks.geometry import LayerGeometry, walk
from microtome.visualize.attribution import Target, at_rest, unscaled

_POOLS = (
    nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
# A layer norm before the head is the head's own view of each cell; batch norm, at rest, belongs to its convolution.
_PASSING = (*_POOLS, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.Identity, nn.Flatten, nn.LayerNorm)


def gradcam(network: nn.Module, x: torch.Tensor, classes: torch.Tensor, layer: LayerGeometry) -> torch.Tensor:
    """(pictures, 1, height, width) maps, at least 0, enlarged by the layer's geometry: bilinear, outer cells clamped.

    Args:
        network: takes the pictures; also behind its normalisation.
        x: (pictures, 3, height, width).
        classes: (pictures,).
        layer: whose maps are weighted, see `spatial_layer`.
    """
    found: list[torch.Tensor] = []

    def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        found.append(output)
        return output.clone()  # what follows may write over it

    handle = unscaled(network).get_submodule(layer.name).register_forward_hook(hook)
    try:
        with at_rest(network), torch.enable_grad():
            score = Target(classes).score(network(x.detach().clone().requires_grad_()))
            slope = layer.as_maps(torch.autograd.grad(score.sum(), found[0])[0])
    finally:
        handle.remove()
    weighted = slope.mean((2, 3), keepdim=True) * layer.as_maps(found[0].detach())
    return enlarged(weighted.sum(1, keepdim=True).clamp(min=0), layer, (x.shape[2], x.shape[3]))


def enlarged(cells: torch.Tensor, layer: LayerGeometry, size: tuple[int, int]) -> torch.Tensor:
    """Cells at the pixels' places: (pictures, 1, rows, columns) -> (pictures, 1, height, width)."""
    lines = []
    for axis in (0, 1):
        pixels = torch.arange(size[axis], dtype=cells.dtype, device=cells.device) + 0.5
        place = (pixels - layer.start[axis]) / layer.jump[axis]
        last = max(layer.grid[axis] - 1, 1)
        lines.append(place.clamp(0, layer.grid[axis] - 1) * 2 / last - 1)
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], 2).expand(len(cells), -1, -1, -1)
    return functional.grid_sample(cells, grid, padding_mode="border", align_corners=True)


def spatial_layer(network: nn.Module, size: tuple[int, int]) -> LayerGeometry:
    """The last maps that the head reads.

    Args:
        network: also behind its normalisation.
        size: (height, width) of its pictures.

    Raises:
        InputError: no layer has a grid of cells that the logits depend on.
    """
    with at_rest(network):
        geometry = {layer.name: layer for layer in walk(unscaled(network), size)}
        trace = _Trace.of(network, size)
    steps = [step for step in trace.steps[: trace.head] or trace.steps if step.name in geometry]
    for step in reversed(steps):
        if trace.reads(step, geometry[step.name]):
            same = [other for other in steps if other.output is step.output and other.is_block]
            return geometry[(same or [step])[0].name]
    raise InputError(
        f"cam_layer: {type(unscaled(network)).__name__} must have a layer with a grid of cells that its answer depends "
        "on, got none; name one"
    )


@dataclass(frozen=True, eq=False)
class _Step:
    """A module's output, as the forward pass makes it; a block has modules within."""

    name: str
    output: torch.Tensor
    is_block: bool


@dataclass
class _Trace:
    """One forward pass: outputs in their order, less what only passes another on, and where the head begins.

    Args:
        steps: in order.
        head: how many of them stand before the last weights.
        passed: outputs that only pass others on.
        score: of a drawn combination of the logits.
    """

    steps: list[_Step] = field(default_factory=list)
    head: int = 0
    passed: list[torch.Tensor] = field(default_factory=list)
    score: torch.Tensor = field(default_factory=lambda: torch.zeros(()))

    @classmethod
    def of(cls, network: nn.Module, size: tuple[int, int]) -> _Trace:
        """A network at rest, on a drawn picture."""
        trace, draw = cls(), torch.Generator().manual_seed(0)
        modules = [(name, module) for name, module in unscaled(network).named_modules() if name]
        handles = [module.register_forward_hook(trace._hook(name)) for name, module in modules]
        like = next(network.parameters())
        try:
            with torch.enable_grad():
                answer = network(torch.rand(1, 3, *size, generator=draw).to(like).requires_grad_()).flatten()
                trace.score = answer @ torch.rand(len(answer), generator=draw).to(answer)
        finally:
            for handle in handles:
                handle.remove()
        return trace

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            is_block, weighted = bool(list(module.children())), bool(list(module.parameters(recurse=False)))
            if weighted and not is_block:
                self.head = len(self.steps)
            if not isinstance(output, torch.Tensor):
                return
            follows = not weighted and any(self._is_passed(item) for item in inputs)
            if not is_block and (isinstance(module, _PASSING) or follows):
                self.passed.append(output)
            if not self._is_passed(output):
                self.steps.append(_Step(name, output, is_block))

        return hook

    def _is_passed(self, item: object) -> bool:
        return any(item is passed for passed in self.passed)

    def reads(self, step: _Step, layer: LayerGeometry) -> bool:
        """Whether the logits depend on the cells."""
        if not step.output.requires_grad:
            return False
        (slope,) = torch.autograd.grad(self.score, step.output, retain_graph=True, allow_unused=True)
        return slope is not None and bool(layer.as_maps(slope).any())
