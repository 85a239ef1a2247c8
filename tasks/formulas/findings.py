"""What the report shows of formulas."""

from __future__ import annotations

import numpy as np

from microtome.quantify.formulas.grammar import Form, held_on
from microtome.quantify.formulas.words import UnitWords, lit_by_unit
from microtome.quantify.words import tiles
from microtome.report.formulas import (
    SHOWN_PICTURES,
    CurveRow,
    FormulaLayer,
    FormulaLayerRow,
    FormulaPicture,
    FormulaRow,
    pictured,
)
from microtome.report.overlay import dim_path, outline_path
from tasks.formulas.work import Inputs
from tasks.pages.shown import Shown
from tasks.result import StageResult
from tasks.scores.findings import doubt_of_iou


def findings(shown: Shown) -> list[FormulaLayer]:
    """Every layer."""
    seen, made = shown.inputs("formulas", Inputs), shown.result("formulas", StageResult)
    return [_layer(shown, seen, made, number) for number in range(len(seen.activations.layers))]


def _layer(shown: Shown, seen: Inputs, made: StageResult, number: int) -> FormulaLayer:
    name = seen.activations.layers[number].name
    (row,) = made.typed("formula_layers", FormulaLayerRow, layer=name)
    units = made.typed("formulas", FormulaRow, layer=name)
    curve = made.typed("formula_curve", CurveRow, layer=name)
    pictures = {}
    if wanted := pictured(units):
        place = {concept: at for at, concept in enumerate(seen.index.concepts.number.tolist())}
        forms = {
            each["unit"]: Form(each["form"], *(place[concept] for concept in each["concept_ids"]))
            for each in made.rows("formulas", layer=name)
        }
        lit = lit_by_unit(seen.tally.lit(seen.index, number), len(units), tiles(seen.index.frame.masks))
        top = seen.thresholds.top_images(name)
        pictures = {
            unit: _pictures(shown, seen, top[unit][:SHOWN_PICTURES], (forms[unit], lit[unit])) for unit in wanted
        }
    return FormulaLayer(row, units, curve, pictures, seen.index.frame.masks, doubt_of_iou(shown, name))


def _pictures(
    shown: Shown, seen: Inputs, top: list[tuple[int, float]], of: tuple[Form, UnitWords]
) -> list[FormulaPicture]:
    """The pictures in which a unit is highest, with what it lights and where its formula holds."""
    index, (formula, lit) = seen.index, of
    shown.thumbnails(index, [image for image, _ in top])
    found = []
    for image, peak in top:
        masks = index.masks(np.array([image]), formula.concepts)[0]
        held = held_on(formula, masks).reshape(index.frame.masks)
        found.append(
            FormulaPicture(
                shown.thumbnail(index, image),
                index.files[image],
                peak,
                dim_path(lit.mask(image, index.frame.masks)),
                outline_path(held) if held.any() else "",
                f"the formula holds on {held.mean():.0%}" if held.any() else "the formula holds nowhere here",
            )
        )
    return found
