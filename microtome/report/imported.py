"""Page of what others published of a network's units: what the files say, what was computed again, what is unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from microtome.report import views
from microtome.report.words import worded

PAGE = "imported.html"
SHOWN_ROWS = 25
NAMES = {"netdissect": "NetDissect", "clip-dissect": "CLIP-Dissect", "milan": "MILAN"}

DEFINITIONS = (
    (
        "lit pixels in the denominator, A",
        "of the pictures that are annotated in the concept's category",
        "of the pictures whose annotation of the category meets the unit's mask: fewer, so every IoU is higher",
        "of the pictures that are annotated in the concept's category",
    ),
    (
        "how a map is enlarged",
        "bilinear, at the centres of receptive fields",
        "bilinear, cells spread evenly",
        "bilinear, at the centres of receptive fields; evenly on demand",
    ),
    (
        "threshold of a unit",
        "a quantile of a random sketch, read at 1,000 places",
        "a quantile of a random sketch, read at 1,000 places",
        "the exact quantile of all values",
    ),
    (
        "label 0, the background",
        "a concept without a name, with A = 0",
        "a concept without a name",
        "no concept; taken for none in what is imported",
    ),
    ("units are counted", "from one", "from one", "from zero; here, too"),
    (
        "how sure it is",
        "not said",
        "not said",
        "intervals, chance, held-out half: of an audit, none for what is imported",
    ),
)
"""What, in NetDissect, in NetDissect-Lite, in an audit of microtome."""

COLUMNS = (
    ("computed again", "iou, detector, detectors, unique_per_category, unique_per_unit, mean_iou"),
    ("copied", "concept, category, intersection, activation, label_pixels"),
    (
        "null, since the file says nothing of it",
        "threshold, tail, all intervals, null_p95, p_value, q_value, heldout_iou, label_stability, confirmed, the "
        "numbers of concepts, pictures, and where a layer's cells lie",
    ),
)


class ImportedRow(TypedDict):
    """What the page reads of a row of the table `imported`."""

    layer: str
    method: str
    file: str
    sha256: str
    units: int
    labels: int
    counted_from: int
    recomputed: int
    background: int
    largest_difference: float | None


class TalliedRow(TypedDict):
    """What the page reads of a row of the table `layers`, of a layer that was imported."""

    detectors: int
    unique_per_category: int
    unique_per_unit: int
    mean_iou: float
    min_iou: float


class TalliedUnitRow(TypedDict):
    """What the page reads of a row of the table `units`, of a unit that was imported."""

    unit: int
    concept: str | None
    category: str | None
    iou: float
    detector: bool


class LabelRow(TypedDict):
    """What the page reads of a row of the table `labels`."""

    unit: int
    label: str
    score: float | None


@dataclass(frozen=True)
class ImportedLayer:
    """A layer.

    Args:
        source: its row of the table `imported`.
        tally: its row of the table `layers`; None where a list of labels was imported.
        units: its rows of the table `units`.
        labels: its rows of the table `labels`.
    """

    source: ImportedRow
    tally: TalliedRow | None
    units: Sequence[TalliedUnitRow]
    labels: Sequence[LabelRow]


def page(layers: Sequence[ImportedLayer]) -> views.Page:
    """The page; the last layer leads."""
    tallied = layers[-1].tally is not None
    sections = [_concepts if tallied else _named, *([_units] if tallied else [])]
    return views.Page(
        name="published labels",
        subject="the published labels",
        page=PAGE,
        headline=_headline(layers),
        figures=_figures(layers),
        sections=[
            views.Section("Layers", [_layers(layers), *_background(layers)]),
            *([_made()] if tallied else []),
            *(section(layer) for layer in layers for section in sections),
            views.Section("The files", [_files(layers)]),
            _reading(tallied),
        ],
        queries=[
            ("Where labels come from", "select * from imported"),
            ("Labels", "select * from labels order by layer, unit"),
            *([("Detectors", "select * from units where detector order by iou desc")] if tallied else []),
        ],
    )


def _name(layers: Sequence[ImportedLayer]) -> str:
    return NAMES[layers[-1].source["method"]]


def _headline(layers: Sequence[ImportedLayer]) -> str:
    last, units = layers[-1], sum(layer.source["units"] for layer in layers)
    if last.tally is None:
        different = len({label["label"] for layer in layers for label in layer.labels})
        return (
            f"{_name(layers)} has {different:,} different labels for {units:,} units of "
            f"{_counted(len(layers), 'layer')}. They are as published: nothing in the file lets anybody compute them "
            "again."
        )
    recomputed = sum(layer.source["recomputed"] for layer in layers)
    return (
        f"{last.tally['detectors']:,} of {last.source['units']:,} units of {last.source['layer']} are detectors by "
        f"{_name(layers)}'s file (IoU > {last.tally['min_iou']:g}), of "
        f"{last.tally['unique_per_unit']:,} different concepts; {last.tally['unique_per_category']:,}, as the papers "
        f"count. All {recomputed:,} "
        f"IoUs of {_counted(len(layers), 'layer')} follow from the counts beside them. How sure they are, the file "
        "does not say."
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _figures(layers: Sequence[ImportedLayer]) -> views.Figures:
    last = layers[-1]
    of = f"of {last.source['units']:,} units of {last.source['layer']}, no interval"
    if last.tally is None:
        units, labels = (
            sum(layer.source["units"] for layer in layers),
            [label for each in layers for label in each.labels],
        )
        common, times = Counter(label["label"] for label in labels).most_common(1)[0]
        return views.Figures(
            [
                ("units with a label", f"{units:,}", f"in {_counted(len(layers), 'layer')}"),
                ("different labels", f"{len({label['label'] for label in labels}):,}", "as they are written"),
                ("most frequent label", common, f"of {times:,} units"),
            ]
        )
    return views.Figures(
        [
            ("detectors", f"{last.tally['detectors']:,}", of),
            ("different concepts", f"{last.tally['unique_per_unit']:,}", "one label a unit"),
            ("concepts as papers count", f"{last.tally['unique_per_category']:,}", "each unit once in every category"),
            ("mean IoU", f"{last.tally['mean_iou']:.4f}", "of the labels"),
            ("computed again", f"{last.source['recomputed']:,}", _difference(last.source)),
        ]
    )


def _difference(source: ImportedRow) -> str:
    apart = source["largest_difference"]
    if apart is None:
        return "IoUs"
    return "IoUs, all as printed" if apart == 0 else f"IoUs, at most {apart:.1g} from the printed ones"


def _layers(layers: Sequence[ImportedLayer]) -> views.Table:
    if layers[-1].tally is None:
        columns = [("layer", False), ("units", True), ("different labels", True)]
        rows = [[at.source["layer"], f"{at.source['units']:,}", f"{at.source['labels']:,}"] for at in layers]
        return views.Table(columns, rows)
    names = ("units", "detectors", "different concepts", "as papers count", "mean IoU", "IoUs computed again")
    lines = [
        [
            layer.source["layer"],
            f"{layer.source['units']:,}",
            f"{layer.tally['detectors']:,}",
            f"{layer.tally['unique_per_unit']:,}",
            f"{layer.tally['unique_per_category']:,}",
            f"{layer.tally['mean_iou']:.4f}",
            f"{layer.source['recomputed']:,}",
        ]
        for layer in layers
        if layer.tally
    ]
    return views.Table([("layer", False), *((name, True) for name in names)], lines, "None of these has an interval.")


def _background(layers: Sequence[ImportedLayer]) -> list[views.Text]:
    found = [(layer.source["layer"], layer.source["background"]) for layer in layers if layer.source["background"]]
    if not found:
        return []
    where = ", ".join(f"{count:,} in {layer}" for layer, count in found)
    return [
        views.Text(
            f"The best concept of a unit and a category has no name in some rows ({where}): it is label 0, the "
            "background, which the tool counts among the concepts. Here it is none, and its IoU is left out.",
            "advice",
        )
    ]


def _made() -> views.Section:
    columns = [("what", False), ("NetDissect", False), ("NetDissect-Lite", False), ("an audit of microtome", False)]
    definitions = views.Table(columns, [list(row) for row in DEFINITIONS], "Both tools write the same columns.")
    made = views.Table([("columns", False), ("which", False)], [list(row) for row in COLUMNS])
    return views.Section("What was computed again, and which definitions differ", [made, definitions])


def _concepts(layer: ImportedLayer) -> views.Section:
    units = [unit for unit in layer.units if unit["detector"]]
    counted = Counter((unit["concept"], unit["category"]) for unit in units)
    best = {(unit["concept"], unit["category"]): unit["iou"] for unit in sorted(units, key=lambda unit: unit["iou"])}
    columns = [("concept", False), ("category", False), ("detectors", True), ("highest IoU", True)]
    rows = [
        [concept or "", category or "", f"{number:,}", f"{best[concept, category]:.3f}"]
        for (concept, category), number in counted.most_common(SHOWN_ROWS)
    ]
    return views.Section(f"Concepts of {layer.source['layer']}", [views.Table(columns, rows, _first(len(counted)))])


def _units(layer: ImportedLayer) -> views.Section:
    columns = [("unit", False), ("in the file", True), ("concept", False), ("category", False), ("IoU", True)]
    best = sorted(layer.units, key=lambda unit: (-unit["iou"], unit["unit"]))[:SHOWN_ROWS]
    first = layer.source["counted_from"]
    rows = [
        [str(u["unit"]), str(u["unit"] + first), u["concept"] or "–", u["category"] or "–", f"{u['iou']:.3f}"]
        for u in best
    ]
    note = f"{_first(len(layer.units))} Units are counted from zero here, and from {first} in the file.".strip()
    return views.Section(f"Units of {layer.source['layer']}", [views.Table(columns, rows, note)])


def _named(layer: ImportedLayer) -> views.Section:
    counted = Counter(label["label"] for label in layer.labels)
    scores = {label["label"]: label["score"] for label in sorted(layer.labels, key=lambda each: each["score"] or 0)}
    scored = any(score is not None for score in scores.values())
    columns = [("label", False), ("units", True), *([("highest similarity", True)] if scored else [])]
    rows = [
        [label, f"{number:,}", *([worded(scores[label], ".3f")] if scored else [])]
        for label, number in counted.most_common(SHOWN_ROWS)
    ]
    return views.Section(f"Labels of {layer.source['layer']}", [views.Table(columns, rows, _first(len(counted)))])


def _first(number: int) -> str:
    return f"The first {SHOWN_ROWS} of {number:,}." if number > SHOWN_ROWS else ""


def _files(layers: Sequence[ImportedLayer]) -> views.Table:
    columns = [("file", False), ("layers", False), ("units count from", True), ("SHA-256", False)]
    files = {layer.source["file"]: layer.source for layer in layers}
    of = {name: ", ".join(at.source["layer"] for at in layers if at.source["file"] == name) for name in files}
    return views.Table(
        columns, [[name, of[name], str(row["counted_from"]), row["sha256"]] for name, row in files.items()]
    )


def _reading(tallied: bool) -> views.Section:
    again = (
        "Every IoU was computed again from the three counts beside it; a file in which one differs by more than its "
        "last digit's rounding is refused. That says that the table is whole, and not that the counts are right: "
        "these, and the label of each unit, stand as they were published. "
        if tallied
        else "Labels stand as they were published. "
    )
    return views.Section(
        "How to read this",
        [
            views.Text(
                again
                + "The file names neither the network nor the pictures, so nothing here has an interval, a chance "
                "level or a held-out check, and nobody can tell from it how many of the labels are luck."
            ),
            views.Text(
                "`microtome compare` sets these labels beside those of an audit, or of another method: how many units "
                "carry the same word in both, with an interval, and how many would if the labels were shuffled."
            ),
        ],
    )
