"""Stage `gates`: what the audit demands of its own figures, and whether it got it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microtome.errors import InputError
from storage import Artifact, Draft, StageStore
from storage.tables import ReadRow, Row
from tasks.gates import Baseline, GateModel, GatesOptions, KeyValue
from tasks.session import Session
from tasks.stage import Job, Metric

MOST_ROWS = 6  # that a note lists


@dataclass(frozen=True)
class Inputs:
    """The stages that are judged, by name, and the runs before."""

    measured: Mapping[str, Artifact]
    baseline: Baseline

    @classmethod
    def of(cls, job: Job, artifacts: Mapping[str, Artifact]) -> Inputs:
        """Whatever stages the gates ask for."""
        baseline = job.reads["baseline"]
        return cls(artifacts, baseline if isinstance(baseline, Baseline) else Baseline())


def run(options: GatesOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Judge every gate."""
    store = StageStore(session.files)
    metrics = {f"{metric.table}.{metric.column}": metric for metric in options.metrics}
    results = []
    for gate in options.gates:
        metric, before = metrics[gate.metric], None
        now = _measured(gate, metric, inputs.measured)
        if gate.max_drop is not None:
            before = _earlier(gate, metric, store, inputs.baseline)
        results.append(judge(gate, now, before))
    draft.rows("gates", results)
    draft.write("gates.json", json.dumps(results).encode())


@dataclass(frozen=True)
class Measured:
    """A figure, its interval where it has one, and the digest of the pictures it was measured over.

    Args:
        value: None where the stage wrote none, for the reason `why`.
        low, high: of its 95 % interval.
        pictures: digest of the index; empty where none was read.
        why: there is no value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    pictures: str = ""
    why: str = ""


def judge(gate: GateModel, now: Measured, before: Measured | None) -> Row:
    """One gate: its value, its limit, the verdict, and a note where there is something to say.

    A limit is kept by the value; with `certain` by the end of its 95 % interval that is nearest to the limit, so that
    the whole interval lies on the good side. A figure that was not measured keeps no limit.

    Args:
        gate: metric, and min, max or max_drop.
        now: the figure.
        before: of the baseline, for `max_drop`; None where there is none.
    """
    row = {"gate": title(gate), "value": now.value, "low": now.low, "high": now.high}
    if now.value is None:
        return row | {"limit": None, **_verdict(gate, False, now.why)}
    if gate.min is not None or gate.max is not None:
        limit = gate.min if gate.min is not None else gate.max
        return row | {"limit": limit, **_verdict(gate, *_kept(gate, now, limit))}
    if before is None or before.value is None or gate.max_drop is None:
        why = f"judged nothing: {before.why if before else 'there is no earlier run to compare with'}"
        return row | {"limit": None, "verdict": "not judged", "passed": True, "note": why}
    limit = before.value - gate.max_drop * abs(before.value)
    kept, why = _kept(gate, now, limit)
    other = "" if before.pictures == now.pictures else f", over {'other' if before.pictures else 'unknown'} pictures"
    note = f"before: {before.value:g}{other}{'; ' if why else ''}{why}"
    return row | {"limit": limit, **_verdict(gate, kept, note)}


def _kept(gate: GateModel, now: Measured, limit: float | None) -> tuple[bool, str]:
    """Whether a figure keeps its limit, and why not where that cannot be seen."""
    ends = (now.low, now.high) if gate.certain else (now.value, now.value)
    if ends[0] is None or ends[1] is None or limit is None:
        return False, "it has no interval here, so nothing is certain; ask the stage for resamples (`bootstrap`)"
    return (ends[1] <= limit if gate.max is not None else ends[0] >= limit), ""


def _verdict(gate: GateModel, kept: bool, note: str) -> dict[str, object]:
    verdict = "passed" if kept else "warned" if gate.warn else "failed"
    return {"verdict": verdict, "passed": verdict != "failed", "note": note}


def title(gate: GateModel) -> str:
    """A gate in words, for example `layers.detectors of features.12: min 10, certain`."""
    said = {name: value for name, value in gate.row.items() if name != "layer"}
    layer = [str(gate.row["layer"])] if "layer" in gate.row else []
    row = ", ".join([*layer, *(f"{name} {'none' if value is None else value}" for name, value in said.items())])
    limits = {"min": gate.min, "max": gate.max, "max drop": gate.max_drop}
    kind, limit = next((name, value) for name, value in limits.items() if value is not None)
    against = f" since {gate.baseline}" if gate.baseline else ""
    extra = "".join(f", {word}" for word, on in (("certain", gate.certain), ("warns only", gate.warn)) if on)
    return f"{gate.metric}{f' of {row}' if row else ''}: {kind} {limit:g}{against}{extra}"


def _earlier(gate: GateModel, metric: Metric, store: StageStore, baseline: Baseline) -> Measured | None:
    """The figure of the run before; None where it did not measure it. Raises InputError where it is lost."""
    there = {folder: store.load(folder) for folder in baseline.all(gate.baseline or "")}
    found = {folder: artifact for folder, artifact in there.items() if artifact}
    if any(artifact.has(f"{metric.table}.parquet") for artifact in found.values()):
        return _measured(gate, metric, found)
    lost = [folder for folder in there if folder not in found]
    if lost:
        raise InputError(
            f"gates.baseline: must still have its figures, got a run whose {lost[0]} is gone or damaged; name another "
            "run as `baseline`, or audit what it audited again"
        )
    return None


def _measured(gate: GateModel, metric: Metric, stages: Mapping[str, Artifact]) -> Measured:
    """Value and interval of a gate's metric, from the one row that it names."""
    artifact = next(stage for stage in stages.values() if stage.has(f"{metric.table}.parquet"))
    rows: list[ReadRow] = artifact.table(metric.table).to_pylist()
    wanted: dict[str, KeyValue] = dict.fromkeys(metric.nullable) | gate.row
    chosen = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    pictures = artifact.manifest["inputs"].get("index", "")
    if len(chosen) != 1:
        return Measured(None, pictures=pictures, why=_which(metric, rows, wanted))
    row = chosen[0]
    low, high = (None if name is None else row[name] for name in (metric.low, metric.high))
    why = f"{metric.table}.{metric.column} is null: the stage could not measure it, or was not asked to"
    return Measured(row[metric.column], low, high, pictures, why if row[metric.column] is None else "")


def _which(metric: Metric, rows: list[ReadRow], wanted: Mapping[str, KeyValue]) -> str:
    """That a gate means no row, or several, and which there are."""
    chosen = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    said = f"it must mean one row of {metric.table}, got {len(chosen)}"
    for name in wanted if not chosen else ():  # the one thing that no row has, where all else fits
        others = [row for row in rows if all(row[key] == value for key, value in wanted.items() if key != name)]
        if others:
            return f"{said}: none has {name} {wanted[name]}; there are {_listed([row[name] for row in others])}"
    keys = (*metric.keys, *metric.nullable)
    named = [", ".join(f"{key} {row[key]}" for key in keys if row[key] is not None) for row in chosen or rows]
    return f"{said}; there are: {_listed(named, between='; ')}"


def _listed(values: Sequence[object], between: str = ", ") -> str:
    """Values of a key: a range of numbers, or the first ones."""
    if len(values) > MOST_ROWS and all(isinstance(value, int) for value in values):
        numbers = sorted(int(str(value)) for value in values)
        return f"{numbers[0]} to {numbers[-1]}"
    more = f" and {len(values) - MOST_ROWS} more" if len(values) > MOST_ROWS else ""
    return between.join(map(str, values[:MOST_ROWS])) + more
