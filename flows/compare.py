"""What runs found, one beside another."""

from __future__ import annotations

from flows.console import warn
from flows.query import text_table
from storage import Files, RunRecord
from storage.catalogue import connect
from storage.runs import verdict
from storage.tables import ReadRow
from tasks.registry import TABLES

FIGURES = (
    ("confirmed", "confirmed_low", "confirmed_high"),
    ("detectors", "detectors_low", "detectors_high"),
    ("unique_per_category", "unique_low", "unique_high"),
    ("unique_per_unit", "unique_per_unit_low", "unique_per_unit_high"),
    ("significant", None, None),
    ("mean_iou", None, None),
)


def shown(files: Files, run: RunRecord) -> str:
    """A run's figures, gates and stages, as text."""
    parts = [f"run      {run.run_id}\naudit    {run.name}\nnetwork  {run.network}\nstatus   {run.status}"]
    layers = _layers(files, run)
    if layers:
        head = ["layer", "units", *(figure for figure, _, _ in FIGURES)]
        rows = [[row["layer"], row["units"], *(_figure(row, *names) for names in FIGURES)] for row in layers]
        parts.append(text_table(head, rows))
    if run.gates:
        gates = [[gate["gate"], gate["value"], gate["limit"], verdict(gate), gate.get("note")] for gate in run.gates]
        parts.append(text_table(["gate", "value", "limit", "verdict", "note"], gates))
    stages = [
        [name, "cached" if stage.get("cached") else "run", stage.get("seconds"), stage["folder"]]
        for name, stage in run.stages.items()
    ]
    parts.append(text_table(["stage", "state", "seconds", "folder"], stages))
    return "\n\n".join(parts)


def compared(files: Files, first: RunRecord, second: RunRecord) -> str:
    """Two runs' layers beside each other, in order, and how many labels agree."""
    one, two = _layers(files, first), _layers(files, second)
    rows: list[list[object]] = []
    for a, b in zip(one, two, strict=False):
        name = a["layer"] if a["layer"] == b["layer"] else f"{a['layer']} / {b['layer']}"
        rows += [[name, names[0], _figure(a, *names), _figure(b, *names)] for names in FIGURES]
    head = ["layer", "figure", f"{first.name} {first.run_id}", f"{second.name} {second.run_id}"]
    same, units = _agreement(files, first, second)
    note = f"{same} of {units} units carry the same label in both" if units else "no layer in common"
    return text_table(head, rows) + "\n\n" + note


def _layers(files: Files, run: RunRecord) -> list[ReadRow]:
    found = connect(files, [run], TABLES, say=warn).sql("select * from layers order by layer")
    rows: list[ReadRow] = found.to_arrow_table().to_pylist()
    return rows


def _agreement(files: Files, first: RunRecord, second: RunRecord) -> tuple[int, int]:
    query = """
        select count(*) filter (a.concept_id is not distinct from b.concept_id), count(*)
        from units a join units b using (layer, unit)
        where a.run_id = ? and b.run_id = ?
    """
    (row,) = connect(files, [first, second], TABLES).execute(query, [first.run_id, second.run_id]).fetchall()
    return int(row[0]), int(row[1])


def _figure(row: ReadRow, name: str, low: str | None, high: str | None) -> str:
    value = row.get(name)  # a run of an earlier version may have no such column
    if value is None:
        return "-"
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    if low is None or high is None or row[low] is None:
        return text
    return f"{text} [{row[low]:.0f}, {row[high]:.0f}]"
