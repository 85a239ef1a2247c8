"""Maps of a network's layers, as the stage `activations` stored them, or makes them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from microtome.networks.geometry import LayerGeometry
from storage import Artifact
from storage.tensors import ROW_GROUP, TensorBlock, read_tensors
from tasks.result import Hand, StageResult
from tasks.spans import groups_within, span, span_in
from tasks.stage import External

AGAIN = "again/"
"""Folder within the stage of the spans whose maps are not stored: of each, digests of its first batch's maps."""


@runtime_checkable
class Making(Protocol):
    """What makes maps: the `Shard` of the stage's work, by which they come out bit for bit as they were stored."""

    def made(self, layer: int, name: str, groups: Sequence[int], first: Sequence[str]) -> Iterator[TensorBlock]:
        """Maps of a layer, for row groups of a span.

        Args:
            layer: its place.
            name: of the span.
            groups: numbers of the row groups, rising.
            first: digest of each layer's maps of the span's first batch.

        Raises:
            InputError: they come out otherwise here.
        """


@dataclass(frozen=True)
class Maps(StageResult):
    """The maps of an audit's layers; a layer is known by its place in `layers`.

    Args:
        hand: the job that made them; None where a finished run is read without its audit file: then there are those
            that were stored.
    """

    hand: Hand | None = None

    @classmethod
    def of(cls, artifact: Artifact, outside: Mapping[str, External], hand: Hand) -> Self:
        """As a stage of the audit reads it."""
        return cls(artifact, outside, hand)

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
        for name in self._spans:
            yield from self._of_span(layer, name, groups_within(name, first, last))

    def blocks_with(self, layer: int, images: NDArray[np.int64] | Sequence[int]) -> Iterator[TensorBlock]:
        """The row groups of a layer that hold any of some images, in the images' order."""
        wanted = np.unique(np.asarray(images, np.int64))
        for name in self._spans:
            first, last = span(name)
            inside = wanted[(first <= wanted) & (wanted < last)]
            yield from self._of_span(layer, name, np.unique((inside - first) // ROW_GROUP).tolist())

    def of_images(self, layer: int, images: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float32]:
        """(images, units, rows, columns) of some images, in the index's order."""
        geometry = self.layers[layer]
        parts = [np.empty((0, geometry.units, *geometry.grid), np.float32)]
        for block in self.blocks_with(layer, images):
            inside = np.isin(np.arange(block.first, block.first + len(block.tensors)), images)
            parts.append(block.tensors[inside].astype(np.float32))
        return np.concatenate(parts)

    @cached_property
    def _spans(self) -> list[str]:
        """Names of the spans, stored or not, in the images' order."""
        return sorted({span_in(file) for folder in (shard_prefix(0), AGAIN) for file in self.artifact.names(folder)})

    def _of_span(self, layer: int, name: str, groups: Sequence[int]) -> Iterator[TensorBlock]:
        if not groups:
            return
        stored = f"{shard_prefix(layer)}{name}.parquet"
        if self.artifact.has(stored):
            with self.artifact.source(stored) as source:
                yield from read_tensors(source, groups)
        else:
            yield from self._making.made(layer, name, groups, self.artifact.json(f"{AGAIN}{name}.json"))

    @cached_property
    def _making(self) -> Making:
        making = self.hand.shard if self.hand else None
        if not isinstance(making, Making):
            raise RuntimeError(f"{self.artifact.folder}: its maps are not stored, and need its audit to be made again")
        return making


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
