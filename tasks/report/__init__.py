"""Stage `report`: pages of everything that an audit found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from tasks.options import Options
from tasks.pages import Described, pages
from tasks.planning import Planner
from tasks.stage import Job, Stage


class ReportOptions(Options):
    """The report."""

    top_images: Annotated[int, Field(ge=1, le=20)] = 5
    """Pictures shown of each unit."""


def plan(audit: Planner, options: ReportOptions) -> Iterable[Job]:
    """The pages, then with the verdict of the gates, for which nothing else is made again."""
    every = dict(audit.jobs)
    shown = pages(audit, options.top_images)
    yield shown
    yield audit.job(STAGE, options, {**every, "pages": shown, "audit": Described(audit.described)})


STAGE = Stage(
    name="report",
    about="Writes the pages of everything that the audit found, and the gates' verdict.",
    options=ReportOptions,
    work="tasks.report.work:run",
    plan=plan,
    cost=lambda _, pace: 0.2 + 1e-4 * pace.units,
    files=("microtome/report/templates",),
    starter="  report: {top_images: 5}\n",
)
