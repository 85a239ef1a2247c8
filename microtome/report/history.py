"""Page of the runs of one audit: the trend of every gate and headline figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from microtome.report import views
from microtome.report.comparison import SHOWN_TILES, Figure, number, signed
from microtome.report.trends import Point, Trend, drawn

SHOWN_RUNS = 30
SHOWN_MISSED = 3  # gates that the verdict names


@dataclass(frozen=True)
class PastRun:
    """A finished run.

    Args:
        run: its id.
        day, moment: when it began, in words, by day and to the minute.
        status: `done` or `gate failed`.
        network: what was audited, for people.
        changed: what is not as in the run before, in words.
        pictures: digest of its data sets' indices.
    """

    run: str
    day: str
    moment: str
    status: str
    network: str
    changed: Sequence[str]
    pictures: str


@dataclass(frozen=True)
class PastFigure:
    """A headline figure over the runs: None where a run did not measure it."""

    stage: str
    name: str
    row: str
    values: Sequence[Figure | None]

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
    """The finished runs of an audit, oldest first, one at least; and how many others there are."""

    name: str
    runs: Sequence[PastRun]
    gates: Sequence[PastGate]
    figures: Sequence[PastFigure]
    unfinished: int

    @property
    def breaks(self) -> list[int]:
        """Runs that looked at other pictures than the run before."""
        seen = [run.pictures for run in self.runs]
        return [place for place in range(1, len(seen)) if seen[place] != seen[place - 1]]


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
        headline="\n".join(sentences(found)),
        figures=_tiles(found),
        sections=[*_gates(found), *_figures(found), _runs(found), _reading()],
    )


def sentences(found: History) -> Iterator[str]:
    """What the gates of the last run said, what left its interval, and of how many runs."""
    last = found.runs[-1]
    when = f"from {found.runs[0].day} to {last.day}" if found.runs[0].day != last.day else f"on {last.day}"
    yield from _last_verdicts(found)
    if len(found.runs) == 1:
        yield f"One finished run of {found.name} {when}: there is no trend yet."
        return
    yield from _moved(found)
    yield f"{len(found.runs)} finished runs of {found.name} {when}."


def _last_verdicts(found: History) -> Iterator[str]:
    now = [(gate.gate, gate.verdicts[-1]) for gate in found.gates]
    judged = [(gate, verdict) for gate, verdict in now if verdict]
    if not judged:
        return
    missed = [_missed(gate, verdict) for gate, verdict in judged if verdict.verdict in ("failed", "warned")]
    if not missed:
        yield f"In the last run no gate of {len(judged)} missed its limit."
    elif len(judged) == 1:
        yield f"In the last run the one gate missed its limit: {missed[0]}."
    else:
        more = f"; and {len(missed) - SHOWN_MISSED} more" if len(missed) > SHOWN_MISSED else ""
        told = "; ".join(missed[:SHOWN_MISSED])
        yield f"In the last run {len(missed)} of {len(judged)} gates missed their limits: {told}{more}."


def _missed(gate: str, verdict: PastVerdict) -> str:
    """A gate, with what it found."""
    return f"{gate}, got {verdict.value.words}"


def _moved(found: History) -> Iterator[str]:
    """Figures whose value now lies outside of the interval of the run before, over the same pictures."""
    if len(found.runs) - 1 in found.breaks:
        yield "The last run looked at other pictures than the run before, so that figures differ for that alone."
        return
    left = [figure for figure in found.figures if _outside(figure)]
    if not left:
        told = [figure for figure in found.figures if (before := figure.values[-2]) and before.low is not None]
        yield f"No figure of {len(told)} with a 95 % interval left it since the run before."
        return
    figure = left[0]
    before, now = figure.values[-2], figure.values[-1]
    more = f"; so do {len(left) - 1} more figures" if len(left) > 2 else "; so does one more" if len(left) == 2 else ""
    if before and now:
        yield (
            f"{figure.words[:1].upper()}{figure.words[1:]}: the last run lies outside of the interval of the run "
            f"before, {before.words} then and {now.words} now{more}."
        )


def _outside(figure: PastFigure) -> bool:
    before, now = figure.values[-2], figure.values[-1]
    if before is None or now is None or now.value is None or before.low is None or before.high is None:
        return False
    return not before.low <= now.value <= before.high


def _tiles(found: History) -> views.Figures:
    shown = [(figure, figure.values[-1]) for figure in found.figures]
    return views.Figures(
        [
            (figure.words, number(now.value), _interval(now))
            for figure, now in shown[:SHOWN_TILES]
            if now is not None and now.value is not None
        ]
    )


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"95 %: {number(figure.low)} to {number(figure.high)}"


def _gates(found: History) -> list[views.Section]:
    if not found.gates:
        return []
    charts = views.Charts([_gate_chart(found, gate) for gate in found.gates])
    columns = [("gate", False), ("last", False), ("value", True), ("limit", True), ("missed", True), ("note", False)]
    lines = [_gate_line(gate) for gate in found.gates]
    if not any(line[-1] for line in lines):
        columns, lines = columns[:-1], [line[:-1] for line in lines]
    note = "Missed: runs in which the gate failed or warned, of those that judged it."
    return [views.Section("Gates", [_legend(found, gates=True), charts, views.Table(columns, lines, note)])]


def _legend(found: History, *, gates: bool = False) -> views.Text:
    """What the charts are drawn with."""
    told = ["A dot is a run, the oldest on the left; the band is its 95 % interval"]
    told += ["dashed, the limit; a cross, a run that missed it"] if gates else []
    told += ["a dotted upright, other pictures from there on"] if found.breaks else []
    return views.Text("; ".join(told) + ".", "quiet")


def _gate_line(gate: PastGate) -> list[str]:
    judged = [verdict for verdict in gate.verdicts if verdict]
    last = gate.verdicts[-1]
    missed = f"{gate.missed} of {len(judged)}"
    if last is None:
        return [gate.gate, "not in the last run", "–", "–", missed, ""]
    limit = "–" if last.limit is None else number(last.limit)
    return [gate.gate, last.verdict, last.value.words, limit, missed, last.note]


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
    first, last = found.runs[0], found.runs[-1]
    ends = (first.day, last.day) if first.day != last.day else (first.moment, last.moment)
    known = [number(point.value) for point in points if point.value is not None]
    words = (
        f"{title}: first {known[0]}, last {known[-1]}, of {len(known)} runs" if known else f"{title}: never measured"
    )
    return title, drawn(Trend(points, found.breaks), ends), f"{title}: {words}"


def _figures(found: History) -> list[views.Section]:
    if not found.figures:
        return []
    charts = [_figure_chart(found, figure) for figure in found.figures]
    columns = [("figure", False), ("of", False), ("runs", True), ("first", True), ("before", True), ("last", True)]
    columns += [("change", True), ("lowest", True), ("highest", True)]
    lines = [figure_line(figure) for figure in found.figures]
    note = "Change: the last run's value less that of the run before it; its interval is not known here."
    return [
        views.Section("Headline figures", [_legend(found), views.Charts(charts), views.Table(columns, lines, note)])
    ]


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
    columns = [("run", False), ("begun", False), ("status", False), ("network", False), ("other than before", False)]
    lines = [
        [run.run, run.moment, run.status, run.network, ", ".join(run.changed) or "nothing"]
        for run in list(reversed(found.runs))[:SHOWN_RUNS]
    ]
    lines[-1][-1] = lines[-1][-1] if len(found.runs) > SHOWN_RUNS else "–"
    told = [f"The latest {SHOWN_RUNS} of {len(found.runs)}."] if len(found.runs) > SHOWN_RUNS else []
    if found.unfinished:
        told.append(f"{found.unfinished} more did not finish, and are not shown.")
    return views.Section("Runs", [views.Table(columns, lines, " ".join(told))])


def _reading() -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                "Each line is a figure over the finished runs, oldest first, evenly spaced; its band is the 95 % "
                "interval of each run by itself. A dashed line is a gate's limit, a cross a run that missed it. A "
                "dotted upright marks a run that looked at other pictures than the one before: figures on its two "
                "sides cannot be compared. Where a line is broken, a run did not measure the figure."
            ),
            views.Text(
                "Neighbouring runs share their pictures, so the intervals of two runs may overlap where the difference "
                "is sure: microtome compare draws the same pictures for both, and tells."
            ),
        ],
    )
