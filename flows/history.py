"""The runs of one audit as trends: in the terminal, and as a page."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.console import warn
from flows.reports import FOLDER, publish
from flows.text import flat, printable, text_table
from microtome.errors import InputError, suggest
from microtome.report.comparison import Figure
from microtome.report.history import (
    Change,
    History,
    PastFigure,
    PastGate,
    PastRun,
    PastVerdict,
    UnfinishedRun,
    figure_table,
    page,
    sentences,
)
from microtome.report.words import day
from storage import Files, RunRecord, RunStore
from storage.runs import FigureRun, GateRun, verdict
from tasks.headlines import metric_of, recorded

_KINDS = {"network": "network", "dataset": "pictures", "datasets": "pictures", "gates": "gates", "workspace": "place"}
"""What a part of the audit file changes; any other part is settings."""

SHOWING = ("pages", "report")
"""Stages that measure nothing: a report names its run's predecessors, and so is another one each time."""


def history(files: Files, name: str) -> tuple[str, Path | None]:
    """The trends of an audit's runs: table and verdict as text, and the page.

    Raises:
        InputError: no audit of that name has a finished run.
    """
    found = past(files, name)
    tables = [text_table(*figure_table(found))] if found.figures else []
    if found.gates:
        lines = [[gate.gate, *_last(gate), f"{gate.missed} of {sum(v is not None for v in gate.verdicts)}"]
                 for gate in found.gates]  # fmt: skip
        tables.append(text_table(["gate", "last", "value", "limit", "missed"], lines))
    text = "\n\n".join([*tables, "\n".join(map(printable, sentences(found)))])
    footer = f"Of the runs of {name}; the last, {found.runs[-1].run}, began on {day(found.runs[-1].last)}."
    return text, publish(files, page(found, f"history-{file_name(name)}.html"), f"history of {name}", footer)


def _last(gate: PastGate) -> list[str]:
    last = gate.verdicts[-1]
    if last is None:
        return ["-", "-", "-"]
    return [last.verdict, last.value.words, "-" if last.limit is None else f"{last.limit:g}"]


def file_name(name: str) -> str:
    """An audit's name as part of a file's: its own where that can be, else what can be kept, and a digest."""
    plain = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)
    return plain if plain == name else f"{plain.strip('-')[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def past(files: Files, name: str) -> History:
    """The finished runs of an audit. Raises InputError where there is none."""
    every = RunStore(files).all()
    mine = [run for run in every if run.name == name]
    runs = [run for run in mine if run.finished]
    if not runs:
        names = sorted({run.name for run in every})
        what = f"it has no finished run{_how(mine[-1])}" if mine else "no audit has that name here"
        hint = suggest(name, names) if names and not mine else ""
        raise InputError(f"history: must be the name of an audit with a finished run, got {name!r}: {what}{hint}")
    alike = _alike(runs)
    last = [some[-1] for some in alike]
    figures = _figures([_measured(files, run) for run in last])
    pages = _Pages(files, frozenset(files.names(FOLDER)))
    return History(
        name,
        [_past_run(some, before, pages) for some, before in zip(alike, [None, *alike], strict=False)],
        _gates(last, figures),
        figures,
        [_unfinished(run, alike) for run in mine if not run.finished],
    )


def _how(run: RunRecord) -> str:
    """How an audit's latest run stands, where none finished."""
    why = run.about.get("failure")
    return f"; the latest, {run.run_id}, {'is' if run.status == 'running' else 'ended as'} {run.status}" + (
        f": {why}" if why else ""
    )


