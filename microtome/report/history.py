"""Page of the runs of one audit: what failed and what surely moved first, then the trend of every gate and figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from microtome.quantify.intervals import separate_interval
from microtome.report import views
from microtome.report.comparison import Figure, number
from microtome.report.trends import Point, Run, Trend
from microtome.report.trends import drawn as trend_of
from microtome.report.words import change as signed
from microtome.report.words import day, stamp

SHOWN_RUNS = 30
SHOWN_MISSED = 3  # gates, and figures, that the verdict names
MOST_BESIDE = 4  # rows of a figure, such as layers, beside each other
SHOWN_CARDS = 12  # of what surely moved
SHOWN_WHY = 120  # letters of why a run failed that the verdict has
MARKED = {"network": "N", "pictures": "P", "settings": "S", "code": "C"}
"""What may not be as in the run before, and the letter that marks it below an axis."""


@dataclass(frozen=True)
class Change:
    """Something that is not as in the run before: a kind of `MARKED`, or another, and what it is in words."""

    kind: str
    words: str


@dataclass(frozen=True)
class PastRun:
    """A finished run; or several in a row whose stages gave the same results, as one.

    Args:
        run: its id; of several the last one's.
        started: seconds since the epoch; of several the first.
        status: `done` or `gate failed`.
        network: what was audited, for people.
        changed: what is not as in the run before.
        otherwise: of that, the settings by which stages measured, in words.
        pictures: digest of its data sets' indices.
        times: how many there were.
        ended: when the last of several began.
        report: where its report lies, from the page; empty where there is none.
        comparison: where its comparison with the run before lies; empty where there is none.
    """

    run: str
    started: float
    status: str
    network: str
    changed: Sequence[Change] = ()
    otherwise: Sequence[str] = ()
    pictures: str = ""
    times: int = 1
    ended: float = 0.0
    report: str = ""
    comparison: str = ""

    @property
    def last(self) -> float:
        """When the last of several began."""
        return self.ended or self.started

    @property
    def begun(self) -> str:
        """When it began; of several the first, how many, and the last."""
        return day(self.started) if self.times == 1 else f"{day(self.started)} ({self.times} runs to {day(self.last)})"

    @property
    def marks(self) -> list[tuple[str, str]]:
        """A letter of each kind of thing that is not as in the run before, and what it is in words."""
        told = {kind: [change.words for change in self.changed if change.kind == kind] for kind in MARKED}
        return [(MARKED[kind], f"{kind}: {'; '.join(words)}") for kind, words in told.items() if words]


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that came to no end: its id, when it began, how it stands, why, and how many finished `PastRun` it follows.

    Its status is `failed`, `stopped`, `killed` or `running`.
    """

    run: str
    moment: str
    status: str
    network: str
    why: str
    after: int


@dataclass(frozen=True)
class Step:
    """What became of a figure from one run to another.

    Args:
        before, now: its values.
        apart: the difference, with its interval where both values have one.
    """

    before: Figure
    now: Figure
    apart: Figure

    @classmethod
    def between(cls, before: Figure | None, now: Figure | None) -> Step | None:
        """From one value to another; None where either is not known."""
        if before is None or now is None or before.value is None or now.value is None:
            return None
        if before.low is None or before.high is None or now.low is None or now.high is None:
            return cls(before, now, Figure(now.value - before.value))
        ends = (before.value, before.low, before.high), (now.value, now.low, now.high)
        return cls(before, now, Figure(*separate_interval(*ends)))

    @property
    def moved(self) -> bool:
        """Whether the values differ."""
        return self.apart.value != 0

    @property
    def sure(self) -> bool:
        """Whether the difference's interval leaves zero out."""
        low, high = self.apart.low, self.apart.high
        return low is not None and high is not None and not low <= 0 <= high

    @property
    def surety(self) -> float:
        """The difference beside the half of its interval; none of it where it has none."""
        low, high = self.apart.low, self.apart.high
        if self.apart.value is None or low is None or high is None:
            return 0.0
        return 2 * abs(self.apart.value) / ((high - low) or 1e-300)

    @property
    def words(self) -> str:
        """For example `−12 [−20, −4]`."""
        return signed(self.apart.value, self.apart.low, self.apart.high)


