"""What the pages say of an audit as a whole: every job that was carried out, and the audit file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from microtome.report.overview import Audited, Finished
from storage import Artifact
from tasks.pages import Described
from tasks.stage import Job


@dataclass(frozen=True)
class Inputs:
    """Jobs of the audit, by name, and the audit file."""

    jobs: Mapping[str, Job]
    artifacts: Mapping[str, Artifact]
    audit: Mapping[str, object]

    @classmethod
    def of(cls, job: Job, artifacts: Mapping[str, Artifact]) -> Inputs:
        """Whatever the audit has."""
        described = job.reads["audit"]
        return cls(job.jobs, artifacts, described.audit if isinstance(described, Described) else {})

    @property
    def audited(self) -> Audited:
        """What the overview says of the audit."""
        return Audited(self.audit, {name: self._finished(name) for name in self.jobs})

    def _finished(self, name: str) -> Finished:
        artifact, job = self.artifacts[name], self.jobs[name]
        tables = artifact.manifest["files"].items()
        return Finished(
            stage=job.stage.name,
            variant=job.variant,
            digest=artifact.digest,
            seconds=artifact.manifest["seconds"],
            started=artifact.manifest["started"],
            size=artifact.size,
            rows={table: entry["rows"] for table, entry in tables if entry["rows"] is not None},
            read=artifact.manifest["inputs"],
            environment=artifact.manifest["environment"],
        )
