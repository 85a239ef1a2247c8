"""How the concepts that a dissection found fare on changed pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.networks import LayerGeometry
from microtome.quantify.dissection import Labels
from microtome.quantify.kept_labels import OwnCounts, own_counts
from tasks.reading import ConceptTable, annotation_blocks
from tasks.stage import Work
from tasks.tally import upsampler
from tasks.thresholds import threshold_at


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
        own, place = np.unique(self._concept, return_inverse=True)
        labels = [self._labels[image].masks(0, own.tolist())[place] for image in images]
        return own_counts(lit, self.units, labels, [self._annotated[image][self._category] for image in images])

    def _read(self, work: Work, images: Sequence[int]) -> None:
        wanted = set(images)
        self._labels: dict[int, Labels] = {}
        self._annotated: dict[int, NDArray[np.bool_]] = {}
        for block in annotation_blocks(work.inputs["index"], self._pixels):
            for offset in range(len(block.annotated)):
                image = block.first + offset
                if image in wanted:
                    self._labels[image] = block.labels.part(slice(offset, offset + 1))
                    self._annotated[image] = block.annotated[offset]
