"""Page of dictionaries: units, random rotations and dictionaries side by side, and whether other starts agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TypedDict

from microtome.report import views
from microtome.report.words import worded

PAGE = "dictionary.html"
ALL = 0.99999  # of the variance, but for rounding
SHOWN_ROWS, SHOWN_DIRECTIONS, SHOWN_PICTURES = 12, 2, 3
NAMES = {
    "units": "the units",
    "one-hot": "the units as one-hot directions",
    "rotation": "a random rotation",
    "nmf": "NMF",
    "sae": "the TopK autoencoder",
}


class BasisRow(TypedDict):
    """What the page reads of a row of the table `dictionary_bases`."""

    layer: str
    basis: str
    method: str
    directions: int
    confirmed: int | None
    confirmed_low: float | None
    confirmed_high: float | None
    share: float | None
    share_low: float | None
    share_high: float | None
    apart: float | None
    apart_low: float | None
    apart_high: float | None
    detectors: int
    detectors_low: float | None
    detectors_high: float | None
    detectors_apart: float | None
    detectors_apart_low: float | None
    detectors_apart_high: float | None
    unique: int
    unique_low: float | None
    unique_high: float | None
    unique_apart: float | None
    unique_apart_low: float | None
    unique_apart_high: float | None
    dead: int
    near_unit: int
    heldout_iou: float
    explained: float | None
    explained_low: float | None
    explained_high: float | None
    active: float
    min_iou: float
    images: int
    judged: int


class SteadyRow(TypedDict):
    """What the page reads of a row of the table `dictionary_stability`."""

    method: str
    initialisations: int
    cosine: float
    cosine_low: float
    cosine_high: float
    shuffled: float
    shuffled_low: float
    shuffled_high: float
    random: float
    random_low: float
    random_high: float
    beyond_random: bool
    beyond_shuffled: bool
    steady: bool


class DirectionRow(TypedDict):
    """What the page reads of a row of the table `dictionary`."""

    basis: str
    direction: int
    concept: str | None
    iou: float
    iou_low: float | None
    iou_high: float | None
    heldout_iou: float
    confirmed: bool | None
    unit: int
    unit_cosine: float
    cosine: float | None


@dataclass(frozen=True)
class DictionaryLayer:
    """A layer.

    Args:
        bases: its rows of the table `dictionary_bases`, the units first.
        steady: its rows of the table `dictionary_stability`.
        directions: its rows of the table `dictionary`.
        plates: basis and direction -> where it is highest, for those of `pictured`.
        size: (height, width) of the masks.
        doubt: that IoU does not surely notice wrong labels here; empty where it does, or where nobody tested it.
    """

    bases: Sequence[BasisRow]
    steady: Sequence[SteadyRow]
    directions: Sequence[DirectionRow]
    plates: Mapping[tuple[str, int], Sequence[views.Plate]]
    size: tuple[int, int]
    doubt: str = ""

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.bases[0]["layer"]

    @property
    def units(self) -> BasisRow:
        """The units' own row."""
        return self.bases[0]

    @property
    def learned(self) -> list[str]:
        """Bases that were learned."""
        return [row["method"] for row in self.steady]


def leading(directions: Sequence[DirectionRow], basis: str, most: int) -> list[DirectionRow]:
    """Labelled directions of a basis: those of the highest IoU on pictures that chose neither them nor their label."""
    mine = [row for row in directions if row["basis"] == basis and row["concept"]]
    return sorted(mine, key=lambda row: (-row["heldout_iou"], row["direction"]))[:most]


def pictured(directions: Sequence[DirectionRow], learned: Sequence[str]) -> list[tuple[str, int]]:
    """Directions whose pictures are shown."""
    return [(basis, row["direction"]) for basis in learned for row in leading(directions, basis, SHOWN_DIRECTIONS)]


def page(layers: Sequence[DictionaryLayer]) -> views.Page:
    """The page; the last layer leads."""
    last, number = layers[-1], count(1)
    return views.Page(
        name="dictionary",
        page=PAGE,
        headline=_headline(last),
        figures=_figures(last),
        sections=[
            *(
                views.Section(f"Bases of {layer.name} side by side", [*_side_by_side(layer), *_doubt(layer)])
                for layer in layers
            ),
            *(
                views.Section(f"Do other starts find the same directions of {layer.name}?", [_steady(layer)])
                for layer in layers
                if layer.steady
            ),
            *(section for layer in layers for section in _directions(layer)),
            *(section for layer in layers for section in _pictures(layer, number)),
            _reading(last.units),
        ],
        queries=[
            ("Side by side", "select * from dictionary_bases"),
            ("Directions that detect a concept", "select * from dictionary where confirmed order by heldout_iou desc"),
            ("Whether other starts agree", "select * from dictionary_stability"),
            ("Where a direction points", "select * from directions where basis = 'nmf' and direction = 0"),
        ],
        subject="dictionaries",
    )


