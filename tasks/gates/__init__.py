"""Stage `gates`: what an audit demands of its own figures, and whether it got it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from microtome.errors import InputError, suggest
from storage.tables import flag, float64, string, table
from tasks.options import Options, Share, Strict
from tasks.planning import Planner
from tasks.stage import Job, Metric, Stage

Limit = Annotated[float, Field(allow_inf_nan=False)]


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
    """Layer whose row is judged; may be left out where there is one."""
    baseline: str | None = None
    """Run that drops are measured against; the last one of the audit if left out."""
    certain: bool = False
    """Whether the interval decides instead of the value."""

    @model_validator(mode="after")
    def _one_limit(self) -> GateModel:
        if sum(limit is not None for limit in (self.min, self.max, self.max_drop)) != 1:
            raise ValueError("must have exactly one of min, max, max_drop")
        return self


class GatesOptions(Options):
    """The gates, and the figures that they may ask for."""

    gates: list[GateModel]
    metrics: list[Metric]


@dataclass(frozen=True)
class Baseline:
    """The run that drops are measured against: folders of its stages by name; none where there was no run before."""

    folders: Sequence[tuple[str, str]] = ()

    @property
    def digest(self) -> str:
        """Folders are named by content."""
        return " ".join(folder for _, folder in self.folders) or "none"


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


STAGE = Stage(
    name="gates",
    about="Judges what the audit demands of its own figures.",
    options=GatesOptions,
    work="tasks.gates.work:run",
    weight=0.0,
    tables=(
        table(
            "gates",
            "A row per gate of the audit file.",
            gate=string("what is demanded, in words"),
            value=float64("that the audit got"),
            limit=float64("that it had to keep; null where there was nothing to compare with"),
            passed=flag("whether it did"),
        ),
    ),
)
