"""Page of formulas: the best formula of every unit, whether that is proven, and what of it holds on other pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypedDict

from microtome.quantify.significance import LEVEL
from microtome.report import views
from microtome.report.charts import lines
from microtome.report.words import worded

PAGE = "formulas.html"
SHOWN_ROWS, SHOWN_UNITS, SHOWN_PICTURES = 25, 3, 3


class FormulaRow(TypedDict):
    """What the page reads of a row of the table `formulas`."""

    unit: int
    formula: str | None
    length: int
    iou: float
    iou_low: float | None
    iou_high: float | None
    images: int
    gap: float
    proven: bool
    concept: str | None
    concept_iou: float
    part_iou: float
    heldout_formula: str | None
    chosen_iou: float
    heldout_iou: float
    concept_heldout_iou: float
    heldout_gain: float
    q_value: float | None
    beam_formula: str | None
    beam_iou: float
    beaten: bool


class FormulaLayerRow(TypedDict):
    """What the page reads of a row of the table `formula_layers`."""

    layer: str
    units: int
    proven: int
    proven_share: float
    longer: int
    beaten: int
    beaten_share: float
    beaten_low: float
    beaten_high: float
    beaten_by: float | None
    mean_iou: float
    concept_iou: float
    gain: float
    gain_low: float | None
    gain_high: float | None
    chosen_gain: float
    heldout_gain: float
    heldout_gain_low: float | None
    heldout_gain_high: float | None
    heldout_better: int
    heldout_worse: int
    significant: int | None
    permutations: int
    images: int
    concepts: int
    max_length: int
    pictures: int
    beam: int


class CurveRow(TypedDict):
    """What the page reads of a row of the table `formula_curve`."""

    penalty: float
    length: float
    chosen_iou: float
    heldout_iou: float
    gain: float
    gain_low: float | None
    gain_high: float | None


@dataclass(frozen=True)
class FormulaPicture:
    """A picture in which a unit is high.

    Args:
        thumb: path of its thumbnail.
        file: its name.
        peak: highest value of the unit in it.
        dim: SVG path of what the unit does not light.
        outline: SVG path about where the formula holds; empty where it does not.
        marked: the same in words.
    """

    thumb: str
    file: str
    peak: float
    dim: str
    outline: str
    marked: str


@dataclass(frozen=True)
class FormulaLayer:
    """A layer.

    Args:
        row: of the table `formula_layers`.
        units: its rows of the table `formulas`.
        curve: its rows of the table `formula_curve`.
        pictures: unit -> where it is highest, for the units of `pictured`.
        size: (height, width) of the masks.
        doubt: that IoU does not surely notice wrong labels here; empty where it does, or where nobody tested it.
    """

    row: FormulaLayerRow
    units: Sequence[FormulaRow]
    curve: Sequence[CurveRow]
    pictures: Mapping[int, Sequence[FormulaPicture]]
    size: tuple[int, int]
    doubt: str = ""


def leading(units: Sequence[FormulaRow], most: int) -> list[FormulaRow]:
    """Units of a formula of several concepts: those of the highest IoU on pictures that did not choose it."""
    longer = [unit for unit in units if unit["length"] > 1 and unit["formula"]]
    return sorted(longer, key=lambda unit: (-unit["heldout_iou"], unit["unit"]))[:most]


def pictured(units: Sequence[FormulaRow]) -> list[int]:
    """Units whose pictures are shown."""
    return [unit["unit"] for unit in leading(units, SHOWN_UNITS)]


def page(layers: Sequence[FormulaLayer]) -> views.Page:
    """The page; the last layer leads."""
    last = layers[-1]
    return views.Page(
        name="formulas",
        page=PAGE,
        headline=_headline(last.row),
        figures=_figures(last.row),
        sections=[
            views.Section("Layers", [_layers(layers), *_advice(last.row), *_doubt(last)]),
            *(views.Section(f"The price of length in {layer.row['layer']}", _curve(layer)) for layer in layers),
            *(views.Section(f"Formulas of {layer.row['layer']}", [_units(layer)]) for layer in layers),
            *_pictures(layers),
            _reading(last.row),
        ],
        queries=[
            ("Layers", "select * from formula_layers"),
            ("Units whose formula holds on other pictures", "select * from formulas order by heldout_gain desc"),
            ("Formulas that are not proven", "select * from formulas where not proven order by gap desc"),
        ],
    )


def of_units(layers: Sequence[FormulaLayer]) -> views.Told:
    """The unit's formula, beside its label."""
    return {
        views.UnitKey(layer.row["layer"], unit["unit"]): [views.Section("The best formula", [*_of_unit(layer, unit)])]
        for layer in layers
        for unit in layer.units
        if unit["formula"]
    }


