"""The counts of a layer, as they are resampled: read once, and then again for every few resamples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from microtome.quantify.resampling import ImageCounts, long_runs

SPARSE = ("image", "unit", "concept", "intersection")
DENSE = ("activated", "label_pixels")
NARROW = np.int32  # of integers in the file: pictures have fewer pixels, data sets fewer pictures


class Runs:
    """Counts in long runs, in a scratch file: each pass over them takes a twentieth of what reading the stage does.

    A run's sparse counts are sorted by unit and concept, since what they are added to lies so.

    Args:
        blocks: consecutive counts of a layer, all of them.
    """

    def __init__(self, blocks: Iterable[ImageCounts]) -> None:
        self._scratch: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - goes with the last who reads it
        self._places: list[tuple[int, int]] = []
        for run in long_runs(blocks):
            order = np.lexsort((run.concept, run.unit))
            counts = [*(getattr(run, name)[order] for name in SPARSE), *(getattr(run, name) for name in DENSE)]
            self._places.append((run.first, self._scratch.tell()))
            for array in (*(count.astype(NARROW) for count in counts), run.annotated):
                np.save(self._scratch, array)

    def __iter__(self) -> Iterator[ImageCounts]:
        for first, place in self._places:
            self._scratch.seek(place)
            counts = {name: self._array().astype(np.int64) for name in (*SPARSE, *DENSE)}
            yield ImageCounts(first, annotated=self._array(), **counts)

    def _array(self) -> np.ndarray:
        array: np.ndarray = np.load(self._scratch, allow_pickle=False)
        return array