@dataclass(frozen=True)
class PastFigure:
    """A headline figure over the runs: None where a run did not measure it."""

    stage: str
    name: str
    row: str
    values: Sequence[Figure | None]

    @property
    def moved(self) -> bool:
        """Whether any two runs measured it differently."""
        return len({value.value for value in self.values if value is not None and value.value is not None}) > 1

    @property
    def of(self) -> str:
        """Of which row, by which stage where that is not a dissection."""
        stage = "" if self.stage == "dissection" else self.stage
        return " · ".join(part for part in (self.row, stage) if part)

    @property
    def words(self) -> str:
        """What it is."""
        return f"{self.name} of {self.row}" if self.row else self.name

    @property
    def step(self) -> Step | None:
        """From the run before to the last."""
        return Step.between(self.values[-2], self.values[-1]) if len(self.values) > 1 else None


@dataclass(frozen=True)
class PastVerdict:
    """A gate in one run."""

    value: Figure
    limit: float | None
    verdict: str
    note: str

    @property
    def missed(self) -> bool:
        """Whether it failed, or warned."""
        return self.verdict in ("failed", "warned")


@dataclass(frozen=True)
class PastGate:
    """A gate over the runs: None where a run had it not; `figure` is the place of the headline figure that it judges.

    None of it where that is no headline figure.
    """

    gate: str
    verdicts: Sequence[PastVerdict | None]
    figure: int | None = None

    @property
    def missed(self) -> int:
        """In how many runs it failed, or warned."""
        return sum(verdict.missed for verdict in self.verdicts if verdict)

    @property
    def failing(self) -> bool:
        """Whether it failed, or warned, in the last run."""
        last = self.verdicts[-1]
        return last is not None and last.missed

    @property
    def demand(self) -> str:
        """What it asks of its figure, for example `min 10, certain`."""
        return self.gate.rpartition(": ")[2]


@dataclass(frozen=True)
class History:
    """The finished runs of an audit, oldest first, one at least; and those that came to no end."""

    name: str
    runs: Sequence[PastRun]
    gates: Sequence[PastGate]
    figures: Sequence[PastFigure]
    unfinished: Sequence[UnfinishedRun] = ()

    @property
    def count(self) -> int:
        """Finished runs, each of several that gave the same results by itself."""
        return sum(run.times for run in self.runs)

    @cached_property
    def breaks(self) -> list[int]:
        """Runs that looked at other pictures than the run before, or measured by other settings."""
        seen = [run.pictures for run in self.runs]
        return [place for place in range(1, len(seen)) if seen[place] != seen[place - 1] or self.runs[place].otherwise]

    @cached_property
    def below(self) -> list[Run]:
        """What stands of each run below an axis: its hour and day; of runs of several years the year in place of it."""
        stamps = [stamp(run.started) for run in self.runs]
        several = len({year for _, _, year in stamps}) > 1
        return [
            Run(day, year if several else hour, run.marks)
            for run, (day, hour, year) in zip(self.runs, stamps, strict=True)
        ]

    @property
    def broken(self) -> bool:
        """Whether the last run cannot be compared with the one before."""
        return len(self.runs) - 1 in self.breaks

    @property
    def sure(self) -> list[PastFigure]:
        """Figures that surely differ between the run before and the last: the surest row of each, then their next."""
        steps = [(figure, figure.step) for figure in self.figures if figure.step and figure.step.sure]
        turns: Counter[tuple[str, str]] = Counter()
        found: list[tuple[int, PastFigure]] = []
        for figure, _ in sorted(steps, key=lambda pair: -pair[1].surety):
            found.append((turns[figure.stage, figure.name], figure))
            turns[figure.stage, figure.name] += 1
        return [] if self.broken else [figure for _, figure in sorted(found, key=lambda pair: pair[0])]

    def drift(self, figure: PastFigure) -> tuple[PastRun, Step] | None:
        """What became of a figure since the first run that the last can be compared with; None where it is not sure."""
        first = max([0, *self.breaks])
        known = [place for place in range(first, len(self.runs)) if figure.values[place] is not None]
        step = Step.between(figure.values[known[0]], figure.values[-1]) if known else None
        return (self.runs[known[0]], step) if step and step.sure else None