def _of_unit(layer: FormulaLayer, unit: FormulaRow) -> list[views.Part]:
    columns = [("what", False), ("formula", False), ("IoU", True)]
    rows = [
        ["best single concept", unit["concept"] or "none", f"{unit['concept_iou']:.3f}"],
        [f"best of up to {layer.row['max_length']}", unit["formula"] or "none", _with_ends(unit)],
        ["beam search", unit["beam_formula"] or "none", f"{unit['beam_iou']:.3f}"],
        ["chosen on one half, there", unit["heldout_formula"] or "none", f"{unit['chosen_iou']:.3f}"],
        ["the same on the other half", unit["heldout_formula"] or "none", f"{unit['heldout_iou']:.3f}"],
        ["single concept, the same way", "", f"{unit['concept_heldout_iou']:.3f}"],
    ]
    note = f"{_proof(unit)} Over the {unit['images']} pictures in which all of its categories are annotated."
    return [views.Table(columns, rows, note), views.Links([("The page of formulas", PAGE)])]


def _proof(unit: FormulaRow) -> str:
    if unit["proven"]:
        return "No formula has a higher IoU: proven."
    return f"A formula may have an IoU that is higher by up to {unit['gap']:.3f}."


def _headline(row: FormulaLayerRow) -> str:
    units, length = row["units"], row["max_length"]
    proof = f"all {units}" if row["proven"] == units else f"{row['proven']} of {units}"
    low, high = row["heldout_gain_low"], row["heldout_gain_high"]
    held = f"{row['heldout_gain']:+.4f} {_span(low, high, '+.4f')}".strip()
    if low is not None and high is not None and low <= 0 <= high:
        verdict = "not surely more than a single concept"
    else:
        verdict = "more than a single concept" if row["heldout_gain"] > 0 else "less than a single concept"
    return (
        f"The best formula of up to {length} concepts is proven for {proof} units of {row['layer']}. It "
        f"gains {row['chosen_gain']:.4f} of IoU over the best single concept on the half of the pictures that chose "
        f"both, and {held} on the other half: {verdict}. A beam search of width {row['beam']} misses the best in "
        f"{row['beaten_share']:.0%} of the units."
    )


def _figures(row: FormulaLayerRow) -> views.Figures:
    held, low, high = row["heldout_gain"], row["heldout_gain_low"], row["heldout_gain_high"]
    beaten = f"95 %: {row['beaten_low']:.0%} to {row['beaten_high']:.0%} of units"
    return views.Figures(
        [
            ("proven", f"{row['proven_share']:.0%}", f"of {row['units']} units"),
            ("IoU gained", f"{row['gain']:+.4f}", "over the label, on the pictures that chose"),
            (
                "on other pictures",
                f"{held:+.4f}",
                "" if low is None or high is None else f"95 %: {low:+.4f} to {high:+.4f}",
            ),
            ("beam search beaten", f"{row['beaten_share']:.0%}", beaten),
            ("beyond chance", worded(row["significant"], "d"), f"of {row['units']} units, q ≤ {LEVEL:g}"),
        ]
    )


