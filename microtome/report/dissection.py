"""Pages of a dissection: a layer each, its units with their top images and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple, TypedDict
from urllib.parse import quote

from microtome.quantify.dissection import NEAREST
from microtome.quantify.significance import LEVEL
from microtome.report import views
from microtome.report.ablation import causal_words
from microtome.report.charts import histogram
from microtome.report.words import figured, interval, overlap, percent, worded

MOST_BARS = 25  # of a category
NAMED = 12  # concepts in a sentence


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
        others: numbers of other units in whose top images it is, too, those first in which it stands highest.
    """

    thumb: str
    file: str
    rank: int
    peak: float
    dim: str
    outline: str = ""
    marked: str = ""
    others: Sequence[int] = ()


@dataclass(frozen=True)
class Failure:
    """A picture in which a unit and its label part.

    Args:
        thumb: path of the thumbnail.
        file: name of the picture.
        missed: that the label is annotated where the unit does not light; otherwise it lights where it is not.
        share: of the annotation that it misses, or of what it lights that lies elsewhere.
        dim, outline, marked: as of a `TopImage`.
    """

    thumb: str
    file: str
    missed: bool
    share: float
    dim: str
    outline: str
    marked: str


class SourceIou(NamedTuple):
    """A unit's IoU with its label in one source of the data set, and in how many of its pictures that is annotated."""

    source: str
    pictures: int
    iou: float


class NearestRow(TypedDict):
    """What pages read of a row of the table `nearest`."""

    concept: str
    category: str
    iou: float
    iou_low: float | None
    iou_high: float | None


