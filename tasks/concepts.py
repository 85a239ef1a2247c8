"""How the concepts that a dissection found fare on changed pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.networks import LayerGeometry
from microtome.quantify.dissection import iou
from tasks.reading import ConceptTable, annotation_blocks
from tasks.stage import Work
from tasks.tally import upsampler
from tasks.thresholds import threshold_at


@dataclass(frozen=True)
class OwnCounts:
    """Pixels of each picture, for each detector and its own label: intersection, activation, label."""

    intersection: NDArray[np.int64]
    activation: NDArray[np.int64]
    label: NDArray[np.int64]

    def kept(self, weight: NDArray[np.int64], min_iou: float) -> float:
        """Share of the detectors whose IoU with their own label lies above `min_iou` over weighted pictures."""
        sums = [weight @ part for part in (self.intersection, self.activation, self.label)]
        return float((iou(*sums) > min_iou).mean())


class Detectors:
    """The detectors of a layer, with their labels and thresholds, beside the annotations of some pictures.

    Args:
        work: of a stage that reads index, thresholds and dissection.
        layer: geometry of the layer.
        images: numbers in the index.
    """

    def __init__(self, work: Work, layer: LayerGeometry, images: Sequence[int]) -> None:
        rows = [row for row in work.inputs["dissection"].table("units").to_pylist() if row["layer"] == layer.name]
        parameters = work.job.inputs["dissection"].parameters
        lighting = work.job.inputs["dissection"].inputs["tally"].parameters
        frame = work.job.reach["frame"]
        concepts = ConceptTable.of(work.inputs["index"])
        self.min_iou: float = parameters["min_iou"]
        self.units = np.array([row["unit"] for row in rows if row["detector"]], np.int64)
        own = [row["concept_id"] for row in rows if row["detector"]]
        self._concept = np.searchsorted(concepts.number, own)
        self._category = concepts.category_index[self._concept] if len(own) else np.zeros(0, np.int64)
        limits = threshold_at(work.inputs["thresholds"], layer.name, lighting["tail"])
        self._limits = torch.from_numpy(limits).to(work.session.device)
        self._upsample = upsampler(work, layer, lighting)
        self._pixels = frame.masks[0] * frame.masks[1]
        self._read(work, images)

    def counts(self, maps: torch.Tensor, images: Sequence[int]) -> OwnCounts:
        """Counts of a batch of maps of these pictures.

        Args:
            maps: (pictures, units, rows, columns).
            images: numbers in the index.
        """
        lit = self._upsample(maps.float().contiguous(), self._limits)
        dense = np.zeros((maps.shape[0] * maps.shape[1], self._pixels), bool)
        dense[lit.map.cpu().numpy(), lit.pixel.cpu().numpy()] = True
        mine = dense.reshape(*maps.shape[:2], -1)[:, self.units]
        found = []
        for shown, image in zip(mine, images, strict=True):
            names, masks = np.unique(self._concept, return_inverse=True)
            labels = (
                np.stack([self._mask(image, name) for name in names]) if len(names) else np.zeros((0, self._pixels))
            )
            label = labels[masks]
            annotated = self._annotated[image][self._category]
            found.append(((shown & (label > 0)).sum(1), shown.sum(1) * annotated, (label > 0).sum(1)))
        return OwnCounts(*(np.stack(column).astype(np.int64) for column in zip(*found, strict=True)))

    def _mask(self, image: int, concept: int) -> NDArray[np.uint8]:
        planes, present, whole = self._labels[image]
        if concept in whole:
            return np.ones(self._pixels, np.uint8)
        local = np.flatnonzero(present == concept)
        return (planes == local[0] + 1).any(0).astype(np.uint8) if len(local) else np.zeros(self._pixels, np.uint8)

    def _read(self, work: Work, images: Sequence[int]) -> None:
        wanted = set(images)
        self._labels: dict[int, tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64]]] = {}
        self._annotated: dict[int, NDArray[np.bool_]] = {}
        for block in annotation_blocks(work.inputs["index"], self._pixels):
            for offset in range(len(block.annotated)):
                image = block.first + offset
                if image in wanted:
                    notes = block.labels
                    self._labels[image] = (notes.planes[offset], notes.present[offset], notes.whole[offset])
                    self._annotated[image] = block.annotated[offset]


def together(parts: Sequence[OwnCounts]) -> OwnCounts:
    """Counts of several batches."""
    columns = zip(*((part.intersection, part.activation, part.label) for part in parts), strict=True)
    return OwnCounts(*(np.concatenate(column) for column in columns))
