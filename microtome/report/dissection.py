"""Pages of a dissection: a layer each, its units with their top images and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from microtome.quantify.dissection import NEAREST
from microtome.quantify.significance import LEVEL
from microtome.report import views
from microtome.report.ablation import causal_words
from microtome.report.charts import concept_bars, histogram
from microtome.report.words import worded


@dataclass(frozen=True)
class TopImage:
    """A picture in which a unit is high.

    Args:
        thumb: path of the thumbnail.
        file: name of the picture.
        rank: from zero, the highest first.
        peak: highest value of the unit in it.
        dim: SVG path of what the unit does not light, in mask pixels.
        outline: SVG path about what is annotated as its label, in mask pixels; empty where nothing is.
        marked: what is annotated, or that nothing is.
        others: numbers of other units in whose top images it is, too.
    """

    thumb: str
    file: str
    rank: int
    peak: float
    dim: str
    outline: str = ""
    marked: str = ""
    others: Sequence[int] = ()


class NearestRow(TypedDict):
    """What pages read of a row of the table `nearest`."""

    concept: str
    category: str
    iou: float
    iou_low: float | None
    iou_high: float | None


class HistogramRow(TypedDict):
    """What pages read of a row of the table `histograms`."""

    start: float
    width: float
    counts: Sequence[int]


class UnitRow(TypedDict):
    """What pages read of a row of the table `units`."""

    layer: str
    unit: int
    threshold: float
    concept: str | None
    category: str | None
    iou: float
    iou_low: float | None
    iou_high: float | None
    null_p95: float | None
    p_value: float | None
    p_value_across: float | None
    q_value: float | None
    heldout_iou: float | None
    label_stability: float | None
    detector: bool
    confirmed: bool | None
    reason: str | None
    causal_class: str | None
    causal_drop: float | None
    causal_low: float | None
    causal_high: float | None
    causal_random: float | None


class LayerRow(TypedDict):
    """What pages read of a row of the table `layers`."""

    layer: str
    units: int
    confirmed: int | None
    confirmed_low: float | None
    confirmed_high: float | None
    detectors: int
    detectors_low: float | None
    detectors_high: float | None
    unique_per_category: int
    unique_low: float | None
    unique_high: float | None
    unique_per_unit: int
    unique_per_unit_low: float | None
    unique_per_unit_high: float | None
    detectors_redrawn_low: float | None
    detectors_redrawn_high: float | None
    unique_redrawn_low: float | None
    unique_redrawn_high: float | None
    unique_per_unit_redrawn_low: float | None
    unique_per_unit_redrawn_high: float | None
    significant: int | None
    significant_across: int | None
    strata: int
    saturated: int
    dead: int
    mean_iou: float
    min_iou: float
    images: int
    permutations: int
    permutations_needed: int
    rows: int
    columns: int
    jump_row: float
    field_row: float
    is_global: bool
    apart: int


@dataclass(frozen=True)
class DissectedLayer:
    """What a dissection found of a layer.

    Args:
        summary: the layer's row of the table `layers`.
        units: its rows of the table `units`.
        top: unit -> its top images.
        mask: (height, width) of the masks.
        sheets: unit -> path of the masks over its top images, as one picture.
        nearest: unit -> its nearest concepts, the label first.
        histograms: unit -> its values.
        doubt: that IoU does not surely notice wrong labels here; empty where it does, or where nobody tested it.
    """

    summary: LayerRow
    units: Sequence[UnitRow]
    top: Mapping[int, Sequence[TopImage]]
    mask: tuple[int, int]
    sheets: Mapping[int, str] = field(default_factory=dict)
    nearest: Mapping[int, Sequence[NearestRow]] = field(default_factory=dict)
    histograms: Mapping[int, HistogramRow] = field(default_factory=dict)
    doubt: str = ""


def pages(layers: Sequence[DissectedLayer]) -> list[views.Layer]:
    """A page per layer."""
    return [_layer(number, layer) for number, layer in enumerate(layers)]


def layer_page(number: int) -> str:
    """File name of a layer's page."""
    return f"layer-{number:03d}.html"


