"""Stage `gates`: what an audit demands of its own figures, and whether it got it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, model_validator

from microtome.errors import InputError, suggest
from storage.tables import flag, float64, string, table
from tasks.options import Options, Share, Strict
from tasks.planning import Planner
from tasks.stage import Job, Metric, Stage

Limit = Annotated[float, Field(allow_inf_nan=False)]
KeyValue = str | int | float | None
LAYER = "layer"


class GateModel(Strict):
    """What makes an audit fail: one of min, max, max_drop."""

    metric: Annotated[str, Field(pattern=r"^\w+\.\w+$")]
    """`table.column` that a stage declares as a metric."""
    min: Limit | None = None
    """Least value that passes."""
    max: Limit | None = None
    """Greatest value that passes."""
    max_drop: Share | None = None
    """Greatest share that the value may have lost since the baseline."""
    layer: str | None = None
    """Layer whose row is judged; may be left out where the audit looks at one."""
    where: dict[str, KeyValue] = {}
    """Which row of the metric's table is judged: its key columns, each with the value it must have."""
    baseline: Annotated[str, Field(min_length=1)] | None = None
    """Run, or audit, that a drop is measured against; the last finished run of this audit if left out."""
    certain: bool = False
    """Whether the whole 95 % interval must lie on the good side, instead of the value."""
    warn: bool = False
    """Whether missing the limit only warns: the audit passes, and says so."""

    @model_validator(mode="after")
    def _one_limit(self) -> GateModel:
        if sum(limit is not None for limit in (self.min, self.max, self.max_drop)) != 1:
            raise ValueError("must have exactly one of min, max, max_drop")
        if self.baseline is not None and self.max_drop is None:
            raise ValueError("must have `baseline` beside max_drop only: min and max compare with no other run")
        if self.layer is not None and LAYER in self.where:
            raise ValueError("must name the layer once, as `layer` or under `where`")
        return self

    @property
    def row(self) -> dict[str, KeyValue]:
        """Values of the key columns that it names."""
        return ({} if self.layer is None else {LAYER: self.layer}) | dict(self.where)


class GatesOptions(Options):
    """The gates, and the figures that they may ask for."""

    gates: list[GateModel]
    metrics: list[Metric]


@dataclass(frozen=True)
class Baseline:
    """What drops are measured against.

    Args:
        folders: baseline as gates name it (empty for the last run) -> folders of its stages by their names; none where
            there was no run before.
    """

    folders: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)

    @property
    def digest(self) -> str:
        """Folders are named by content."""
        return " ".join(f"{name}={folder}" for name in sorted(self.folders) for folder in self.all(name)) or "none"

    def all(self, name: str) -> list[str]:
        """Folders of one baseline."""
        return list(self.folders.get(name, {}).values())


def gates(audit: Planner, wanted: Sequence[GateModel], baseline: Baseline) -> Job:
    """The gates of an audit, on the stages that measure what they ask for.

    Raises:
        InputError: a metric of a stage that the audit does not run, or that no stage has.
    """
    known = {f"{metric.table}.{metric.column}": (metric, job) for job in audit.jobs.values() if not job.variant
             for metric in job.stage.metrics}  # fmt: skip
    unknown = [gate.metric for gate in wanted if gate.metric not in known]
    if unknown:
        raise InputError(f"gates: no stage of this audit measures {unknown[0]!r}{suggest(unknown[0], sorted(known))}")
    asked = [known[name] for name in dict.fromkeys(gate.metric for gate in wanted)]
    options = GatesOptions(gates=list(wanted), metrics=[metric for metric, _ in asked])
    reads = {job.name: job for _, job in asked}
    return audit.add(audit.job(STAGE, options, {**reads, "baseline": baseline}))


def gate_faults(gate: GateModel, metric: Metric, layers: Sequence[str], more: Sequence[str] = ()) -> Iterator[str]:
    """What a gate does not say, or says wrongly, of the one row that it judges: its key, and what is wrong with it.

    Args:
        gate: as the audit file has it.
        metric: that it asks for.
        layers: of the audit, as it names them: `*` and `?` stand for any characters.
        more: that it looks at, too: those of a fine-tuned network.
    """
    keys = (*metric.keys, *metric.nullable)
    if gate.certain and metric.low is None:
        yield f".certain: {gate.metric} has no interval, leave `certain` out"
    unknown = [name for name in gate.row if name not in keys]
    if unknown == [LAYER]:
        yield f".layer: {gate.metric} has no layers, leave `layer` out"
    elif unknown:
        yield f".where: rows of {metric.table} are not told apart by {unknown[0]!r}{suggest(unknown[0], keys)}"
    missing = [name for name in metric.keys if name not in gate.row and not (name == LAYER and _single(layers))]
    if missing:
        yield f": must say which row of {metric.table} is judged, got none: {_row_wanted(metric, missing)}"
    layer = gate.row.get(LAYER)
    known = [*layers, *more]
    if layer is not None and LAYER in keys and not any(fnmatchcase(str(layer), pattern) for pattern in known):
        yield f".layer: must be one that the audit looks at, got {layer!r}{suggest(str(layer), known)}"


def _single(layers: Collection[str]) -> bool:
    return len(set(layers)) == 1 and not any(sign in name for name in layers for sign in "*?[")


def _row_wanted(metric: Metric, missing: Sequence[str]) -> str:
    """What to add, in words."""
    named = [f"`{LAYER}`"] if LAYER in missing else []
    others = ", ".join(f"{name}: ..." for name in missing if name != LAYER)
    named += [f"`where: {{{others}}}`"] if others else []
    return f'add {" and ".join(named)} (microtome sql "from {metric.table}" lists the rows of the latest run)'


STAGE = Stage(
    name="gates",
    about="Judges what the audit demands of its own figures.",
    options=GatesOptions,
    work="tasks.gates.work:run",
    tables=(
        table(
            "gates",
            "A row per gate of the audit file.",
            gate=string("what is demanded, in words"),
            value=float64("that the audit got; null where it measured none"),
            low=float64("95 % interval of the value; null where it has none"),
            high=float64("95 % interval of the value; null where it has none"),
            limit=float64("that it had to keep; null where there was nothing to compare with"),
            verdict=string("passed, failed, warned (it missed its limit, and only warns), or not judged"),
            passed=flag("whether the audit passes it: all verdicts but failed"),
            note=string("what else is to be known: the value before, or why there is no verdict"),
        ),
    ),
)
