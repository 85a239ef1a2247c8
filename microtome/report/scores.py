"""Page of scores: which metrics notice labels that are wrong, and which of them agree about the units' labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from microtome.quantify.label_tests import LIMIT
from microtome.quantify.scores import COUNTED, METRICS, RELIABLE
from microtome.report import charts, views
from microtome.report.words import worded

PAGE = "scores.html"
NAMES: Mapping[str, str] = {
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "iou": "IoU",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "inverse_balanced_accuracy": "inverse balanced accuracy",
    "auc": "AUC",
    "inverse_auc": "inverse AUC",
    "correlation": "correlation",
    "correlation_top_random": "correlation over top and random",
    "spearman": "Spearman's correlation",
    "spearman_top_random": "Spearman's over top and random",
    "cosine": "cosine",
    "wpmi": "WPMI",
    "mad": "mean activation difference",
    "auprc": "AUPRC",
    "inverse_auprc": "inverse AUPRC",
}
VERDICTS: Mapping[str, str] = {
    "passes": "notices wrong labels",
    "fails": "does not notice wrong labels",
    "undecided": "may or may not notice wrong labels",
    "not tested": "was not tested",
}
BESIDE = (
    ("pixels", "iou"),
    ("pictures", "iou"),
    ("pictures", "correlation"),
    ("pictures", "cosine"),
    ("pictures", "auprc"),
    ("pictures", "inverse_auc"),
)
"""Metrics that every other one is set beside: those that pass in NeuronEval, and the AUC of INVERT and CoSy."""


class ScoreTestRow(TypedDict):
    """What the page reads of a row of the table `score_tests`."""

    level: str
    metric: str
    labels: str
    missing_pairs: int
    missing_share: float | None
    missing_low: float | None
    missing_high: float | None
    missing_single: float | None
    missing: str
    extra_pairs: int
    extra_share: float | None
    extra_low: float | None
    extra_high: float | None
    extra_single: float | None
    extra: str
    verdict: str


class ScoreAgreementRow(TypedDict):
    """What the page reads of a row of the table `score_agreement`."""

    level: str
    metric: str
    other_level: str
    other: str
    units: int
    same: float | None
    same_low: float | None
    same_high: float | None
    correlation: float | None
    correlation_low: float | None
    correlation_high: float | None


class ScoreLabelRow(TypedDict):
    """What the page reads of a row of the table `score_labels`."""

    level: str
    metric: str
    labels: str
    unit: int
    concept: str | None
    score: float | None


class ScoreLayerRow(TypedDict):
    """What the page reads of a row of the table `score_layers`."""

    layer: str
    units: int
    passed: int
    failed: int
    undecided: int
    pixel_iou: str
    detectors: int
    detectors_passed: int
    detectors_pixel_iou: str
    same_label: float | None
    same_label_low: float | None
    same_label_high: float | None
    images: int
    concepts: int
    pooling: str
    alpha: float
    draws: int


@dataclass(frozen=True)
class ScoredLayer:
    """A layer.

    Args:
        row: of the table `score_layers`.
        tests: its rows of the table `score_tests`.
        agreements: its rows of the table `score_agreement`.
        labels: its rows of the table `score_labels` in which the metric itself chose the concept.
    """

    row: ScoreLayerRow
    tests: Sequence[ScoreTestRow]
    agreements: Sequence[ScoreAgreementRow]
    labels: Sequence[ScoreLabelRow]

    def tested(self, level: str, metric: str, labels: str = "iou") -> ScoreTestRow:
        """The row of one metric."""
        wanted = (level, metric, labels)
        return next(row for row in self.tests if (row["level"], row["metric"], row["labels"]) == wanted)

    @property
    def iou(self) -> str:
        """What is said of IoU over pixels."""
        return said(self.tested("pixels", "iou"), self.tested("pixels", "iou", "detectors"))


def said(every: ScoreTestRow, detectors: ScoreTestRow) -> str:
    """What stands beside a metric's scores: whether it notices wrong labels.

    Args:
        every: of all units, by the labels of IoU.
        detectors: of the units that the dissection calls detectors.
    """
    name = f"{NAMES[every['metric']]} over {every['level']}"
    if every["verdict"] == "not tested":
        return f"{name} could not be tested by wrong labels: no unit has a concept that allows it."
    text = (
        f"{name} {VERDICTS[every['verdict']]}: it falls for {_share(every, 'missing')} of the "
        f"{every['missing_pairs']} units where half of the labels of their concepts are missing, and for "
        f"{_share(every, 'extra')} where as many false ones are added; {LIMIT:.0%} is asked."
    )
    if not detectors["missing_pairs"]:
        return text
    return (
        f"{text} Of the {detectors['missing_pairs']} detectors alone it falls for {_share(detectors, 'missing')} and "
        f"{_share(detectors, 'extra')}: it {VERDICTS[detectors['verdict']]}."
    )


def page(layers: Sequence[ScoredLayer]) -> views.Page:
    """The page; the last layer leads."""
    last = layers[-1]
    return views.Page(
        name="scores",
        page=PAGE,
        headline=_headline(last),
        figures=_figures(last),
        sections=[
            *(
                views.Section(f"Wrong labels in {layer.row['layer']}", [*_drawn(layer), *_tests(layer)])
                for layer in layers
            ),
            *(views.Section(f"Which metrics agree in {layer.row['layer']}", [_agreements(layer)]) for layer in layers),
            _reading(last.row),
        ],
        queries=[
            ("Both tests of every metric", "select * from score_tests order by labels, level"),
            ("Which metrics give units the same labels", "select * from score_agreement order by same desc"),
            ("A unit's label by every metric", "select * from score_labels where labels = 'own' and unit = 0"),
            ("All scores of units and concepts", "select * from scores where level = 'pictures'"),
        ],
    )


def of_units(layers: Sequence[ScoredLayer]) -> views.Told:
    """What every metric would call a unit."""
    return {
        views.UnitKey(layer.row["layer"], unit): [views.Section("What other metrics would call it", [*parts])]
        for layer in layers
        for unit, parts in _by_unit(layer).items()
    }


def _by_unit(layer: ScoredLayer) -> Mapping[int, Sequence[views.Part]]:
    found: dict[int, dict[tuple[str, str], ScoreLabelRow]] = {}
    for row in layer.labels:
        found.setdefault(row["unit"], {})[row["level"], row["metric"]] = row
    columns = [("metric", False), ("over pictures", False), ("score", True), ("both tests", False)]
    columns += [("over pixels", False), ("score", True), ("both tests", False)]
    note = (
        "The concept of the highest score, whether or not it is high. Both tests: the metric's verdict over all units "
        "of the layer, from the page of scores."
    )
    parts: dict[int, Sequence[views.Part]] = {}
    for unit, rows in found.items():
        cells = [
            [
                NAMES[metric],
                *_labelled(layer, rows.get(("pictures", metric))),
                *_labelled(layer, rows.get(("pixels", metric))),
            ]
            for metric in METRICS
        ]
        parts[unit] = [views.Table(columns, cells, note), views.Links([("The page of scores", PAGE)])]
    return parts


def _labelled(layer: ScoredLayer, row: ScoreLabelRow | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    verdict = layer.tested(row["level"], row["metric"])["verdict"]
    return [row["concept"] or "none", worded(row["score"], ".3f"), verdict]


def _headline(layer: ScoredLayer) -> str:
    row, passing = layer.row, [NAMES[name] for name in METRICS if layer.tested("pictures", name)["verdict"] == "passes"]
    which = f" ({', '.join(passing)})" if passing else ""
    return (
        f"Of {len(METRICS)} metrics over the pictures, {row['passed']} notice wrong labels of the units of "
        f"{row['layer']}{which}, {row['failed']} do not, and {row['undecided']} are undecided. {layer.iou}"
    )


def _figures(layer: ScoredLayer) -> views.Figures:
    row, pixels = layer.row, layer.tested("pixels", "iou")
    of_detectors = f"{row['detectors_passed']} by the labels of the {row['detectors']} detectors"
    return views.Figures(
        [
            ("notice wrong labels", f"{row['passed']} of {len(METRICS)}", f"metrics over pictures; {of_detectors}"),
            ("half missing", worded(pixels["missing_share"], ".0%"), f"IoU falls; 95 %: {_ends(pixels, 'missing')}"),
            ("false added", worded(pixels["extra_share"], ".0%"), f"IoU falls; 95 %: {_ends(pixels, 'extra')}"),
            (
                "same label",
                worded(row["same_label"], ".0%"),
                f"by IoU over pictures and over pixels; 95 %: {_span(row['same_label_low'], row['same_label_high'])}",
            ),
        ]
    )


def _ends(row: ScoreTestRow, test: str) -> str:
    low, high = (
        (row["missing_low"], row["missing_high"]) if test == "missing" else (row["extra_low"], row["extra_high"])
    )
    return _span(low, high)


def _span(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.0%} to {high:.0%}"


def _share(row: ScoreTestRow, test: str) -> str:
    share = row["missing_share"] if test == "missing" else row["extra_share"]
    return "–" if share is None else f"{share:.0%} [{_ends(row, test).replace('%', '').replace(' to ', ', ')}]"


def _tests(layer: ScoredLayer) -> list[views.Part]:
    names = ("half missing, 95 %", "in one draw", "false added, 95 %", "in one draw")
    columns = [("units", True), *((name, True) for name in names), ("verdict", False)]
    columns += [("detectors alone", False), ("by its own labels", False), ("in NeuronEval", False)]
    note = (
        "Half missing: share of units whose score falls, in the mean over the draws, if half of the labels of their "
        "concept are taken away; false added: if as many false ones are added. A metric passes where both are surely "
        f"at least {LIMIT:.0%}. In one draw: share of single draws in which it falls, which luck lowers where labels "
        "are few. Units: that could be tested, each with the concept of its highest IoU; detectors alone: the verdict "
        "by the labels of the dissection's detectors; by its own labels: where each metric chooses the concept itself. "
        "In brackets: units that could be tested."
    )
    pictures = [_test(layer, "pictures", metric) for metric in METRICS]
    pixels = [_test(layer, "pixels", metric) for metric in METRICS if metric in COUNTED]
    return [
        views.Table([("over pictures", False), *columns], pictures, note),
        views.Table([("over pixels", False), *columns], pixels),
    ]


def _test(layer: ScoredLayer, level: str, metric: str) -> list[views.Cell]:
    row = layer.tested(level, metric)
    return [
        NAMES[metric],
        str(row["missing_pairs"]),
        _share(row, "missing"),
        worded(row["missing_single"], ".0%"),
        _share(row, "extra"),
        worded(row["extra_single"], ".0%"),
        row["verdict"],
        *(_verdict(layer.tested(level, metric, labels)) for labels in ("detectors", "own")),
        "passes" if metric in RELIABLE else "fails",
    ]


def _drawn(layer: ScoredLayer) -> list[views.Part]:
    """Both tests of every metric, by level, from the metric that notices most to the one that notices least."""
    drawn = []
    for level, names in (("pictures", METRICS), ("pixels", [name for name in METRICS if name in COUNTED])):
        rows = [layer.tested(level, name) for name in names]
        tested = [row for row in rows if row["missing_share"] is not None and row["extra_share"] is not None]
        if tested:
            tested.sort(key=_least, reverse=True)
            points = [point for row in tested for point in _points(row)]
            drawn.append(charts.shares(f"Share of units whose score falls, over {level}", points, LIMIT))
    return [views.Charts(drawn)] if drawn else []


def _least(row: ScoreTestRow) -> float:
    return min(row["missing_share"] or 0.0, row["extra_share"] or 0.0)


def _points(row: ScoreTestRow) -> list[Mapping[str, object]]:
    missing = (row["missing_share"], row["missing_low"], row["missing_high"])
    extra = (row["extra_share"], row["extra_low"], row["extra_high"])
    tests = (("half of the labels missing", missing), ("as many false ones added", extra))
    return [
        {"name": NAMES[row["metric"]], "of": test, "value": value, "low": low, "high": high}
        for test, (value, low, high) in tests
    ]


def _verdict(row: ScoreTestRow) -> str:
    return f"{row['verdict']} ({row['missing_pairs']})" if row["missing_pairs"] else row["verdict"]


def _agreements(layer: ScoredLayer) -> views.Table:
    found: dict[tuple[tuple[str, str], tuple[str, str]], ScoreAgreementRow] = {}
    for row in layer.agreements:
        one, other = (row["level"], row["metric"]), (row["other_level"], row["other"])
        found[one, other] = found[other, one] = row
    named = [("pictures", metric) for metric in METRICS] + [("pixels", name) for name in METRICS if name in COUNTED]
    rows: list[list[views.Cell]] = [
        [_title(*one), *("" if one == other else _same(found[one, other]) for other in BESIDE)] for one in named
    ]
    note = (
        "Share of the units to which both metrics give the same label, with its 95 % interval; behind it the mean over "
        "units of Spearman's correlation of the two metrics over all concepts. Of labels with equal scores the first "
        "in the data set's order is taken."
    )
    return views.Table([("metric", False), *((_title(*other), True) for other in BESIDE)], rows, note)


def _title(level: str, metric: str) -> str:
    return NAMES[metric] if level == "pictures" else f"{NAMES[metric]}, pixels"


def _same(row: ScoreAgreementRow) -> str:
    low, high = row["same_low"], row["same_high"]
    if row["same"] is None or low is None or high is None:
        return "–"
    return f"{row['same']:.0%} [{100 * low:.0f}, {100 * high:.0f}], {worded(row['correlation'], '.2f')}"


def _reading(row: ScoreLayerRow) -> views.Section:
    pooled = "mean" if row["pooling"] == "mean" else "highest value"
    return views.Section(
        "How to read this",
        [
            views.Text(
                f"Over pictures, a unit's map is pooled to its {pooled}, a concept is in a picture or is not, and a "
                f"picture counts as lit if it is among the {row['alpha']:.1%} in which the unit is highest. Over "
                "pixels, the counts are those of the dissection. Only pictures in which the concept's category is "
                "annotated count."
            ),
            views.Text(
                "The names are NeuronEval's: the concept predicts what the unit lights, so that recall is the share of "
                "what is lit that has the concept. The inverse ones turn this round; the AUC of INVERT and CoSy is the "
                "inverse AUC. Labels that are 0 or 1 make AUC the balanced accuracy."
            ),
            views.Text(
                "A metric that passes can still give a wrong label: it only tells labels from worse ones. One that "
                "fails may do so here because the concepts cover far more, or far less, than the units light: then "
                "IoU hardly changes with half of the labels. Both tests say something of this data set, these "
                f"{row['units']} units and this share of lit pictures. Each pair is tested with {row['draws']} draws."
            ),
        ],
    )
