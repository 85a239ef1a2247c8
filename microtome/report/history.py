"""Page of the runs of one audit: the trend of every gate and headline figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from microtome.report import views
from microtome.report.comparison import Figure, number
from microtome.report.trends import Point, Trend, drawn
from microtome.report.words import change as signed

SHOWN_RUNS = 30
SHOWN_MISSED = 3  # gates that the verdict names
MOST_BESIDE = 4  # rows of a figure, such as layers, beside each other
SHOWN_WHY = 120  # letters of why a run failed that the verdict has


@dataclass(frozen=True)
class PastRun:
    """A finished run; or several in a row whose stages gave the same results, as one.

    Args:
        run: its id; of several the last one's.
        day, moment: when it began, in words, by day and to the minute; of several the first.
        status: `done` or `gate failed`.
        network: what was audited, for people.
        changed: what is not as in the run before, in words.
        otherwise: of that, the settings by which stages measured, in words.
        pictures: digest of its data sets' indices.
        times: how many there were.
        last: when the last of several began, to the minute.
        report: where its report lies, from the page; empty where there is none.
        comparison: where its comparison with the run before lies; empty where there is none.
    """

    run: str
    day: str
    moment: str
    status: str
    network: str
    changed: Sequence[str]
    otherwise: Sequence[str]
    pictures: str
    times: int = 1
    last: str = ""
    report: str = ""
    comparison: str = ""

    @property
    def begun(self) -> str:
        """When it began; of several the first, how many, and the last."""
        return self.moment if self.times == 1 else f"{self.moment} ({self.times} runs, the last on {self.last})"


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
    def words(self) -> str:
        """What it is."""
        return ", ".join(part for part in (self.name, self.row) if part)


@dataclass(frozen=True)
class PastVerdict:
    """A gate in one run."""

    value: Figure
    limit: float | None
    verdict: str
    note: str


@dataclass(frozen=True)
class PastGate:
    """A gate over the runs: None where a run had it not."""

    gate: str
    verdicts: Sequence[PastVerdict | None]

    @property
    def missed(self) -> int:
        """In how many runs it failed, or warned."""
        return sum(verdict.verdict in ("failed", "warned") for verdict in self.verdicts if verdict)


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

    @property
    def breaks(self) -> list[int]:
        """Runs that looked at other pictures than the run before, or measured by other settings."""
        seen = [run.pictures for run in self.runs]
        return [place for place in range(1, len(seen)) if seen[place] != seen[place - 1] or self.runs[place].otherwise]


def page(found: History, file: str) -> views.Page:
    """The page.

    Args:
        found: what it shows.
        file: its name.
    """
    return views.Page(
        name="history",
        page=file,
        title=f"History of {found.name}",
        headline=next(sentences(found)),
        figures=views.Figures([]),
        links=_links(found),
        sections=[*_short(found), *_gates(found), *_figures(found), _runs(found), *_reading(found)],
    )


def sentences(found: History) -> Iterator[str]:
    """Whether the latest run failed, what the last one's gates missed, what changed, and of how many runs."""
    judged = [(gate.gate, verdict) for gate in found.gates if (verdict := gate.verdicts[-1])]
    missed = [_missed(gate, verdict) for gate, verdict in judged if verdict.verdict in ("failed", "warned")]
    latest = _latest(found)
    running = latest is not None and latest.status == "running"
    if latest and not running:
        yield _without_end(latest)
    yield from _limits_missed(missed, len(judged))
    yield from _changed(found)
    if judged and not missed:
        yield _none_missed([verdict for _, verdict in judged])
    if len(found.runs) > 1:
        others = f"; {len(found.unfinished)} more did not finish" if found.unfinished else ""
        yield f"{found.count} finished runs of {found.name} {_when(found)}{others}."
    if latest and running:
        yield f"A run that began on {latest.moment} has not ended yet, and is not among these."


def _when(found: History) -> str:
    last = found.runs[-1]
    end = last.last.partition(", ")[0] or last.day
    return f"from {found.runs[0].day} to {end}" if found.runs[0].day != end else f"on {end}"


def _latest(found: History) -> UnfinishedRun | None:
    """The latest run of all, where it has no results."""
    later = [run for run in found.unfinished if run.after == len(found.runs)]
    return later[-1] if later else None


