"""Stage `pages`: a page for everything that an audit found, but for the gates' verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.gates import STAGE as GATES
from tasks.options import Options
from tasks.planning import Planner
from tasks.stage import Job, Stage


class PagesOptions(Options):
    """What the pages show."""

    top_images: int
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


def pages(audit: Planner, top_images: int) -> Job:
    """Reads every job of the audit but the gates, and shows those whose stage has a page.

    Neither the gates nor their verdict is among what it reads: who changes one waits for no page to be made again.
    """
    jobs = {name: job for name, job in audit.jobs.items() if job.stage is not GATES}
    shown = {job.stage.page for job in jobs.values() if job.stage.page}
    roots = tuple(sorted({root for page in shown for root in page.roots}))
    described = Described({key: value for key, value in audit.described.items() if key != "gates"})
    return audit.job(STAGE, PagesOptions(top_images=top_images), {**jobs, "audit": described}, roots=roots)


STAGE = Stage(
    name="pages",
    about="Makes the pages of everything that the audit found, without the gates' verdict.",
    options=PagesOptions,
    work="tasks.pages.work:run",
    determined_by=frozenset({"device"}),
    threads="all",
    cost=lambda options, pace: (
        1
        + 4e-3 * pace.units
        + 1.3e-4 * pace.pictures
        + min(pace.pictures, options.top_images * pace.units) * (pace.read + 1e-3)
    ),
    files=("microtome/report/templates",),
)