class NearConcept(NearestRow):
    """The row, and in how many pictures the concept is annotated."""

    pictures: int


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
    mean_iou_low: float | None
    mean_iou_high: float | None
    min_iou: float
    tail: float
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
        failures: unit -> pictures in which it and its label part most.
        shares: unit -> how much of what it lights its label covers, and how much of its label it lights.
        sources: unit -> its IoU with its label in each source that shows it; empty where there is one source alone.
        doubt: that IoU does not surely notice wrong labels here; empty where it does, or where nobody tested it.
    """

    summary: LayerRow
    units: Sequence[UnitRow]
    top: Mapping[int, Sequence[TopImage]]
    mask: tuple[int, int]
    sheets: Mapping[int, str] = field(default_factory=dict)
    nearest: Mapping[int, Sequence[NearConcept]] = field(default_factory=dict)
    histograms: Mapping[int, HistogramRow] = field(default_factory=dict)
    doubt: str = ""
    failures: Mapping[int, Sequence[Failure]] = field(default_factory=dict)
    shares: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    sources: Mapping[int, Sequence[SourceIou]] = field(default_factory=dict)


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
        figures=_figures(row, units),
        charts=_charts(units),
        found=_found(row, units),
        least=f"the smallest value that {row['permutations']} shuffles of the annotations can give"
        if any(_least(unit["p_value"], row["permutations"]) for unit in units)
        else "",
        units=sorted(cards, key=lambda card: (-card.iou_sort, card.number)),
        categories=sorted({card.category for card in cards if card.category}),
        advice=[*_advice(row), *filter(None, [layer.doubt])],
        mask=layer.mask,
        limit=row["min_iou"],
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
        iou=overlap(row["iou"]),
        interval=interval(row["iou"], low, high),
        facts=_facts(row, layer["permutations"], mixed=layer["strata"] > 1),
        scale=views.IouScale(
            place(row["iou"]) or 0.0, place(low), place(high), place(row["null_p95"]), place(layer["min_iou"]) or 0.0
        ),
        pictures=[views.Picture(item.thumb, item.file) for item in found.top.get(row["unit"], ())],
        reason=row["reason"] or "",
        iou_sort=row["iou"],
        q_sort=1.0 if row["q_value"] is None else row["q_value"],
        masks=found.sheets.get(row["unit"], ""),
        causal=_causal(row),
        doubt=_unconfirmed(row, layer["min_iou"]),
        failed=_failed(row, layer["min_iou"]),
        caveat=f"interval reaches below {layer['min_iou']:g}" if _reaches_below(row, layer["min_iou"]) else "",
        instead="" if row["detector"] or not row["concept"] else _instead(row, found),
        besides=". ".join(filter(None, [_covered(row, found), _rivals(row, found)])) if row["detector"] else "",
    )


def _instead(row: UnitRow, found: DissectedLayer) -> str:
    """What a unit below the limit answers to: its nearest concept, how it and what the unit lights overlap, and whether
    that is more than chance."""
    limit = found.summary["min_iou"]
    iou = f"an IoU of {overlap(row['iou'])} {interval(row['iou'], row['iou_low'], row['iou_high'])}".strip()
    high = row["iou_high"]
    reach = ", which its interval reaches: other pictures may make it one" if high is not None and high > limit else ""
    told = f"{iou}, and a detector needs more than {limit:g}{reach}"
    covered = _covered(row, found)
    told = f"{covered}: {told}" if covered else f"That is {told}"
    return f"{_beyond_chance(row, found.summary['permutations'])}. {told}."


def _covered(row: UnitRow, found: DissectedLayer) -> str:
    """How a unit's label and what it lights overlap; empty where nothing of the label's category is annotated."""
    name, category, shares = row["concept"], row["category"] or "concept", found.shares.get(row["unit"])
    if not shares:
        return ""
    known = f"Where a{'n' if category[0] in 'aeiou' else ''} {category} is annotated, {name} covers"
    return f"{known} {percent(shares[0])} of what it lights, and it lights {percent(shares[1])} of {name}"


def _rivals(row: UnitRow, found: DissectedLayer) -> str:
    """Which concepts besides its label overlap with what it lights by more than the limit."""
    limit, near = found.summary["min_iou"], found.nearest.get(row["unit"], ())
    names = [item["concept"] for item in near if item["iou"] > limit and item["concept"] != row["concept"]]
    return f"Also above the limit: {', '.join(names)}" if names else ""


def _beyond_chance(row: UnitRow, exchanges: int) -> str:
    """How surely a unit answers to the concept that is nearest to what it lights."""
    name, q, held = row["concept"], row["q_value"], row["heldout_iou"]
    if q is None:
        return f"The nearest to what it lights is {name}"
    if q > LEVEL:
        return f"The nearest to what it lights is {name}, but shuffled annotations do as well (q = {q:.2g})"
    beyond = f"to {name} more than chance explains (q {_least(row['p_value'], exchanges) or '= '}{q:.2g})"
    if held is not None and held < row["iou"] / 2:
        return f"It answers {beyond}, but less than half as well on held-out pictures, so that it may be luck"
    return f"Yet it answers {beyond}"


def _unconfirmed(row: UnitRow, limit: float) -> str:
    """What to hold against a detector's label: the tests that it fails; of a confirmed one its interval."""
    if _reaches_below(row, limit):
        return f"its interval reaches below the limit of {limit:g}"
    told = {
        "held out": f"on the half of the pictures that was not used to choose the label its IoU is "
        f"{overlap(row['heldout_iou'])}, not above {limit:g}",
        "q": f"chance may reach it (q = {worded(row['q_value'], '.2g')}, not at most {LEVEL:g})",
    }
    return ", and ".join(told[name] for name in _failed(row, limit))


def _failed(row: UnitRow, limit: float) -> list[str]:
    """The tests, by the names of their facts, for which a detector is not confirmed."""
    held, q = row["heldout_iou"], row["q_value"]
    if not row["detector"] or row["confirmed"] is not False:
        return []
    return ["held out"] * (held is not None and held <= limit) + ["q"] * (q is not None and q > LEVEL)


def _reaches_below(row: UnitRow, limit: float) -> bool:
    """Whether a confirmed detector's interval does: the lower end alone need lie there."""
    low = row["iou_low"]
    return row["detector"] and bool(row["confirmed"]) and low is not None and low <= limit


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
            *_dead(row, layer),
            *_highest(row, layer),
            *_failures(row, layer),
            *_by_source(row, layer),
            *_nearest(row, layer),
            *_values(row, layer),
        ]
        for layer in layers
        for row in layer.units
    }


