"""How a forward pass is computed: memory layout of its tensors, and by which engine. Both change last bits of maps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Literal

import torch

from microtome.errors import InputError
from microtome.networks.capture import Capture
from microtome.networks.geometry import LayerGeometry

Layout = Literal["contiguous", "channels_last"]
Engine = Literal["eager", "compiled"]
FORMATS: dict[Layout, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


class CompiledCapture:
    """As `Capture`, of a network that `torch.compile` turns into one program at its first batch, weights folded in.

    What lies behind the deepest wanted layer is left out by the compiler, which sees that nobody asks for it. Maps are
    equal to those of `Capture` but for rounding: sums are made in another order, and batch normalisation is folded into
    the convolution before it.

    Args:
        module: the network, in eval mode, where and as it is to be run; its weights must not change any more.
        layers: as of `Capture`.

    Raises:
        InputError: at the first batch, where the network, or this machine, cannot compile.
    """

    def __init__(self, module: torch.nn.Module, layers: Sequence[LayerGeometry]) -> None:
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it tells where CUDA is not
        self._maps = _Maps(module, layers)
        self._names = [layer.name for layer in layers]
        self._compiled = torch.compile(self._maps, dynamic=False, options={"freezing": True})

    def __enter__(self) -> CompiledCapture:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Nothing: the program stays, for the next pictures."""

    def __call__(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps of one batch: see `Capture`. Every batch must have the shape of the first one."""
        try:
            with torch.inference_mode():
                maps = self._compiled(batch)
        except torch._dynamo.exc.TorchDynamoException as error:
            cause = getattr(error, "inner_exception", error)
            why = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
            raise InputError(
                f"execution.engine: torch.compile must be able to compile the network here, got {why}; use eager"
            ) from error
        return dict(zip(self._names, maps, strict=True))


class _Maps(torch.nn.Module):
    """The network, answering with the maps of its layers."""

    def __init__(self, module: torch.nn.Module, layers: Sequence[LayerGeometry]) -> None:
        super().__init__()
        self.network, self._layers = module, list(layers)
        self._found: dict[str, torch.Tensor] = {}
        for layer in layers:
            module.get_submodule(layer.name).register_forward_hook(self._keep(layer))

    def _keep(self, layer: LayerGeometry):  # type: ignore[no-untyped-def]  # a hook, which torch.compile reads
        def hook(_module, _inputs, output):  # type: ignore[no-untyped-def]
            self._found[layer.name] = layer.as_maps(output).clone(memory_format=torch.contiguous_format)

        return hook

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """Maps of the layers, in their order."""
        self.network(batch)
        found, self._found = self._found, {}
        return [found[layer.name] for layer in self._layers]


def capturing(engine: Engine, module: torch.nn.Module, layers: Sequence[LayerGeometry]) -> Capture | CompiledCapture:
    """What gives the maps of some layers, by an engine."""
    return CompiledCapture(module, layers) if engine == "compiled" else Capture(module, layers)
