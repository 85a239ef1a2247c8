"""Stages are claimed before they are looked at, so that no collection takes them away meanwhile, and nobody makes them
again under somebody who reads them (storage/claims).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from flows.console import progress
from microtome.errors import InputError, Interrupted
from storage import Files, RunRecord
from storage.claims import Claims
from storage.files import is_full

if TYPE_CHECKING:
    from flows.plan import Plan
    from tasks.stage import Job


@contextmanager
def claiming(plan: Plan) -> Iterator[OSError | None]:
    """Claim the plan's stages, and verify them where that was asked for; whoever enters this looks afterwards which of
    them are done. Waits where another process uses what is to be made again, or makes again what is used.

    Gives why the workspace cannot be written, where it cannot and there is nothing to do.

    Raises:
        InputError: something is to do, and the workspace cannot be written.
        StageFailed: something is to do, and the disk is full.
        Interrupted: the user asked to stop while it waited.
    """
    with Claims(plan.files, waiting(), _busy("waiting until {}")).held(plan.folders, anew=plan.anew) as fault:
        if plan.request.verify:
            plan.verify()
        missing = plan.missing()
        if missing:
            _check_writable(plan, missing, fault)
        yield fault


def _check_writable(plan: Plan, missing: Sequence[Job], fault: OSError | None) -> None:
    from flows.run import FULL, StageFailed  # here: commands that only read claim, too, and plan nothing

    if fault and is_full(fault):
        raise StageFailed(FULL) from fault
    places = ["runs", *(job.key.folder for job in missing)]
    if fault or not all(map(plan.files.writable, places)):
        names = ", ".join(job.name for job in missing)
        why = f" ({fault.strerror})" if fault else ""
        raise InputError(
            f"workspace: must be writable, since {names} must be run; got {plan.files.address}, which cannot be "
            f"written{why}"
        )


@contextmanager
def claimed(files: Files, folders: Sequence[str]) -> Iterator[None]:
    """Claim stages that are going to be made without an audit. Raises InputError: the workspace cannot be written."""
    with Claims(files, waiting(), _busy("waiting until {}")).held(folders) as fault:
        if fault or not all(map(files.writable, ["runs", *folders])):
            why = f" ({fault.strerror})" if fault else ""
            raise InputError(f"--workspace: must be writable for this command, got {files.address}{why}")
        yield


@contextmanager
def reading(files: Files, runs: Iterable[RunRecord]) -> Iterator[None]:
    """Claim the stages of runs; where the workspace cannot be written they are read unclaimed. It does not wait for
    stages that are being made again, but says so.
    """
    folders = [str(stage["folder"]) for run in runs for stage in run.stages.values()]
    busy = _busy("some of it may be missing until {}")
    with Claims(files, waiting(), busy).held(folders, patient=False):
        yield


def _busy(words: str) -> Callable[[str], None]:
    """Says what is waited for, each sentence once, for as long as nobody asks to stop."""
    said: set[str] = set()

    def busy(why: str) -> None:
        from flows.run import STOP  # here: as above

        if STOP.is_set():
            raise Interrupted("stopped by the user while it waited")
        if why not in said:
            progress().say(words.format(why))
        said.add(why)

    return busy


def waiting() -> Callable[[], None]:
    """Says once that it is waited for a collection, for as long as nobody asks to stop."""
    return partial(_busy("waiting until {}"), "microtome gc has tidied up this workspace")