def _dead(row: UnitRow, layer: DissectedLayer) -> Iterator[views.Section]:
    """What it means that a unit has one value everywhere, since there is nothing else to show of it."""
    if not _is_dead(row):
        return
    images, number = layer.summary["images"], row["unit"]
    told = [
        f"Its value is {row['threshold']:.3g} at every place of all {images:,} pictures. So it has no mask, no "
        "label and no pictures, and later layers see a constant.",
        "Either training left it so, as a unit behind a ReLU that never fires, or these pictures lack what it answers "
        "to: other pictures, or the layer before its activation, would tell.",
    ]
    parts: list[views.Part] = [views.Listed(told)]
    if dead := [unit["unit"] for unit in layer.units if _is_dead(unit) and unit["unit"] != number]:
        others = [_to(row["layer"], unit) for unit in sorted(dead)[:NAMED]]
        rest = [(f"and {len(dead) - NAMED} more", "")] if len(dead) > NAMED else []
        parts += [views.Text("Dead like it in this layer:", "quiet"), views.Links([*others, *rest])]
    if living := [unit["unit"] for unit in layer.units if not _is_dead(unit) and unit["unit"] > number]:
        parts += [views.Text("The next unit that is not:", "quiet"), views.Links([_to(row["layer"], min(living))])]
    yield views.Section("What that means", parts)


def _to(layer: str, unit: int) -> tuple[str, str]:
    """A unit's name, and where its page lies."""
    return f"unit {unit}", quote(views.UnitKey(layer, unit).page)


def _is_dead(row: UnitRow) -> bool:
    return (row["reason"] or "").startswith("dead")


def _highest(row: UnitRow, layer: DissectedLayer) -> Iterator[views.Section]:
    top, name = layer.top.get(row["unit"], ()), layer.summary["layer"]
    plates = [
        views.Plate(
            item.thumb,
            item.file,
            item.rank + 1,
            f"highest value {figured(item.peak)}; {item.marked}",
            item.dim,
            item.outline,
            [views.UnitKey(name, other) for other in item.others],
        )
        for item in top
    ]
    if plates:
        text = (
            "The pictures in which its highest value is highest of all. Its mask, where it lies above its threshold, "
            "is edged in white, and all else is dimmed."
        )
        label = row["concept"] or ""
        yield views.Section("Where it is highest", [views.Text(text, "quiet"), views.Plates(plates, layer.mask, label)])


def _failures(row: UnitRow, layer: DissectedLayer) -> Iterator[views.Section]:
    """Where its label is and it is not, and the other way round: what the top images, which flatter, never show."""
    if not row["detector"]:
        return  # it has not got the label that it would fail
    found, label = layer.failures.get(row["unit"], ()), row["concept"] or ""
    parts: list[views.Part] = []
    for missed, told in (
        (True, f"Missed: most of {label} is annotated where the unit does not light."),
        (False, f"Elsewhere: the unit lights most where no {label} is annotated, beside the pictures above."),
    ):
        words = "of it missed" if missed else "of its mask lies elsewhere"
        plates = [
            views.Plate(
                item.thumb, item.file, 0, f"{_share(item.share)} {words}; {item.marked}", item.dim, item.outline
            )
            for item in found
            if item.missed == missed
        ]
        if plates:
            parts += [views.Text(told, "quiet"), views.Plates(plates, layer.mask, label, switches=False)]
    if parts:
        yield views.Section("Where it fails", parts)


def _by_source(row: UnitRow, layer: DissectedLayer) -> Iterator[views.Section]:
    """Whether its label holds in every source of a mixture, or tells no more than which source a picture is of."""
    found, limit, label = layer.sources.get(row["unit"], ()), layer.summary["min_iou"], row["concept"] or ""
    if not row["detector"] or not found:
        return
    holding = [item for item in found if item.iou > limit]
    if len(found) == 1:
        said = (
            f"{label} is annotated in pictures of {_called(found[0])} alone: nothing here tells it from what else "
            "these pictures have in common."
        )
    elif len(holding) == 1:
        said = (
            f"Its label holds in pictures of {_called(holding[0])} alone, one of {len(found)} sources that show "
            f"{label}: it may be something that these pictures have in common."
        )
    else:
        said = (
            f"Its label lies above the limit of {limit:g} in {len(holding)} of {len(found)} sources that show {label}."
        )
    lines = [
        [_called(item), f"{item.pictures:,}", overlap(item.iou)] for item in sorted(found, key=lambda one: -one.iou)
    ]
    columns = [("source", False), (f"pictures that show {label}", True), ("IoU", True)]
    note = "Few pictures say little: a source's IoU has no interval here."
    table = views.Table(columns, lines, note, slim=True)
    yield views.Section("Does its label hold in every source?", [views.Text(said), table])


