"""What the index knows: pictures, concepts, annotations, and the way back to the data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.datasets.base import chosen
from microtome.datasets.frame import Frame
from microtome.datasets.source import Source
from tasks.data import DataSpec
from tasks.index import IndexOptions, frame_of
from tasks.result import StageResult
from tasks.spans import groups_within

if TYPE_CHECKING:
    from microtome.quantify.dissection import Labels


ANNOTATIONS = "annotations/"


def annotations_file(name: str) -> str:
    """Where the annotations of a span of pictures lie within the stage."""
    return f"{ANNOTATIONS}{name}.parquet"


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

    def of_category(self, category: str) -> list[int]:
        """Concepts of a category."""
        return [place for place, name in enumerate(self.category) if name == category]


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


@dataclass(frozen=True)
class Index(StageResult):
    """An indexed data set."""

    @cached_property
    def options(self) -> IndexOptions:
        """What it was made with."""
        return IndexOptions.model_validate(self.parameters)

    @cached_property
    def frame(self) -> Frame:
        """That pictures and masks were put into."""
        return frame_of(self.options)

    @property
    def pixels(self) -> int:
        """Of a mask."""
        return self.frame.masks[0] * self.frame.masks[1]

    @cached_property
    def source(self) -> Source:
        """The indexed pictures themselves."""
        return indexed(self.external("data", DataSpec), self.options)

    @property
    def images(self) -> int:
        """Number of indexed pictures."""
        return self.artifact.row_count("images")

    @cached_property
    def files(self) -> list[str]:
        """Names of the pictures."""
        files: list[str] = self.table("images", ["file"]).column("file").to_pylist()
        return files

    @property
    def strata_names(self) -> list[str]:
        """Names of the strata, by number; empty of pictures without one."""
        return self._strata[0]

    @property
    def strata(self) -> NDArray[np.int64]:
        """(images,) number of each picture's stratum; pictures without one are a stratum, too."""
        return self._strata[1]

    @cached_property
    def _strata(self) -> tuple[list[str], NDArray[np.int64]]:
        names = [name or "" for name in self.table("images", ["stratum"]).column("stratum").to_pylist()]
        known, numbers = np.unique(names, return_inverse=True)
        return known.tolist(), numbers.astype(np.int64)

    @cached_property
    def concepts(self) -> ConceptTable:
        """The concepts of the data set."""
        table = self.table("concepts")
        category = table.column("category").to_pylist()
        number = table.column("concept_id").to_numpy().astype(np.int64)
        return ConceptTable(number, table.column("concept").to_pylist(), category, sorted(set(category)))

    def annotations(self, first: int = 0, last: int | None = None) -> Iterator[AnnotationBlock]:
        """Annotations in the images' order, in the same blocks as activations.

        Args:
            first, last: the images from `first` to before `last`, whole blocks; all where left out.
        """
        for name in self.artifact.names(ANNOTATIONS):
            if groups := groups_within(name, first, last):
                with self.artifact.source(name) as source:
                    file = pq.ParquetFile(source)
                    for group in groups:
                        yield _annotation_block(file.read_row_group(group).to_pydict(), self.pixels)

    def masks(self, images: NDArray[np.int64], concepts: Sequence[int]) -> NDArray[np.bool_]:
        """(images, concepts, pixels) where some pictures show some concepts.

        Args:
            images: numbers of the pictures.
            concepts: indices into the concept table.
        """
        place = {image: number for number, image in enumerate(images.tolist())}
        found = np.zeros((len(images), len(concepts), self.pixels), bool)
        for block in self.annotations():
            for offset in range(len(block.labels.planes)):
                if block.first + offset in place:
                    found[place[block.first + offset]] = block.labels.masks(offset, concepts)
        return found

    @cached_property
    def labels(self) -> LabelCounts:
        """How many pixels each concept labels in each image."""
        return LabelCounts(self)


def indexed(data: DataSpec, wanted: IndexOptions) -> Source:
    """The pictures that an index is of; it need not be finished.

    Args:
        data: the data set.
        wanted: which of its pictures, and their frame.

    Raises:
        InputError: the data set cannot be opened, or none of its pictures is wanted.
    """
    dataset = data.place.open()
    numbers = chosen(dataset.records, split=wanted.split, categories=wanted.categories, limit=wanted.limit)
    return Source(dataset, frame_of(wanted), data.scale, numbers)


def _annotation_block(rows: dict[str, list[Any]], pixels: int) -> AnnotationBlock:
    from microtome.quantify.dissection import Labels

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
        index: of the data set.
    """

    def __init__(self, index: Index) -> None:
        table = index.table("label_counts")
        self._image = table.column("image").to_numpy()
        self._concept = np.searchsorted(index.concepts.number, table.column("concept_id").to_numpy()).astype(np.int32)
        self._pixels = table.column("pixels").to_numpy()
        self._count = len(index.concepts.number)
        flags: list[NDArray[np.bool_]] = []
        for name in index.artifact.names(ANNOTATIONS):
            with index.artifact.source(name) as source:
                read = pq.ParquetFile(source).read(["annotated"]).column("annotated")
                flags.append(np.array(read.to_pylist(), bool))
        self._annotated = np.concatenate(flags)

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
