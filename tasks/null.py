"""Stage `null`: what IoU each unit reaches when pictures and annotations do not belong together."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from microtome.networks import LayerGeometry
from microtome.quantify.null import NullCounts
from microtome.quantify.resampling import permutation_plan
from microtome.quantify.upsample import Lit
from storage import SCHEMAS
from tasks.reading import AnnotationBlock, ConceptTable, LabelCounts, annotation_blocks, layers_of
from tasks.stage import Work
from tasks.tally import BATCH, Lighter

BLOCK = 100  # permutations counted together: memory is BLOCK x units x concepts


def run(work: Work) -> None:
    """Count the permutations of every layer."""
    torch.set_num_threads(work.session.threads)
    index = work.inputs["index"]
    layers, labels = layers_of(work.inputs["activations"]), LabelCounts(index)
    permutations = work.parameters["permutations"]
    work.begin(permutations * len(layers), "permutations")
    with _Planes(work) as planes:
        for number, layer in enumerate(layers):
            for first in range(0, permutations, BLOCK):
                count = min(BLOCK, permutations - first)
                name = f"null/{number:03d}-{first:06d}.parquet"
                if name not in work.draft.finished():
                    _block(work, planes, labels, (number, layer), (first, count), name)
                work.advance(count)


def _block(
    work: Work,
    planes: _Planes,
    labels: LabelCounts,
    layer: tuple[int, LayerGeometry],
    span: tuple[int, int],
    name: str,
) -> None:
    """One block of permutations of one layer, in a file of its own: what an interrupted run keeps."""
    concepts = ConceptTable.of(work.inputs["index"])
    lighter = Lighter(work, *layer)
    units = layer[1].units
    rng = np.random.default_rng([work.parameters["seed"], span[0]])
    null = NullCounts(permutation_plan(labels.annotated, span[1], rng), units, len(concepts.number))
    activated = np.zeros((labels.images, units), np.int32)
    for notes, maps in lighter.blocks():
        for at in range(0, len(maps), BATCH):
            lit = lighter.light(maps[at : at + BATCH])
            parts = _by_image(lit, min(BATCH, len(maps) - at))
            null.update(notes.first + at, parts, planes.read)
            for offset, (unit, _) in enumerate(parts):
                activated[notes.first + at + offset] = np.bincount(unit, minlength=units)
            work.session.check()
    null.update_whole(activated, planes.whole(concepts))
    scores = work.inputs["tally"].table("iou", ["layer", "activation"])
    observed = scores.filter(pc.equal(scores.column("layer"), layer[1].name))
    activation = observed.column("activation").to_numpy().reshape(units, -1)
    best = null.best(activation, labels.total())
    with work.draft.publish(name, rows=best.size) as sink:
        pq.write_table(_rows(layer[1].name, span[0], best), sink, compression="zstd")


def _by_image(lit: Lit, images: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Units and pixels that each image of a batch lights."""
    image = lit.image.cpu().numpy()
    order = np.argsort(image, kind="stable")
    units, pixels = lit.unit.cpu().numpy()[order], lit.pixel.cpu().numpy()[order]
    bounds = np.searchsorted(image[order], np.arange(images + 1))
    return [(units[low:high], pixels[low:high]) for low, high in pairwise(bounds)]


def _rows(layer: str, first: int, best: NDArray[np.float64]) -> pa.Table:
    count, units = best.shape
    columns: dict[str, Any] = {
        "layer": pa.repeat(pa.scalar(layer), best.size),
        "unit": np.tile(np.arange(units, dtype=np.int32), count),
        "permutation": np.repeat(np.arange(first, first + count, dtype=np.int32), units),
        "best_iou": best.ravel(),
    }
    return pa.table(columns, schema=SCHEMAS["null"])


class _Planes:
    """Every picture's planes by category in a scratch file, for reading in any order with constant memory."""

    def __init__(self, work: Work) -> None:
        masks = work.job.reach["frame"].masks
        self._pixels = masks[0] * masks[1]
        self._places: list[dict[int, list[int]]] = []
        self._whole: list[NDArray[np.int64]] = []
        self._scratch: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        count = 0
        for block in annotation_blocks(work.inputs["index"], self._pixels):
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
            self._scratch.readinto(row)  # type: ignore[attr-defined]
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
