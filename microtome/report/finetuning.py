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
        halvings: how often training had diverged so far.
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
    halvings: int = 0


@dataclass(frozen=True)
class Learned:
    """What a finished network makes of the held-out pictures, beside what could be learned.

    Args:
        phase: which network.
        images: held-out pictures.
        accuracy, low, high: share of right answers, and its interval.
        probe, probe_low, probe_high: that of a linear probe of the backbone's answers.
        majority: that of always naming the class that most training pictures have.
        learned: the whole interval of the accuracy lies above that.
        rate: learning rate of the first epoch.
    """

    phase: Phase
    images: int
    accuracy: float
    low: float
    high: float
    probe: float
    probe_low: float
    probe_high: float
    majority: float
    learned: bool
    rate: float

    @property
    def said(self) -> str:
        """Why there is nothing to interpret, in a sentence."""
        return (
            f"The network {NAMES[self.phase]} answers {self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] of the "
            f"{self.images} held-out pictures right, not surely more than always naming the commonest class "
            f"({self.majority:.1%})"
        )


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
        learned: what each network learned.
        compared: stability of every network; nothing where it was not asked for.
        filters: of the new layer, the same ones in the network and in its twin.
        size: (height, width) of the frame.
        network: as an audit file names the finished network.
    """

    training: Sequence[Epoch]
    learned: Sequence[Learned]
    compared: Sequence[Compared]
    filters: Mapping[Phase, Sequence[Pictured]]
    size: tuple[int, int]
    network: Mapping[str, object]

    @property
    def nothing_learned(self) -> list[Learned]:
        """Of the network with filter loss and its twin, those that learned nothing: then nothing can be compared."""
        return [item for item in self.learned if item.phase in (INTERPRETABLE, TWIN) and not item.learned]


def page(findings: FinetuningFindings) -> views.Page:
    """The page."""
    nothing = findings.nothing_learned
    sections = [views.Section("Training", [*_training(findings), *_accuracies(findings)])]
    if findings.compared:
        shown = _withheld(findings) if nothing else _table(findings)
        sections.append(views.Section("Before and after, on pictures that no training saw", [shown]))
    if not nothing:
        sections += [_gallery(findings, phase) for phase in findings.filters]
    sections.append(_loading(findings.network))
    return views.Page(
        name="fine-tuning",
        page="finetuning.html",
        headline=_headline(findings),
        figures=_figures(findings.learned),
        sections=sections,
        queries=[
            ("Training curves", "select * from training order by phase, split, epoch"),
            ("What was learned", "select * from finetuning_summary"),
            ("Predictions", "select * from finetuning_images"),
        ],
    )


def _headline(findings: FinetuningFindings) -> str:
    of = {item.phase: item for item in findings.learned}
    own, epochs = of[INTERPRETABLE], max(row.epoch for row in findings.training)
    text = (
        f"After {epochs} epochs the interpretable network answers "
        f"{own.accuracy:.1%} of {own.images} held-out pictures right"
    )
    if TWIN in of:
        text += f", its twin without filter loss {of[TWIN].accuracy:.1%}"
    text += f"; a linear probe of the frozen features {own.probe:.1%}"
    if findings.nothing_learned:
        return f"{text}. There is nothing to interpret."
    return f"{text}{_steadiness(findings.compared)}."


def _steadiness(compared: Sequence[Compared]) -> str:
    """Instability of the new layer, beside the twin's."""
    new = {item.phase: item.judged.summary for item in reversed(compared) if item.judged.layer == EXTRA_MAP}
    if not {INTERPRETABLE, TWIN} <= set(new):
        return ""
    return (
        f". Location instability of its new layer: {worded(new[INTERPRETABLE].deviation, '.4f')} beside "
        f"{worded(new[TWIN].deviation, '.4f')} of the twin{_following(compared)}"
    )


def _following(compared: Sequence[Compared]) -> str:
    """How many filters of the new layer follow what is shown, beside the twin's."""
    new = {item.phase: item.shift for item in reversed(compared) if item.judged.layer == EXTRA_MAP and item.shift}
    if not {INTERPRETABLE, TWIN} <= set(new):
        return ""
    own, twin = (f"{new[phase].follow} of {new[phase].positions}" for phase in (INTERPRETABLE, TWIN))
    return f"; {own} filters surely follow what is shown, {twin} of the twin's"


def _figures(learned: Sequence[Learned]) -> views.Figures:
    each = [
        (f"accuracy, {item.phase}", f"{item.accuracy:.1%}", f"95 %: {item.low:.1%} to {item.high:.1%}")
        for item in learned
    ]
    top = learned[0]
    ceiling = ("linear probe", f"{top.probe:.1%}", f"95 %: {top.probe_low:.1%} to {top.probe_high:.1%}")
    return views.Figures([*each, ceiling])


def _training(findings: FinetuningFindings) -> list[views.Charts | views.Text]:
    """Curves; and where training diverged, how often."""
    rows = [asdict(row) for row in findings.training]
    charts = views.Charts(
        [
            curves("Task loss", rows, "task_loss"),
            curves("Filter loss (minus mutual information)", rows, "filter_loss"),
            curves("Accuracy", rows, "accuracy"),
        ]
    )
    back = {row.phase: row.halvings for row in findings.training if row.halvings}
    said = [
        f"The training of the network {NAMES[phase]} diverged {_times(times)}, and went on from the epoch before at "
        "half the rate."
        for phase, times in back.items()
    ]
    return [charts, *map(views.Text, said)]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _accuracies(findings: FinetuningFindings) -> list[views.Table]:
    """What the networks learned, beside what could be learned from the same pictures."""
    last = {row.phase: row for row in findings.training if row.split == HELD_OUT}
    names = ("held out", "accuracy", "95 %", "task loss", "filter loss", "first rate")
    lines: list[list[str | views.Strip]] = [
        [
            NAMES[item.phase],
            f"{item.images} pictures",
            f"{item.accuracy:.1%}",
            f"{item.low:.1%}–{item.high:.1%}",
            f"{last[item.phase].task_loss:.3f}",
            f"{last[item.phase].filter_loss:.5f}",
            f"{item.rate:.2g}",
        ]
        for item in findings.learned
    ]
    top = findings.learned[0]
    pictures, ends = f"{top.images} pictures", f"{top.probe_low:.1%}–{top.probe_high:.1%}"
    lines += [
        ["linear probe of the backbone", pictures, f"{top.probe:.1%}", ends, "", "", ""],
        ["always the commonest class", pictures, f"{top.majority:.1%}", "", "", "", ""],
    ]
    note = (
        "Wilson intervals; rate of the first epoch. Pictures are split before they are mirrored; no picture is on both "
        "sides. The probe is a logistic regression on the mean of each filter of the top convolution as it was, fitted "
        "to the same training pictures: what training should reach."
    )
    return [views.Table([("network", False), *((name, True) for name in names)], lines, note)]


def _withheld(findings: FinetuningFindings) -> views.Text:
    """Why nothing is compared."""
    said = ". ".join(item.said for item in findings.nothing_learned)
    top = findings.learned[0]
    return views.Text(
        f"{said}. It has learned nothing that could be interpreted, so no stability is compared. A linear probe of "
        f"the features as they were answers {top.probe:.1%} right: train at another `rate`, for more `epochs`, or with "
        "more pictures.",
        style="advice",
    )


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
