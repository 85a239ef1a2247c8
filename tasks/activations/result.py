"""Maps of a network's layers, as the stage `activations` stored them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.networks.geometry import LayerGeometry
from storage.tensors import TensorBlock, read_tensors
from tasks.result import StageResult
from tasks.spans import groups_within


@dataclass(frozen=True)
class Maps(StageResult):
    """The maps of an audit's layers; a layer is known by its place in `layers`."""

    @cached_property
    def layers(self) -> list[LayerGeometry]:
        """Geometry of the extracted layers."""
        return [geometry_from(row) for row in self.artifact.json("layers.json")["layers"]]

    def blocks(self, layer: int, first: int = 0, last: int | None = None) -> Iterator[TensorBlock]:
        """Maps of a layer, in the images' order, a row group at a time.

        Args:
            layer: its place.
            first, last: the images from `first` to before `last`, whole row groups; all where left out.
        """
        for name in self.artifact.names(shard_prefix(layer)):
            if groups := groups_within(name, first, last):
                with self.artifact.source(name) as source:
                    yield from read_tensors(source, groups)

    def of_images(self, layer: int, images: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float32]:
        """(images, units, rows, columns) of some images, in the index's order."""
        parts = []
        for block in self.blocks(layer):
            inside = np.isin(np.arange(block.first, block.first + len(block.tensors)), images)
            parts.append(block.tensors[inside].astype(np.float32))
        return np.concatenate(parts)


def shard_prefix(layer: int) -> str:
    """Where the shards of a layer lie within the stage."""
    return f"layer-{layer:03d}/"


def geometry_row(layer: LayerGeometry) -> dict[str, object]:
    """A geometry as JSON values."""
    return asdict(layer)


def geometry_from(row: Mapping[str, Any]) -> LayerGeometry:
    """A geometry from JSON values."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return LayerGeometry(**values)
