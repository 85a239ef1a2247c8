"""What the report shows of occlusion."""

from __future__ import annotations

from safetensors.numpy import load

from microtome.datasets.source import webp
from microtome.report.fields import (
    FieldFindings,
    MeasuredField,
    MinimalRow,
    OcclusionRow,
    StrippedPicture,
    middle_of,
    shaded,
)
from tasks.occlusion.work import Inputs
from tasks.report.shown import Shown
from tasks.result import StageResult


def findings(shown: Shown) -> FieldFindings:
    """Measured fields and stripped pictures."""
    made, index = shown.result("occlusion", StageResult), shown.inputs("occlusion", Inputs).index
    fields = []
    for row in made.typed("occlusion", OcclusionRow):
        heat = middle_of(load(made.artifact.read(row["file"]))["heat"], row["theoretical"])
        path = f"assets/{row['file'].removesuffix('.safetensors')}.webp"
        fields.append(MeasuredField(row, shown.picture(path, webp(shaded(heat))), heat.shape))
    rows = made.typed("minimal_images", MinimalRow) if made.artifact.has("minimal_images.parquet") else []
    stripped = [
        StrippedPicture(
            row, index.files[row["image"]], shown.thumbnail(index, row["image"]), shown.copied(made, row["file"])
        )
        for row in rows
    ]
    return FieldFindings(fields, stripped, index.frame.size)
