"""Read what earlier stages wrote, block by block: activations, annotations, counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.networks.geometry import LayerGeometry
from microtome.quantify.dissection import Labels
from storage import Artifact
from storage.tensors import TensorBlock, read_tensors


@dataclass(frozen=True)
class ConceptTable:
    """Concepts in the order of their numbers; everywhere else a concept is an index into it."""

    number: NDArray[np.int64]
    name: list[str]
    category: list[str]
    categories: list[str]

    @property
    def category_index(self) -> NDArray[np.int64]:
        """(concepts,) number of each concept's category."""
        return np.array([self.categories.index(category) for category in self.category])

    @classmethod
    def of(cls, index: Artifact) -> ConceptTable:
        """The concepts of an indexed data set."""
        table = index.table("concepts")
        category = table.column("category").to_pylist()
        number = table.column("concept_id").to_numpy().astype(np.int64)
        return cls(number, table.column("concept").to_pylist(), category, sorted(set(category)))


def layers_of(activations: Artifact) -> list[LayerGeometry]:
    """Geometry of the extracted layers."""
    return [geometry_from(row) for row in activations.json("layers.json")["layers"]]


def geometry_row(layer: LayerGeometry) -> dict[str, Any]:
    """A geometry as JSON values."""
    return asdict(layer)


def geometry_from(row: dict[str, Any]) -> LayerGeometry:
    """A geometry from JSON values."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return LayerGeometry(**values)


def shard_prefix(number: int) -> str:
    """Where the shards of a layer lie within the activations."""
    return f"layer-{number:03d}/"


def activation_blocks(activations: Artifact, number: int) -> Iterator[TensorBlock]:
    """All maps of a layer, in the images' order, a row group at a time.

    Args:
        activations: the stage.
        number: of the layer, in the order of `layers_of`.
    """
    for name in activations.names(shard_prefix(number)):
        with activations.source(name) as source:
            yield from read_tensors(source)


@dataclass(frozen=True)
class AnnotationBlock:
    """Annotations of consecutive images.

    Args:
        first: number of the first image.
        labels: what `tally` takes.
        plane_category: per image, the category of each of its own planes.
        annotated: (images, categories).
    """

    first: int
    labels: Labels
    plane_category: list[list[int]]
    annotated: NDArray[np.bool_]


def annotation_blocks(index: Artifact, pixels: int) -> Iterator[AnnotationBlock]:
    """All annotations, in the images' order, in the same blocks as activations.

    Args:
        index: the stage.
        pixels: of a plane.
    """
    with index.source("annotations.parquet") as source:
        file = pq.ParquetFile(source)
        for group in range(file.num_row_groups):
            yield _annotation_block(file.read_row_group(group).to_pydict(), pixels)


def _annotation_block(rows: dict[str, list[Any]], pixels: int) -> AnnotationBlock:
    stored = [np.frombuffer(content, "<u2").reshape(-1, pixels) for content in rows["planes"]]
    planes = np.zeros((len(stored), max(len(item) for item in stored), pixels), np.uint16)
    for place, item in zip(planes, stored, strict=True):
        place[: len(item)] = item
    present = [np.array(item, np.int64) for item in rows["present"]]
    whole = [np.array(item, np.int64) for item in rows["whole"]]
    return AnnotationBlock(
        rows["image"][0], Labels(planes, present, whole), rows["plane_category"], np.array(rows["annotated"], bool)
    )


class LabelCounts:
    """How many pixels each concept labels in each image, held sparsely.

    Args:
        index: the stage.
    """

    def __init__(self, index: Artifact) -> None:
        concepts = ConceptTable.of(index)
        table = index.table("label_counts")
        self._image = table.column("image").to_numpy()
        self._concept = np.searchsorted(concepts.number, table.column("concept_id").to_numpy())
        self._pixels = table.column("pixels").to_numpy().astype(np.int64)
        self._count = len(concepts.number)
        with index.source("annotations.parquet") as source:
            flags = pq.read_table(source, columns=["annotated"]).column("annotated").combine_chunks()
        self._annotated = np.array(flags.values.to_pylist(), bool).reshape(len(flags), -1)

    @property
    def images(self) -> int:
        """Number of indexed images."""
        return len(self._annotated)

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """(images, categories) whether anything of the category is annotated."""
        return self._annotated

    def block(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(count, concepts) labelled pixels and (count, categories) flags of consecutive images."""
        low, high = np.searchsorted(self._image, (first, first + count))
        pixels = np.zeros((count, self._count), np.int64)
        pixels[self._image[low:high] - first, self._concept[low:high]] = self._pixels[low:high]
        return pixels, self._annotated[first : first + count]

    def total(self) -> NDArray[np.int64]:
        """(concepts,) labelled pixels over all images."""
        return np.bincount(self._concept, self._pixels, self._count).astype(np.int64)


def image_count(index: Artifact) -> int:
    """Number of indexed images."""
    return int(index.manifest["files"]["images.parquet"]["rows"])
