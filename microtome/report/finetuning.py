"""Page of a fine-tuning: what the filter loss did, beside the same training without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import yaml

from microtome.disentangle.examples import HELD_OUT
from microtome.disentangle.names import EXTRA_MAP, INTERPRETABLE, TWIN, Phase
from microtome.quantify.shift import ShiftSummary
from microtome.quantify.stability_summary import Judged, LayerSummary
from microtome.report import views
from microtome.report.charts import curves
from microtome.report.stability import CARDS, Pictured, cards, ends_on, slope, with_interval
from microtome.report.words import worded

NAMES: Mapping[Phase, str] = {
    "interpretable": "interpretable (masks and filter loss)",
    "twin": "twin (masks, no filter loss)",
    "plain": "plain (neither)",
}
BEFORE = "before fine-tuning"
SHOWN_FILTERS = 6

_COLUMNS = [
    ("network", False),
    ("D, 95 %", True),
    ("", False),
    ("minus the twin", True),
    ("surely follow", True),
    ("slope", True),
    ("track a landmark", True),
    ("own movement", True),
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
            f"The {self.phase} network answers {self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] of the "
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
    sections = [views.Section("What is compared", _who(findings))]
    if findings.compared:
        withheld = views.Section("Are its filters steadier?", [_withheld(findings)])
        sections += [withheld] if nothing else _steady(findings)
    if not nothing and findings.filters:
        sections.append(_pairs(findings))
    sections += [
        views.Section("Training", [*_training(findings), *_accuracies(findings)]),
        _loading(findings.network),
    ]
    return views.Page(
        name="fine-tuning",
        page="finetuning.html",
        headline=_headline(findings),
        figures=_figures(findings),
        sections=sections,
        queries=[
            ("Training curves", "select * from training order by phase, split, epoch"),
            ("What was learned", "select * from finetuning_summary"),
            ("Predictions", "select * from finetuning_images"),
        ],
    )


_ABOUT: Mapping[Phase, str] = {
    "interpretable": "its layers and a new one on top, whose maps are masked about their highest place; trained with "
    "the filter loss, which rewards a filter for answering at one place of one kind of object",
    "twin": "the same network, masks, pictures and seed, trained without the filter loss: where the two differ, that "
    "is the filter loss's doing",
    "plain": "the same again without masks",
}


def _who(findings: FinetuningFindings) -> list[views.Part]:
    """The networks, told apart."""
    before = [f"{BEFORE}: the audit's network as it came."] * any(item.phase is None for item in findings.compared)
    return [views.Listed([*before, *(f"{item.phase}: {_ABOUT[item.phase]}." for item in findings.learned)])]


def _headline(findings: FinetuningFindings) -> str:
    of = {item.phase: item for item in findings.learned}
    own, epochs = of[INTERPRETABLE], max(row.epoch for row in findings.training)
    text = (
        f"After {epochs} epochs with the filter loss the network answers {_right(own)} of {own.images} held-out "
        "pictures right"
    )
    if TWIN in of:
        text += f"; without that loss (its twin) {_right(of[TWIN])}"
    control, right, between = _best_guess(own)
    text += f"; {control} {right:.1%}{between}"
    if findings.nothing_learned:
        return f"{text}. There is nothing to interpret."
    return f"{text}.{_steadiness(findings.compared)}"


def _right(learned: Learned) -> str:
    """The share of right answers, with its interval."""
    return f"{learned.accuracy:.1%} [{learned.low:.1%}, {learned.high:.1%}]"


def _best_guess(learned: Learned) -> tuple[str, float, str]:
    """The best that answers without any fine-tuning: what, how often right, and with which interval, if it has one."""
    between = f" [{learned.probe_low:.1%}, {learned.probe_high:.1%}]"
    probe = ("a linear probe of the features as they were", learned.probe, between)
    return max(probe, ("always naming the commonest class", learned.majority, ""), key=lambda control: control[1])


def _new(compared: Sequence[Compared]) -> dict[Phase | None, Compared]:
    """The new layer of each network."""
    return {item.phase: item for item in reversed(compared) if item.judged.layer == EXTRA_MAP}


def _best_held(item: Compared) -> tuple[str, float]:
    """The steadiest places that look at nothing, and their instability."""
    controls = [("one place held for every picture", item.judged.summary.best_constant)]
    if item.shift and item.shift.frozen is not None:
        controls.append(("its own filters frozen at their mean places", item.shift.frozen))
    return min(controls, key=lambda control: control[1])


def _steadiness(compared: Sequence[Compared]) -> str:
    """Whether the new layer is steadier than the twin's, and than what looks at nothing."""
    new = _new(compared)
    if not {INTERPRETABLE, TWIN} <= set(new):
        return ""
    own, twin = new[INTERPRETABLE], new[TWIN]
    value, (control, held) = own.judged.summary.deviation, _best_held(own)
    beside = "less steady" if value is None or held < value else "steadier"
    return (
        f"\nThe filters of its new layer are {_than_twin(own.apart)}; they are {beside} than the best control, "
        f"{control}.{_following(own, twin)}"
    )


