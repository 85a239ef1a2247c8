"""Carry a job out, or find it done."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import NoneType
from typing import Any, get_args, get_type_hints

from microtome import __version__
from microtome.errors import Interrupted
from storage import Artifact, StageStore
from storage.claims import making
from tasks.session import Session
from tasks.stage import External, Job

Around = Callable[[Job, Session], AbstractContextManager[None]]
"""What is entered around a stage's work: a wait for the device, for example."""
PACKAGES = ("torch", "numpy", "pyarrow", "pillow")


def nothing_around(_job: Job, _session: Session) -> AbstractContextManager[None]:
    """Work that waits for nothing."""
    return nullcontext()


def execute(
    job: Job, session: Session, *, refresh: bool = False, around: Around = nothing_around
) -> tuple[Artifact, bool]:
    """Carry a job out, or find it done.

    Whatever goes wrong, what was read may be to blame: a damaged input is made again, and this stage once more.

    Args:
        job: whose inputs are finished.
        session: the run's.
        refresh: carry it out even if it is done.
        around: entered around the work, where there is some.

    Returns:
        the artifact, and whether it was there already.
    """
    found = None if refresh else session.store.find(job.key)
    if found is not None:
        return found, True
    session.check()
    with making(session.files, job.key.folder, _waiting(job, session)):
        found = None if refresh else session.store.find(job.key)  # by whoever was waited for
        if found is not None:
            return found, True
        if refresh:
            session.store.discard(job.key)
        with around(job, session):
            return _made(job, session), False


def _made(job: Job, session: Session) -> Artifact:
    try:
        return _carried_out(job, session)
    except Interrupted:
        raise
    except Exception:
        damaged = [needed for needed in job.jobs.values() if session.store.damaged(needed.key)]
        if not damaged:
            raise
        for needed in damaged:
            execute(needed, session)
        return _carried_out(job, session)


def _waiting(job: Job, session: Session) -> Callable[[], None]:
    """Says once that another process makes the stage, for as long as nobody asks to stop."""
    said: list[str] = []

    def waiting() -> None:
        session.check()
        if not said:
            said.append(f"{job.name}: waiting until another process has made it")
            session.progress.say(said[0])

    return waiting


def _carried_out(job: Job, session: Session) -> Artifact:
    store = session.store
    inputs = inputs_of(job, {name: _finished(store, needed) for name, needed in job.jobs.items()})
    draft = store.draft(job.key, job.stage.tables)
    if job.stage.threads != "none":
        import torch

        torch.set_num_threads(session.threads if job.stage.threads == "all" else 1)
    job.stage.run(job.options, inputs, draft, session.of(job))
    return draft.commit(environment=environment(session))


def inputs_of(job: Job, artifacts: Mapping[str, Artifact]) -> Any:
    """A job's typed inputs: for each field of its stage's `Inputs` a reader of what the job reads under that name.

    Args:
        job: whose.
        artifacts: the finished stages among what it reads, by those names.

    Raises:
        TypeError: the job reads something that `Inputs` does not name, or the other way round.
    """
    kind = job.stage.inputs
    if hasattr(kind, "of"):
        return kind.of(job, artifacts)
    readers = {name: next(a for a in (*get_args(hint), hint) if a is not NoneType) for name, hint in _hints(kind)}
    unknown = set(job.reads) - set(readers)
    if unknown:
        raise TypeError(f"{kind.__module__}.Inputs must name {', '.join(sorted(unknown))}, which {job.name} reads")
    found: dict[str, object] = {}
    for name, read in job.reads.items():
        found[name] = readers[name](artifacts[name], outside_of(read)) if isinstance(read, Job) else read
    return kind(**found)


def outside_of(job: Job) -> dict[str, External]:
    """The outside things that a job reads."""
    return {name: read for name, read in job.reads.items() if not isinstance(read, Job)}


def _hints(kind: type[Any]) -> list[tuple[str, Any]]:
    return [(name, hint) for name, hint in get_type_hints(kind).items() if name in kind.__dataclass_fields__]


def environment(session: Session) -> dict[str, object]:
    """Versions, machine and device: what is recorded beside every result."""
    return {
        "microtome": __version__,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": session.settings.device,
        "threads": session.threads,
    }


def _finished(store: StageStore, job: Job) -> Artifact:
    artifact = store.find(job.key)
    if artifact is None:
        raise RuntimeError(f"{job.name} must be finished before it is read; its directory is {job.key.folder}")
    return artifact
