"""Stage `report`: pages of everything that an audit found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from tasks.options import Options
from tasks.planning import Planner
from tasks.stage import Job, Stage


class ReportOptions(Options):
    """The report."""

    top_images: Annotated[int, Field(ge=1, le=20)] = 5
    """Pictures shown of each unit."""


@dataclass(frozen=True)
class Described:
    """The audit file as it was understood, for the report's provenance.

    Args:
        audit: as JSON values, without where and how it is carried out.
    """

    audit: Mapping[str, object] = field(hash=False)

    @property
    def digest(self) -> str:
        """Of its content."""
        return hashlib.sha256(json.dumps(self.audit, sort_keys=True).encode()).hexdigest()


def plan(audit: Planner, options: ReportOptions) -> Iterable[Job]:
    """Reads every job of the audit, and shows those whose stage has a page."""
    pages = {job.stage.page for job in audit.jobs.values() if job.stage.page}
    roots = tuple(sorted({root for page in pages for root in page.roots}))
    yield audit.job(STAGE, options, {**audit.jobs, "audit": Described(audit.described)}, roots=roots)


STAGE = Stage(
    name="report",
    about="Writes the pages of everything that the audit found.",
    options=ReportOptions,
    work="tasks.report.work:run",
    plan=plan,
    determined_by=frozenset({"device"}),
    threads="all",
    cost=lambda _, pace: 2 + 0.03 * pace.units,
    files=("microtome/report/templates",),
    starter="  report: {top_images: 5}\n",
)