def page(found: History, file: str) -> views.Page:
    """The page.

    Args:
        found: what it shows.
        file: its name.
    """
    told = [sentence for sentence in sentences(found) if sentence not in set(_sure(found))]  # which the charts tell
    several = len(found.runs) > 1
    return views.Page(
        name="history",
        page=file,
        title=f"History of {found.name}",
        headline=told[0],
        figures=views.Figures([]),
        links=_links(found),
        sections=[
            *([views.Section("In short", [views.Listed(told[1:])])] if told[1:] else []),
            *(_trends(found) if several else _single(found)),
            _runs(found),
            *(_tables(found) if several else ()),
            *_reading(found),
        ],
    )


def sentences(found: History) -> Iterator[str]:
    """The verdict, why the latest run failed, which gates missed what, what surely moved, what changed in the making,
    and of how many runs."""
    latest = _latest(found)
    running = latest is not None and latest.status == "running"
    if latest and not running:
        yield _without_end(latest)
    yield from _verdict(found)
    yield from _missed(found)
    yield from _sure(found)
    yield from _making(found)
    if len(found.runs) > 1:
        others = f"; {len(found.unfinished)} more did not finish" if found.unfinished else ""
        yield f"{found.count} finished runs of {found.name} {_when(found)}{others}."
    if latest and running:
        yield f"A run that began on {latest.moment} has not ended yet, and is not among these."


def _day(seconds: float) -> str:
    return day(seconds).partition(",")[0]


def _when(found: History) -> str:
    first, end = _day(found.runs[0].started), _day(found.runs[-1].last)
    return f"from {first} to {end}" if first != end else f"on {end}"


def _latest(found: History) -> UnfinishedRun | None:
    """The latest run of all, where it has no results."""
    later = [run for run in found.unfinished if run.after == len(found.runs)]
    return later[-1] if later else None


def _without_end(run: UnfinishedRun) -> str:
    """Why the latest run of all has no results, since the rest of the page cannot show it."""
    why = run.why if len(run.why) <= SHOWN_WHY else f"{run.why[: SHOWN_WHY - 1]}…"
    how = "failed" if run.status == "failed" else f"was {run.status}"
    return f"The latest run, on {run.moment}, {how}{f' ({why})' if why else ''}; what follows is of the finished ones."


def _verdict(found: History) -> Iterator[str]:
    """Gates of the last run and figures since the run before, in a sentence; more where they cannot be compared."""
    gates, moved = _gates_said(found), ""
    if found.count == 1:
        yield f"{found.name} has one finished run, {_when(found)}: there is no trend yet."
    elif len(found.runs) == 1:
        yield (
            f"Nothing changed between the {found.count} finished runs of {found.name} {_when(found)}: every stage "
            "measured the same."
        )
    elif found.broken:
        yield _unlike(found.runs[-1])
    else:
        moved = _moved_said(found)
    told = [part for part in (moved, gates) if part]
    if told:
        text = "; ".join(told)
        yield f"{text[:1].upper()}{text[1:]}."


def _unlike(run: PastRun) -> str:
    """Why the last run is not compared with the one before."""
    if run.otherwise:
        told = "; ".join(run.otherwise[:SHOWN_MISSED])
        return (
            f"The last run measured by other settings than the run before ({told}): what differs between them may come "
            "from that alone."
        )
    return (
        "The last run looked at other pictures than the run before, or framed them in another way or by another "
        "version: what differs between them may come from that alone."
    )