def _alike(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Runs in a row whose every stage gave the same results, together; a record without stages says nothing of that."""
    found: list[list[RunRecord]] = []
    for run in runs:
        if found and run.stages and _results(run) == _results(found[-1][-1]):
            found[-1].append(run)
        else:
            found.append([run])
    return found


def _results(run: RunRecord) -> object:
    found = {name: stage for name, stage in run.stages.items() if name not in SHOWING}
    stages = {name: (stage["folder"], stage.get("digest")) for name, stage in found.items()}
    return stages, run.status, run.gates, run.figures


def _unfinished(run: RunRecord, alike: Sequence[Sequence[RunRecord]]) -> UnfinishedRun:
    why = str(run.about.get("failure", ""))
    if not why and run.stages:
        why = f"after {', '.join(run.stages)}"
    after = sum(some[0].started <= run.started for some in alike)
    return UnfinishedRun(run.run_id, day(run.started), run.status, run.network, why, after)


@dataclass(frozen=True)
class _Pages:
    """Where reports of runs, and comparisons of two, lie as seen from a page beside the comparisons."""

    files: Files
    published: frozenset[str]

    def report(self, run: RunRecord) -> str:
        """Of a run; empty where it is gone."""
        place = f"{run.stages['report']['folder']}/index.html" if "report" in run.stages else ""
        return f"../{place}" if place and self.files.stamp(place) else ""

    def comparison(self, before: Sequence[RunRecord], now: Sequence[RunRecord]) -> str:
        """Of any two of the runs, the later one second if there is that; empty where nobody compared them."""
        pairs = [(a.run_id, b.run_id) for a in reversed(before) for b in reversed(now)]
        names = [f"compare-{a}-{b}.html" for a, b in [*pairs, *((b, a) for a, b in pairs)]]
        return next((name for name in names if f"{FOLDER}/{name}" in self.published), "")


def _measured(files: Files, run: RunRecord) -> Sequence[FigureRun]:
    """A run's headlines: as recorded; of older records from its stages, those that are left."""
    if run.figures:
        return recorded(run)
    from flows.claiming import reading
    from tasks.comparison import Side

    with reading(files, [run]):
        return Side.of(files, run, warn).figures


def _past_run(some: Sequence[RunRecord], before: Sequence[RunRecord] | None, pages: _Pages) -> PastRun:
    """Runs that gave the same results, as one."""
    first, last = some[0], some[-1]
    return PastRun(
        last.run_id,
        first.started,
        last.status,
        last.network,
        list(_changed(before[-1], first)) if before else [],
        _measuring(before[-1], first) if before else [],
        _pictures(last),
        len(some),
        last.started,
        pages.report(last),
        pages.comparison(before, some) if before else "",
    )


def _pictures(run: RunRecord) -> str:
    """What tells the pictures of runs apart: folders of their indices are named by content."""
    return " ".join(sorted(stage["folder"] for name, stage in run.stages.items() if name.partition(":")[0] == "index"))


def _changed(before: RunRecord, run: RunRecord) -> Iterator[Change]:
    """What is not as in the run before: keys of the audit file, files, microtome's version, the code of its stages."""
    for key, was, now in _keys(before, run):
        yield Change(_KINDS.get(key.partition(".")[0], "settings"), f"{key}: {was}, now {now}")
    for of in dict.fromkeys([*before.inputs, *run.inputs]):
        if before.inputs.get(of) != run.inputs.get(of):
            yield Change("network" if of == "network" else "pictures", f"files of the {of}")
    versions = [record.about.get("environment", {}).get("microtome") for record in (before, run)]
    if versions[0] != versions[1]:
        yield Change("code", f"microtome {versions[1]}")
    code = [{name: stage.get("code") for name, stage in record.stages.items()} for record in (before, run)]
    shared = [name for name in code[1] if name not in SHOWING and code[0].get(name) and code[1][name]]
    made = [name for name in shared if code[0][name] != code[1][name]]
    if made:
        yield Change("code", f"code of {', '.join(made)}")


def _keys(before: RunRecord, run: RunRecord) -> list[tuple[str, str, str]]:
    """Keys of the audit file that differ, and their values."""
    one, two = (dict(flat(record.about.get("audit", {}))) for record in (before, run))
    keys = [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
    return [(key, one.get(key, "not set"), two.get(key, "not set")) for key in keys]


def _measuring(before: RunRecord, run: RunRecord) -> list[str]:
    """Of the keys that differ those by which a stage with headline figures measured, in both runs."""
    stages = {figure["stage"] for figure in run.figures} & {figure["stage"] for figure in before.figures}
    return [
        f"{key} was {was} and is {now}"
        for key, was, now in _keys(before, run)
        if key.startswith("stages.") and key.split(".")[1] in stages and "not set" not in (was, now)
    ]


def _gates(runs: Sequence[RunRecord], figures: Sequence[PastFigure] = ()) -> list[PastGate]:
    """Every gate that any of the runs has, those of the last run first, by its latest title."""
    named = [_by_demand(run.gates) for run in runs]
    keys = dict.fromkeys(key for gates in reversed(named) for key in gates)
    found = [
        PastGate(
            next(gates[key]["gate"] for gates in reversed(named) if key in gates),
            [_verdict(gates[key]) if key in gates else None for gates in named],
        )
        for key in keys
    ]
    return [replace(gate, figure=_judged(gate, figures)) for gate in found]


def _judged(gate: PastGate, figures: Sequence[PastFigure]) -> int | None:
    """The place of the headline figure that a gate judges: of its metric and row, with its value in every run."""
    metric, _, row = gate.gate.rpartition(": ")[0].partition(" of ")
    parts = row.split(", ") if row else []

    def same(figure: PastFigure) -> bool:
        told = figure.row.split(", ") if figure.row else []
        rows = len(told) == len(parts) and all(
            f" {part}".endswith(f" {one}") for part, one in zip(parts, told, strict=True)
        )
        pairs = [(v.value, f) for v, f in zip(gate.verdicts, figure.values, strict=True) if v and f]
        return (rows or not parts) and bool(pairs) and all(one.value == other.value for one, other in pairs)

    found = [n for n, f in enumerate(figures) if metric_of(f.stage, f.name) == metric and same(f)]
    return found[0] if len(found) == 1 else None


def _by_demand(gates: Sequence[GateRun]) -> dict[str, GateRun]:
    """Gates by what they judge: a limit that was moved does not make another gate of it, where it is the only one."""
    demands = [_demand(gate["gate"]) for gate in gates]
    return {
        demand if demands.count(demand) == 1 else gate["gate"]: gate
        for demand, gate in zip(demands, gates, strict=True)
    }


def _demand(title: str) -> str:
    """A gate's title (tasks/gates) without its limit and how strictly it is kept."""
    found = re.fullmatch(
        r"(.*: (?:min|max drop|max)) \S+?( since .*?)?(?:, certain)?(?:, warns only)?", title, re.DOTALL
    )
    return f"{found[1]}{found[2] or ''}" if found else title


def _verdict(gate: GateRun) -> PastVerdict:
    value = Figure(gate["value"], gate.get("low"), gate.get("high"))
    return PastVerdict(value, gate["limit"], verdict(gate), gate.get("note", ""))


def _figures(measured: Sequence[Sequence[FigureRun]]) -> list[PastFigure]:
    """Every headline that any of the runs has, in the order of the last one that has it."""
    named = [{(f["stage"], f["figure"], f["row"]): f for f in figures} for figures in measured]
    keys = dict.fromkeys(key for figures in reversed(named) for key in figures)
    return [
        PastFigure(
            stage,
            name,
            row,
            [_figure(figures[key]) if (key := (stage, name, row)) in figures else None for figures in named],
        )
        for stage, name, row in keys
    ]


def _figure(figure: FigureRun) -> Figure:
    return Figure(figure["value"], figure["low"], figure["high"])
