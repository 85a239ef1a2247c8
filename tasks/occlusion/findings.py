"""What the report shows of occlusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from microtome.datasets.source import webp
from microtome.networks.geometry import LayerGeometry
from microtome.quantify.stability import cell_centres
from microtome.report.fields import (
    COVERED,
    CoveredPicture,
    FieldFindings,
    MeasuredField,
    MinimalRow,
    OcclusionRow,
    StrippedPicture,
    middle_of,
    shaded,
)
from tasks.occlusion import OcclusionOptions
from tasks.occlusion.work import Inputs
from tasks.pages.shown import Shown
from tasks.result import StageResult


def findings(shown: Shown) -> FieldFindings:
    """Measured fields and stripped pictures."""
    made, seen = shown.result("occlusion", StageResult), shown.inputs("occlusion", Inputs)
    index, rows = seen.index, made.typed("occlusion", OcclusionRow)
    covered = _covered(shown, seen, rows)
    fields = []
    for row in rows:
        heat = middle_of(load(made.artifact.read(row["file"]))["heat"], row["theoretical"])
        path = f"assets/{row['file'].removesuffix('.safetensors')}.webp"
        field = MeasuredField(
            row, shown.picture(path, webp(shaded(heat))), heat.shape, covered[row["layer"], row["unit"]]
        )
        fields.append(field)
    minimal = made.typed("minimal_images", MinimalRow) if made.artifact.has("minimal_images.parquet") else []
    stripped = [
        StrippedPicture(
            row, index.files[row["image"]], shown.thumbnail(index, row["image"]), shown.copied(made, row["file"])
        )
        for row in minimal
    ]
    width = OcclusionOptions.model_validate(made.parameters).width
    return FieldFindings(fields, stripped, index.frame.size, width)


def _covered(
    shown: Shown, seen: Inputs, rows: Sequence[OcclusionRow]
) -> Mapping[tuple[str, int], Sequence[CoveredPicture]]:
    """(layer, unit) -> the first pictures in which the unit is highest, and where it is."""
    found = {}
    for number, layer in enumerate(seen.activations.layers):
        units = [row["unit"] for row in rows if row["layer"] == layer.name]
        top = seen.thresholds.top_images(layer.name)
        wanted = {unit: [image for image, _ in top[unit][:COVERED]] for unit in units}
        images = sorted({image for some in wanted.values() for image in some})
        maps = dict(zip(images, seen.activations.of_images(number, images), strict=True)) if images else {}
        for unit, some in wanted.items():
            found[layer.name, unit] = [
                CoveredPicture(
                    shown.thumbnail(seen.index, image), seen.index.files[image], _peak(layer, maps[image][unit])
                )
                for image in some
            ]
    return found


def _peak(layer: LayerGeometry, values: NDArray[np.float32]) -> tuple[float, float]:
    """x, y of the centre of the highest cell, in the frame."""
    x, y = cell_centres(layer)[int(values.argmax())].tolist()
    return round(x, 1), round(y, 1)