def _gates_said(found: History) -> str:
    """How many gates failed in the last run, warned, or passed."""
    judged = [verdict for gate in found.gates if (verdict := gate.verdicts[-1])]
    if not judged:
        return ""
    count = {said: sum(verdict.verdict == said for verdict in judged) for said in _MARKS}
    which = "the one gate" if len(judged) == 1 else f"{{}} of {len(judged)} gates"
    if count["failed"] or count["warned"]:
        told = [which.format(count[said]) + f" {said}" for said in ("failed", "warned") if count[said]]
        return f"in the last run {' and '.join(told)}"
    if count["passed"] == len(judged):
        return f"in the last run {'the one gate' if len(judged) == 1 else f'all {len(judged)} gates'} passed"
    return f"in the last run no gate failed, and {count['not judged']} of {len(judged)} could not be judged"


def _moved_said(found: History) -> str:
    """How many figures surely moved, or moved at all."""
    steps = [figure.step for figure in found.figures if figure.step]
    since = f"since the last run that measured otherwise, on {_day(found.runs[-2].last)}"
    since = since if found.runs[-1].times > 1 else "since the run before"
    moved, sure = sum(step.moved for step in steps), sum(step.sure for step in steps)
    if not steps:
        return "the last run and the one before measured no figure in common"
    if sure:
        return f"{since}, {sure} of {len(steps)} figures surely moved{_which_way(steps)}"
    if not moved:
        return f"{since}, none of {len(steps)} figures changed"
    bare = sum(step.moved and step.apart.low is None for step in steps)
    beside = f"; {bare} of them {'has' if bare == 1 else 'have'} no interval"
    return f"{since}, no figure surely moved ({moved} of {len(steps)} did a little{beside if bare else ''})"


def _which_way(steps: Sequence[Step]) -> str:
    """How many of those that surely moved rose and fell, and how many luck alone may move of all that have an interval
    of 95 %."""
    sure = [step for step in steps if step.sure]
    rose = sum((step.apart.value or 0) > 0 for step in sure)
    luck = round(0.05 * sum(step.apart.low is not None for step in steps))
    beside = f"; luck alone may move {luck}" if luck else ""
    return f" ({rose} up, {len(sure) - rose} down{beside})"


def _missed(found: History) -> Iterator[str]:
    """The gates that missed their limits in the last run."""
    failing = [gate for gate in found.gates if gate.failing]
    for gate in failing[:SHOWN_MISSED]:
        verdict = gate.verdicts[-1]
        if verdict:
            yield f"The gate {gate.gate}: {verdict.verdict}, got {verdict.value.words}{_for_how_long(gate)}."
    if len(failing) > SHOWN_MISSED:
        yield f"{len(failing) - SHOWN_MISSED} more gates missed their limits."


def _for_how_long(gate: PastGate) -> str:
    """In how many runs in a row a gate misses its limit, or whether it is the first."""
    judged = [verdict.missed for verdict in gate.verdicts if verdict]
    row = next((place for place, missed in enumerate(reversed(judged)) if not missed), len(judged))
    if len(judged) == 1:
        return ""
    return (
        f", as in the {row - 1} runs before" if row > 2 else ", as in the run before" if row == 2 else ", after passing"
    )


def _sure(found: History) -> Iterator[str]:
    """What surely moved."""
    for figure in found.sure[:SHOWN_MISSED]:
        step = figure.step
        if step:
            rose = "rose" if (step.apart.value or 0) > 0 else "fell"
            name = f"{figure.words[:1].upper()}{figure.words[1:]}"
            yield f"{name} surely {rose}, from {step.before.words} to {step.now.words}: {step.words}."
    if len(found.sure) > SHOWN_MISSED:
        yield f"{len(found.sure) - SHOWN_MISSED} more figures surely moved."


