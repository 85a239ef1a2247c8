"""What all pictures show, as words."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np

from microtome.quantify.null import AllLabels
from microtome.quantify.words import LABEL, label_words, whole_words
from tasks.index.result import AnnotationBlock, Index


class Annotations:
    """What every picture shows, as words in a scratch file, which are read in any order with constant memory."""

    def __init__(self, index: Index) -> None:
        self._scratch: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._category = index.concepts.category_index
        self._start: list[list[int]] = []
        self._count = 0
        for block in index.annotations():
            for image in range(len(block.labels.present)):
                self._store(block, image, index.frame.masks)

    def __enter__(self) -> Annotations:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.close()

    def all(self) -> AllLabels:
        """Of all pictures."""
        self._scratch.flush()
        stored = np.memmap(self._scratch, LABEL, "r", shape=self._count) if self._count else np.zeros(0, LABEL)
        return AllLabels(stored, np.array(self._start))

    def _store(self, block: AnnotationBlock, image: int, masks: tuple[int, int]) -> None:
        """The planes of each category, and its labels of the whole picture."""
        labels, whole = block.labels, block.labels.whole[image]
        planes = list(zip(block.plane_category[image], labels.planes[image], strict=False))
        self._start.append([])
        for category in range(block.annotated.shape[1]):
            self._start[-1].append(self._count)
            words = [label_words(plane, labels.present[image], masks) for other, plane in planes if other == category]
            for part in [*words, whole_words(whole[self._category[whole] == category])]:
                self._scratch.write(part.tobytes())
                self._count += len(part)
