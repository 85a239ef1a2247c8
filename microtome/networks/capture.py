"""Capture the maps of many layers in one forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch.utils.hooks import RemovableHandle

from microtome.networks.geometry import LayerGeometry


class _AllCaptured(Exception):
    """Raised inside the forward pass once the last wanted layer has answered: what follows is not computed."""


class Capture:
    """Context manager that runs a network up to its deepest wanted layer and returns the layers' maps.

    Each map is copied the moment its layer answers, so a ReLU that works in place afterwards cannot alter it. All
    hooks are gone when the context ends.

    Args:
        module: the network, in eval mode.
        layers: geometry of each wanted layer (from `walk`), which also says how to read tokens as a grid.

    Example:
        >>> with Capture(network, geometries) as capture:
        ...     maps = capture(batch)["features.12"]  # (images, units, height, width)
    """

    def __init__(self, module: torch.nn.Module, layers: Sequence[LayerGeometry]) -> None:
        self._module = module
        self._layers = {layer.name: layer for layer in layers}
        self._handles: list[RemovableHandle] = []
        self._maps: dict[str, torch.Tensor] = {}
        self._asked = False  # a network may be in the hands of several of these, of which one is asked

    def __enter__(self) -> Capture:
        for name in self._layers:
            submodule = self._module.get_submodule(name)
            self._handles.append(submodule.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._maps.clear()

    def __call__(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps of one batch.

        Args:
            batch: (images, 3, height, width), normalised for the network.

        Returns:
            layer name -> (images, units, rows, columns), contiguous, of the network's dtype.
        """
        self._maps, self._asked = {}, True
        try:
            with torch.inference_mode(), contextlib.suppress(_AllCaptured):
                self._module(batch)
        finally:
            self._asked = False
        maps, self._maps = self._maps, {}
        return {name: maps[name] for name in self._layers}

    def _hook(self, name: str) -> Callable[[torch.nn.Module, object, torch.Tensor], None]:
        def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
            if not self._asked:
                return
            self._maps[name] = self._layers[name].as_maps(output).clone(memory_format=torch.contiguous_format)
            if len(self._maps) == len(self._layers):
                raise _AllCaptured

        return hook
