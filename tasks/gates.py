"""Stage `gates`: what the audit demands of its own figures, and whether it got it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from microtome.errors import InputError, suggest
from storage import Artifact, StageStore
from tasks.stage import Work

BOUNDS = {  # column -> columns of its interval
    "unique_per_category": ("unique_low", "unique_high"),
    "unique_per_unit": ("unique_per_unit_low", "unique_per_unit_high"),
    "detectors": ("detectors_low", "detectors_high"),
}


def run(work: Work) -> None:
    """Judge every gate."""
    dissection = work.inputs["dissection"]
    folder = work.job.reach["baseline_folder"]
    baseline = StageStore(work.session.files).load(folder) if folder else None
    results = [judge(gate, dissection, baseline) for gate in work.parameters["gates"]]
    work.draft.table("gates", {name: [row[name] for row in results] for name in ("gate", "value", "limit", "passed")})
    work.draft.write("gates.json", json.dumps(results).encode())


def judge(gate: Mapping[str, Any], current: Artifact, baseline: Artifact | None) -> dict[str, Any]:
    """One gate: its value, its limit, whether it passed, and a note where there is something to say.

    With `certain`, the gate only fails where the value's whole interval lies on the wrong side.

    Args:
        gate: metric, and min, max or max_drop.
        current: the dissection.
        baseline: the dissection of the audit before, for `max_drop`.
    """
    value, low, high = _value(gate, current)
    row: dict[str, Any] = {"gate": _title(gate), "value": value, "note": ""}
    if gate.get("min") is not None:
        return row | {"limit": gate["min"], "passed": (high if gate["certain"] else value) >= gate["min"]}
    if gate.get("max") is not None:
        return row | {"limit": gate["max"], "passed": (low if gate["certain"] else value) <= gate["max"]}
    if baseline is None:
        return row | {"limit": None, "passed": True, "note": "no earlier audit to compare with"}
    before, _, _ = _value(gate, baseline)
    limit = before * (1 - gate["max_drop"])
    return row | {
        "limit": limit,
        "passed": (high if gate["certain"] else value) >= limit,
        "note": f"before: {before:g}",
    }


def _title(gate: Mapping[str, Any]) -> str:
    layer = f" of {gate['layer']}" if gate.get("layer") else ""
    kind = next(name for name in ("min", "max", "max_drop") if gate.get(name) is not None)
    sure = ", certain" if gate["certain"] else ""
    return f"{gate['metric']}{layer}: {kind.replace('_', ' ')} {gate[kind]:g}{sure}"


def _value(gate: Mapping[str, Any], artifact: Artifact) -> tuple[float, float, float]:
    """Value and interval of a gate's metric; the mean over layers where no layer is named."""
    table, _, column = gate["metric"].partition(".")
    frame = artifact.table(table).to_pydict()
    numbers = [name for name, values in frame.items() if values and isinstance(values[0], int | float)]
    if column not in numbers:
        raise InputError(f"gates: {table} has no number {column!r}{suggest(column, numbers)}")
    chosen = _rows(gate, frame["layer"])
    names = (column, *BOUNDS.get(column, (column, column)))
    value, low, high = (_mean([frame[name][row] for row in chosen]) for name in names)
    return value, low, high


def _rows(gate: Mapping[str, Any], layers: Sequence[str]) -> list[int]:
    if gate.get("layer") is None:
        return list(range(len(layers)))
    rows = [row for row, name in enumerate(layers) if name == gate["layer"]]
    if not rows:
        raise InputError(f"gates: no layer {gate['layer']!r}{suggest(gate['layer'], sorted(set(layers)))}")
    return rows


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
