"""Stage `null`: what IoU each unit reaches when pictures and annotations do not belong together."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.quantify.null import NullCounts
from microtome.quantify.resampling import permutation_plan
from microtome.quantify.upsample import Lit
from storage import Draft
from storage.tables import Columns
from tasks.index.result import AnnotationBlock, ConceptTable, Index
from tasks.null import NullOptions
from tasks.session import Session
from tasks.tally.lighting import BATCH, Lighter
from tasks.tally.result import Tally
from tasks.thresholds.result import SeenPictures

BLOCK = 100  # permutations counted together: memory is BLOCK x units x concepts


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """Maps, thresholds, annotations and counts of the same pictures."""

    tally: Tally


def run(options: NullOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Count the permutations of every layer."""
    layers, permutations = inputs.activations.layers, options.permutations
    schema = draft.declared("null").schema
    session.begin(permutations * len(layers), "permutations")
    with _Planes(inputs.index) as planes:
        for number, layer in enumerate(layers):
            lighter = Lighter(inputs, number, options, device=session.device)
            for first in range(0, permutations, BLOCK):
                span = (first, min(BLOCK, permutations - first))
                name = f"null/{number:03d}-{first:06d}.parquet"
                if not draft.has(name):
                    within, across = _both(inputs, planes, lighter, span, session=session)
                    with draft.publish(name, rows=within.size) as sink:
                        rows = pa.table(_columns(layer.name, first, within, across), schema=schema)
                        pq.write_table(rows, sink, compression="zstd")
                session.advance(span[1])


def _both(
    inputs: Inputs, planes: _Planes, lighter: Lighter, span: tuple[int, int], *, session: Session
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(permutations, units) best IoU of one block of one layer: annotations exchanged within strata, and across them.

    A block lies in a file of its own, which an interrupted run keeps.
    """
    strata, annotated = inputs.index.strata, inputs.index.labels.annotated

    def best(groups: NDArray[np.int64]) -> NDArray[np.float64]:
        rng = np.random.default_rng([session.seed, span[0]])
        return _block(inputs, planes, lighter, permutation_plan(annotated, span[1], rng, groups), session=session)

    within = best(strata)
    return within, best(np.zeros_like(strata)) if strata.any() else within


def _block(
    inputs: Inputs, planes: _Planes, lighter: Lighter, plans: Sequence[NDArray[np.int64]], *, session: Session
) -> NDArray[np.float64]:
    """(permutations, units) best IoU of a layer under given exchanges."""
    index, units = inputs.index, lighter.layer.units
    null = NullCounts(plans, units, len(index.concepts.number))
    activated = np.zeros((index.images, units), np.int32)
    for notes, maps in lighter.blocks():
        for at in range(0, len(maps), BATCH):
            lit = lighter.light(maps[at : at + BATCH])
            parts = _by_image(lit, min(BATCH, len(maps) - at))
            null.update(notes.first + at, parts, planes.read)
            for offset, (unit, _) in enumerate(parts):
                activated[notes.first + at + offset] = np.bincount(unit, minlength=units)
            session.check()
    null.update_whole(activated, planes.whole(index.concepts))
    return null.best(inputs.tally.column(lighter.layer.name, "activation", units), index.labels.total())


def _by_image(lit: Lit, images: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Units and pixels that each image of a batch lights."""
    image = lit.image.cpu().numpy()
    order = np.argsort(image, kind="stable")
    units, pixels = lit.unit.cpu().numpy()[order], lit.pixel.cpu().numpy()[order]
    bounds = np.searchsorted(image[order], np.arange(images + 1))
    return [(units[low:high], pixels[low:high]) for low, high in pairwise(bounds)]


def _columns(layer: str, first: int, within: NDArray[np.float64], across: NDArray[np.float64]) -> Columns:
    count, units = within.shape
    return {
        "layer": pa.repeat(pa.scalar(layer), within.size),
        "unit": np.tile(np.arange(units, dtype=np.int32), count),
        "permutation": np.repeat(np.arange(first, first + count, dtype=np.int32), units),
        "best_iou": within.ravel(),
        "best_iou_across": across.ravel(),
    }


class _Planes:
    """Every picture's planes by category in a scratch file, for reading in any order with constant memory."""

    def __init__(self, index: Index) -> None:
        self._pixels = index.pixels
        self._places: list[dict[int, list[int]]] = []
        self._whole: list[NDArray[np.int64]] = []
        self._scratch: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        count = 0
        for block in index.annotations():
            for image in range(len(block.labels.present)):
                count = self._store(block, image, count)

    def __enter__(self) -> _Planes:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.close()

    def read(self, category: int, image: int) -> NDArray[np.uint16]:
        """(planes, pixels) of one picture in one category: 0 for none, else 1 + concept."""
        places = self._places[image].get(category, [])
        result = np.empty((len(places), self._pixels), np.uint16)
        for row, place in zip(result, places, strict=True):
            self._scratch.seek(place * self._pixels * 2)
            self._scratch.readinto(row)  # type: ignore[attr-defined]  # IO says nothing of readinto, and files have it
        return result

    def whole(self, concepts: ConceptTable) -> Sequence[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Labels of whole pictures: category, pictures, concepts."""
        images = np.repeat(np.arange(len(self._whole)), [len(item) for item in self._whole])
        found = np.concatenate([*self._whole, np.zeros(0, np.int64)])
        category = concepts.category_index[found]
        return [(int(number), images[category == number], found[category == number]) for number in np.unique(category)]

    def _store(self, block: AnnotationBlock, image: int, count: int) -> int:
        lookup = np.concatenate([[0], block.labels.present[image] + 1]).astype(np.uint16)
        places: dict[int, list[int]] = {}
        for plane, category in zip(block.labels.planes[image], block.plane_category[image], strict=False):
            self._scratch.write(lookup[plane].tobytes())
            places.setdefault(category, []).append(count)
            count += 1
        self._places.append(places)
        self._whole.append(block.labels.whole[image])
        return count
