"""Stage `gates`: what the audit demands of its own figures, and whether it got it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microtome.errors import InputError, suggest
from storage import Artifact, Draft, StageStore
from storage.tables import Row
from tasks.gates import Baseline, GateModel, GatesOptions
from tasks.session import Session
from tasks.stage import Job, Metric


@dataclass(frozen=True)
class Inputs:
    """The stages that are judged, by name, and the run before."""

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
    before = {folder: store.load(folder) for _, folder in inputs.baseline.folders}
    metrics = {f"{metric.table}.{metric.column}": metric for metric in options.metrics}
    results = []
    for gate in options.gates:
        found = _measured(gate, metrics[gate.metric], inputs.measured)
        results.append(judge(gate, found, _earlier(gate, metrics[gate.metric], before)))
    draft.table("gates", {name: [row[name] for row in results] for name in ("gate", "value", "limit", "passed")})
    draft.write("gates.json", json.dumps(results).encode())


@dataclass(frozen=True)
class Measured:
    """A figure and its interval; the figure itself where it has none."""

    value: float
    low: float
    high: float


def judge(gate: GateModel, now: Measured, before: Measured | None) -> Row:
    """One gate: its value, its limit, whether it passed, and a note where there is something to say.

    With `certain`, the gate only fails where the value's whole interval lies on the wrong side.

    Args:
        gate: metric, and min, max or max_drop.
        now: the figure.
        before: of the audit before, for `max_drop`.
    """
    row: dict[str, object] = {"gate": _title(gate), "value": now.value, "note": ""}
    best, worst = (now.high, now.low) if gate.certain else (now.value, now.value)
    if gate.min is not None:
        return row | {"limit": gate.min, "passed": best >= gate.min}
    if gate.max is not None:
        return row | {"limit": gate.max, "passed": worst <= gate.max}
    if before is None or gate.max_drop is None:
        return row | {"limit": None, "passed": True, "note": "no earlier audit to compare with"}
    limit = before.value * (1 - gate.max_drop)
    return row | {"limit": limit, "passed": best >= limit, "note": f"before: {before.value:g}"}


def _title(gate: GateModel) -> str:
    layer = f" of {gate.layer}" if gate.layer else ""
    limits = {"min": gate.min, "max": gate.max, "max drop": gate.max_drop}
    kind, limit = next((name, value) for name, value in limits.items() if value is not None)
    return f"{gate.metric}{layer}: {kind} {limit:g}{', certain' if gate.certain else ''}"


def _earlier(gate: GateModel, metric: Metric, before: Mapping[str, Artifact | None]) -> Measured | None:
    """The figure of the audit before; None where it did not measure it. Raises InputError where it is lost."""
    if gate.max_drop is None:
        return None
    there = {folder: artifact for folder, artifact in before.items() if artifact}
    if any(artifact.has(f"{metric.table}.parquet") for artifact in there.values()):
        return _measured(gate, metric, there)
    lost = [folder for folder in before if folder not in there]
    if lost:
        raise InputError(
            f"gates.baseline: must still have its figures, got a run whose {lost[0]} is gone or damaged; name another "
            "run as `baseline`, or audit what it audited again"
        )
    return None


def _measured(gate: GateModel, metric: Metric, stages: Mapping[str, Artifact]) -> Measured:
    """Value and interval of a gate's metric; the mean over the table's rows where no layer is named."""
    artifact = next(stage for stage in stages.values() if stage.has(f"{metric.table}.parquet"))
    frame = artifact.table(metric.table).to_pydict()
    chosen = _rows(gate, frame.get("layer", []), len(frame[metric.column]))
    names = (metric.column, metric.low or metric.column, metric.high or metric.column)
    return Measured(*(_mean([frame[name][row] for row in chosen]) for name in names))


def _rows(gate: GateModel, layers: Sequence[str], count: int) -> list[int]:
    if gate.layer is None:
        return list(range(count))
    rows = [row for row, name in enumerate(layers) if name == gate.layer]
    if not rows:
        raise InputError(f"gates: no layer {gate.layer!r}{suggest(gate.layer, sorted(set(layers)))}")
    return rows


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