def _making(found: History) -> Iterator[str]:
    """What is not as in the run before."""
    if len(found.runs) < 2:
        return
    told = [change.words for change in found.runs[-1].changed if change.words not in found.runs[-1].otherwise]
    if told:
        yield f"What changed in the making since then: {'; '.join(told)}."
    elif not found.broken:
        yield "Nothing that the records know of changed in the making since then."


def _links(found: History) -> list[tuple[str, str]]:
    """To the last run's report, and to its comparison with the run before, where there are any."""
    last = found.runs[-1]
    every = [("report of the last run", last.report), ("comparison with the run before", last.comparison)]
    return [(text, place) for text, place in every if place]


@dataclass(frozen=True)
class _Drawn:
    """A figure, or what a gate judges that is none, with the gates that judge it."""

    title: str
    of: str
    values: Sequence[Figure | None]
    gates: Sequence[PastGate]
    figure: PastFigure | None = None

    @property
    def failing(self) -> bool:
        return any(gate.failing for gate in self.gates)


def _all(found: History) -> list[_Drawn]:
    """Every figure, and every gate that judges none of them."""
    by_figure: dict[int | None, list[PastGate]] = {}
    for gate in found.gates:
        by_figure.setdefault(gate.figure, []).append(gate)
    drawn = [
        _Drawn(figure.name, figure.of, figure.values, by_figure.get(place, []), figure)
        for place, figure in enumerate(found.figures)
    ]
    for gate in by_figure.get(None, []):
        values = [verdict.value if verdict else None for verdict in gate.verdicts]
        drawn.append(_Drawn(gate.gate.rpartition(": ")[0] or gate.gate, "", values, [gate]))
    return drawn


def _trends(found: History) -> Iterator[views.Section]:
    """Charts: of gates that missed their limit and of what surely moved; of other gates; of what moved since the first
    run; of the rest that moved at all."""
    sure = {id(figure): place for place, figure in enumerate(found.sure)}
    groups: dict[str, list[_Drawn]] = {name: [] for name in ("first", "gates", "slowly", "rest")}
    for each in _all(found):
        if each.failing or id(each.figure) in sure:
            groups["first"].append(each)
        elif each.gates:
            groups["gates"].append(each)
        elif each.figure and each.figure.moved:
            groups["slowly" if found.drift(each.figure) else "rest"].append(each)
    missed = any(each.failing for each in groups["first"])
    first = sorted(groups["first"], key=lambda each: (not each.failing, sure.get(id(each.figure), 0)))
    what = " and ".join([*(["missed gates"] if missed else []), *(["what surely moved"] if sure else [])])
    more = first[SHOWN_CARDS:]
    legend = _legend(found)
    for heading, some, folded in (
        (f"{what[:1].upper()}{what[1:]}", first[:SHOWN_CARDS], False),
        (f"{_counted(len(more), 'more figure')} that surely moved", more, True),
        ("Other gates" if any(each.gates for each in first) else "Gates", groups["gates"], False),
        ("Surely moved since the first of these runs", groups["slowly"], False),
        (f"{_counted(len(groups['rest']), 'figure')} that moved, not surely", groups["rest"], True),
    ):
        if some:
            yield views.Section(heading, [views.Trends([_card(found, each) for each in some], legend)], folded)
            legend = []


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


_LETTERS = {
    "network": "another network than before",
    "pictures": "other pictures than before",
    "settings": "other settings than before",
    "code": "other code than before",
}


def _legend(found: History) -> list[tuple[str, str]]:
    """What the charts are drawn with."""
    kinds = {change.kind for run in found.runs for change in run.changed}
    moved = any(any(_surely(found, figure)) for figure in found.figures)
    gates = [("limit", "limit of a gate"), ("missed", "missed")] if found.gates else []
    return [
        ("dot", "a run, when it began below (UTC)"),
        ("band", "95 % interval"),
        *([("moved", "a sure move since the run before")] if moved else []),
        *gates,
        *([("break", "other pictures or settings from there on")] if found.breaks else []),
        *((letter, _LETTERS[kind]) for kind, letter in MARKED.items() if kind in kinds),
    ]


