"""Which functions of ours a stage really runs: evidence that owes nothing to the reading of code.

    python -m tests.executed WORKSPACE [STAGE]

Carries out small forms of the example audits, which between them have every stage. With a stage, that one's work is
watched, in a process of its own, and what it called is printed as JSON; what it reads comes from the workspace.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType, FrameType

from flows.plan import Plan, Request
from microtome.closure import OURS, ROOT
from tasks.execution import environment, execute, inputs_of
from tasks.session import Session
from tasks.stage import Job

Called = frozenset[tuple[str, tuple[str, ...]]]
"""Functions: module, and the names of the classes and functions around it and of itself."""

_PICTURES = ("saliency.images=2", "features={units: 2, steps: 8}", "reliability.images=2")
_FEW = ("occlusion={units: 2, top_images: 2, minimal_images: 2}", "adversarial={images: 16, eps: [4], steps: 2}")
AUDITS = {  # examples, and what makes them small
    "creatures": ("dataset.count=60", "stages.dissection.bootstrap=10", "stages.dissection.permutations=4"),
    "creatures-parts": ("datasets.birds.count=120", "datasets.others.count=60", "stages.finetuning.epochs=2"),
    "creatures-tree": ("dataset.count=120", "stages.tree.images=10"),
    "creatures-graph": ("dataset.count=160",),
    "creatures-pictures": ("dataset.count=40", *(f"stages.{setting}" for setting in (*_PICTURES, *_FEW))),
    "creatures-attacked": ("dataset.count=120", "stages.tree.images=10", f"stages.{_FEW[1]}"),
}
_FUNCTION = 0x1 | 0x2  # flags of code that is a function's, and no module's or class's


class Watch:
    """Notes every function that is called while it is open, in every thread that starts meanwhile."""

    def __init__(self) -> None:
        self._codes: set[CodeType] = set()

    def __enter__(self) -> Watch:
        threading.settrace(self._call)
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]  # as it was

    def _call(self, frame: FrameType, event: str, argument: object) -> None:
        self._codes.add(frame.f_code)

    @property
    def called(self) -> Called:
        """Of our packages."""
        found = {_where(code) for code in self._codes if code.co_flags & _FUNCTION == _FUNCTION}
        return frozenset(where for where in found if where is not None and where[1])


def _where(code: CodeType) -> tuple[str, tuple[str, ...]] | None:
    file = Path(code.co_filename)
    if file.suffix != ".py" or not file.is_relative_to(ROOT) or file.relative_to(ROOT).parts[0] not in OURS:
        return None
    names = tuple(part for part in code.co_qualname.split(".") if not part.startswith("<"))
    return module_of(file, ROOT), names


def module_of(file: Path, root: Path) -> str:
    """The dotted name of a module, from its file."""
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


class Silent:
    """Progress that nobody hears."""

    def begin(self, *_: object) -> None: ...
    def advance(self, *_: object) -> None: ...
    def end(self, *_: object) -> None: ...
    def say(self, *_: object) -> None: ...


def plans(workspace: Path) -> Iterator[tuple[Plan, Session]]:
    """The small audits, each with a session on one thread."""
    for name, overrides in AUDITS.items():
        plan = Plan(Request(ROOT / f"examples/{name}.yaml", workspace=str(workspace), overrides=overrides))
        yield plan, Session(plan.files, replace(plan.settings, threads=1), Silent())


def called_by(job: Job, session: Session) -> Called:
    """What the work of a job calls; it is done again for it.

    Args:
        job: whose inputs are finished.
        session: a run's.
    """
    store = session.store
    found = {name: store.find(needed.key) for name, needed in job.jobs.items()}
    inputs = inputs_of(job, {name: artifact for name, artifact in found.items() if artifact is not None}, session)
    store.discard(job.key)
    draft, stage = store.draft(job.key, job.stage.tables), job.stage
    run, shards, shard = stage.run, stage.sharded and stage.shards, stage.sharded and stage.shard
    with Watch() as watch:
        if shards and shard:
            one = shard(job.options, inputs, session.of(job))
            for name in shards(job.options, inputs, []):
                one(draft, name)
        run(job.options, inputs, draft, session.of(job))
    draft.commit(environment=environment(session))
    return watch.called


def evidence(workspace: Path, stages: list[str]) -> dict[str, Called]:
    """What each stage calls in the small audits, one process for each.

    Args:
        workspace: an empty folder.
        stages: their names.
    """
    _in_process(workspace)
    found = {}
    for stage in stages:
        said = json.loads(_in_process(workspace, stage))
        found[stage] = frozenset((module, tuple(names)) for module, names in said)
    return found


def _in_process(*arguments: object) -> str:
    call = [sys.executable, "-m", "tests.executed", *map(str, arguments)]
    return subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def main(workspace: str, stage: str = "") -> None:
    """See the module."""
    called: set[tuple[str, tuple[str, ...]]] = set()
    for plan, session in plans(Path(workspace)):
        for job in plan.jobs:
            if job.stage.name == stage:
                called |= called_by(job, session)
            else:
                execute(job, session)
    print(json.dumps(sorted(called)))


if __name__ == "__main__":
    main(*sys.argv[1:])
