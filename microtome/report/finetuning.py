"""Page of a fine-tuning: what the filter loss did, beside the same training without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import yaml

from microtome.disentangle.examples import HELD_OUT
from microtome.disentangle.names import EXTRA_MAP, INTERPRETABLE, TWIN, Phase
from microtome.quantify.shift import ShiftSummary
from microtome.quantify.stability_summary import Judged
from microtome.report import views
from microtome.report.charts import curves
from microtome.report.stability import Pictured, cards, gallery, interval, slope
from microtome.report.words import worded

NAMES: Mapping[Phase, str] = {
    "interpretable": "with filter loss",
    "twin": "twin: masks, no filter loss",
    "plain": "plain: neither",
}
BEFORE = "before fine-tuning"
SHOWN_FILTERS = 8

_COLUMNS = [
    ("network", False),
    ("layer", False),
    ("D", True),
    ("95 %", True),
    ("against the twin", True),
    ("best constant", True),
    ("tracking", True),
    ("own spread", True),
    ("follow", True),
    ("slope", True),
    ("NULL", True),
]


@dataclass(frozen=True)
class Epoch:
    """A network after an epoch, on the pictures that it was trained on or on those held out.

    Args:
        epoch: from one.
        phase: which network.
        split: `train` or `val`.
        task_loss, filter_loss, accuracy: means over the pictures.
        low, high: interval of the accuracy.
        images: how many.
    """

    epoch: int
    phase: Phase
    split: str
    task_loss: float
    filter_loss: float
    accuracy: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Apart:
    """A paired difference and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    """A layer of a network on the pictures that no training saw.

    Args:
        phase: which network; None for the one before fine-tuning.
        judged: its stability.
        apart: from the twin's same layer; None where that cannot be told.
        shift: the shift test; None without one.
    """

    phase: Phase | None
    judged: Judged
    apart: Apart | None = None
    shift: ShiftSummary | None = None


@dataclass(frozen=True)
class FinetuningFindings:
    """What the stage found.

    Args:
        training: every epoch of every network.
        compared: stability of every network; nothing where it was not asked for.
        filters: of the new layer, the same ones in the network and in its twin.
        size: (height, width) of the frame.
        network: as an audit file names the finished network.
    """

    training: Sequence[Epoch]
    compared: Sequence[Compared]
    filters: Mapping[Phase, Sequence[Pictured]]
    size: tuple[int, int]
    network: Mapping[str, object]


def page(findings: FinetuningFindings) -> views.Page:
    """The page."""
    last = {row.phase: row for row in findings.training if row.split == HELD_OUT}
    sections = [views.Section("Training", [_charts(findings.training), _accuracies(list(last.values()))])]
    if findings.compared:
        sections.append(views.Section("Before and after, on pictures that no training saw", [_table(findings)]))
    sections += [_gallery(findings, phase) for phase in findings.filters]
    sections.append(_loading(findings.network))
    return views.Page(
        name="fine-tuning",
        page="finetuning.html",
        headline=_headline(last, findings.compared),
        figures=_figures(list(last.values())),
        sections=sections,
        queries=[
            ("Training curves", "select * from training order by phase, split, epoch"),
            ("Predictions", "select * from finetuning_images"),
        ],
    )


def _headline(last: Mapping[Phase, Epoch], compared: Sequence[Compared]) -> str:
    own = last[INTERPRETABLE]
    text = (
        f"After {own.epoch} epochs the interpretable network answers "
        f"{own.accuracy:.1%} of {own.images} held-out pictures right"
    )
    if TWIN in last:
        text += f", its twin without filter loss {last[TWIN].accuracy:.1%}"
    new = {item.phase: item.judged.summary for item in reversed(compared) if item.judged.layer == EXTRA_MAP}
    if INTERPRETABLE in new and TWIN in new:
        text += (
            f". Location instability of its new layer: {worded(new[INTERPRETABLE].deviation, '.4f')} beside "
            f"{worded(new[TWIN].deviation, '.4f')} of the twin"
        )
        text += _following(compared)
    return text + "."