def _span(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def _layers(layers: Sequence[FormulaLayer]) -> views.Table:
    names = ("proven", "of several", "mean IoU", "concept", "gain, 95 %", "held out, 95 %", "better, worse")
    rows: list[list[views.Cell]] = [
        [
            layer.row["layer"],
            f"{layer.row['proven']} of {layer.row['units']}",
            str(layer.row["longer"]),
            f"{layer.row['mean_iou']:.4f}",
            f"{layer.row['concept_iou']:.4f}",
            f"{layer.row['gain']:+.4f} {_span(layer.row['gain_low'], layer.row['gain_high'], '+.4f')}",
            f"{layer.row['heldout_gain']:+.4f} "
            f"{_span(layer.row['heldout_gain_low'], layer.row['heldout_gain_high'], '+.4f')}",
            f"{layer.row['heldout_better']}, {layer.row['heldout_worse']}",
            f"{layer.row['beaten_share']:.0%} {_span(layer.row['beaten_low'], layer.row['beaten_high'], '.0%')}",
        ]
        for layer in layers
    ]
    note = (
        "Of several: units whose best formula has more than one concept. Gain: of mean IoU over the best single "
        "concepts, on the pictures that chose both. Held out: the same on one half of the pictures, of formulas and "
        "concepts that the other half chose; better and worse count units. Beam beaten: units in which a beam search "
        "misses the best."
    )
    return views.Table([("layer", False), *((name, True) for name in (*names, "beam beaten"))], rows, note)


def _advice(row: FormulaLayerRow) -> list[views.Text]:
    if row["proven"] < row["units"]:
        text = (
            "Some searches ended before they were done: their rows say by how much at most a formula could be better."
        )
        return [views.Text(f"{text} More `effort` would settle them.", "advice")]
    if not row["permutations"]:
        return [views.Text("Without permutations in `dissection` nothing says what chance alone would find.", "advice")]
    return []


def _doubt(layer: FormulaLayer) -> list[views.Text]:
    return [views.Text(layer.doubt, "advice")] if layer.doubt else []


def _curve(layer: FormulaLayer) -> list[views.Part]:
    points = [(1000 * row["penalty"], row["chosen_iou"], row["heldout_iou"]) for row in layer.curve]
    named = [{"x": x, "y": y, "line": "on the half that chose"} for x, y, _ in points]
    named += [{"x": x, "y": y, "line": "on the other half"} for x, _, y in points]
    columns = [
        ("penalty", False),
        ("concepts", True),
        ("IoU, that chose", True),
        ("other half", True),
        ("gain, 95 %", True),
    ]
    rows = [
        [
            f"{row['penalty']:g}",
            f"{row['length']:.2f}",
            f"{row['chosen_iou']:.4f}",
            f"{row['heldout_iou']:.4f}",
            f"{row['gain']:+.4f} {_span(row['gain_low'], row['gain_high'], '+.4f')}",
        ]
        for row in layer.curve
    ]
    note = (
        "Penalty: IoU that each concept after the first must gain for a longer formula to be taken. Concepts: their "
        "mean number. Gain: on the other half, over the best single concepts, chosen on the same half."
    )
    return [views.Charts([lines("mean IoU", named, "penalty, thousandths of IoU")]), views.Table(columns, rows, note)]


def _with_ends(unit: FormulaRow) -> str:
    return f"{unit['iou']:.3f} {_span(unit['iou_low'], unit['iou_high'], '.3f')}".strip()


def _units(layer: FormulaLayer) -> views.Table:
    names = ("IoU, 95 %", "pictures", "its best part there", "held out", "concept held out", "q")
    columns = [("unit", False), ("formula", False), *((name, True) for name in names)]
    rows: list[list[views.Cell]] = [
        [
            views.UnitKey(layer.row["layer"], unit["unit"]),
            unit["formula"] or "none",
            _with_ends(unit),
            str(unit["images"]),
            f"{unit['part_iou']:.3f}",
            f"{unit['heldout_iou']:.3f}",
            f"{unit['concept_heldout_iou']:.3f}",
            worded(unit["q_value"], ".2g"),
            unit["concept"] or "none",
            f"{unit['concept_iou']:.3f}",
            unit["beam_formula"] or "none" if unit["beaten"] else "the same IoU",
        ]
        for unit in leading(layer.units, SHOWN_ROWS)
    ]
    note = (
        "The highest held-out IoU first. Its best part there: the best of the formula's own concepts over the same "
        "pictures; what the formula has above it, the logic gains, and the rest is the choice of pictures. Held out: "
        "IoU on one half of the formula that the other half chose, which need not be the one shown."
    )
    return views.Table([*columns, ("label", False), ("its IoU", True), ("beam search", False)], rows, note)


def _pictures(layers: Sequence[FormulaLayer]) -> list[views.Section]:
    """Of some units of each layer; pictures are numbered through the page."""
    number, sections = count(1), []
    for layer in layers:
        rows = {unit["unit"]: unit for unit in layer.units}
        for unit in pictured(layer.units):
            row, plates = rows[unit], [_plate(picture, next(number)) for picture in layer.pictures.get(unit, ())]
            if plates:
                text = f"IoU {_with_ends(row)}; its label, {row['concept']}, has {row['concept_iou']:.3f}."
                parts: list[views.Part] = [views.Text(text, "quiet"), views.Plates(plates, layer.size, "the formula")]
                title = f"Unit {unit} of {layer.row['layer']}: {row['formula']}"
                sections.append(views.Section(title, parts))
    return sections


def _plate(picture: FormulaPicture, number: int) -> views.Plate:
    told = f"peak {picture.peak:.3g}; {picture.marked}"
    return views.Plate(picture.thumb, picture.file, number, told, picture.dim, picture.outline)


def _reading(row: FormulaLayerRow) -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                "A formula is built from the left: a concept, then “and”, “or” or “and not” another one. Its IoU is "
                "counted over the pictures in which every category of its concepts is annotated. That is another set "
                "of pictures than a single concept's, so that a formula may gain by the choice of pictures alone: the "
                f"column of its best part says how much. Formulas of fewer than {row['pictures']} such pictures are "
                "left out."
            ),
            views.Text(
                "The best of millions of formulas fits the pictures that chose it better than any others. What it "
                "gains on the half that did not choose it is what to believe. q: how often the best formula of "
                "exchanged annotations reaches the unit's IoU, over the same exchanges as in the dissection; a low bar."
            ),
        ],
    )
