"""What a stage's work is given beside its options and inputs: where it runs, and whom it tells."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Protocol

from microtome.errors import Interrupted
from storage import Files, StageStore
from tasks.stage import Job, Settings


class Progress(Protocol):
    """Where progress goes: bars on a terminal, plain lines elsewhere."""

    def begin(self, stage: str, total: int, unit: str) -> None:
        """A stage begins, with so many units of work."""

    def advance(self, stage: str, count: int) -> None:
        """So many more are done."""

    def end(self, stage: str, note: str) -> None:
        """The stage ended."""

    def say(self, text: str) -> None:
        """One sentence."""


@dataclass(frozen=True)
class Session:
    """A run of an audit, and the job in hand.

    Args:
        files: the workspace.
        settings: seed, device and threads of the audit.
        progress: where progress goes.
        stop: set when the user asked to stop; stages end after the shard in hand.
        name: of the job in hand; empty between jobs.
        declared: what the stage in hand declares to determine its output.
    """

    files: Files
    settings: Settings
    progress: Progress
    stop: threading.Event = field(default_factory=threading.Event)
    name: str = ""
    declared: frozenset[str] = frozenset()

    @property
    def store(self) -> StageStore:
        """The workspace's stages."""
        return StageStore(self.files, self.progress.say)

    def of(self, job: Job) -> Session:
        """The same session with a job in hand."""
        return replace(self, name=job.name, declared=job.stage.determined_by)

    @property
    def seed(self) -> int:
        """Of every draw. Only a stage whose output is named by it may ask."""
        self._must_declare("seed")
        return self.settings.seed

    @property
    def device(self) -> str:
        """`cpu` or `cuda`. Only a stage whose output is named by it may ask."""
        self._must_declare("device")
        return self.settings.device

    @property
    def threads(self) -> int:
        """For computation. That sums are split over them is for the stage to declare; pools of whole tasks are free."""
        return self.settings.threads

    def begin(self, total: int, unit: str = "images") -> None:
        """Tell how much there is to do."""
        self.progress.begin(self.name, total, unit)

    def advance(self, count: int) -> None:
        """Tell that so much more is done, and end here if the user asked to stop."""
        self.progress.advance(self.name, count)
        self.check()

    def check(self) -> None:
        """Raise Interrupted if the user asked to stop."""
        if self.stop.is_set():
            raise Interrupted("stopped by the user; everything finished is kept")

    def _must_declare(self, name: str) -> None:
        if name not in self.declared:
            raise RuntimeError(f"stage {self.name} must declare `{name}` among determined_by before it asks for it")
