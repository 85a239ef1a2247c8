"""The counts of a tally: per layer, per picture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.quantify.resampling import ImageCounts
from microtome.quantify.words import LitWords, tiles
from storage.tensors import ROW_GROUP
from tasks.index.result import Index
from tasks.result import StageResult
from tasks.spans import layer_span, of_layer
from tasks.tally import TallyOptions


@dataclass(frozen=True)
class Tally(StageResult):
    """Which pixels units light, and on which concepts they fall."""

    @property
    def options(self) -> TallyOptions:
        """What it was made with."""
        return TallyOptions.model_validate(self.parameters)

    def column(self, layer: str, name: str, units: int) -> NDArray[Any]:
        """(units, concepts) a column of the table `iou` for one layer."""
        table = self.table("iou", ["layer", name])
        values: NDArray[Any] = table.filter(pc.equal(table.column("layer"), layer)).column(name).to_numpy()
        return values.reshape(units, -1)

    def saturated(self, layer: str) -> list[int]:
        """Units whose threshold is their maximum: nothing lies above it."""
        return list(self.artifact.json("empty.json")["saturated"][layer])

    def constant(self, layer: str) -> list[int]:
        """Units that have one value everywhere."""
        return list(self.artifact.json("empty.json")["constant"][layer])

    def image_counts(self, index: Index, number: int, units: int) -> Iterator[ImageCounts]:
        """Per-image counts of one layer, a row group of images at a time.

        Args:
            index: of the same pictures.
            number: of the layer.
            units: in the layer.
        """
        concepts, labels = index.concepts, index.labels
        for first, last, sparse, active in self._spans(number, "counts", "activated"):
            for start in range(first, last, ROW_GROUP):
                count = min(ROW_GROUP, last - start)
                rows, lights = sparse.rows(start), active.rows(start)
                activated = np.zeros((count, units), np.int64)
                activated[lights["image"] - start, lights["unit"]] = lights["pixels"]
                concept = np.searchsorted(concepts.number, rows["concept_id"])
                pixels, annotated = labels.block(start, count)
                yield ImageCounts(
                    start, rows["image"], rows["unit"], concept, rows["intersection"], activated, pixels, annotated
                )

    def lit(self, index: Index, number: int) -> Iterator[tuple[int, int, LitWords]]:
        """What one layer's units light, a row group of images at a time: its first image, their number, the words.

        Args:
            index: of the same pictures.
            number: of the layer.
        """
        for first, last, lit in self._spans(number, "lit"):
            for start in range(first, last, ROW_GROUP):
                rows = lit.rows(start)
                cell = (rows["image"] - start) * tiles(index.frame.masks) + rows["tile"]
                words = LitWords(cell, rows["unit"], rows["word"].view(np.uint64))
                yield start, min(ROW_GROUP, last - start), words

    def _spans(self, number: int, *tables: str) -> Iterator[tuple[Any, ...]]:
        """First image, the one behind the last, and the tables of each span of a layer."""
        for file in self.artifact.names(f"{tables[0]}/{layer_span(number, '')}"):
            at = file.removeprefix(f"{tables[0]}/").removesuffix(_SUFFIX)
            with contextlib.ExitStack() as stack:
                sources = [stack.enter_context(self.artifact.source(span_file(table, at))) for table in tables]
                yield *of_layer(at)[1:], *map(_ByImage, sources)


_SUFFIX = ".parquet"


def span_file(table: str, name: str) -> str:
    """Where a table of a layer's span lies within the stage: counts, or what is lit (`lit`).

    Args:
        table: its name.
        name: of the layer and the span, as `spans.layered` calls them.
    """
    return f"{table}/{name}{_SUFFIX}"


class _ByImage:
    """Row groups of a sparse table, found by the images that they hold."""

    def __init__(self, source: pa.NativeFile) -> None:
        self._file = pq.ParquetFile(source)
        self._names = self._file.schema_arrow.names
        meta, column = self._file.metadata, self._names.index("image")
        starts = (meta.row_group(group).column(column).statistics for group in range(meta.num_row_groups))
        self._groups = {stats.min // ROW_GROUP * ROW_GROUP: group for group, stats in enumerate(starts)}

    def rows(self, first: int) -> dict[str, NDArray[np.int64]]:
        """Columns of integers of the images from `first` on; empty where nothing was counted."""
        names = [name for name in self._names if name != "layer"]
        if first not in self._groups:
            return {name: np.zeros(0, np.int64) for name in names}
        table = self._file.read_row_group(self._groups[first], names)
        return {name: table.column(name).to_numpy().astype(np.int64) for name in names}
