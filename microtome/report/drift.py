"""Page of drift: the same units of two networks, and which of them changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict
from urllib.parse import quote

from microtome.quantify.significance import LEVEL
from microtome.report import views
from microtome.report.words import change, overlap, worded

SHOWN_ROWS, SHOWN_UNITS = 16, 8
PAGE = "drift.html"


class DriftUnitRow(TypedDict):
    """What the page reads of a row of the table `drift_units`."""

    unit: int
    concept_before: str | None
    concept_after: str | None
    changed: bool
    iou_before: float
    iou_after: float
    kept_iou: float
    change: float | None
    change_low: float | None
    change_high: float | None
    q_value: float | None
    best_change: float
    threshold_before: float
    threshold_after: float
    threshold_change: float | None


class DriftLayerRow(TypedDict):
    """What the page reads of a row of the table `drift_layers`."""

    layer: str
    units: int
    images: int
    changed_share: float
    changed_low: float | None
    changed_high: float | None
    random_share: float | None
    redrawn_share: float | None
    detectors_before: int
    detectors_after: int
    kept: int
    lost: int
    gained: int
    kept_share: float | None
    kept_low: float | None
    kept_high: float | None
    lost_share: float | None
    gained_share: float | None
    change: float | None
    change_low: float | None
    change_high: float | None
    best_change: float
    best_change_low: float | None
    best_change_high: float | None
    risen: int | None
    fallen: int | None
    threshold_change: float | None
    min_iou: float
    bootstrap: int
    bootstrap_needed: int


@dataclass(frozen=True)
class UnitPicture:
    """A picture in which a unit is high: path of its thumbnail, its name, and the unit's highest value in it."""

    thumb: str
    file: str
    peak: float


@dataclass(frozen=True)
class UnitPictures:
    """The pictures in which a unit is highest, in each network."""

    before: Sequence[UnitPicture]
    after: Sequence[UnitPicture]


@dataclass(frozen=True)
class DriftedLayer:
    """A layer in both networks.

    Args:
        row: of the table `drift_layers`.
        units: its rows of the table `drift_units`.
        top: unit -> its top images.
    """

    row: DriftLayerRow
    units: Sequence[DriftUnitRow]
    top: Mapping[int, UnitPictures]

    @property
    def same(self) -> bool:
        """Whether no unit differs in anything."""
        return not any(
            unit["changed"]
            or unit["iou_before"] != unit["iou_after"]
            or unit["threshold_before"] != unit["threshold_after"]
            for unit in self.units
        )


@dataclass(frozen=True)
class Drifted:
    """Two networks: what the page calls them, the layers that both have, and what tables call the second one."""

    before: str
    after: str
    layers: Sequence[DriftedLayer]
    short: str = ""


@dataclass(frozen=True)
class DriftFindings:
    """What the stage found.

    Args:
        pairs: of networks, one at least; the first is the one that is asked about, others are its controls.
        size: (height, width) of the frame.
        doubt: that IoU does not surely notice wrong labels here; empty where it does, or where nobody tested it.
    """

    pairs: Sequence[Drifted]
    size: tuple[int, int]
    doubt: str = ""


def leading(units: Sequence[DriftUnitRow], count: int) -> list[DriftUnitRow]:
    """The units that changed most: those that surely did first, then by how much; none that did not change."""
    moved = [unit for unit in units if unit["changed"] or _moved(unit)]
    return sorted(moved, key=lambda unit: (not _sure(unit), -_moved(unit), unit["unit"]))[:count]


def _moved(unit: DriftUnitRow) -> float:
    """Of the label before; of the best IoU where there was none."""
    return abs(unit["best_change"] if unit["change"] is None else unit["change"])


def _sure(unit: DriftUnitRow) -> bool:
    return unit["q_value"] is not None and unit["q_value"] <= LEVEL