def _following(compared: Sequence[Compared]) -> str:
    """How many filters of the new layer follow what is shown, beside the twin's."""
    new = {item.phase: item.shift for item in reversed(compared) if item.judged.layer == EXTRA_MAP and item.shift}
    if not {INTERPRETABLE, TWIN} <= set(new):
        return ""
    own, twin = (f"{new[phase].follow} of {new[phase].positions}" for phase in (INTERPRETABLE, TWIN))
    return f"; {own} filters surely follow what is shown, {twin} of the twin's"


def _figures(last: Sequence[Epoch]) -> views.Figures:
    return views.Figures(
        [(f"accuracy, {row.phase}", f"{row.accuracy:.1%}", f"95 %: {row.low:.1%} to {row.high:.1%}") for row in last]
    )


def _charts(training: Sequence[Epoch]) -> views.Charts:
    rows = [asdict(row) for row in training]
    return views.Charts(
        [
            curves("Task loss", rows, "task_loss"),
            curves("Filter loss (minus mutual information)", rows, "filter_loss"),
            curves("Accuracy", rows, "accuracy"),
        ]
    )


def _accuracies(last: Sequence[Epoch]) -> views.Table:
    names = ("held out", "accuracy", "95 %", "task loss", "filter loss")
    lines = [
        [
            NAMES[row.phase],
            f"{row.images} pictures",
            f"{row.accuracy:.1%}",
            f"{row.low:.1%}–{row.high:.1%}",
            f"{row.task_loss:.3f}",
            f"{row.filter_loss:.4f}",
        ]
        for row in last
    ]
    note = "Wilson intervals. Pictures are split before they are mirrored; no picture is on both sides."
    return views.Table([("network", False), *((name, True) for name in names)], lines, note)


def _table(findings: FinetuningFindings) -> views.Table:
    """Instability of every network, and of the interpretable one against its controls, paired."""
    twin = any(item.phase == TWIN for item in findings.compared)
    note = (
        "D: location instability, lower is steadier. Against the twin: paired difference over the same resampled "
        "pictures; it shows an effect where its interval excludes zero. A filter that stops moving is steady too: "
        "watch whether it still tracks a landmark, and follows what is shown when that is moved by a known offset "
        "(slope: 1 follows, 0 is frozen; counted where the interval of its own slope lies above 0.5)."
    )
    return views.Table(_COLUMNS, [_line(item, against=twin) for item in findings.compared], note)


def _line(item: Compared, *, against: bool) -> list[str | views.Strip]:
    found = item.judged.summary
    return [
        BEFORE if item.phase is None else NAMES[item.phase],
        item.judged.layer,
        worded(found.deviation, ".4f"),
        interval(found),
        _apart(item.apart) if against and item.phase not in (None, TWIN) else "",
        f"{found.best_constant:.4f}",
        worded(found.tracking_share, ".0%"),
        f"{found.spread:.3f}",
        "–" if item.shift is None else f"{item.shift.follow} of {item.shift.positions}",
        "–" if item.shift is None else slope(item.shift),
        f"{found.null_filters}",
    ]


def _apart(apart: Apart | None) -> str:
    return "–" if apart is None else f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"


def _gallery(findings: FinetuningFindings, phase: Phase) -> views.Section:
    shown = cards(EXTRA_MAP, findings.filters[phase], findings.size, f"{phase}/")
    return gallery(f"Filters of the new layer, {NAMES[phase]}", shown)


def _loading(network: Mapping[str, object]) -> views.Section:
    return views.Section(
        "Use the network",
        [
            views.Text(
                "Every other stage takes it through the ordinary loader. `weights` lies in the workspace; copy it to "
                "where the audit file is."
            ),
            views.Code(yaml.safe_dump({"network": dict(network)}, sort_keys=False)),
        ],
    )
