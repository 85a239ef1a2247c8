"""Stage `imported`: tables of what others published, with null where their files say nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from microtome.quantify.dissection import iou
from microtome.quantify.published import MIN_IOU, PublishedTally, UnitLabel
from storage import Draft
from storage.tables import Row
from tasks.imported import ImportedOptions
from tasks.imported.files import PublishedFiles
from tasks.session import Session


@dataclass(frozen=True)
class Inputs:
    """The files."""

    published: PublishedFiles


def run(options: ImportedOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Write the tables: of a tally those of a dissection, of any method its labels."""
    if options.method == "netdissect":
        _tallied(inputs.published, draft)
        return
    labels, (file,) = inputs.published.labels, inputs.published.files.values()
    draft.rows("labels", [_label(options.method, label) for label in labels])
    layers = groupby(labels, key=lambda label: label.layer)
    source = {"method": options.method, "file": file.name, "sha256": inputs.published.digests[""]}
    draft.rows("imported", [source | _listed(layer, list(each)) for layer, each in layers])


def _label(method: str, label: UnitLabel) -> Row:
    return {"method": method, **vars(label)}


def _listed(layer: str, labels: Sequence[UnitLabel]) -> dict[str, object]:
    return {
        "layer": layer,
        "units": len(labels),
        "labels": len({label.label for label in labels}),
        "counted_from": 0,
        "recomputed": 0,
        "background": 0,
        "largest_difference": None,
    }


def _tallied(published: PublishedFiles, draft: Draft) -> None:
    rows: dict[str, list[Row]] = {name: [] for name in ("units", "layers", "iou", "labels", "imported")}
    for tally in published.tallies:
        rows["units"] += _units(tally)
        rows["layers"].append(_layer(tally))
        rows["iou"] += _scores(tally)
        rows["labels"] += _labels(tally)
        source = {"file": published.files[tally.layer].name, "sha256": published.digests[tally.layer]}
        rows["imported"].append(source | _recomputed(tally))
    for name, found in rows.items():
        unknown = dict.fromkeys(draft.declared(name).columns)
        draft.rows(name, [unknown | dict(row) for row in found])


def _units(tally: PublishedTally) -> Iterator[Row]:
    for unit, (concept, category, score) in enumerate(tally.labels):
        known = {"concept": concept, "category": None if concept is None else category}
        yield {"layer": tally.layer, "unit": unit, "iou": score, "detector": score > MIN_IOU, **known}


def _layer(tally: PublishedTally) -> Row:
    counted = tally.detectors
    return {
        "layer": tally.layer,
        "units": tally.units,
        "detectors": counted.units,
        "unique_per_category": counted.per_category,
        "unique_per_unit": counted.per_unit,
        "mean_iou": float(np.mean([score for _, _, score in tally.labels])),
        "min_iou": MIN_IOU,
    }


def _scores(tally: PublishedTally) -> Iterator[Row]:
    for unit, concepts in enumerate(tally.concepts):
        for at, concept in enumerate(concepts):
            if concept is not None:
                yield {
                    "layer": tally.layer,
                    "unit": unit,
                    "concept": concept,
                    "category": tally.categories[at],
                    "intersection": int(tally.intersection[unit, at]),
                    "activation": int(tally.activation[unit, at]),
                    "label_pixels": int(tally.label_pixels[unit, at]),
                    "iou": float(tally.iou[unit, at]),
                }


def _labels(tally: PublishedTally) -> Iterator[Row]:
    for unit, (concept, _, score) in enumerate(tally.labels):
        if concept is not None:
            yield _label("netdissect", UnitLabel(tally.layer, unit, concept, score))


def _recomputed(tally: PublishedTally) -> dict[str, object]:
    apart = np.abs(iou(tally.intersection, tally.activation, tally.label_pixels) - tally.printed)
    counted = tally.activation + tally.label_pixels > 0
    return {
        "layer": tally.layer,
        "method": "netdissect",
        "units": tally.units,
        "labels": len({concept for concept, _, _ in tally.labels if concept is not None}),
        "counted_from": 1,
        "recomputed": int(counted.sum()),
        "background": tally.background,
        "largest_difference": float(apart.max()),
    }