def page(findings: DriftFindings) -> views.Page:
    """The page."""
    first = findings.pairs[0]
    drifted = [layer for layer in first.layers if not layer.same]
    most = max(drifted or first.layers, key=_beyond_redrawing)
    return views.Page(
        name="drift",
        page=PAGE,
        headline=_headline(first, most),
        figures=_figures(most.row),
        sections=[
            views.Section("Layers", [named(first), *layer_tables(findings.pairs), *advice(first), *_doubt(findings)]),
            *(changed_gallery(layer, findings.size) for layer in drifted),
            *(changed_units(layer) for layer in drifted),
            _reading(),
        ],
        queries=[
            ("Layers", "select * from drift_layers"),
            ("Units that lost their concept", "select * from drift_units where q_value <= 0.05 order by change"),
        ],
    )


def _doubt(findings: DriftFindings) -> list[views.Text]:
    return [views.Text(findings.doubt, "advice")] if findings.doubt else []


def of_units(findings: DriftFindings) -> views.Told:
    """The same unit in the other networks."""
    told: dict[views.UnitKey, list[views.Section]] = {}
    for layer in findings.pairs[0].layers:
        for unit in layer.units:
            key = views.UnitKey(layer.row["layer"], unit["unit"])
            others = [(pair, found) for pair in findings.pairs if (found := _same_unit(pair, key))]
            told[key] = [views.Section("The same unit elsewhere", [*_elsewhere(key, others, findings.size)])]
    return told


def _same_unit(pair: Drifted, key: views.UnitKey) -> tuple[DriftUnitRow, UnitPictures | None] | None:
    for layer in pair.layers:
        if layer.row["layer"] == key.layer:
            unit = next((unit for unit in layer.units if unit["unit"] == key.number), None)
            return None if unit is None else (unit, layer.top.get(key.number))
    return None


def _elsewhere(
    key: views.UnitKey,
    others: Sequence[tuple[Drifted, tuple[DriftUnitRow, UnitPictures | None]]],
    size: tuple[int, int],
) -> Iterator[views.Part]:
    columns = [("before → after", False), ("label", False), ("its IoU", True), ("change, 95 %", True), ("q", True)]
    columns += [("threshold moved", True)]
    lines = []
    for pair, (unit, _) in others:
        told = _line(unit, 1.0)[:-1]
        lines.append([f"{pair.before} → {pair.after}", *told, _minus(worded(unit["threshold_change"], "+.2f"))])
    note = (
        "The unit of the same number in two networks, over the same pictures. IoU: of the label before; its change "
        "with a paired interval over pictures; q: the share of false discoveries if it is believed. Threshold moved: "
        "in standard deviations of the unit's values."
    )
    yield views.Table(columns, lines, note)
    cards = [
        replace(
            _card(unit, top, key, size), title=f"{pair.before} → {pair.after}", unit=None, anchor=f"elsewhere-{place}"
        )
        for place, (pair, (unit, top)) in enumerate(others)
        if top
    ]
    if cards:
        yield views.Gallery(cards)
    yield views.Links([("The page of drift", PAGE)])


def _beyond_redrawing(layer: DriftedLayer) -> float:
    return layer.row["changed_share"] - (layer.row["redrawn_share"] or 0.0)


def _headline(pair: Drifted, most: DriftedLayer) -> str:
    """The verdict, on the layer that changed most."""
    if all(layer.same for layer in pair.layers):
        units = sum(layer.row["units"] for layer in pair.layers)
        return f"Nothing drifted: the labels, IoUs and thresholds of all {units} units are equal in both networks."
    return f"{_verdict(most.row)}\n{_kept(most.row)}"


def _verdict(row: DriftLayerRow) -> str:
    layer, units, by_chance, redrawn = row["layer"], row["units"], row["random_share"], row["redrawn_share"]
    changed, low, high = row["changed_share"], row["changed_low"], row["changed_high"]
    if not changed:
        up_to = "" if high is None else f" (95 %: up to {high:.0%} carry another)"
        return f"The labels of {layer} hold: each of its {units} units carries the same one in both networks{up_to}."
    between = _between(low, high, ".0%")
    share = f"{changed:.0%}{' ' + between if between else ''} of its {units} units carry another label"
    if redrawn is not None and (changed if low is None else low) <= redrawn:
        more = "no more" if changed <= redrawn else "perhaps no more"
        return (
            f"The labels of {layer} changed {more} than redrawing the pictures would change them: {share}, "
            f"beside {redrawn:.0%} within the network before."
        )
    if by_chance is not None and (changed if high is None else high) >= by_chance:
        return (
            f"Unit numbers no longer mean the same in {layer}: {share}, about as many as where units are paired at "
            f"random ({by_chance:.0%})."
        )
    beside = "" if redrawn is None else f", where redrawing the pictures would relabel {redrawn:.0%}"
    return f"{layer} drifted: {share}{beside}."


