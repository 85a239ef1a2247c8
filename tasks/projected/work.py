"""Stage `projected`: every picture's maps along the directions of dictionaries, stored as a layer's maps are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from microtome.networks.geometry import LayerGeometry
from microtome.quantify.dictionary.directions import Directions
from microtome.quantify.dictionary.nmf import unsettled
from storage import Draft
from storage.tensors import Tensors, TensorWriter
from tasks.activations.result import Maps, geometry_row, shard_prefix
from tasks.activations.work import compression_for, refuse_more_than_fits
from tasks.directions.result import Fitted, bases
from tasks.index.result import Index
from tasks.projected import ProjectedOptions
from tasks.session import Session
from tasks.spans import span, spans

PRECISION = "float32"  # whatever the units' is: codes have a range of their own


@dataclass(frozen=True)
class Inputs:
    """The units' maps, and dictionaries."""

    index: Index
    activations: Maps
    directions: Fitted


def shards(options: ProjectedOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Spans of the pictures."""
    return spans(inputs.index.images)


@dataclass(frozen=True)
class _Basis:
    """Directions, as a layer of their own."""

    number: int
    layer: LayerGeometry
    directions: Directions


class Shard:
    """Reads spans of pictures along all directions.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: ProjectedOptions, inputs: Inputs, session: Session) -> None:
        self._options, self._inputs, self._session = options, inputs, session
        fitted = inputs.directions
        each = [(number, fit) for number in range(len(inputs.activations.layers)) for fit in bases(fitted.options)]
        self._bases: dict[int, list[_Basis]] = {}
        for place, (number, fit) in enumerate(each):
            found, layer = fitted.fitted(number, fit), inputs.activations.layers[number]
            called = replace(layer, name=basis_layer(layer.name, fit.basis), units=len(found.vectors))
            self._bases.setdefault(number, []).append(_Basis(place, called, found))

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the span's maps. Raises InputError: no room is left for these and all that come after them."""
        layers = [basis.layer for some in self._bases.values() for basis in some]
        values = sum(layer.units * layer.grid[0] * layer.grid[1] for layer in layers)
        rest = self._inputs.index.images - span(name)[0]
        needed = rest * values * np.dtype(PRECISION).itemsize
        refuse_more_than_fits(needed, self._session.files.free(), rest)
        with threadpool_limits(1), unsettled(), ThreadPoolExecutor(self._session.threads, "projected") as pool:
            for number, some in self._bases.items():
                self._layer(draft, name, (number, some), pool)
        draft.write("layers.json", json.dumps({"layers": [geometry_row(layer) for layer in layers]}).encode())

    def _layer(self, draft: Draft, name: str, of: tuple[int, Sequence[_Basis]], pool: Executor) -> None:
        """Write the maps along the directions of one layer, a row group of pictures at a time."""
        number, some = of
        with ExitStack() as stack:
            writers: dict[int, TensorWriter] = {}
            for block in self._inputs.activations.blocks(number, *span(name)):
                pictures = block.tensors.astype(np.float32, copy=False)
                for basis in some:
                    maps: Tensors = np.stack(list(pool.map(basis.directions.of_map, pictures)))
                    if basis.number not in writers:
                        writers[basis.number] = self._writer(stack, draft, name, basis=basis, maps=maps)
                    writers[basis.number].write(block.first, maps)
                    self._session.check()
            for writer in writers.values():
                writer.close()

    def _writer(self, stack: ExitStack, draft: Draft, name: str, *, basis: _Basis, maps: Tensors) -> TensorWriter:
        first, last = span(name)
        sink = stack.enter_context(draft.publish(f"{shard_prefix(basis.number)}{name}.parquet", rows=last - first))
        about = {"layer": basis.layer.name, "stage": draft.key.digest}
        compression = compression_for(self._options.compression, maps)
        return TensorWriter(sink, maps.shape[1:], PRECISION, compression=compression, about=about)


def run(options: ProjectedOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Nothing is left to do: the spans' files are the maps."""


def basis_layer(layer: str, basis: str) -> str:
    """What tables of maps call a basis of a layer."""
    return f"{layer}/{basis}"