def _called(item: SourceIou) -> str:
    return item.source or "no source"


def _share(value: float) -> str:
    return "all" if value == 1 else percent(value)


def _nearest(row: UnitRow, layer: DissectedLayer) -> Iterator[views.Section]:
    rows = layer.nearest.get(row["unit"], ())
    if not rows:
        return
    chance, limit, held = row["null_p95"], layer.summary["min_iou"], row["heldout_iou"]
    ends = [value for item in rows for value in (item["iou_high"], item["iou"]) if value is not None]
    widest = 1.05 * max([*ends, limit, chance or 0.0, held or 0.0])
    columns = [("concept", False), ("of", False), ("pictures", True), ("IoU, 95 %", True), ("", False)]
    lines: list[Sequence[views.Cell]] = [
        [
            item["concept"],
            item["category"],
            f"{item['pictures']:,}",
            f"{overlap(item['iou'])} {_between(item)}".removesuffix(" –"),
            _strip(item, row, limit, widest, label=place == 0),
        ]
        for place, item in enumerate(rows)
    ]
    note = (
        "Pictures: in so many the concept is annotated. IoU: pixels in both the unit's mask and the concept's "
        "annotation, over pixels in either, over all pictures."
        + (" All other concepts have an IoU of 0: its mask nowhere meets them." if len(rows) < NEAREST else "")
    )
    legend = [
        ("dot", "IoU"),
        *([("range", "its 95 % interval over pictures")] if row["iou_low"] is not None else []),
        ("limit", f"limit {limit:g}, above which a unit is a detector"),
        *([("null", "what its best label stays below in 95 % of shuffles")] if chance is not None else []),
        *([("held", "IoU on held-out pictures")] if held else []),
    ]
    beside = row["unit"] in layer.histograms
    yield views.Section("Nearest concepts", [views.Table(columns, lines, note, legend)], beside=beside)


def _between(row: NearConcept) -> str:
    return interval(row["iou"], row["iou_low"], row["iou_high"]) or "–"


def _strip(item: NearConcept, row: UnitRow, limit: float, widest: float, *, label: bool) -> views.Strip:
    def at(value: float) -> float:
        return round(100 * value / widest, 2)

    low, high = item["iou_low"], item["iou_high"]
    marks = [(at(limit), "limit", f"limit {limit:g}")]
    if row["null_p95"] is not None:
        marks.append((at(row["null_p95"]), "null", f"chance {overlap(row['null_p95'])}"))
    if row["heldout_iou"] and label:
        marks.append((at(row["heldout_iou"]), "held", f"held out {overlap(row['heldout_iou'])}"))
    text = f"IoU {overlap(item['iou'])}, 95 % {_between(item)}"
    return views.Strip(
        at(item["iou"]), None if low is None else at(low), None if high is None else at(high), marks, text
    )


def _values(row: UnitRow, layer: DissectedLayer) -> Iterator[views.Section]:
    found = layer.histograms.get(row["unit"])
    if found and not _is_dead(row):
        text = (
            "How many places of all pictures have which value, on a logarithmic scale. What lies above the threshold, "
            "in blue, is the unit's mask; values that share a bar with the threshold are grey."
        )
        drawn = histogram(found["start"], found["width"], found["counts"], (row["threshold"], layer.summary["tail"]))
        yield views.Section("Its values", [views.Text(text, "quiet"), views.Charts([drawn])])


def _facts(row: UnitRow, exchanges: int, *, mixed: bool) -> list[tuple[str, str, str]]:
    least = _least(row["p_value"], exchanges)
    return [
        (
            "held out",
            overlap(row["heldout_iou"]),
            "IoU on the half of the pictures that had no say in choosing the label",
        ),
        (
            "by chance",
            overlap(row["null_p95"]),
            "over all pictures, as the IoU: in 95 % of shuffles of annotations between them no label has a higher one",
        ),
        (
            "q",
            least + worded(row["q_value"], ".2g"),
            _discoveries(row, exchanges, mixed=mixed),
        ),
        (
            "label stability",
            percent(row["label_stability"]),
            "of redrawn sets of pictures give it the same label",
        ),
        (
            "threshold",
            worded(row["threshold"], ".3g"),
            "its mask is where its value lies above",
        ),
    ]


