"""What the report shows of a dissection."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from microtome.report.dissection import DissectedLayer, LayerRow, TopImage, UnitRow
from microtome.report.overlay import dim_path
from tasks.dissection.result import Dissection
from tasks.dissection.work import Inputs
from tasks.report.shown import Shown
from tasks.tally.lighting import Lighter

Pair = tuple[int, int]


def findings(shown: Shown) -> list[DissectedLayer]:
    """Each layer's units, with their top images and masks."""
    made, seen = shown.result("dissection", Dissection), shown.inputs("dissection", Inputs)
    return [_layer(shown, made, seen, number) for number in range(len(seen.activations.layers))]


def _layer(shown: Shown, made: Dissection, seen: Inputs, number: int) -> DissectedLayer:
    name, index = seen.activations.layers[number].name, seen.index
    lighter = Lighter(seen, number, made.options, device=shown.session.device)
    rows = [row for row in seen.thresholds.rows("top_images", layer=name) if row["rank"] < shown.top_images]
    dims = _dims(lighter, {(row["image"], row["unit"]) for row in rows}, index.frame.masks)
    top: dict[int, list[TopImage]] = {}
    for row in rows:
        image, unit = row["image"], row["unit"]
        thumb = shown.thumbnail(index, image)
        top.setdefault(unit, []).append(
            TopImage(thumb, index.files[image], row["rank"], row["peak"], dims[image, unit])
        )
    (summary,), units = made.typed("layers", LayerRow, layer=name), made.typed("units", UnitRow, layer=name)
    return DissectedLayer(summary, units, top, index.frame.masks)


def _dims(lighter: Lighter, wanted: set[Pair], masks: tuple[int, int]) -> Mapping[Pair, str]:
    """The masks of the wanted (image, unit) pairs, as paths."""
    by_image: dict[int, set[int]] = {}
    for image, unit in wanted:
        by_image.setdefault(image, set()).add(unit)
    found = {pair: dim_path(np.zeros(masks, bool)) for pair in wanted}
    for notes, maps in lighter.blocks():
        for offset in range(len(maps)):
            image = notes.first + offset
            if image not in by_image:
                continue
            lit = lighter.light(maps[offset : offset + 1])
            for unit in sorted(by_image[image]):
                mask = np.zeros(masks[0] * masks[1], bool)
                mask[lit.pixel[lit.unit == unit].cpu().numpy()] = True
                found[image, unit] = dim_path(mask.reshape(masks))
    return found