class _Rate(TypedDict):
    """Share of detecting directions, and by how much it lies above the units'."""

    share: float
    low: float | None
    high: float | None
    apart: float
    apart_low: float | None
    apart_high: float | None


def _rate(row: BasisRow) -> _Rate:
    """Of confirmed detectors; of all detectors where there was no null."""
    if row["share"] is not None and row["apart"] is not None:
        return {
            "share": row["share"],
            "low": row["share_low"],
            "high": row["share_high"],
            "apart": row["apart"],
            "apart_low": row["apart_low"],
            "apart_high": row["apart_high"],
        }
    low, high, of = row["detectors_low"], row["detectors_high"], row["directions"]
    return {
        "share": row["detectors"] / of,
        "low": None if low is None else low / of,
        "high": None if high is None else high / of,
        "apart": row["detectors_apart"] or 0.0,
        "apart_low": row["detectors_apart_low"],
        "apart_high": row["detectors_apart_high"],
    }


def _kind(row: BasisRow) -> str:
    return "detectors, luck included" if row["confirmed"] is None else "confirmed detectors"


def _verdict(rates: Sequence[_Rate]) -> str:
    """Whether a basis has another share of detectors than the units, in every one of its draws."""
    return _sure([rate["apart_low"] for rate in rates], [rate["apart_high"] for rate in rates])


def _methods(layer: DictionaryLayer) -> Iterator[tuple[str, list[BasisRow]]]:
    """Other methods than the units, with their rows."""
    for method in dict.fromkeys(row["method"] for row in layer.bases[1:]):
        yield method, [row for row in layer.bases if row["method"] == method]


def _sure(lows: Sequence[float | None], highs: Sequence[float | None]) -> str:
    """Whether differences lie surely above or below zero, all of them; empty where that is not sure."""
    if all(low is not None and low > 0 for low in lows):
        return "surely more"
    return "surely fewer" if all(high is not None and high < 0 for high in highs) else ""


def _headline(layer: DictionaryLayer) -> str:
    """Which bases have surely more detectors, or fewer, than the units; then how many each has."""
    units = _rate(layer.units)
    own = f"{units['share']:.0%} {_span(units['low'], units['high'], '.0%')}".strip()
    text = (
        f"Of the {layer.units['directions']} units of {layer.name} {own} are {_kind(layer.units)}, and detectors name "
        f"{layer.units['unique']} concepts"
    )
    others = "; ".join(f"of {NAMES[method]}, {_told(layer, rows)}" for method, rows in _methods(layer))
    verdict = [_compared(layer)] if others else []
    return " ".join([*verdict, f"{text}; {others}." if others else f"{text}.", *map(_said, layer.steady)])


def _compared(layer: DictionaryLayer) -> str:
    """The verdict on every basis but the units."""
    found: dict[str, list[str]] = {}
    for method, rows in _methods(layer):
        found.setdefault(_verdict([_rate(row) for row in rows]), []).append(NAMES[method])
    parts = [
        f"{' and '.join(found[verdict])} {'has' if len(found[verdict]) == 1 else 'have'} {verdict}"
        for verdict in ("surely more", "surely fewer")
        if verdict in found
    ]
    if "" in found:
        parts.append(f"of {' and '.join(found[''])} no difference is sure")
    said = "; ".join(parts)
    return f"{_kind(layer.units).capitalize()} beside the units of {layer.name}: {said}."


def _told(layer: DictionaryLayer, rows: Sequence[BasisRow]) -> str:
    """What a basis' draws detect, in the mean, and whether that is surely more or less than the units do."""
    rates = [_rate(row) for row in rows]
    share, verdict = sum(rate["share"] for rate in rates) / len(rates), _verdict(rates)
    text = f"{share:.0%}" + (f" ({verdict})" if verdict else "")
    if all(row["directions"] == layer.units["directions"] for row in rows):  # fewer directions name fewer concepts
        mean = sum(row["unique"] for row in rows) / len(rows)
        verdict = _sure([row["unique_apart_low"] for row in rows], [row["unique_apart_high"] for row in rows])
        text += f" and {mean:.0f} concepts" + (f" ({verdict})" if verdict else "")
    near = sum(row["near_unit"] for row in rows)
    if rows[0]["method"] in layer.learned and near:
        text += f", where {near} of {rows[0]['directions']} directions are all but a unit"
    return text


def _said(row: SteadyRow) -> str:
    name = NAMES[row["method"]]
    sure = _with(row["cosine"], row["cosine_low"], row["cosine_high"], ".2f")
    found = (
        f"matched cosine {sure} with other starts, beside "
        f"{row['shuffled']:.2f} where channels are shuffled and {row['random']:.2f} of random directions"
    )
    if row["steady"]:
        return f"The directions of {name} are steadier than both controls: {found}."
    return f"The directions of {name} are not shown to be steady: {found}."


