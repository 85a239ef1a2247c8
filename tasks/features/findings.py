"""What the report shows of synthetic pictures."""

from __future__ import annotations

from collections import defaultdict

from microtome.report.features import (
    CROPS,
    NATURAL_IMAGES,
    FeatureFindings,
    FeatureRow,
    NaturalImage,
    SyntheticUnit,
    UnitCrop,
)
from storage.tables import ReadRow
from tasks.features.work import Inputs
from tasks.pages.shown import Shown
from tasks.result import StageResult

Place = tuple[str, int]  # layer and unit


def findings(shown: Shown) -> FeatureFindings:
    """Each unit's synthetic picture, beside natural ones."""
    made, seen = shown.result("features", StageResult), shown.inputs("features", Inputs)
    index, rows = seen.index, made.typed("features", FeatureRow)
    tops = {layer: seen.thresholds.top_images(layer) for layer in dict.fromkeys(row["layer"] for row in rows)}
    crops: dict[Place, list[ReadRow]] = defaultdict(list)
    for crop in made.rows("unit_crops"):
        crops[crop["layer"], crop["unit"]].append(crop)
    units = []
    for row in rows:
        top = tops[row["layer"]][row["unit"]][:NATURAL_IMAGES]
        natural = [NaturalImage(shown.thumbnail(index, image), index.files[image]) for image, _ in top]
        mine = [_crop(shown, made, crop, index.files) for crop in crops[row["layer"], row["unit"]][:CROPS]]
        units.append(SyntheticUnit(row, shown.copied(made, row["file"]), natural, mine))
    return FeatureFindings(units, index.frame.size)


def _crop(shown: Shown, made: StageResult, row: ReadRow, files: list[str]) -> UnitCrop:
    size = (row["y1"] - row["y0"], row["x1"] - row["x0"])
    return UnitCrop(shown.copied(made, row["file"]), row["kind"], files[row["image"]], size)