def _surely(found: History, figure: PastFigure) -> list[bool]:
    """Of each run whether the figure surely differs there from the run before."""
    steps = [None, *(Step.between(*pair) for pair in pairwise(figure.values))]
    return [step is not None and step.sure and run not in found.breaks for run, step in enumerate(steps)]


def _card(found: History, drawn: _Drawn) -> views.TrendCard:
    """A figure's trend, what became of it, and what its gates say."""
    last = drawn.values[-1]
    known = [number(value.value) for value in drawn.values if value is not None and value.value is not None]
    words = f"first {known[0]}, last {known[-1]}, of {len(known)} runs" if known else "never measured"
    return views.TrendCard(
        drawn.title,
        drawn.of,
        [_mark(gate) for gate in drawn.gates],
        last.words if last else "– in the last run",
        _told(found, drawn),
        _svg(found, drawn),
        f"{drawn.title} {drawn.of}: {words}",
    )


def _mark(gate: PastGate) -> views.Badge:
    """What a gate says in the last run; what it asks for, and how often it was missed."""
    judged = [verdict for verdict in gate.verdicts if verdict]
    last = gate.verdicts[-1]
    text, state = _MARKS[last.verdict] if last else ("– not in the last run", "unjudged")
    limit = f" (limit {number(last.limit)})" if last and last.limit is not None and "drop" in gate.demand else ""
    missed = f", missed in {gate.missed} of {len(judged)} runs" if gate.missed else ""
    note = f"; {last.note}" if last and last.note else ""
    return views.Badge(text, state, f"{gate.demand}{limit}{missed}{note}")


def _told(found: History, drawn: _Drawn) -> str:
    """What became of a figure since the run before, and since the first where that alone is sure."""
    figure = drawn.figure
    if figure is None or found.broken or figure.step is None:
        return ""
    step, since = figure.step, "since the run before"
    drift = found.drift(figure)
    if not step.sure and drift:
        run, step = drift
        since = f"since {day(run.started)}, surely"
    elif not step.moved:
        return f"As it was in the run before, {step.before.words}."
    elif step.sure:
        since += ", surely"
    return f"{step.words} {since}, from {step.before.words}."


def _svg(found: History, drawn: _Drawn) -> str:
    sure = _surely(found, drawn.figure) if drawn.figure else [False] * len(found.runs)
    verdicts = [[gate.verdicts[run] for gate in drawn.gates] for run in range(len(found.runs))]
    points = []
    for place, (run, value) in enumerate(zip(found.runs, drawn.values, strict=True)):
        if value is None:
            points.append(Point(None))
            continue
        said = "".join(f", {verdict.verdict}" for verdict in verdicts[place] if verdict)
        missed = any(verdict is not None and verdict.missed for verdict in verdicts[place])
        text = f"{day(run.started)}, {run.run}: {value.words}{said}"
        points.append(Point(value.value, value.low, value.high, missed, sure[place], text))
    limits = [[verdict.limit if verdict else None for verdict in gate.verdicts] for gate in drawn.gates]
    return trend_of(Trend(points, found.below, found.breaks, limits))


_MARKS = {
    "passed": ("✓ passed", "good"),
    "failed": ("✗ failed", "bad"),
    "warned": ("! warned", "warned"),
    "not judged": ("– not judged", "unjudged"),
}
"""What stands for a gate's verdict, and its state."""