def _figures(layer: DictionaryLayer) -> views.Figures:
    items = [("units", _rate(layer.units), _kind(layer.units))]
    for method, rows in _methods(layer):
        rates = [_rate(row) for row in rows]
        mean = rates[0] | {"share": sum(rate["share"] for rate in rates) / len(rates)}
        told = f"{_kind(rows[0])}" + (f", mean of {len(rows)}" if len(rows) > 1 else "")
        told += f"; {_verdict(rates) or 'no sure difference'}"
        items.append((NAMES[method].removeprefix("the ").removeprefix("a "), mean, told))
    return views.Figures([(name, f"{rate['share']:.0%}", told) for name, rate, told in items])


def _span(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def _with(value: float | None, low: float | None, high: float | None, form: str) -> str:
    return f"{worded(value, form)} {_span(low, high, form)}".strip()


def _place(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def _side_by_side(layer: DictionaryLayer) -> list[views.Part]:
    kind = _kind(layer.units)
    columns = [("basis", False), (f"share of {kind}", False), (kind, True), ("points above the units, 95 %", True)]
    columns += [("concepts, 95 %", True), ("above the units", True), ("held-out IoU", True)]
    note = (
        "Confirmed: a detector on all pictures and "
        "by the label that the other half chose, on the half that was not fitted; and beyond chance. Concepts: labels "
        "of detectors, each once, which fewer directions have fewer of. Held-out IoU: mean over the directions."
    )
    legend = [("dot", "share"), ("range", "95 % interval"), ("aim", "the units' share")]
    detects = views.Table(columns, [_line(layer, row) for row in layer.bases], note, legend)
    columns = [("basis", False), ("directions", True), ("variance explained, 95 %", True)]
    columns += [("directions in a cell", True), ("all but a unit", True), ("dead", True)]
    note = (
        "Variance explained: of the cells of the half that was not fitted, by what their codes stand for. Directions "
        "in a cell: effective number, (Σ|z|)² / Σz². All but a unit: cosine with a unit of at least 0.9. Dead: one "
        "value everywhere."
    )
    return [detects, views.Table(columns, [_kept(row) for row in layer.bases], note)]


def _line(layer: DictionaryLayer, row: BasisRow) -> list[views.Cell]:
    rate, units = _rate(row), _rate(layer.units)
    number = row["detectors"] if row["confirmed"] is None else row["confirmed"]
    low, high = (
        (row["detectors_low"], row["detectors_high"])
        if row["confirmed"] is None
        else (row["confirmed_low"], row["confirmed_high"])
    )
    own = row["method"] == "units"
    text = f"{rate['share']:.0%} {_span(rate['low'], rate['high'], '.0%')}".strip()
    marks = [(round(100 * units["share"], 2), "aim", f"units {units['share']:.0%}")]
    above, *ends = (
        None if end is None else 100 * end for end in (rate["apart"], rate["apart_low"], rate["apart_high"])
    )
    return [
        row["basis"],
        views.Strip(_place(rate["share"]), _place(rate["low"]), _place(rate["high"]), marks, text),
        f"{number} of {row['directions']} {_span(low, high, '.0f')}".strip(),
        "" if own else _with(above, ends[0], ends[1], "+.0f"),
        _with(float(row["unique"]), row["unique_low"], row["unique_high"], ".0f"),
        "" if own else _with(row["unique_apart"], row["unique_apart_low"], row["unique_apart_high"], "+.0f"),
        f"{row['heldout_iou']:.4f}",
    ]


def _kept(row: BasisRow) -> list[views.Cell]:
    explained = _with(row["explained"], row["explained_low"], row["explained_high"], ".1%")
    return [
        row["basis"],
        str(row["directions"]),
        "all" if (row["explained_low"] or 0) > ALL else explained,
        f"{row['active']:.1f}",
        str(row["near_unit"]),
        str(row["dead"]),
    ]


def _doubt(layer: DictionaryLayer) -> list[views.Text]:
    found = [views.Text(layer.doubt, "advice")] if layer.doubt else []
    if layer.units["confirmed"] is None:
        text = "Without permutations in `dissection` nothing says what chance alone would find."
        found.append(views.Text(text, "advice"))
    return found


def _steady(layer: DictionaryLayer) -> views.Table:
    columns = [("method", False), ("cosine of matched directions", False), ("other starts, 95 %", True)]
    columns += [("channels shuffled, 95 %", True), ("random directions, 95 %", True), ("verdict", False)]
    rows: list[list[views.Cell]] = [
        [
            NAMES[row["method"]].removeprefix("the "),
            views.Strip(
                _place(row["cosine"]),
                _place(max(0.0, row["cosine_low"])),
                _place(row["cosine_high"]),
                [
                    (round(100 * row["shuffled"], 2), "aim", f"channels shuffled {row['shuffled']:.2f}"),
                    (round(100 * row["random"], 2), "chance", f"random directions {row['random']:.2f}"),
                ],
                _with(row["cosine"], row["cosine_low"], row["cosine_high"], ".2f"),
            ),
            _with(row["cosine"], row["cosine_low"], row["cosine_high"], ".2f"),
            _with(row["shuffled"], row["shuffled_low"], row["shuffled_high"], ".2f"),
            _with(row["random"], row["random_low"], row["random_high"], ".2f"),
            "steadier than both" if row["steady"] else "not steadier than both",
        ]
        for row in layer.steady
    ]
    note = (
        f"Mean over all pairs of {layer.steady[0]['initialisations']} starts, each direction with the one that it is "
        "matched to; the interval is over starts. Channels shuffled: starts on the same cells, each channel's values "
        "moved to other cells, so that no two channels have anything in common."
    )
    legend = [
        ("dot", "cosine"),
        ("range", "95 % interval"),
        ("aim", "channels shuffled"),
        ("chance", "random directions"),
    ]
    return views.Table(columns, rows, note, legend)


def _directions(layer: DictionaryLayer) -> Iterator[views.Section]:
    """The directions of each learned basis that detect best."""
    columns = [("direction", False), ("label", False), ("IoU, 95 %", True), ("held out", True), ("confirmed", False)]
    columns += [("other starts", True), ("nearest unit", False), ("cosine", True)]
    columns += [("best unit of that label", False), ("its held-out IoU", True)]
    note = (
        "The highest held-out IoU first. Other starts: cosine with the matched direction, in the mean. Nearest unit: "
        "the one with which the direction has the highest cosine. Best unit of that label: the unit of the same label "
        "with the highest held-out IoU."
    )
    for basis in layer.learned:
        rows = [_direction(layer, row) for row in leading(layer.directions, basis, SHOWN_ROWS)]
        if rows:
            title = f"Directions of {NAMES[basis]} in {layer.name}"
            yield views.Section(title, [views.Table(columns, rows, note)])


def _direction(layer: DictionaryLayer, row: DirectionRow) -> list[views.Cell]:
    units = leading(layer.directions, "units", len(layer.directions))
    same = next((unit for unit in units if unit["concept"] == row["concept"]), None)
    return [
        str(row["direction"]),
        row["concept"] or "none",
        _with(row["iou"], row["iou_low"], row["iou_high"], ".3f"),
        f"{row['heldout_iou']:.3f}",
        {True: "yes", False: "no", None: "–"}[row["confirmed"]],
        worded(row["cosine"], ".2f"),
        views.UnitKey(layer.name, row["unit"]),
        f"{row['unit_cosine']:.2f}",
        "none" if same is None else views.UnitKey(layer.name, same["direction"]),
        "" if same is None else f"{same['heldout_iou']:.3f}",
    ]


def _pictures(layer: DictionaryLayer, number: Iterator[int]) -> Iterator[views.Section]:
    """Of some directions; pictures are numbered through the page."""
    rows = {(row["basis"], row["direction"]): row for row in layer.directions}
    for basis, direction in pictured(layer.directions, layer.learned):
        plates = [replace(plate, number=next(number)) for plate in layer.plates.get((basis, direction), ())]
        if plates:
            row = rows[basis, direction]
            text = (
                f"IoU {_with(row['iou'], row['iou_low'], row['iou_high'], '.3f')}, held out {row['heldout_iou']:.3f}."
            )
            title = f"Direction {direction} of {NAMES[basis]} in {layer.name}: {row['concept']}"
            shown = views.Plates(plates, layer.size, row["concept"] or "")
            yield views.Section(title, [views.Text(text, "quiet"), shown])


def _reading(units: BasisRow) -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                "A direction is a unit vector of the layer's channel space. Each gives a map: of a random rotation the "
                "cell's projection, of NMF and the autoencoder the cell's code. That map is dissected as a unit's is: "
                "the same share of its values lies above its threshold, the same pictures and exchanged annotations, "
                "the same rule for labels. No fit has seen an annotation; dictionaries were fitted on one half of the "
                f"pictures, and the {units['judged']} of the other half judge the labels."
            ),
            views.Text(
                "Differences are paired: both bases over the same redrawn pictures. The fit is held: an interval says "
                "nothing of other rotations or other dictionaries. Of those it is the draws of the rotation, and the "
                "table of other starts, that tell."
            ),
            views.Text(
                "That other starts agree means something only beyond the controls: random directions in a space of as "
                "many dimensions have a matched cosine well above zero, and where channels have nothing in common a "
                "dictionary can find the channels themselves again and again."
            ),
        ],
    )