def _than_twin(apart: Apart | None) -> str:
    """How steady they are beside the twin's."""
    if apart is None:
        return "not to be compared with the twin's"
    said = "steadier than" if apart.high < 0 else "less steady than" if apart.low > 0 else "not surely steadier than"
    return f"{said} the twin's (their instability differs by {_apart(apart)} of the picture's diagonal)"


def _following(own: Compared, twin: Compared) -> str:
    """How many filters of the new layer follow what is shown, beside the twin's."""
    if not own.shift or not twin.shift:
        return ""
    counts = [f"{item.sure} of {item.filters}" for item in (own.shift, twin.shift)]
    return f" When what is shown is moved, {counts[0]} of its filters surely follow, {counts[1]} of the twin's."


def _figures(findings: FinetuningFindings) -> views.Figures:
    """Instability of the new layer; accuracies where it was not asked for, or is not to be compared."""
    new = {} if findings.nothing_learned else _new(findings.compared)
    if INTERPRETABLE not in new:
        return views.Figures(_accuracy_tiles(findings))
    found = {phase: new[phase].judged.summary for phase in (INTERPRETABLE, TWIN) if phase in new}
    items = [
        (f"instability, {phase}", worded(each.deviation, ".4f"), f"of the diagonal{_ends(each)}")
        for phase, each in found.items()
    ]
    control, held = _best_held(new[INTERPRETABLE])
    return views.Figures([*items, ("instability, best control", f"{held:.4f}", control)])


def _ends(found: LayerSummary) -> str:
    return "" if found.low is None else f", 95 %: {found.low:.4f} to {found.high:.4f}"


def _accuracy_tiles(findings: FinetuningFindings) -> list[tuple[str, str, str]]:
    """How often the networks are right, and what needs no fine-tuning."""
    items = [
        (f"accuracy, {item.phase}", f"{item.accuracy:.1%}", f"95 %: {item.low:.1%} to {item.high:.1%}")
        for item in findings.learned
        if item.phase in (INTERPRETABLE, TWIN)
    ]
    control, right, between = _best_guess(findings.learned[0])
    return [*items, ("accuracy, best control", f"{right:.1%}", control + between)]


_CURVES = (
    "Task loss: of the answers. Filter loss: minus the mutual information of the maps with single places, the lower "
    "the more each filter keeps to one place; of the networks that are trained without it, it is only measured."
)


def _training(findings: FinetuningFindings) -> list[views.Charts | views.Text]:
    """Curves; and where training diverged, how often."""
    rows = [asdict(row) for row in findings.training]
    charts = views.Charts(
        [
            curves("Task loss", rows, "task_loss"),
            curves("Filter loss", rows, "filter_loss"),
            curves("Accuracy", rows, "accuracy", whole=True),
        ]
    )
    back = {row.phase: row.halvings for row in findings.training if row.halvings}
    said = [
        f"The training of the {phase} network diverged {_times(times)}, and went on from the epoch before at "
        "half the rate."
        for phase, times in back.items()
    ]
    return [views.Text(_CURVES, "quiet"), charts, *map(views.Text, said)]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _accuracies(findings: FinetuningFindings) -> list[views.Table]:
    """What the networks learned, beside what could be learned from the same pictures."""
    last = {row.phase: row for row in findings.training if row.split == HELD_OUT}
    names = ("accuracy, 95 %", "task loss", "filter loss", "first rate")
    lines: list[list[str]] = [
        [
            NAMES[item.phase],
            _right(item),
            f"{last[item.phase].task_loss:.3f}",
            f"{last[item.phase].filter_loss:.5f}",
            f"{item.rate:.2g}",
        ]
        for item in findings.learned
    ]
    top = findings.learned[0]
    probe = f"{top.probe:.1%} [{top.probe_low:.1%}, {top.probe_high:.1%}]"
    lines += [
        ["linear probe of the backbone", probe, "", "", ""],
        ["always the commonest class", f"{top.majority:.1%}", "", "", ""],
    ]
    note = (
        f"On {top.images} held-out pictures; Wilson intervals; first rate: learning rate of the first epoch. Pictures "
        "are split before they are mirrored; no picture is on both sides. The probe is a logistic regression on "
        "the mean of each filter of the top convolution as it was, fitted to the same training pictures: what training "
        "should reach."
    )
    return [views.Table([("network", False), *((name, True) for name in names)], lines, note)]