def _kept(row: DriftLayerRow) -> str:
    """What became of the detectors, and of the IoU."""
    before, lost = row["detectors_before"], row["lost"]
    if not before:
        return f"It had no detector at IoU > {row['min_iou']:g}, and has {row['detectors_after']}."
    gone = f"{lost} detect nothing any more" if lost else "none is lost"
    text = f"{row['kept']} of its {before} detectors still detect their concept, {gone}"
    if row["fallen"] is None:
        return f"{text}."
    if row["bootstrap_needed"] > row["bootstrap"]:
        return f"{text}; with so few resamples no unit's change of IoU can be sure."
    return f"{text}; the IoU of the label before fell in {row['fallen']} units, rose in {row['risen']} (q ≤ {LEVEL:g})."


def _figures(row: DriftLayerRow) -> views.Figures:
    """What became of the labels, beside what chance and other pictures make of them, and the mean change of IoU."""
    return views.Figures(
        [
            ("another label", f"{row['changed_share']:.0%}", _ends(row["changed_low"], row["changed_high"], ".0%")),
            ("if pictures are redrawn", worded(row["redrawn_share"], ".0%"), "change by that alone, before"),
            ("in random pairs", worded(row["random_share"], ".0%"), "of different units differ"),
            ("IoU of the best labels", change(row["best_change"]), _changes(row)),
        ]
    )


def _changes(row: DriftLayerRow) -> str:
    """The interval of the mean change of IoU."""
    between = change(row["best_change"], row["best_change_low"], row["best_change_high"]).partition(" ")[2]
    return f"mean change{', 95 %: ' * bool(between)}{between}"