def _discoveries(row: UnitRow, exchanges: int, *, mixed: bool) -> str:
    """What q is, and which p it is made from."""
    told = "expected share of false discoveries among this unit and all better ones"
    p, across = row["p_value"], row["p_value_across"]
    if p is None:
        return told
    told += f"; p {_least(p, exchanges) or '= '}{p:.2g}{' within sources' * mixed}"
    if mixed and across is not None:
        told += f", {_least(across, exchanges)}{across:.2g} across"
    return told + (f"; {exchanges} shuffles can show no less" if _least(p, exchanges) else "")


def _least(p: float | None, exchanges: int) -> str:
    """A sign before a p-value that no exchange reached, (1 + 0) / (1 + exchanges): more exchanges could lower it."""
    return "≤ " if p is not None and p * (1 + exchanges) < 1.5 else ""


def _headline(row: LayerRow) -> str:
    """The count that is surest; the others stand in the figures below it."""
    if row["confirmed"] is None:
        return (
            f"{row['detectors']} of {row['units']} units{_within(row['detectors_low'], row['detectors_high'])} lie "
            f"above IoU {row['min_iou']:g} over {row['images']:,} pictures, luck included. Without permutations none "
            "is confirmed."
        )
    sure = _within(row["confirmed_low"], row["confirmed_high"])
    return (
        f"{row['confirmed']} of {row['units']} units{sure} are confirmed detectors: their label holds on held-out "
        f"pictures, which had no say in choosing it, and shuffled annotations do not reach it (q ≤ {LEVEL:g})."
    )


def _found(row: LayerRow, units: Sequence[UnitRow]) -> views.Detected:
    """How many detectors, and of what: the overview's line."""
    firm = row["confirmed"] is not None
    count = row["detectors"] if row["confirmed"] is None else row["confirmed"]
    low, high = (row[f"{'confirmed' if firm else 'detectors'}_{end}"] for end in ("low", "high"))  # type: ignore[literal-required]
    between = "" if low is None else f" [{low:.0f}, {high:.0f}]"
    value, *ends = (None if end is None else round(100 * end / row["units"], 2) for end in (count, low, high))
    held = "" if low is None else f"95 %: {low:.0f} to {high:.0f}"
    said = f"{count} of {row['units']}{between}"
    return views.Detected(
        "confirmed detectors" if firm else "detectors, luck included",
        said,
        views.Strip(value, ends[0], ends[1], (), f"{said} units"),
        _concepts(units, firm=firm),
        _rule(row),
        ("confirmed detectors", str(count), held) if firm else None,
    )


def _concepts(units: Sequence[UnitRow], *, firm: bool) -> str:
    """What detectors detect, the most frequent first."""
    found = Counter(unit["concept"] for unit in units if unit["confirmed" if firm else "detector"])
    most = sorted(found.items(), key=lambda item: (-item[1], item[0] or ""))
    named = ", ".join(f"{concept} ({number})" if number > 1 else str(concept) for concept, number in most[:NAMED])
    return (named or "none") + (f", and {len(most) - NAMED} more" if len(most) > NAMED else "")


def _rule(row: LayerRow) -> str:
    """What a detector is."""
    said = (
        "A unit is one channel of a layer. It is a detector of a concept if what it lights and what is annotated as "
        f"the concept overlap, over all pictures, by an IoU above {row['min_iou']:g}"
    )
    if row["confirmed"] is None:
        return f"{said}; luck included, since it was not tested against chance."
    return (
        f"{said}; a confirmed one if that holds on pictures that had no say in choosing the concept, too, and "
        f"annotations that are exchanged between pictures do not do as well (q ≤ {LEVEL:g})."
    )


def _within(low: float | None, high: float | None) -> str:
    """The interval of a count, in a sentence."""
    return "" if low is None or high is None else f" (95 % interval {low:.0f} to {high:.0f})"