def _single(found: History) -> Iterator[views.Section]:
    """Of runs that all measured the same there is no trend: their gates, and their figures, as tables."""
    if found.gates:
        columns = [("gate", False), ("result", False), ("value", True), ("limit", True), ("note", False)]
        lines = [_gate_line(gate) for gate in found.gates]
        kept = len(columns) - (not any(line[-1] for line in lines))
        yield views.Section("Gates", [views.Table(columns[:kept], [line[:kept] for line in lines])])
    if found.figures:
        yield views.Section("Headline figures", [_side_by_side(found) or _table(found, found.figures)])


def _gate_line(gate: PastGate) -> list[views.Cell]:
    last = gate.verdicts[-1]
    if last is None:
        return [gate.gate, views.Badge("– not in the last run", "unjudged"), "–", "–", ""]
    limit = "–" if last.limit is None else number(last.limit)
    return [gate.gate, views.Badge(*_MARKS[last.verdict]), last.value.words, limit, last.note]


def _tables(found: History) -> Iterator[views.Section]:
    """What never changed, and every figure that did, in numbers; folded, for the charts show what matters."""
    judged = {gate.figure for gate in found.gates}  # these have a chart
    still = [figure for place, figure in enumerate(found.figures) if not figure.moved and place not in judged]
    moved = [figure for figure in found.figures if figure.moved]
    if still:
        columns = [("figure", False), ("of", False), ("in every run that measured it", True)]
        known = [next((value for value in figure.values if value), Figure(None)) for figure in still]
        lines = [[each.name, each.of, value.words] for each, value in zip(still, known, strict=True)]
        what = _counted(len(still), "figure")
        yield views.Section(f"{what} that never changed", [views.Table(columns, lines)], folded=True)
    if moved:
        yield views.Section("All that moved, as a table", [_table(found, moved)], folded=True)


def _table(found: History, figures: Sequence[PastFigure]) -> views.Table:
    """A line per figure and row; the lowest and highest values, and how many there are, are in its chart."""
    columns, lines = figure_table(replace(found, figures=figures))
    kept = [place for place, name in enumerate(columns) if name not in ("runs", "lowest", "highest")]
    heads = [(columns[place], columns[place] not in ("figure", "of")) for place in kept]
    note = "Change: the last run's value less that of the run before it."
    told = [[line[place] for place in kept] for line in lines]
    return views.Table(heads, told, note * (len(found.runs) > 1))


def _side_by_side(found: History) -> views.Table | None:
    """The figures of one run, those of its rows, such as layers, beside each other; None where they are too many."""
    names = list(dict.fromkeys((figure.stage, figure.name) for figure in found.figures))
    rows = list(dict.fromkeys(figure.row for figure in found.figures))
    if len(rows) > MOST_BESIDE or len(names) * len(rows) != len(found.figures):
        return None
    words = {
        (figure.stage, figure.name, figure.row): value.words if (value := figure.values[-1]) else "–"
        for figure in found.figures
    }
    lines = [[name, *(words[stage, name, row] for row in rows)] for stage, name in names]
    note = "In brackets 95 % intervals. From the next run on, each figure has a line over the runs here."
    return views.Table([("figure", False), *((row or "value", True) for row in rows)], lines, note)


_COLUMNS = ("figure", "of", "runs", "first", "before", "last", "change", "lowest", "highest")
"""What `figure_line` has."""


def figure_table(found: History) -> tuple[list[str], list[list[str]]]:
    """Columns and lines of the headline figures, what surely moved first: of one or two runs without the columns that
    would repeat others."""
    spared = {1: {"runs", "first", "before", "change", "lowest", "highest"}, 2: {"runs", "first", "lowest", "highest"}}
    kept = [place for place, name in enumerate(_COLUMNS) if name not in spared.get(len(found.runs), ())]
    sure = {id(figure) for figure in found.sure}
    figures = sorted(found.figures, key=lambda figure: id(figure) not in sure)
    lines = [figure_line(figure, broken=found.broken) for figure in figures]
    return [_COLUMNS[place] for place in kept], [[line[place] for place in kept] for line in lines]


