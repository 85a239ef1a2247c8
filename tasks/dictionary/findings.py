"""What the report shows of dictionaries."""

from __future__ import annotations

import numpy as np

from microtome.quantify.formulas.words import UnitWords, lit_by_unit
from microtome.quantify.words import tiles
from microtome.report import views
from microtome.report.dictionary import (
    SHOWN_PICTURES,
    BasisRow,
    DictionaryLayer,
    DirectionRow,
    SteadyRow,
    pictured,
)
from microtome.report.overlay import dim_path, outline_path
from tasks.dictionary.work import Inputs
from tasks.directions.result import bases
from tasks.pages.shown import Shown
from tasks.result import StageResult
from tasks.scores.findings import doubt_of_iou


def findings(shown: Shown) -> list[DictionaryLayer]:
    """Every layer."""
    seen, made = shown.inputs("dictionary", Inputs), shown.result("dictionary", StageResult)
    return [_layer(shown, seen, made, number) for number in range(len(seen.activations.layers))]


def _layer(shown: Shown, seen: Inputs, made: StageResult, number: int) -> DictionaryLayer:
    name = seen.activations.layers[number].name
    steady = made.typed("dictionary_stability", SteadyRow, layer=name)
    directions = made.typed("dictionary", DirectionRow, layer=name)
    labels = {(row["basis"], row["direction"]): row["concept_id"] for row in made.rows("dictionary", layer=name)}
    wanted = pictured(directions, [row["method"] for row in steady])
    plates: dict[tuple[str, int], list[views.Plate]] = {}
    for place, fit in enumerate(bases(seen.directions.options)):
        mine = [direction for basis, direction in wanted if basis == fit.basis]
        if mine:
            along = seen.place(number, place)
            layer = seen.projected.layers[along]
            lit = lit_by_unit(seen.tally_along.lit(seen.index, along), layer.units, tiles(seen.index.frame.masks))
            top = seen.thresholds_along.top_images(layer.name)
            for direction in mine:
                images = top[direction][:SHOWN_PICTURES]
                concept = int(np.searchsorted(seen.index.concepts.number, labels[fit.basis, direction]))
                plates[fit.basis, direction] = _plates(shown, seen, images, (concept, lit[direction]))
    return DictionaryLayer(
        made.typed("dictionary_bases", BasisRow, layer=name),
        steady,
        directions,
        plates,
        seen.index.frame.masks,
        doubt_of_iou(shown, name),
    )


def _plates(shown: Shown, seen: Inputs, top: list[tuple[int, float]], of: tuple[int, UnitWords]) -> list[views.Plate]:
    """The pictures in which a direction is highest, with what it lights and its label's annotation."""
    index, (concept, lit) = seen.index, of
    shown.thumbnails(index, [image for image, _ in top])
    name, found = index.concepts.name[concept], []
    for image, peak in top:
        held = index.masks(np.array([image]), [concept])[0, 0].reshape(index.frame.masks)
        marked = f"{name} annotated on {held.mean():.0%}" if held.any() else f"no {name} annotated here"
        found.append(
            views.Plate(
                shown.thumbnail(index, image),
                index.files[image],
                0,  # the page numbers its pictures
                f"peak {peak:.3g}; {marked}",
                dim_path(lit.mask(image, index.frame.masks)),
                outline_path(held) if held.any() else "",
            )
        )
    return found