def _mean(row: LayerRow, units: Sequence[UnitRow]) -> str:
    """The interval of the mean IoU, and what it is to be read beside."""
    low, high = row["mean_iou_low"], row["mean_iou_high"]
    luck = [unit["null_p95"] for unit in units if unit["null_p95"] is not None]
    return "; ".join(
        filter(
            None,
            [
                "" if low is None or high is None else f"95 %: {low:.4f} to {high:.4f}",
                f"by chance {fmean(luck):.4f}" if luck else "",
            ],
        )
    )


def _figures(row: LayerRow, units: Sequence[UnitRow]) -> list[tuple[str, str, str]]:
    def between(
        low: float | None, high: float | None, *, anew: tuple[float | None, float | None] = (None, None)
    ) -> str:
        held = "" if low is None or high is None else f"95 %: {low:.0f} to {high:.0f}"
        redrawn = "" if None in anew else f"thresholds estimated anew: {anew[0]:.0f} to {anew[1]:.0f}"
        return "; ".join(filter(None, [held, redrawn]))

    raw = row["detectors_redrawn_low"], row["detectors_redrawn_high"]
    unique = row["unique_redrawn_low"], row["unique_redrawn_high"]
    per_unit = row["unique_per_unit_redrawn_low"], row["unique_per_unit_redrawn_high"]
    limit = f"above IoU {row['min_iou']:g} over {row['images']:,} pictures"
    return [
        (
            "detectors, luck included",
            str(row["detectors"]),
            _joined(between(row["detectors_low"], row["detectors_high"], anew=raw), limit),
        ),
        (
            "different concepts",
            str(row["unique_per_unit"]),
            _joined(
                between(row["unique_per_unit_low"], row["unique_per_unit_high"], anew=per_unit),
                f"one label a unit{_of_confirmed(units)}",
            ),
        ),
        ("mean IoU of the labels", f"{row['mean_iou']:.4f}", _mean(row, units)),
        ("beyond chance", "–" if row["significant"] is None else str(row["significant"]), _chance(row)),
        (
            "concepts as papers count",
            str(row["unique_per_category"]),
            _joined(
                between(row["unique_low"], row["unique_high"], anew=unique),
                "each unit once in every category",
            ),
        ),
        (
            "receptive field",
            f"{row['field_row']:g} px",
            f"every {row['jump_row']:g} px, {row['rows']} × {row['columns']} cells",
        ),
    ]


def _of_confirmed(units: Sequence[UnitRow]) -> str:
    """How many concepts confirmed detectors have, where any were looked for."""
    if all(unit["confirmed"] is None for unit in units):
        return ""
    return f"; of confirmed ones {len({unit['concept'] for unit in units if unit['confirmed']})}"


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _chance(row: LayerRow) -> str:
    if row["significant"] is None:
        return "not asked for"
    beyond = f"units with q ≤ {LEVEL:g}, above IoU {row['min_iou']:g} or not"
    if row["strata"] == 1:
        return beyond
    return f"{beyond}; shuffled across the {row['strata']} sources, {row['significant_across']}"


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


def _charts(units: Sequence[UnitRow]) -> list[views.ConceptBars]:
    """Detectors per concept, by category: the confirmed ones, where that was asked for, within all."""
    found: dict[str, dict[str, list[bool | None]]] = {}
    for unit in units:
        if unit["detector"] and unit["category"] and unit["concept"]:  # every detector has a label
            found.setdefault(unit["category"], {}).setdefault(unit["concept"], []).append(unit["confirmed"])
    most = max((len(states) for concepts in found.values() for states in concepts.values()), default=1)
    return [_bars(category, concepts, most) for category, concepts in sorted(found.items())]


def _bars(category: str, concepts: Mapping[str, Sequence[bool | None]], most: int) -> views.ConceptBars:
    bars = [
        views.ConceptBar(concept, None if None in states else sum(map(bool, states)), len(states))
        for concept, states in concepts.items()
    ]
    bars.sort(key=lambda bar: (-(bar.confirmed or 0), -bar.detectors, bar.concept))
    counted = sum(bar.confirmed != 0 for bar in bars)
    rest = f" (the first {MOST_BARS} of {counted})" if counted > MOST_BARS else ""
    never = [bar for bar in bars if bar.confirmed == 0]
    shown = [bar for bar in bars if bar.confirmed != 0][:MOST_BARS]
    return views.ConceptBars(
        f"{category}{rest}", shown, most, ", ".join(f"{bar.concept} ({bar.detectors})" for bar in never)
    )