def figure_line(figure: PastFigure, *, broken: bool = False) -> list[str]:
    """A line of the table: figure, of what, runs, first, before, last, change, lowest, highest.

    Args:
        figure: of which.
        broken: whether the last run cannot be compared with the one before; then nothing is said to have changed.
    """
    known = [value for value in figure.values if value is not None and value.value is not None]
    numbers = [value.value for value in known if value.value is not None]
    before = figure.values[-2] if len(figure.values) > 1 else None
    last = figure.values[-1]
    return [
        figure.name,
        figure.of,
        str(len(known)),
        known[0].words if known else "–",
        before.words if before else "–",
        last.words if last else "–",
        figure.step.words if figure.step and not broken else "–",
        number(min(numbers)) if numbers else "–",
        number(max(numbers)) if numbers else "–",
    ]


def _runs(found: History) -> views.Section:
    columns = ["run", "begun", "status", "network", "other than before", "see"]
    lines: list[list[views.Cell]] = []
    for place, run in enumerate(found.runs):
        lines += [_without_results(other) for other in found.unfinished if other.after == place]
        lines.append(_with_results(run, first=place == 0, broken=place in found.breaks))
    lines += [_without_results(other) for other in found.unfinished if other.after == len(found.runs)]
    told = [f"The latest {SHOWN_RUNS} of {len(lines)}."] if len(lines) > SHOWN_RUNS else []
    if any(run.times > 1 for run in found.runs):
        told.append("Runs in a row whose every stage measured the same are one line, by the id of the last.")
    last, before = found.runs[-1], found.runs[-2] if len(found.runs) > 1 else None
    if len(lines) == 1:  # there is none before
        columns, lines = ["run", "begun", "status", "network", "see"], [[*lines[0][:4], lines[0][-1]]]
    table = views.Table([(name, False) for name in columns], lines[: -SHOWN_RUNS - 1 : -1], " ".join(told))
    if before is None or last.comparison or found.broken:
        return views.Section("Runs", [table])
    text = views.Text("What differs from the run before, unit by unit and by paired intervals:", "quiet")
    return views.Section("Runs", [table, text, views.Code(f"microtome compare {before.run} {last.run}")])


def _with_results(run: PastRun, *, first: bool, broken: bool) -> list[views.Cell]:
    links = [("report", run.report), ("comparison with the run before", run.comparison)]
    nothing = "its pictures, or the version that framed them" if broken else "nothing"
    changed = "–" if first else ", ".join(change.words for change in run.changed) or nothing
    seen = [(text, place) for text, place in links if place]
    begun = run.begun if run.times > 1 else run.begun.replace(" ", "\N{NO-BREAK SPACE}")
    return [views.Links([(run.run, "")]), begun, run.status, run.network, changed, views.Links(seen or [("–", "")])]


def _without_results(run: UnfinishedRun) -> list[views.Cell]:
    status = f"{run.status}: {run.why}" if run.why else run.status
    return [views.Links([(run.run, "")]), run.moment, status, run.network, "–", "no results"]


def _reading(found: History) -> Iterator[views.Section]:
    if len(found.runs) < 2:
        return  # no line is drawn yet
    yield views.Section(
        "How to read this",
        [
            views.Text(
                "Each line is a figure over the finished runs, oldest first, evenly spaced; its band is the 95 % "
                "interval of each run by itself, and its axis begins at zero unless what is drawn lies far from there. "
                "Runs in a row whose every stage measured the same are one dot. Figures on the two sides of a dotted "
                "upright cannot be compared. Where a line is broken, a run did not measure the figure."
            ),
            views.Text(
                "Surely: the 95 % interval of the difference leaves zero out. It is put together from the intervals of "
                "the two runs, as if each had drawn pictures of its own, which is the stricter way: runs of one audit "
                "share their pictures, so that less than this can be sure, too. microtome compare draws the same "
                "pictures for both, and tells. Among many figures that nothing moved, at most one in twenty would be "
                "called sure."
            ),
        ],
        folded=True,
    )
