"""Page of ablation: what the network's decisions lose without its units, beside others of the same size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from microtome.quantify.significance import LEVEL
from microtome.report import views
from microtome.report.words import worded

PAGE = "ablation.html"
SHOWN_UNITS, SHOWN_IDLE, SHOWN_CLASSES = 25, 15, 9
NO_CLASS = "all pictures"
REMOVED = {
    "zero": "set to zero",
    "mean": "set to the unit's mean",
    "resampled": "set to the unit's values in another picture",
}


class AblationClassRow(TypedDict):
    """What the page reads of a row of the table `ablation_classes`."""

    unit: int
    class_name: str | None
    images: int
    drop: float
    drop_low: float
    drop_high: float
    random: float | None
    q_value: float | None
    accuracy_drop: float | None
    flipped: float


class AblationUnitRow(AblationClassRow):
    """What the page reads of a row of the table `ablation_units`."""

    concept: str | None
    matched: int
    beyond: float | None
    used: bool
    surpassed: float | None
    own_random: float | None
    probability_drop: float
    regained: float | None


class AblationGroupRow(TypedDict):
    """What the page reads of a row of the table `ablation_groups`."""

    concept: str
    units: int
    class_name: str | None
    images: int
    drop: float
    drop_low: float
    drop_high: float
    random: float | None
    beyond: float | None
    q_value: float | None
    probability_drop: float
    accuracy_drop: float | None
    accuracy_drop_low: float | None
    accuracy_drop_high: float | None
    regained: float | None
    regained_low: float | None
    regained_high: float | None
    regained_random: float | None


class AblationLayerRow(TypedDict):
    """What the page reads of a row of the table `ablation_layers`."""

    layer: str
    units: int
    images: int
    labelled: int
    classes: int
    remove: str
    whole: str | None
    nothing: float
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    score: float
    used: int
    used_share: float
    used_low: float
    used_high: float
    detectors: int
    bystanders: int
    bystander_share: float | None
    bystander_low: float | None
    bystander_high: float | None
    detector_drop: float | None
    detector_low: float | None
    detector_high: float | None
    detector_random: float | None
    detector_apart: float | None
    apart_low: float | None
    apart_high: float | None


@dataclass(frozen=True)
class LayerAblation:
    """A layer.

    Args:
        row: of the table `ablation_layers`.
        units: its rows of the table `ablation_units`.
        classes: its rows of the table `ablation_classes`.
        groups: its rows of the table `ablation_groups`.
    """

    row: AblationLayerRow
    units: Sequence[AblationUnitRow]
    classes: Sequence[AblationClassRow]
    groups: Sequence[AblationGroupRow]


def causal_words(class_name: str | None, drop: float, ends: tuple[float, float], random: float | None) -> str:
    """What a class loses without a unit, in a sentence.

    Args:
        class_name: of the pictures; None for all together.
        drop: mean drop of the log-odds.
        ends: of its 95 % interval.
        random: the same without a unit of the same size; None where there is none.
    """
    beside = "" if random is None else f", without a random unit of the same size {round(random, 2) + 0.0:.2f}"
    whose = f"{class_name} loses" if class_name else f"{NO_CLASS} lose"
    return f"Without it {whose} {drop:.2f} [{ends[0]:.2f}, {ends[1]:.2f}] nats of log-odds{beside}."


def page(layers: Sequence[LayerAblation]) -> views.Page:
    """The page; the last layer leads."""
    last = layers[-1].row
    return views.Page(
        name="ablation",
        page=PAGE,
        headline=_headline(last),
        figures=_figures(last),
        sections=[
            views.Section("Layers", [_layers(layers), *_advice(layers)]),
            *(section for layer in layers for section in _of_layer(layer)),
            _reading(last),
        ],
        queries=[
            ("Layers", "select * from ablation_layers"),
            ("Bystanders", "select * from ablation_units where concept is not null and not used"),
            ("Labels beside what they cause", "select layer, unit, concept, iou, causal_class, causal_drop from units"),
            ("Concepts, class by class", "select * from ablation_groups order by beyond desc"),
        ],
    )


def of_units(layers: Sequence[LayerAblation]) -> views.Told:
    """What each class loses without the unit."""
    return {
        views.UnitKey(layer.row["layer"], unit["unit"]): [_of_unit(unit, classes)]
        for layer in layers
        for unit, classes in zip(layer.units, _by_unit(layer), strict=True)
    }


def _by_unit(layer: LayerAblation) -> list[list[AblationClassRow]]:
    found: list[list[AblationClassRow]] = [[] for _ in layer.units]
    for row in layer.classes:
        found[row["unit"]].append(row)
    return found


def _of_unit(unit: AblationUnitRow, classes: Sequence[AblationClassRow]) -> views.Section:
    columns = [("class", False), ("pictures", True), ("drop, 95 %", True), ("random unit", True), ("q", True)]
    columns += [("accuracy lost", True), ("decisions changed", True)]
    rows = [
        [
            row["class_name"] or NO_CLASS,
            str(row["images"]),
            _between(row["drop"], row["drop_low"], row["drop_high"]),
            worded(row["random"], "+.2f"),
            worded(row["q_value"], ".2g"),
            worded(row["accuracy_drop"], "+z.1%"),
            f"{row['flipped']:z.1%}",
        ]
        for row in sorted(classes, key=lambda row: -row["drop"])[: SHOWN_CLASSES + 1]
    ]
    note = (
        "Drop: of the class's log-odds, in nats, without the unit. Random unit: the mean of units of the same size "
        "that detect nothing or something else. The sentence is of pictures that did not choose the class; the table "
        "of all."
    )
    parts: list[views.Part] = [
        views.Text(f"{_sentence(unit)} {_verdict(unit)}"),
        views.Table(columns, rows, note),
        views.Links([("The page of ablation", PAGE)]),
    ]
    return views.Section("Does the network use it?", parts)


def _sentence(unit: AblationUnitRow) -> str:
    return causal_words(unit["class_name"], unit["drop"], (unit["drop_low"], unit["drop_high"]), unit["random"])


def _verdict(unit: AblationUnitRow) -> str:
    name = "detector" if unit["concept"] else "unit"
    if unit["q_value"] is None:
        return "No other unit of its size detects nothing or something else, so that nothing is said of its use."
    if unit["used"]:
        return f"The network uses this {name} (q = {unit['q_value']:.2g})."
    return f"By this measure the {name} is a bystander (q = {unit['q_value']:.2g})."


def _headline(row: AblationLayerRow) -> str:
    share = f"{row['used_share']:z.0%} [{row['used_low']:z.0%}, {row['used_high']:z.0%}]"
    text = (
        f"The network uses {row['used']} of {row['units']} units of {row['layer']} ({share}): without one of them a "
        "class loses more than without others of the same size."
    )
    if row["detector_drop"] is None:
        return f"{text} No unit is a detector."
    drop = f"{row['detector_drop']:.2f} [{worded(row['detector_low'], '.2f')}, {worded(row['detector_high'], '.2f')}]"
    apart = _between(row["detector_apart"], row["apart_low"], row["apart_high"])
    return (
        f"{text} {row['bystanders']} of {row['detectors']} detectors are bystanders. Without a detector its class "
        f"loses {drop} nats in the mean, without another unit of its size {worded(row['detector_random'], '.2f')}. "
        f"{_special(row)}: beside units of the same size, each by the class that needs it most, {apart}."
    )


def _special(row: AblationLayerRow) -> str:
    low, high = row["apart_low"], row["apart_high"]
    if low is not None and low > 0:
        return "Detectors matter more than others of their size"
    if high is not None and high < 0:
        return "Detectors matter less than others of their size"
    return "That detectors matter more or less than others of their size is not shown"


def _figures(row: AblationLayerRow) -> views.Figures:
    idle, low, high = row["bystander_share"], row["bystander_low"], row["bystander_high"]
    among = "" if low is None or high is None else f"of {row['detectors']} detectors; 95 %: {low:z.0%} to {high:z.0%}"
    return views.Figures(
        [
            ("units used", f"{row['used_share']:z.0%}", f"95 %: {row['used_low']:z.0%} to {row['used_high']:z.0%}"),
            ("bystanders", worded(idle, "z.0%"), among or "no detectors"),
            (
                "a detector's class loses",
                worded(row["detector_drop"], ".2f"),
                f"nats; without a random unit of its size {worded(row['detector_random'], '.2f')}",
            ),
            (
                "accuracy",
                worded(row["accuracy"], "z.1%"),
                f"of {row['labelled']} labelled pictures" if row["labelled"] else "no output bears a picture's label",
            ),
            ("pictures", f"{row['images']:,}", f"{row['classes']} classes of enough pictures"),
        ]
    )


def _layers(layers: Sequence[LayerAblation]) -> views.Table:
    names = (
        "units used",
        "detectors",
        "bystanders",
        "detector's class loses",
        "random",
        "beside others' own",
        "nothing",
    )
    rows: list[list[views.Cell]] = [
        [
            row["layer"],
            f"{row['used']} of {row['units']}",
            str(row["detectors"]),
            str(row["bystanders"]),
            _between(row["detector_drop"], row["detector_low"], row["detector_high"]),
            worded(row["detector_random"], "+.2f"),
            _between(row["detector_apart"], row["apart_low"], row["apart_high"]),
            f"{row['nothing']:.2g}",
        ]
        for row in (layer.row for layer in layers)
    ]
    note = (
        "In nats of log-odds, means with 95 % intervals over the detectors. Beside others' own: the detectors' drop, "
        "less that of units of the same size, each by the class that needs it most. Nothing: the largest change when "
        "nothing is removed."
    )
    return views.Table([("layer", False), *((name, True) for name in names)], rows, note)


def _advice(layers: Sequence[LayerAblation]) -> Iterator[views.Text]:
    row = layers[-1].row
    if not row["labelled"]:
        yield views.Text(
            "No output of the network bears the label of a picture: what is measured is each picture's highest class, "
            "and no accuracy.",
            "advice",
        )
    elif row["labelled"] < row["images"]:
        yield views.Text(
            f"An output of the network bears the label of {row['labelled']} of {row['images']} pictures. Of the others "
            "the highest class is measured, and no accuracy.",
            "advice",
        )
    if not row["classes"]:
        yield views.Text("No class has enough pictures to be judged by itself: all are taken together.", "advice")
    for layer in layers:
        if layer.row["whole"]:
            text = f"Of {layer.row['layer']} the whole network was run for each removal: {layer.row['whole']}."
            yield views.Text(text, "advice")


def _of_layer(layer: LayerAblation) -> Iterator[views.Section]:
    name = layer.row["layer"]
    if layer.groups:
        yield views.Section(f"Without a concept's detectors in {name}", [_matrix(layer), _concepts(layer)])
    parts: list[views.Part] = [_units(layer, _most(layer.units)[:SHOWN_UNITS])]
    yield views.Section(f"Units that matter most in {name}", parts)
    idle = [unit for unit in _most(layer.units) if unit["concept"] and not unit["used"]]
    if idle:
        text = "Detectors without which no class loses surely more than without others of the same size."
        shown = _units(layer, idle[::-1][:SHOWN_IDLE])
        yield views.Section(f"Bystanders in {name}", [views.Text(text, "quiet"), shown])


def _most(units: Sequence[AblationUnitRow]) -> list[AblationUnitRow]:
    """Those whose class loses most beyond what random units cost it, first."""
    judged = [unit for unit in units if unit["beyond"] is not None]
    return sorted(judged, key=lambda unit: (-(unit["beyond"] or 0.0), unit["unit"]))


def _by_concept(layer: LayerAblation) -> Mapping[str, Mapping[str | None, AblationGroupRow]]:
    found: dict[str, dict[str | None, AblationGroupRow]] = {}
    for row in layer.groups:
        found.setdefault(row["concept"], {})[row["class_name"]] = row
    return found


def _matrix(layer: LayerAblation) -> views.Table:
    """Drop by concept and class."""
    found = _by_concept(layer)
    every = [name for name in next(iter(found.values())) if name is not None]
    classes, more = every[:SHOWN_CLASSES], every[SHOWN_CLASSES:]
    columns = [("concept", False), ("units", True), (NO_CLASS, True), *((name, True) for name in classes)]
    rows = [
        [concept, str(rows[None]["units"]), *(_marked(rows[name]) for name in (None, *classes))]
        for concept, rows in found.items()
    ]
    note = (
        "What each class loses when all detectors of a concept are removed together, in nats of log-odds, and in "
        f"brackets what it loses without as many random units of the same sizes. A star: surely more (q ≤ {LEVEL:g}). "
        "A concept that more than half of the units detect is left out: too few others are left to compare with."
    )
    note += f" Not shown, but in the table ablation_groups: {', '.join(more)}." if more else ""
    return views.Table(columns, rows, note)


def _marked(row: AblationGroupRow) -> str:
    star = " *" if _surely(row) else ""
    return f"{row['drop']:+.2f} ({worded(row['random'], '+.2f')}){star}"


def _surely(row: AblationGroupRow) -> bool:
    q, beyond = row["q_value"], row["beyond"]
    return q is not None and beyond is not None and q <= LEVEL and beyond > 0


def _concepts(layer: LayerAblation) -> views.Table:
    """Of each concept, the class that loses most."""
    names = ("drop, 95 %", "random", "q", "probability", "accuracy lost, 95 %", "regained, 95 %", "by random")
    columns = [("concept", False), ("units", True), ("class", False), *((name, True) for name in names)]
    rows = []
    for concept, found in _by_concept(layer).items():
        row = max(found.values(), key=lambda row: (row["class_name"] is not None, row["drop"]))
        rows.append(
            [
                concept,
                str(row["units"]),
                row["class_name"] or NO_CLASS,
                _between(row["drop"], row["drop_low"], row["drop_high"]),
                worded(row["random"], "+.2f"),
                worded(row["q_value"], ".2g"),
                f"{-row['probability_drop']:+z.1%}",
                _shares(row["accuracy_drop"], row["accuracy_drop_low"], row["accuracy_drop_high"]),
                _shares(row["regained"], row["regained_low"], row["regained_high"]),
                worded(row["regained_random"], "z.0%"),
            ]
        )
    note = (
        "The class that loses most without each concept, chosen and measured in the same pictures. Probability: its "
        "mean change. Regained: share of the log-odds that comes back when only these detectors have their own values, "
        "and all other units of the layer are at their means; beside it the same of random ones."
    )
    return views.Table(columns, rows, note)


def _units(layer: LayerAblation, units: Sequence[AblationUnitRow]) -> views.Table:
    names = ("drop, 95 %", "random", "others' own", "ahead of", "q", "accuracy lost", "changed", "regained")
    columns = [("unit", False), ("detects", False), ("class", False), *((name, True) for name in names)]
    rows: list[list[views.Cell]] = [
        [
            views.UnitKey(layer.row["layer"], unit["unit"]),
            unit["concept"] or "–",
            unit["class_name"] or NO_CLASS,
            _between(unit["drop"], unit["drop_low"], unit["drop_high"]),
            worded(unit["random"], "+.2f"),
            worded(unit["own_random"], "+.2f"),
            worded(unit["surpassed"], "z.0%"),
            worded(unit["q_value"], ".2g"),
            worded(unit["accuracy_drop"], "+z.1%"),
            f"{unit['flipped']:z.1%}",
            worded(unit["regained"], "z.1%"),
        ]
        for unit in units
    ]
    note = (
        "The class is the one that loses most in half of the pictures; all figures are of the other half. Random: "
        "without units of the same size. Others' own: those units, each by its own class. Ahead of: the share of them "
        "that cost this class less. Changed: pictures of the class whose highest class becomes another. Regained: "
        "share of the log-odds that comes back with this unit alone, all others at their means."
    )
    return views.Table(columns, rows, note)


def _between(value: float | None, low: float | None, high: float | None) -> str:
    return "–" if value is None or low is None or high is None else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _shares(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:z.1%}" if low is None or high is None else f"{value:z.1%} [{low:z.1%}, {high:z.1%}]"


def _reading(row: AblationLayerRow) -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                f"A unit is removed: its values are {REMOVED[row['remove']]}, in all places. The score of a picture "
                "is the log-odds of its class, log p / (1 - p): it moves where a probability near 1 hides what was "
                "lost. The class is that of the picture's label where an output of the network bears its name, else "
                "the network's own highest one."
            ),
            views.Text(
                "Any unit costs something, and a large one more than a small one. So each stands beside the ten units "
                "of the nearest size (the root mean square of what removal takes) that do not detect the same. A "
                f"unit is used where its class loses surely more than without them (q ≤ {LEVEL:g}). Since most units "
                "serve some class, the harder question is whether a detector costs its own class more than they cost "
                "theirs: that is the column of others' own."
            ),
            views.Text(
                "That a class loses without a unit does not say that it loses because of the concept: the unit may "
                "carry more than its label. And where several units carry the same, each alone looks idle: see what "
                "goes with all detectors of a concept."
            ),
        ],
    )