def _without_end(run: UnfinishedRun) -> str:
    """Why the latest run of all has no results, since the rest of the page cannot show it."""
    why = run.why if len(run.why) <= SHOWN_WHY else f"{run.why[: SHOWN_WHY - 1]}…"
    how = "failed" if run.status == "failed" else f"was {run.status}"
    return f"The latest run, on {run.moment}, {how}{f' ({why})' if why else ''}; what follows is of the finished ones."


def _limits_missed(missed: Sequence[str], judged: int) -> Iterator[str]:
    if not missed:
        return
    if judged == 1:
        yield f"In the last run the one gate missed its limit: {missed[0]}."
        return
    more = f"; and {len(missed) - SHOWN_MISSED} more" if len(missed) > SHOWN_MISSED else ""
    told = "; ".join(missed[:SHOWN_MISSED])
    yield f"In the last run {len(missed)} of {judged} gates missed their limits: {told}{more}."


def _none_missed(verdicts: Sequence[PastVerdict]) -> str:
    passed = sum(verdict.verdict == "passed" for verdict in verdicts)
    if passed < len(verdicts):
        return f"In the last run {passed} of {len(verdicts)} gates passed, the others were not judged."
    return "In the last run the one gate passed." if passed == 1 else f"In the last run all {passed} gates passed."


def _missed(gate: str, verdict: PastVerdict) -> str:
    """A gate, with what it found."""
    return f"{gate}, got {verdict.value.words}"


def _changed(found: History) -> Iterator[str]:
    """What became of the figures since the run before, in plain words."""
    if found.count == 1:
        yield f"{found.name} has one finished run, {_when(found)}: there is no trend yet."
    elif len(found.runs) == 1:
        yield (
            f"Nothing changed between the {found.count} finished runs of {found.name} {_when(found)}: every stage "
            "measured the same."
        )
    elif found.runs[-1].otherwise:
        told = "; ".join(found.runs[-1].otherwise[:SHOWN_MISSED])
        yield (
            f"The last run measured by other settings than the run before ({told}): what differs between them may come "
            "from that alone."
        )
    elif len(found.runs) - 1 in found.breaks:
        yield (
            "The last run looked at other pictures than the run before, or framed them in another way or by another "
            "version: what differs between them may come from that alone."
        )
    else:
        yield _moved(found)


def _moved(found: History) -> str:
    """Figures that are not what they were, and whether the value now lies outside of the interval of the run before."""
    both = [figure for figure in found.figures if _pair(figure)]
    moved = [figure for figure in both if (pair := _pair(figure)) and pair[0] != pair[1]]
    left = [figure for figure in moved if _outside(figure)]
    if not both:
        return "The last run and the one before measured no figure in common."
    if not moved:
        return f"No figure changed since the run before: {_all(len(both))} what it was."
    if not left:
        bare = sum(before.low is None for figure in moved if (before := figure.values[-2]))
        beside = f"; {bare} of them {'has' if bare == 1 else 'have'} no interval" if bare else ""
        return (
            f"No clear change since the run before: {len(moved)} of {len(both)} figures moved, none of them out of the "
            f"95 % interval that it had{beside}."
        )
    figure = left[0]
    before, now = figure.values[-2], figure.values[-1]
    rose = now and before and (now.value or 0) > (before.value or 0)
    more = f"; so did {len(left) - 1} more figures" if len(left) > 2 else "; so did one more" if len(left) == 2 else ""
    return (
        f"{figure.words[:1].upper()}{figure.words[1:]} {'rose' if rose else 'fell'} since the run before, from "
        f"{before.words if before else '–'} to {now.words if now else '–'}: outside of the 95 % interval that it "
        f"had{more}."
    )


def _all(count: int) -> str:
    return "the one that both have is" if count == 1 else f"each of the {count} is"


def _pair(figure: PastFigure) -> tuple[float, float] | None:
    """Its values in the run before and in the last."""
    before, now = figure.values[-2], figure.values[-1]
    if before is None or now is None or before.value is None or now.value is None:
        return None
    return before.value, now.value


def _outside(figure: PastFigure) -> bool:
    before, now = figure.values[-2], figure.values[-1]
    if before is None or now is None or now.value is None or before.low is None or before.high is None:
        return False
    return not before.low <= now.value <= before.high


def _links(found: History) -> list[tuple[str, str]]:
    """To the last run's report, and to its comparison with the run before, where there are any."""
    last = found.runs[-1]
    every = [("report of the last run", last.report), ("comparison with the run before", last.comparison)]
    return [(text, place) for text, place in every if place]