def _layer(number: int, layer: DissectedLayer) -> views.Layer:
    row, units = layer.summary, layer.units
    widest = max(max(unit["iou_high"] or unit["iou"] for unit in units), 2 * row["min_iou"])
    cards = [_unit(unit, layer, widest) for unit in units]
    return views.Layer(
        name=row["layer"],
        page=layer_page(number),
        headline=_headline(row),
        figures=_figures(row),
        charts=_charts(units),
        units=sorted(cards, key=lambda card: (-card.iou_sort, card.number)),
        categories=sorted({card.category for card in cards if card.category}),
        advice=[*_advice(row), *filter(None, [layer.doubt])],
        mask=layer.mask,
    )


def _unit(row: UnitRow, found: DissectedLayer, widest: float) -> views.Unit:
    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * min(value / widest, 1.0), 2)

    layer = found.summary
    low, high = row["iou_low"], row["iou_high"]
    return views.Unit(
        number=row["unit"],
        anchor=f"{row['layer']}/{row['unit']}",
        concept=row["concept"] or "",
        category=row["category"] or "",
        detector=row["detector"],
        confirmed=row["confirmed"],
        iou=f"{row['iou']:.3f}",
        interval="" if low is None else f"[{low:.3f}, {high:.3f}]",
        facts=_facts(row, mixed=layer["strata"] > 1),
        scale=views.IouScale(
            place(row["iou"]) or 0.0, place(low), place(high), place(row["null_p95"]), place(layer["min_iou"]) or 0.0
        ),
        pictures=[views.Picture(item.thumb, item.file) for item in found.top.get(row["unit"], ())],
        reason=row["reason"] or "",
        iou_sort=row["iou"],
        q_sort=1.0 if row["q_value"] is None else row["q_value"],
        masks=found.sheets.get(row["unit"], ""),
        causal=_causal(row),
    )


def _causal(row: UnitRow) -> str:
    """What the network loses without it, where that was asked for."""
    drop, low, high = row["causal_drop"], row["causal_low"], row["causal_high"]
    if drop is None or low is None or high is None:
        return ""
    return causal_words(row["causal_class"], drop, (low, high), row["causal_random"])


def of_units(layers: Sequence[DissectedLayer]) -> views.Told:
    """Of each unit: where it is highest, its nearest concepts, its values."""
    return {
        views.UnitKey(layer.summary["layer"], row["unit"]): [
            *_highest(row, layer),
            *_nearest(row, layer),
            *_values(row, layer),
        ]
        for layer in layers
        for row in layer.units
    }


def _highest(row: UnitRow, layer: DissectedLayer) -> Iterator[views.Section]:
    top, name = layer.top.get(row["unit"], ()), layer.summary["layer"]
    plates = [
        views.Plate(
            item.thumb,
            item.file,
            item.rank + 1,
            _peak(item.peak),
            item.dim,
            item.outline,
            item.marked,
            [views.UnitKey(name, other) for other in item.others],
        )
        for item in top
    ]
    if plates:
        text = (
            "The pictures in which its highest value is highest of all. Its mask is where it lies above its threshold; "
            "all else is dimmed."
        )
        label = row["concept"] or ""
        yield views.Section("Where it is highest", [views.Text(text, "quiet"), views.Plates(plates, layer.mask, label)])