def _withheld(findings: FinetuningFindings) -> views.Text:
    """Why nothing is compared."""
    said = ". ".join(item.said for item in findings.nothing_learned)
    top = findings.learned[0]
    return views.Text(
        f"{said}. It has learned nothing that could be interpreted, so no stability is compared. A linear probe of "
        f"the features as they were answers {top.probe:.1%} right: train at another rate, for more epochs, or with "
        "more pictures.",
        style="advice",
    )


def _steady(findings: FinetuningFindings) -> list[views.Section]:
    """Instability of every network, layer by layer, the new one first."""
    twin = any(item.phase == TWIN for item in findings.compared)
    new = [item for item in findings.compared if item.judged.layer == EXTRA_MAP]
    below = [item for item in findings.compared if item.judged.layer != EXTRA_MAP]
    both = (("Are its filters steadier? On pictures that no training saw", new), ("The layer below the new one", below))
    return [views.Section(title, [_table(some, against=twin)]) for title, some in both if some]


def _table(compared: Sequence[Compared], *, against: bool) -> views.Table:
    """A layer of every network, with the best control on the same line."""
    control, held = _best_held(compared[0])
    summaries = [item.judged.summary for item in compared]
    widest = 1.05 * max(held, *(value or 0.0 for each in summaries for value in (each.deviation, each.high)))
    lines = [_line(item, held, widest, against=against) for item in compared]
    legend = [("dot", "D"), ("range", "95 % interval"), ("aim", f"the best control, {control}: {held:.4f}")]
    return views.Table(_COLUMNS, lines, _STEADY, legend)


_STEADY = (
    "D: location instability, how much the distance from where a filter is highest to a landmark varies, by the "
    "picture's diagonal; lower is steadier. Minus the twin: paired difference over the same resampled pictures; it "
    "shows an effect where its interval excludes zero. A filter that stops moving is steady too: so watch whether it "
    "surely follows what is shown when that is moved by a known offset (slope: 1 follows all the way, 0 stays where "
    "it was; surely, where its own slope lies above 0.5, at a false discovery rate of 5 %), still tracks a landmark, "
    "and how much it moves itself. Filters that are silent, or have too few pictures, are left out."
)


def _line(item: Compared, held: float, widest: float, *, against: bool) -> list[views.Cell]:
    found = item.judged.summary
    value, low, high = ends_on(found, widest)
    mark = (round(100 * held / widest, 2), "aim", f"the best control {held:.4f}")
    return [
        item.phase or f"{BEFORE} ({item.judged.layer})",
        with_interval(found),
        views.Strip(value, low, high, [mark], f"D {with_interval(found)}"),
        _apart(item.apart) if against and item.phase not in (None, TWIN) else "",
        "–" if item.shift is None else f"{item.shift.sure} of {item.shift.filters}",
        "–" if item.shift is None else slope(item.shift),
        worded(found.sure_tracking_share, ".0%"),
        f"{found.spread:.3f}",
    ]


def _apart(apart: Apart | None) -> str:
    return "–" if apart is None else f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"


def _pairs(findings: FinetuningFindings) -> views.Section:
    """The same filters of each network, one row of pictures above the other."""
    shown = {
        _ROWS.get(phase, phase): {
            (item.found.filter, item.found.category, item.found.landmark): card
            for item, card in zip(some, cards(EXTRA_MAP, some, findings.size, f"{phase}/"), strict=True)
        }
        for phase, some in findings.filters.items()
    }
    told = views.Text(f"{_CHOSEN} {CARDS}", "quiet")
    together = [
        _together({row: found[key] for row, found in shown.items() if key in found})
        for key in next(iter(shown.values()))
    ]
    return views.Section("The same filters, with and without the filter loss", [told, views.Gallery(together)])


_ROWS: Mapping[Phase, str] = {"interpretable": "filter loss"}


def _together(rows: Mapping[str, views.Card]) -> views.Card:
    """A filter's cards as one, each a row of pictures by its name."""
    spots = [replace(spot, caption=row) for row, card in rows.items() for spot in card.spots]
    facts = [
        (f"{name}, {row}", value, note)
        for row, card in rows.items()
        for name, value, note in card.facts
        if name in ("D", "R²")
    ]
    return replace(next(iter(rows.values())), spots=spots, facts=facts)


_CHOSEN = (
    "Chosen are the filters that follow a landmark best in the interpretable network, which flatters it beside the "
    "twin."
)


def _loading(network: Mapping[str, object]) -> views.Section:
    return views.Section(
        "Use the network",
        [
            views.Text(
                "Every other stage takes it through the ordinary loader. The weights lie in the workspace; copy the "
                "file to where the audit file is."
            ),
            views.Code(yaml.safe_dump({"network": dict(network)}, sort_keys=False, default_flow_style=None)),
        ],
        folded=True,
    )