def _short(found: History) -> list[views.Section]:
    """The verdict's further sentences."""
    more = list(sentences(found))[1:]
    return [views.Section("In short", [views.Listed(more)])] if more else []


def _gates(found: History) -> list[views.Section]:
    if not found.gates:
        return []
    charts = [_legend(found, gates=True), views.Charts([_gate_chart(found, gate) for gate in found.gates])]
    columns = [("gate", False), ("result", False), ("value", True), ("limit", True), ("missed", True), ("note", False)]
    lines = [_gate_line(gate) for gate in found.gates]
    several, noted = len(found.runs) > 1, any(line[-1] for line in lines)
    kept = [place for place, (name, _) in enumerate(columns) if {"missed": several, "note": noted}.get(name, True)]
    note = "Missed: runs in which the gate failed or warned, of those that judged it; all else is of the last run."
    if any(run.times > 1 for run in found.runs):
        note += " Runs in a row that measured the same count as one."
    table = views.Table(
        [columns[place] for place in kept], [[line[place] for place in kept] for line in lines], note * several
    )
    return [views.Section("Gates", [*(charts if several else ()), table])]


def _legend(found: History, *, gates: bool = False) -> views.Text:
    """What the charts are drawn with."""
    first, last = found.runs[0], found.runs[-1]
    when = f", all of {first.day}" if first.day == last.day else ""
    told = [f"A dot is a run, the oldest on the left{when}; the band is its 95 % interval, where it has one"]
    told += ["dashed, the limit; a cross, a run that missed it"] if gates else []
    told += ["a dotted upright, other pictures or settings from there on"] if found.breaks else []
    return views.Text("; ".join(told) + ".", "quiet")


_MARKS = {
    "passed": ("✓ passed", "good"),
    "failed": ("✗ failed", "bad"),
    "warned": ("! warned", "warned"),
    "not judged": ("– not judged", "unjudged"),
}
"""What stands for a gate's verdict, and its state."""


def _gate_line(gate: PastGate) -> list[views.Cell]:
    judged = [verdict for verdict in gate.verdicts if verdict]
    last = gate.verdicts[-1]
    missed = f"{gate.missed} of {len(judged)}"
    if last is None:
        return [gate.gate, views.Badge("– not in the last run", "unjudged"), "–", "–", missed, ""]
    limit = "–" if last.limit is None else number(last.limit)
    return [gate.gate, views.Badge(*_MARKS[last.verdict]), last.value.words, limit, missed, last.note]


def _gate_chart(found: History, gate: PastGate) -> tuple[str, str, str]:
    points = []
    for run, verdict in zip(found.runs, gate.verdicts, strict=True):
        if verdict is None:
            points.append(Point(None))
            continue
        value = verdict.value
        text = f"{run.moment}, {run.run}: {value.words}, {verdict.verdict}"
        missed = verdict.verdict in ("failed", "warned")
        points.append(Point(value.value, value.low, value.high, verdict.limit, missed, text))
    return _chart(found, gate.gate, points)


def _chart(found: History, title: str, points: Sequence[Point]) -> tuple[str, str, str]:
    known = [number(point.value) for point in points if point.value is not None]
    words = f"first {known[0]}, last {known[-1]}, of {len(known)} runs" if known else "never measured"
    return title, drawn(Trend(points, found.breaks), _ends(found)), f"{title}: {words}"


def _ends(found: History) -> tuple[str, str]:
    """What tells the first run from the last below a chart: their days, on one day their hours, else their order."""
    first, last = found.runs[0], found.runs[-1]
    if first.day != last.day:
        return first.day, last.day
    hours = tuple(run.moment.removeprefix(run.day).strip(", ") for run in (first, last))
    return (hours[0], hours[1]) if hours[0] != hours[1] else ("first", "last")


def _figures(found: History) -> list[views.Section]:
    if not found.figures:
        return []
    moved = [figure for figure in found.figures if figure.moved]
    charts: list[views.Part] = []
    if moved:
        charts = [_legend(found), views.Charts([_figure_chart(found, figure) for figure in moved])]
    if len(moved) < len(found.figures):
        charts.append(views.Text(_unmoved(len(found.figures) - len(moved)), "quiet"))
    shown = _table(found) if len(found.runs) > 1 else _side_by_side(found) or _table(found)
    return [views.Section("Headline figures", [*(charts if len(found.runs) > 1 else ()), shown])]


