"""What a graph is worth: log-likelihood, steadiness beside raw filters under one rule, purity of its nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle import graph_metrics as science
from microtome.disentangle.graph import GraphLayer
from microtome.disentangle.graph_inference import Seen
from tasks.graph_reading import Chosen, Made, landmarks_of
from tasks.reading import ConceptTable, annotation_blocks
from tasks.rows import Rows, append
from tasks.stage import Work


def metric_rows(
    work: Work, graph: Sequence[GraphLayer], seen: Sequence[Seen], made: Sequence[Made], chosen: Chosen
) -> Rows:
    """Rows of `graph_metrics`."""
    rows: Rows = defaultdict(list)
    for layer, part in zip(graph, made, strict=True):
        for number, value in enumerate(layer.log_likelihood):
            metric = science.GraphMetric("log-likelihood", "training", float(value))
            append(rows, {"layer": part.geometry.name, "round": number + 1, **asdict(metric)})
    marks = landmarks_of(work, chosen.images)
    size, permutations = work.job.reach["frame"].size, work.parameters["permutations"]
    for seen_layer, part in zip(seen, made, strict=True) if marks else ():
        maps = part.maps.maps.cpu().numpy()
        found = science.steadiness(seen_layer, maps, part.geometry, marks, size=size, permutations=permutations)
        for metric in found:
            append(rows, {"layer": part.geometry.name, "round": None, **asdict(metric)})
    return rows


def purity(work: Work, seen: Sequence[Seen], chosen: Chosen) -> list[list[tuple[float, str]] | None]:
    """Per layer and node: the part concept that it is on in most of its top pictures, and that share of them."""
    concepts = ConceptTable.of(work.inputs["index"])
    wanted = [n for n, category in enumerate(concepts.category) if category == "part"]
    if not wanted:
        return [None] * len(seen)
    shape = work.job.reach["frame"].masks
    masks = _part_masks(work, chosen.images, wanted, shape[0] * shape[1])
    names = [concepts.name[concept] for concept in wanted]
    found = [science.purity(layer, masks, shape) for layer in seen]
    return [[(float(s), names[p]) for s, p in zip(layer.share, layer.part, strict=True)] for layer in found]


def _part_masks(work: Work, images: NDArray[np.int64], wanted: Sequence[int], pixels: int) -> NDArray[np.bool_]:
    """(images, parts, pixels)."""
    masks = np.zeros((len(images), len(wanted), pixels), bool)
    for block in annotation_blocks(work.inputs["index"], pixels):
        for offset in range(len(block.labels.planes)):
            place = np.flatnonzero(images == block.first + offset)
            if len(place):
                masks[place[0]] = block.labels.masks(offset, wanted)
    return masks
