"""What a stage is, what one wanted run of it is, and how it is carried out."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import platform
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

from microtome import __version__
from microtome.errors import Interrupted
from storage import Artifact, Draft, Files, StageKey, StageStore

ROOT = Path(__file__).resolve().parent.parent
_TEMPLATES = (".html", ".css", ".js")
PACKAGES = ("torch", "numpy", "pyarrow", "pillow")


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
    """What all stages of a run share.

    Args:
        files: the workspace.
        device: `cpu` or `cuda`.
        threads: for computation.
        progress: where progress goes.
        stop: set when the user asked to stop; stages end after the shard in hand.
    """

    files: Files
    device: str
    threads: int
    progress: Progress
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def store(self) -> StageStore:
        """The workspace's stages."""
        return StageStore(self.files, self.progress.say)

    def check(self) -> None:
        """Raise Interrupted if the user asked to stop."""
        if self.stop.is_set():
            raise Interrupted("stopped by the user; everything finished is kept")


@dataclass(frozen=True)
class Stage:
    """A kind of stage.

    Args:
        name: as users write it.
        module: whose `run(work)` does the work; imported when it is needed, so that planning stays quick.
        code: packages, modules and files, below the project's root, whose code determines the output.
        retries: how often a failed run is tried again; only where the outside can be at fault.
    """

    name: str
    module: str
    code: tuple[str, ...]
    retries: int = 0

    def run(self, work: Work) -> None:
        """Do the work."""
        importlib.import_module(self.module).run(work)


@dataclass(frozen=True, eq=False)
class Job:
    """One wanted run of a stage.

    Args:
        stage: the kind.
        parameters: JSON values that determine the output.
        inputs: the jobs it reads.
        content: digests of what it reads from outside (network, data set).
        reach: how to reach that content (paths, specs); not part of the digest.
        variant: tells several runs of one stage in one audit apart: another data set, another network.
    """

    stage: Stage
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Job] = field(default_factory=dict)
    content: Mapping[str, str] = field(default_factory=dict)
    reach: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""

    @property
    def name(self) -> str:
        """What the audit calls it: the stage's name, and after a colon the variant."""
        return f"{self.stage.name}:{self.variant}" if self.variant else self.stage.name

    def called(self, names: Collection[str]) -> bool:
        """Whether one of these names means it; a stage's name means all of its variants."""
        return self.name in names or self.stage.name in names

    @cached_property
    def key(self) -> StageKey:
        """What names the output."""
        inputs = {name: job.key.digest for name, job in self.inputs.items()}
        return StageKey(self.stage.name, code_digest(self.stage.code), self.parameters, {**inputs, **self.content})


@dataclass(frozen=True)
class Work:
    """What a stage's function is given: its job, finished inputs, and where to write."""

    job: Job
    session: Session
    inputs: Mapping[str, Artifact]
    draft: Draft

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The job's parameters."""
        return self.job.parameters

    def begin(self, total: int, unit: str = "images") -> None:
        """Tell how much there is to do."""
        self.session.progress.begin(self.job.name, total, unit)

    def advance(self, count: int) -> None:
        """Tell that so much more is done, and end here if the user asked to stop."""
        self.session.progress.advance(self.job.name, count)
        self.session.check()


def execute(job: Job, session: Session, *, refresh: bool = False) -> tuple[Artifact, bool]:
    """Carry a job out, or find it done.

    Args:
        job: whose inputs are finished.
        session: the run's.
        refresh: carry it out even if it is done.

    Returns:
        the artifact, and whether it was there already.

    Raises:
        RuntimeError: an input is not finished.
    """
    store = session.store
    found = None if refresh else store.find(job.key)
    if found is not None:
        return found, True
    session.check()
    if refresh:
        store.discard(job.key)
    try:
        return _carried_out(job, session), False
    except Interrupted:
        raise
    except Exception:
        # Whatever went wrong, what was read may be to blame: a damaged input is made again, and this stage once more.
        damaged = [needed for needed in job.inputs.values() if store.damaged(needed.key)]
        if not damaged:
            raise
        for needed in damaged:
            execute(needed, session)
        return _carried_out(job, session), False


def _carried_out(job: Job, session: Session) -> Artifact:
    store = session.store
    inputs = {name: _finished(store, needed) for name, needed in job.inputs.items()}
    work = Work(job, session, inputs, store.draft(job.key))
    job.stage.run(work)
    return work.draft.commit(environment=environment(session))


def environment(session: Session) -> dict[str, Any]:
    """Versions, machine and device: what is recorded beside every result."""
    return {
        "microtome": __version__,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": session.device,
        "threads": session.threads,
    }


@lru_cache
def code_digest(sources: tuple[str, ...]) -> str:
    """Digest of code: Python's syntax trees without comments and docstrings, so that words do not cost a rerun; and
    templates, styles and scripts as they are.

    Args:
        sources: files or folders below the project's root.
    """
    digest = hashlib.sha256()
    for source in sources:
        place = ROOT / source
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.suffix == ".py":
                digest.update(file.relative_to(ROOT).as_posix().encode())
                digest.update(_code_of(file).encode())
            elif file.suffix in _TEMPLATES:
                digest.update(file.relative_to(ROOT).as_posix().encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@lru_cache
def _code_of(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
            continue
        if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
            del body[0]
    return ast.dump(tree)


def _finished(store: StageStore, job: Job) -> Artifact:
    artifact = store.find(job.key)
    if artifact is None:
        raise RuntimeError(f"{job.name} must be finished before it is read; its directory is {job.key.folder}")
    return artifact
