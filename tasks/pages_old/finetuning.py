"""Page of a fine-tuning: what the filter loss did, beside the same training without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import yaml

from microtome.quantify.intervals import paired_interval
from microtome.report import views
from microtome.report.charts import curves
from tasks.networks import WEIGHTS
from tasks.report.common import about, rows_of, worded
from tasks.report.stability import cards
from tasks.stage import Work

NAMES = {"interpretable": "with filter loss", "twin": "twin: masks, no filter loss", "plain": "plain: neither"}
SHOWN_FILTERS = 8


def page(work: Work) -> views.Page:
    """The page."""
    jobs = [name for name in work.inputs if name.partition(":")[0] == "finetuning"]
    training = [row for name in jobs for row in work.inputs[name].table("training").to_pylist()]
    last = {row["phase"]: row for row in training if row["split"] == "val"}
    compared = _compared(work)
    sections = [views.Section("Training", [_charts(training), _accuracies(last)])]
    if compared:
        sections.append(views.Section("Before and after, on pictures that no training saw", compared))
        sections += _galleries(work)
    sections.append(_loading(work))
    return views.Page(
        name="fine-tuning",
        page="finetuning.html",
        headline=_headline(last, work),
        figures=_figures(last),
        sections=sections,
        queries=[
            ("Training curves", "select * from training order by phase, split, epoch"),
            ("Predictions", "select * from finetuning_images"),
        ],
    )


def _headline(last: Mapping[str, Mapping[str, Any]], work: Work) -> str:
    own = last["interpretable"]
    text = (
        f"After {own['epoch']} epochs the interpretable network answers "
        f"{own['accuracy']:.1%} of {own['images']} held-out pictures right"
    )
    if "twin" in last:
        text += f", its twin without filter loss {last['twin']['accuracy']:.1%}"
    row = _summary_row(work, "interpretable")
    twin = _summary_row(work, "twin")
    if row and twin:
        text += (
            f". Location instability of its new layer: {worded(row['deviation'], '.4f')} beside "
            f"{worded(twin['deviation'], '.4f')} of the twin"
        )
    return text + "."


def _figures(last: Mapping[str, Mapping[str, Any]]) -> views.Figures:
    return views.Figures(
        [
            (f"accuracy, {phase}", f"{row['accuracy']:.1%}", f"95 %: {row['low']:.1%} to {row['high']:.1%}")
            for phase, row in last.items()
        ]
    )


def _charts(training: Sequence[Mapping[str, Any]]) -> views.Charts:
    return views.Charts(
        [
            curves("Task loss", training, "task_loss"),
            curves("Filter loss (minus mutual information)", training, "filter_loss"),
            curves("Accuracy", training, "accuracy"),
        ]
    )


def _accuracies(last: Mapping[str, Mapping[str, Any]]) -> views.Table:
    names = ("held out", "accuracy", "95 %", "task loss", "filter loss")
    lines = [
        [
            NAMES[phase],
            f"{row['images']} pictures",
            f"{row['accuracy']:.1%}",
            f"{row['low']:.1%}–{row['high']:.1%}",
            f"{row['task_loss']:.3f}",
            f"{row['filter_loss']:.4f}",
        ]
        for phase, row in last.items()
    ]
    note = "Wilson intervals. Pictures are split before they are mirrored; no picture is on both sides."
    return views.Table([("network", False), *((name, True) for name in names)], lines, note)


def _compared(work: Work) -> list[views.Part]:
    """Instability of every network, and of the interpretable one against its controls, paired."""
    phases = [name for name in ("before", *NAMES) if f"stability:{name}" in work.inputs]
    if not phases:
        return []
    lines: list[list[str | views.Strip]] = []
    for phase in phases:
        artifact = work.inputs[f"stability:{phase}"]
        for row in _judged(artifact.table("stability_layers").to_pylist()):
            between = "" if row["low"] is None else f"{row['low']:.4f}–{row['high']:.4f}"
            lines.append(
                [
                    NAMES.get(phase, "before fine-tuning"),
                    row["layer"],
                    worded(row["deviation"], ".4f"),
                    between,
                    _against_twin(work, phase, row),
                    f"{row['best_constant']:.4f}",
                    worded(row["tracking_share"], ".0%"),
                    f"{row['spread']:.3f}",
                    f"{row['null_filters']}",
                ]
            )
    columns = [
        ("network", False),
        ("layer", False),
        ("D", True),
        ("95 %", True),
        ("against the twin", True),
        ("best constant", True),
        ("tracking", True),
        ("own spread", True),
        ("NULL", True),
    ]
    note = (
        "D: location instability, lower is steadier. Against the twin: paired difference over the same resampled "
        "pictures; it shows an effect where its interval excludes zero. A filter that stops moving is steady too: "
        "watch its own spread, and whether it still tracks a landmark."
    )
    return [views.Table(columns, lines, note)]


def _judged(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    pooled = [row for row in rows if row["category"] == "all: mean"]
    return pooled or list(rows)


def _against_twin(work: Work, phase: str, row: Mapping[str, Any]) -> str:
    if phase in ("before", "twin") or "stability:twin" not in work.inputs:
        return ""
    drawn = [
        [
            item["deviation"]
            for item in rows_of(
                work.inputs[f"stability:{name}"], "stability_resamples", layer=row["layer"], category=row["category"]
            )
        ]
        for name in (phase, "twin")
    ]
    twin = rows_of(work.inputs["stability:twin"], "stability_layers", layer=row["layer"], category=row["category"])
    if row["deviation"] is None or not twin or twin[0]["deviation"] is None or not all(drawn):
        return "–"
    means = (np.array(drawn[0]), np.array(drawn[1]))
    apart, low, high = paired_interval((row["deviation"], twin[0]["deviation"]), means)
    return f"{apart:+.4f} [{low:+.4f}, {high:+.4f}]"


def _summary_row(work: Work, phase: str) -> Mapping[str, Any] | None:
    name = f"stability:{phase}"
    if name not in work.inputs:
        return None
    return _judged(rows_of(work.inputs[name], "stability_layers", layer="extra_map"))[0]


def _galleries(work: Work) -> list[views.Section]:
    """The same filters of the new layer, in the interpretable network and in its twin."""
    if not {"stability:interpretable", "stability:twin"} <= set(work.inputs):
        return []
    own = rows_of(work.inputs["stability:interpretable"], "stability", layer="extra_map")
    best = sorted((row for row in own if row["r2"] is not None), key=lambda row: (-row["r2"], row["filter"]))
    best = best[:SHOWN_FILTERS]
    wanted = {(row["filter"], row["category"], row["landmark"]) for row in best}
    sections = []
    for phase in ("interpretable", "twin"):
        looked_at = about(work, f"stability:{phase}")
        rows = rows_of(looked_at.inputs["stability"], "stability", layer="extra_map")
        same = {(row["filter"], row["category"], row["landmark"]): row for row in rows}
        shown = [same[key] for key in sorted(wanted) if key in same]
        sections.append(
            views.Section(
                f"Filters of the new layer, {NAMES[phase]}",
                [
                    views.Text("Circle: where the filter is highest. Cross: the landmark.", "quiet"),
                    views.Gallery(cards(looked_at, "extra_map", shown, f"{phase}/")),
                ],
            )
        )
    return sections


def _loading(work: Work) -> views.Section:
    artifact = work.inputs["finetuning"]
    made = artifact.json("network.json")
    network = {
        "load": made["load"],
        "arguments": {key: copy(value) for key, value in made["arguments"].items() if value is not None},
        "weights": f"{artifact.folder}/{WEIGHTS}",
        "layers": ["top_map", "extra_map"],
        "input": work.parameters["audit"]["network"]["input"],
    }
    return views.Section(
        "Use the network",
        [
            views.Text(
                "Every other stage takes it through the ordinary loader. `weights` lies in the workspace; copy it to "
                "where the audit file is."
            ),
            views.Code(yaml.safe_dump({"network": network}, sort_keys=False)),
        ],
    )
