"""What findings are made from: the finished stages of an audit, typed, and a place for pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.source import jpeg, small
from microtome.report import views
from storage import Artifact, Draft
from tasks.execution import inputs_of, result_of
from tasks.index.result import Index
from tasks.result import AnyResult, StageResult
from tasks.session import Session
from tasks.stage import Job

AnyInputs = TypeVar("AnyInputs")
THUMB = 112  # pixels
AT_ONCE = 64  # pictures held at a time


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
        return result_of(reader, self.jobs[name], self.artifacts[name], self.session)

    def inputs(self, name: str, kind: type[AnyInputs]) -> AnyInputs:
        """What a job read, as its stage's `Inputs`."""
        if name not in self._inputs:
            job = self.jobs[name]
            artifacts = {key: self.artifacts[read.name] for key, read in job.jobs.items()}
            self._inputs[name] = inputs_of(job, artifacts, self.session)
        found = self._inputs[name]
        if not isinstance(found, kind):
            raise TypeError(f"{name} reads {type(found).__module__}.Inputs, got {kind.__module__}.{kind.__name__}")
        return found

    def thumbnail(self, index: Index, image: int) -> str:
        """Path of a picture's thumbnail, which is made when it is first asked for, and a large picture beside it."""
        self.thumbnails(index, [image])
        return _thumb(index, image)

    def thumbnails(self, index: Index, images: Sequence[int]) -> None:
        """Make the small and the large picture of many, side by side on all threads."""
        wanted = [image for image in images if not all(map(self.draft.has, _named(index, image)))]
        with ThreadPoolExecutor(self.session.threads, "thumbnail") as pool:
            for first in range(0, len(wanted), AT_ONCE):
                some = wanted[first : first + AT_ONCE]
                framed = [index.source.framed(image) for image in some]  # a data set need not bear several threads
                for image, (little, large) in zip(some, pool.map(_both, framed), strict=True):
                    for name, content in zip(_named(index, image), (little, large), strict=True):
                        self.draft.write(name, content)
                self.session.check()

    def picture(self, path: str, content: bytes) -> str:
        """Put a picture into the report; gives its path."""
        self.draft.write(path, content)
        return path

    def copied(self, result: StageResult, file: str) -> str:
        """A stage's own picture, in the report."""
        return self.picture(f"assets/{file}", result.artifact.read(file))


def _thumb(index: Index, image: int) -> str:
    return f"assets/{index.digest[:12]}/s/{image:06d}.webp"  # by the data set, so that several do not mix


def _named(index: Index, image: int) -> tuple[str, str]:
    """Files of the small and of the large picture."""
    return _thumb(index, image), views.large_of(_thumb(index, image))


def _both(framed: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    return small(framed, THUMB), jpeg(framed)