def _ends(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f"95 %: {low:{form}} to {high:{form}}"


def _between(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def named(pair: Drifted) -> views.Text:
    """Which network is which."""
    images = pair.layers[0].row["images"]
    return views.Text(f"Before: {pair.before}. After: {pair.after}. Over the same {images:,} pictures.", "quiet")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def layer_tables(pairs: Sequence[Drifted]) -> list[views.Table]:
    """Labels, detectors and IoUs of every layer."""
    named = [
        (layer.row["layer"] if len(pairs) == 1 else f"{layer.row['layer']}, {pair.short or pair.after}", layer.row)
        for pair in pairs
        for layer in pair.layers
    ]
    return [_label_table(named), views.upright(_detector_table(named)), views.upright(_iou_table(named))]


def change_tables(layer: DriftedLayer) -> list[views.Table]:
    """Detectors and IoUs of a layer, whose labels are told otherwise."""
    named = [(layer.row["layer"], layer.row)]
    return [views.upright(_detector_table(named)), views.upright(_iou_table(named))]


def _label_table(named: Sequence[tuple[str, DriftLayerRow]]) -> views.Table:
    columns = [("layer", False), ("units", True), ("another label, 95 %", True), ("", False)]
    lines: list[list[str | views.Strip]] = [
        [
            name,
            str(row["units"]),
            f"{row['changed_share']:.0%} {_between(row['changed_low'], row['changed_high'], '.0%')}".strip(),
            _strip(row),
            worded(row["redrawn_share"], ".0%"),
            worded(row["random_share"], ".0%"),
        ]
        for name, row in named
    ]
    note = (
        "Over redrawn pictures: share of labels that the network before changes by itself when the pictures are drawn "
        "again. Random pairs: share of pairs of different units, one of each network, whose labels differ."
    )
    legend = [
        ("dot", "another label"),
        ("range", "95 % interval"),
        ("aim", "redrawn pictures"),
        ("chance", "random pairs"),
    ]
    return views.Table([*columns, ("over redrawn pictures", True), ("in random pairs", True)], lines, note, legend)


def _strip(row: DriftLayerRow) -> views.Strip:
    marks = [
        (round(100 * share, 2), kind, f"{what} {share:.0%}")
        for share, kind, what in (
            (row["random_share"], "chance", "random pairs"),
            (row["redrawn_share"], "aim", "redrawn pictures"),
        )
        if share is not None
    ]
    value, low, high = row["changed_share"], row["changed_low"], row["changed_high"]
    text = f"another label {value:.0%} {_between(low, high, '.0%')}"
    return views.Strip(_place(value), _place(low), _place(high), marks, text.strip())


def _place(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def _detector_table(named: Sequence[tuple[str, DriftLayerRow]]) -> views.Table:
    columns = ("before", "after", "kept their concept", "share of before, 95 %", "changed it", "lost", "gained")
    lines = [
        [
            name,
            str(row["detectors_before"]),
            str(row["detectors_after"]),
            str(row["kept"]),
            f"{worded(row['kept_share'], '.0%')} {_between(row['kept_low'], row['kept_high'], '.0%')}".strip(),
            str(row["detectors_before"] - row["kept"] - row["lost"]),
            _counted(row["lost"], row["lost_share"]),
            _counted(row["gained"], row["gained_share"]),
        ]
        for name, row in named
    ]
    note = (
        "Lost: detectors before that detect nothing after, and their share. Gained: detectors after that detected "
        "nothing before, and their share of those after."
    )
    return views.Table([("detectors", False), *((name, True) for name in columns)], lines, note)


def _counted(count: int, share: float | None) -> str:
    return f"{count} ({share:.0%})" if share else str(count)


def _iou_table(named: Sequence[tuple[str, DriftLayerRow]]) -> views.Table:
    columns = (
        "of the best labels, 95 %",
        "of the labels before, 95 %",
        "units where that fell",
        "rose",
        "threshold moved",
    )
    lines = [
        [
            name,
            change(row["best_change"], row["best_change_low"], row["best_change_high"]),
            change(row["change"], row["change_low"], row["change_high"]),
            worded(row["fallen"], "d"),
            worded(row["risen"], "d"),
            worded(row["threshold_change"], ".2f"),
        ]
        for name, row in named
    ]
    note = (
        "Means over the units. Best labels: each network's own. Fell, rose: units in which the IoU of the label before "
        f"did at q ≤ {LEVEL:g} (q: share of false discoveries if all units up to it are believed). That label was "
        "chosen as the best in the network before, so in any other network it tends to fall: whether units became "
        "worse detectors, the best labels tell. Threshold moved: median over the units, without sign, in standard "
        "deviations of each unit's values."
    )
    return views.Table([("change of IoU", False), *((name, True) for name in columns)], lines, note)


def advice(pair: Drifted) -> list[views.Text]:
    """What to ask for, where something cannot be told."""
    rows = [layer.row for layer in pair.layers]
    resamples, needed = rows[0]["bootstrap"], max(row["bootstrap_needed"] for row in rows)
    if not resamples:
        return [views.Text("Without resamples (bootstrap: 0) there are neither intervals nor q-values here.", "advice")]
    if needed > resamples:
        text = f"With {resamples} resamples no q-value of one layer can fall to {LEVEL:g}; {needed} would allow it."
        return [views.Text(text, "advice")]
    return []


def changed_units(layer: DriftedLayer, cell: Callable[[views.UnitKey], views.Cell] | None = None) -> views.Section:
    """The units that changed most, a line each.

    Args:
        layer: whose.
        cell: how a unit is named; by default so that it leads to its page of the same report.
    """
    columns = [("unit", False), ("label", False), ("its IoU", True), ("change, 95 %", True), ("q", True), ("", False)]
    name, moved = layer.row["layer"], leading(layer.units, len(layer.units))
    shown = moved[:SHOWN_ROWS]
    ends = [abs(end) for unit in shown for end in (unit["change"], unit["change_low"], unit["change_high"]) if end]
    widest = max(ends, default=1.0)
    keys = [views.UnitKey(name, unit["unit"]) for unit in shown]
    lines = [
        [cell(key) if cell else views.Links([(f"unit {key.number}", quote(key.page))]), *_line(unit, widest)]
        for key, unit in zip(keys, shown, strict=True)
    ]
    rest = f" The first {SHOWN_ROWS} of {len(moved)} units that changed." if len(moved) > SHOWN_ROWS else ""
    note = (
        "IoU: of the label before, which tends to fall since it was chosen in the network before; its change with the "
        "paired interval. q: share of false discoveries if this unit and all surer ones are believed to have changed."
    )
    legend = [("dot", "change"), ("range", "95 % interval"), ("aim", "no change")]
    table = views.Table(columns, lines, note + rest, legend, brief=True)
    return views.Section(f"Units of {name} that changed most", [table])


def _line(unit: DriftUnitRow, widest: float) -> list[views.Cell]:
    before, had = unit["concept_before"] or "none", unit["change"] is not None
    iou = [unit["iou_before"], unit["kept_iou"]] if had else [unit["iou_before"]]
    return [
        f"{before} → {unit['concept_after'] or 'none'}" if unit["changed"] else before,
        " → ".join(map(overlap, iou)),
        change(unit["change"], unit["change_low"], unit["change_high"]),
        worded(unit["q_value"], ".2g"),
        _change_strip(unit, widest),
    ]


def _change_strip(unit: DriftUnitRow, widest: float) -> views.Strip:
    """From -widest to +widest, zero in the middle."""

    def place(value: float | None) -> float | None:
        return None if value is None else round(50 + 50 * value / widest, 2)

    text = f"unit {unit['unit']}: change of IoU {change(unit['change'])}"
    low, high = place(unit["change_low"]), place(unit["change_high"])
    return views.Strip(place(unit["change"]), low, high, [(50.0, "aim", "no change")], text)


def changed_gallery(layer: DriftedLayer, size: tuple[int, int]) -> views.Section:
    """What they look at, before in one row and after in another.

    Args:
        layer: whose.
        size: (height, width) of the frame.
    """
    units, name = {unit["unit"]: unit for unit in layer.units}, layer.row["layer"]
    shown = [unit["unit"] for unit in leading(layer.units, SHOWN_UNITS) if unit["unit"] in layer.top]
    cards = [_card(units[number], layer.top[number], views.UnitKey(name, number), size) for number in shown]
    text = views.Text("The pictures in which each unit is highest: above, before; below, after.", "quiet")
    return views.Section(f"What units of {name} look at", [text, views.Gallery(cards)])


def _card(unit: DriftUnitRow, top: UnitPictures, key: views.UnitKey, size: tuple[int, int]) -> views.Card:
    number = unit["unit"]
    before, after = unit["concept_before"] or "no label", unit["concept_after"] or "no label"
    spots = [
        views.Spot(item.thumb, f"{item.file}, unit {number} {when}, peak {item.peak:.3g}", size, (), (), when)
        for when, items in (("before", top.before), ("after", top.after))
        for item in items
    ]
    return views.Card(
        f"unit {number}",
        f"drift/{key.layer}/{number}",
        f"{before} → {after}" if unit["changed"] else before,
        spots,
        [
            ("IoU before", f"{unit['iou_before']:.3f}", "of the label before, in the network before"),
            ("after", f"{unit['kept_iou']:.3f}", "of the label before, in the network after"),
            ("q", worded(unit["q_value"], ".2g"), "false discovery rate of the change, over the layer's units"),
        ],
        unit=key,
    )


def _reading() -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                "Units are matched by layer and number. That means something where one network grew out of the other; "
                "two trainings from different beginnings share no numbers. Random pairs say which case this is: where "
                "as many labels differ between units of one number as between units of different numbers, the numbers "
                "have no meaning left."
            ),
            views.Text(
                "Intervals come from a paired bootstrap: a resample of the pictures judges both networks, so that "
                "networks with the same weights differ by exactly zero. Thresholds stay those of all pictures. The "
                "label before was chosen for its IoU in the network before, and so tends to fall in any other: the "
                "change of the best labels, each chosen in its own network, does not lean so."
            ),
        ],
        folded=True,
    )
