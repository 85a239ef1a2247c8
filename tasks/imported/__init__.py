"""Stage `imported`: what other tools published of a network's units, read from their files."""

from __future__ import annotations

from typing import Literal

from storage.tables import float64, int32, int64, string, table
from tasks.dissection import STAGE as DISSECTION
from tasks.options import Options
from tasks.stage import Headline, PageOf, Stage
from tasks.tally import STAGE as TALLY

Method = Literal["netdissect", "clip-dissect", "milan"]


class ImportedOptions(Options):
    """What is read."""

    method: Method
    """Method whose files they are."""


FILLED = ("units", "layers", "iou")

STAGE = Stage(
    name="imported",
    about="Reads what other tools published of a network's units (`microtome import`), and computes again what can be.",
    options=ImportedOptions,
    work="tasks.imported.work:run",
    headlines=(
        Headline("layers.detectors", "detectors, luck included"),
        Headline("layers.unique_per_category", "different concepts, as papers count"),
        Headline("layers.unique_per_unit", "different concepts"),
        Headline("layers.mean_iou", "mean IoU of the labels"),
    ),
    page=PageOf("tasks.imported.findings:findings", "microtome.report.imported:page"),
    fills=tuple(table for stage in (DISSECTION, TALLY) for table in stage.tables if table.name in FILLED),
    tables=(
        table(
            "labels",
            "A row per unit and method: what a method that others published calls the unit.",
            layer=string("its name, as the file has it"),
            unit=int32("number of the unit, from zero"),
            method=string("netdissect, clip-dissect or milan"),
            label=string("as the file has it"),
            score=float64(
                "of the label: the IoU, computed again, or the similarity as printed; null where there is none"
            ),
        ),
        table(
            "imported",
            "A row per layer: where its labels come from, and what of them was computed again.",
            layer=string("its name"),
            method=string("netdissect, clip-dissect or milan"),
            file=string("name of the file"),
            sha256=string("of its content"),
            units=int32("rows of the layer"),
            labels=int32("different labels"),
            counted_from=int32("number of the first unit in the file: 1 in a tally, 0 in a list of labels"),
            recomputed=int64("IoUs that were computed again from their counts"),
            background=int64("of a unit and a category whose best concept is the background, which is none"),
            largest_difference=float64("between an IoU and the one that the file has; null where there is none"),
        ),
    ),
)
