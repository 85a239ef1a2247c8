"""What findings are made from: the finished stages of an audit, typed, and a place for pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from storage import Artifact, Draft
from tasks.execution import inputs_of, outside_of
from tasks.index.result import Index
from tasks.result import StageResult
from tasks.session import Session
from tasks.stage import Job

AnyResult = TypeVar("AnyResult", bound=StageResult)
AnyInputs = TypeVar("AnyInputs")
THUMB = 112  # pixels


@dataclass(frozen=True)
class Shown:
    """The stages that a report shows.

    Args:
        jobs: by name.
        artifacts: the same, finished.
        draft: of the report.
        session: of the report.
        top_images: of a unit, that its card shows.
    """

    jobs: Mapping[str, Job]
    artifacts: Mapping[str, Artifact]
    draft: Draft
    session: Session
    top_images: int
    _inputs: dict[str, object] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether the audit ran this job."""
        return name in self.jobs

    def variants(self, stage: str) -> list[str]:
        """Names of the jobs of a stage, in the audit's order."""
        return [name for name, job in self.jobs.items() if job.stage.name == stage]

    def result(self, name: str, reader: type[AnyResult]) -> AnyResult:
        """What a job wrote."""
        return reader(self.artifacts[name], outside_of(self.jobs[name]))

    def inputs(self, name: str, kind: type[AnyInputs]) -> AnyInputs:
        """What a job read, as its stage's `Inputs`."""
        if name not in self._inputs:
            job = self.jobs[name]
            self._inputs[name] = inputs_of(job, {key: self.artifacts[read.name] for key, read in job.jobs.items()})
        found = self._inputs[name]
        if not isinstance(found, kind):
            raise TypeError(f"{name} reads {type(found).__module__}.Inputs, got {kind.__module__}.{kind.__name__}")
        return found

    def thumbnail(self, index: Index, image: int) -> str:
        """Path of a picture's thumbnail, written when it is first asked for."""
        path = f"assets/{index.digest}/{image:06d}.webp"  # by the data set, so that several do not mix
        if not self.draft.has(path):
            self.draft.write(path, index.source.thumbnail(image, THUMB))
            self.session.check()
        return path

    def picture(self, path: str, content: bytes) -> str:
        """Put a picture into the report; gives its path."""
        self.draft.write(path, content)
        return path

    def copied(self, result: StageResult, file: str) -> str:
        """A stage's own picture, in the report."""
        return self.picture(f"assets/{file}", result.artifact.read(file))