def _table(found: History) -> views.Table:
    """A line per figure and row; the lowest and highest values, and how many there are, are in its chart."""
    columns, lines = figure_table(found)
    kept = [place for place, name in enumerate(columns) if name not in ("runs", "lowest", "highest")]
    heads = [(columns[place], columns[place] not in ("figure", "of")) for place in kept]
    note = "Change: the last run's value less that of the run before it; its interval is not known here."
    told = [[line[place] for place in kept] for line in _without_stage(found, lines)]
    return views.Table(heads, told, note * (len(found.runs) > 1))


def _without_stage(found: History, lines: Sequence[list[str]]) -> list[list[str]]:
    """Lines that do not name the stage, where there is only one."""
    if len({figure.stage for figure in found.figures}) > 1:
        return list(lines)
    return [[line[0], figure.row, *line[2:]] for line, figure in zip(lines, found.figures, strict=True)]


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


def _unmoved(count: int) -> str:
    """Why figures have no chart."""
    which = "One figure has" if count == 1 else f"{count} figures have"
    return f"{which} the same value in every run that measured {'it' if count == 1 else 'them'}, and no chart."


_COLUMNS = ("figure", "of", "runs", "first", "before", "last", "change", "lowest", "highest")
"""What `figure_line` has."""


def figure_table(found: History) -> tuple[list[str], list[list[str]]]:
    """Columns and lines of the headline figures: of one or two runs without the columns that would repeat others."""
    spared = {1: {"runs", "first", "before", "change", "lowest", "highest"}, 2: {"runs", "first", "lowest", "highest"}}
    kept = [place for place, name in enumerate(_COLUMNS) if name not in spared.get(len(found.runs), ())]
    lines = [figure_line(figure) for figure in found.figures]
    return [_COLUMNS[place] for place in kept], [[line[place] for place in kept] for line in lines]


def figure_line(figure: PastFigure) -> list[str]:
    """A line of the table: figure, of what, runs, first, before, last, change, lowest, highest."""
    known = [value for value in figure.values if value is not None and value.value is not None]
    numbers = [value.value for value in known if value.value is not None]
    before = figure.values[-2] if len(figure.values) > 1 else None
    last = figure.values[-1]
    change = None
    if last is not None and before is not None and last.value is not None and before.value is not None:
        change = last.value - before.value
    return [
        figure.name,
        ", ".join(part for part in (figure.stage, figure.row) if part),
        str(len(known)),
        known[0].words if known else "–",
        before.words if before else "–",
        last.words if last else "–",
        signed(change),
        number(min(numbers)) if numbers else "–",
        number(max(numbers)) if numbers else "–",
    ]


def _figure_chart(found: History, figure: PastFigure) -> tuple[str, str, str]:
    points = [
        Point(None)
        if value is None
        else Point(value.value, value.low, value.high, text=f"{run.moment}, {run.run}: {value.words}")
        for run, value in zip(found.runs, figure.values, strict=True)
    ]
    title = figure.words if figure.stage == "dissection" else f"{figure.stage}: {figure.words}"
    return _chart(found, title, points)


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
    if before is None or last.comparison or len(found.runs) - 1 in found.breaks:
        return views.Section("Runs", [table])
    text = views.Text("Which differences from the run before are sure, unit by unit:", "quiet")
    return views.Section("Runs", [table, text, views.Code(f"microtome compare {before.run} {last.run}")])


def _with_results(run: PastRun, *, first: bool, broken: bool) -> list[views.Cell]:
    links = [("report", run.report), ("comparison with the run before", run.comparison)]
    nothing = "its pictures, or the version that framed them" if broken else "nothing"
    changed = "–" if first else ", ".join(run.changed) or nothing
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
                "Each line is a figure over the finished runs, oldest first, evenly spaced, on an axis that holds "
                "zero; its band is the 95 % interval of each run by itself. Runs in a row whose every stage measured "
                "the same are one dot. A dashed line is a gate's limit, a cross a run that missed it. A dotted upright "
                "marks a run that looked at other pictures than the one before, or measured by other settings: figures "
                "on its two sides cannot be compared. Where a line is broken, a run did not measure the figure."
            ),
            views.Text(
                "Neighbouring runs share their pictures, so the intervals of two runs may overlap where the difference "
                "is sure: microtome compare draws the same pictures for both, and tells."
            ),
        ],
        folded=True,
    )