def _peak(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _nearest(row: UnitRow, layer: DissectedLayer) -> Iterator[views.Section]:
    rows = layer.nearest.get(row["unit"], ())
    if not rows:
        return
    chance, limit, held = row["null_p95"], layer.summary["min_iou"], row["heldout_iou"]
    ends = [value for item in rows for value in (item["iou_high"], item["iou"]) if value is not None]
    widest = 1.05 * max([*ends, limit, chance or 0.0, held or 0.0])
    columns = [("concept", False), ("of", False), ("IoU", True), ("95 %", True), ("", False)]
    lines: list[Sequence[views.Cell]] = [
        [
            item["concept"],
            item["category"],
            f"{item['iou']:.3f}",
            _between(item),
            _strip(item, row, limit, widest, label=place == 0),
        ]
        for place, item in enumerate(rows)
    ]
    note = (
        "IoU: pixels in both the unit's mask and the concept's annotation, over pixels in either, over all pictures. "
        f"On each line: the bar is the IoU, the band its 95 % interval over pictures; the grey mark is the limit of "
        f"{limit:g} above which a unit is a detector"
        + (
            "; the strong mark is what its best label reaches by chance in 95 % of exchanges"
            if chance is not None
            else ""
        )
        + (
            "; the green mark, on the label's line, is the IoU on pictures that did not choose the label"
            if held
            else ""
        )
        + "."
        + (" All other concepts have an IoU of 0: its mask nowhere meets them." if len(rows) < NEAREST else "")
    )
    yield views.Section("Nearest concepts", [views.Table(columns, lines, note)])


def _between(row: NearestRow) -> str:
    return "–" if row["iou_low"] is None else f"[{row['iou_low']:.3f}, {row['iou_high']:.3f}]"


def _strip(item: NearestRow, row: UnitRow, limit: float, widest: float, *, label: bool) -> views.Strip:
    def at(value: float) -> float:
        return round(100 * value / widest, 2)

    low, high = item["iou_low"], item["iou_high"]
    marks = [(at(limit), "limit", f"limit {limit:g}")]
    if row["null_p95"] is not None:
        marks.append((at(row["null_p95"]), "luck", f"chance {row['null_p95']:.3f}"))
    if row["heldout_iou"] and label:
        marks.append((at(row["heldout_iou"]), "aim", f"held out {row['heldout_iou']:.3f}"))
    text = f"IoU {item['iou']:.3f}, 95 % {_between(item)}"
    return views.Strip(
        at(item["iou"]), None if low is None else at(low), None if high is None else at(high), marks, text
    )


def _values(row: UnitRow, layer: DissectedLayer) -> Iterator[views.Section]:
    found = layer.histograms.get(row["unit"])
    if found:
        text = (
            "How often the unit has which value, over all places of all pictures. Heights are logarithmic: what lies "
            "above the threshold, the unit's mask, is a small share."
        )
        drawn = histogram(found["start"], found["width"], found["counts"], row["threshold"])
        yield views.Section("Its values", [views.Text(text, "quiet"), views.Charts([drawn])])


def _facts(row: UnitRow, *, mixed: bool) -> list[tuple[str, str, str]]:
    across = ("p across", worded(row["p_value_across"], ".2g"), "the same, annotations exchanged across sources, too")
    return [
        (
            "held out",
            worded(row["heldout_iou"], ".3f"),
            "IoU on one half of the pictures of the label that wins on the other half",
        ),
        (
            "null 95 %",
            worded(row["null_p95"], ".3f"),
            "IoU that the best label reaches by chance: in 95 % of exchanges of annotations it is lower",
        ),
        (
            "q",
            worded(row["q_value"], ".2g"),
            "share of false discoveries if this unit and all better ones of the layer are believed",
        ),
        (
            "stability",
            worded(row["label_stability"], ".0%"),
            "share of redrawn sets of pictures in which the same label wins",
        ),
        (
            "threshold",
            worded(row["threshold"], ".3g"),
            "value above which its mask begins; it exceeds it in a small, given share of all places",
        ),
        (
            "p",
            worded(row["p_value"], ".2g"),
            "how often exchanged annotations, within one source, do as well: (1 + as good ones) / (1 + exchanges)",
        ),
        *([across] if mixed else []),
    ]


def _headline(row: LayerRow) -> str:
    units, sure = row["units"], _within(row["confirmed_low"], row["confirmed_high"])
    raw = (
        f"{row['detectors']} of {units} units{_within(row['detectors_low'], row['detectors_high'])} lie above "
        f"IoU {row['min_iou']:g} over {row['images']:,} images"
    )
    if row["detectors"]:
        concepts = row["unique_per_unit"]
        raw += f"; their labels are {concepts} different concepts" if concepts > 1 else "; their label is one concept"
    if row["confirmed"] is None:
        return f"{raw}. Without permutations none is confirmed."
    return (
        f"{row['confirmed']} of {units} units{sure} are confirmed detectors: they pass on the images that did not "
        f"choose their label, and chance does not reach them (q ≤ {LEVEL:g}). Luck included, {raw}."
    )


def _within(low: float | None, high: float | None) -> str:
    """The interval of a count, in a sentence."""
    return "" if low is None or high is None else f" (95 % interval {low:.0f} to {high:.0f})"


def _figures(row: LayerRow) -> list[tuple[str, str, str]]:
    def between(
        low: float | None, high: float | None, *, anew: tuple[float | None, float | None] = (None, None)
    ) -> str:
        held = "" if low is None or high is None else f"95 %: {low:.0f} to {high:.0f}"
        redrawn = "" if None in anew else f"thresholds estimated anew: {anew[0]:.0f} to {anew[1]:.0f}"
        return "; ".join(filter(None, [held, redrawn]))

    raw = row["detectors_redrawn_low"], row["detectors_redrawn_high"]
    unique = row["unique_redrawn_low"], row["unique_redrawn_high"]
    per_unit = row["unique_per_unit_redrawn_low"], row["unique_per_unit_redrawn_high"]
    firm = "–" if row["confirmed"] is None else str(row["confirmed"])
    unasked = "not asked for" if row["confirmed"] is None else ""
    return [
        ("confirmed detectors", firm, between(row["confirmed_low"], row["confirmed_high"]) or unasked),
        ("detectors, raw", str(row["detectors"]), between(row["detectors_low"], row["detectors_high"], anew=raw)),
        (
            "unique, per category",
            str(row["unique_per_category"]),
            between(row["unique_low"], row["unique_high"], anew=unique),
        ),
        (
            "unique, per unit",
            str(row["unique_per_unit"]),
            between(row["unique_per_unit_low"], row["unique_per_unit_high"], anew=per_unit),
        ),
        ("beyond chance", "–" if row["significant"] is None else str(row["significant"]), _chance(row)),
        ("mean best IoU", f"{row['mean_iou']:.4f}", ""),
        (
            "receptive field",
            f"{row['field_row']:g} px",
            f"every {row['jump_row']:g} px, {row['rows']} × {row['columns']} cells",
        ),
    ]


def _chance(row: LayerRow) -> str:
    if row["significant"] is None:
        return "not asked for"
    within = f"of {row['units']} units of whatever IoU, at q ≤ 0.05"
    if row["strata"] == 1:
        return within
    return f"{within}, within {row['strata']} strata; {row['significant_across']} across them"


def _advice(row: LayerRow) -> list[str]:
    advice = []
    if row["saturated"]:
        advice.append(
            f"{_units(row['saturated'])} saturated: the threshold is the maximum, so nothing lies above it. "
            "Dissect the layer before the activation instead."
        )
    if row["dead"]:
        advice.append(f"{_units(row['dead'])} dead: the same value everywhere, in every picture.")
    if row["permutations_needed"] > row["permutations"]:
        advice.append(
            f"With {row['permutations']} permutations no q-value here can fall to 0.05; "
            f"{row['permutations_needed']} would allow it."
        )
    if row["is_global"]:
        advice.append(
            "Something before this layer mixes all positions (attention, pooled gates): its units see the whole "
            "picture, and the receptive field above leaves that out."
        )
    if row["apart"]:
        tokens = "One token lies" if row["apart"] == 1 else f"{row['apart']} tokens lie"
        advice.append(
            f"{tokens} at no place of the picture (class token, registers): set apart, and in none of the maps here."
        )
    return advice


def _units(count: int) -> str:
    return f"{count} unit is" if count == 1 else f"{count} units are"


def _charts(units: Sequence[UnitRow]) -> list[views.Chart]:
    counted: dict[str, Counter[str]] = {}
    for unit in units:
        if unit["detector"] and unit["category"] and unit["concept"]:  # every detector has a label
            counted.setdefault(unit["category"], Counter())[unit["concept"]] += 1
    most = max((count for counts in counted.values() for count in counts.values()), default=1)
    return [
        concept_bars(category, sorted(counts.items(), key=lambda item: (-item[1], item[0])), most)
        for category, counts in sorted(counted.items())
    ]
