"""Carry a plan out: with Prefect where there is something to do, without it where there is not."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from flows.console import progress
from flows.plan import Plan
from microtome.errors import MORE_MEMORY, InputError, Interrupted, OutOfMemory
from microtome.importing import blamed, said
from microtome.memory import let_go, ran_out
from storage import Artifact, Files, RunRecord, RunStore, StageStore
from storage.files import Altered, is_full
from storage.inputs import keep_inputs
from storage.process import ended, this_process
from storage.runs import StageRun
from tasks.execution import Around, Carry, carried_out, environment, execute, nothing_around
from tasks.headlines import headlines
from tasks.session import Progress, Session
from tasks.stage import Job

if TYPE_CHECKING:
    from concurrent.futures import Future

    from prefect.futures import PrefectFuture

STOP = threading.Event()
SHORT = f"out of memory, and what it computes at a time is of a fixed size; {MORE_MEMORY}; what is finished is kept"
FULL = "the disk is full; free some space and run it again, what is finished is kept"


class StageFailed(Exception):
    """A stage failed; what was finished is kept. Exit status 3."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: RunRecord
    report: Path | None


class GateFailed(Exception):
    """An audit came to its end, and gates failed. Exit status 1.

    Args:
        outcome: how it ended.
    """

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(f"run {outcome.run.run_id}: {outcome.run.status}")


@dataclass
class Body:
    """How far the body of the latest flow of this process is, and how it ended, should Prefect fail to report it."""

    begun: bool = False
    ended: bool = False
    outcome: Outcome | None = None
    failure: Exception | None = None


BODY = Body()


@contextmanager
def remembered() -> Iterator[None]:
    """Around the body of a flow: keep in BODY how it ends."""
    BODY.begun, BODY.ended, BODY.outcome, BODY.failure = True, False, None, None
    try:
        yield
    except Exception as error:
        BODY.failure = error
        raise
    finally:
        BODY.ended = True


def session_of(plan: Plan, told: Progress | None = None) -> Session:
    """The session of a plan's run; its progress goes to the console, where nothing else is said."""
    return Session(plan.files, plan.settings, told or progress(), STOP)


def start(plan: Plan, session: Session) -> RunRecord:
    """Record that a run begins; runs of this workspace that were killed are marked as stopped."""
    _close_orphans(plan.files)
    with _room():
        run = _listed(plan, _begun(plan, session))
        RunStore(plan.files).begin(run)
    return run


def _begun(plan: Plan, session: Session) -> RunRecord:
    about = {
        "audit": plan.audit.model_dump(mode="json", exclude_none=True),
        "file": str(plan.request.file),
        "environment": environment(session),
        **this_process(),
    }
    weights = f" {Path(plan.audit.network.weights).name}" if plan.audit.network.weights else " random"
    return RunRecord.start(plan.audit.name, plan.audit.network.load.partition(":")[2] + weights, about)


def _listed(plan: Plan, run: RunRecord) -> RunRecord:
    """The run with lists of the files that it reads."""
    read = {of: digests for of, digests in plan.planner.inputs.items() if digests}
    return replace(run, inputs={of: keep_inputs(plan.files, digests) for of, digests in read.items()})


def _close_orphans(files: Files) -> None:
    store = RunStore(files)
    for orphan in (run for run in store.all() if run.status == "running" and ended(run.about)):
        with _room():
            store.end(replace(orphan, status="killed"))  # nobody knows when it ended: its seconds stay


def finish(plan: Plan, run: RunRecord, done: Mapping[str, tuple[Artifact, bool, float]], status: str) -> Outcome:
    """Record how a run ended, and judge its gates."""
    outcome = outcome_of(run, done, status)
    with _room():
        RunStore(plan.files).end(outcome.run)
    BODY.outcome = outcome
    return outcome


@contextmanager
def _room() -> Iterator[None]:
    """Around writing of records, for which there may be no room. Raises StageFailed."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise StageFailed(f"the run cannot be recorded: {FULL}") from error
        raise


def outcome_of(run: RunRecord, done: Mapping[str, tuple[Artifact, bool, float]], status: str) -> Outcome:
    """A run that ended: its stages, what its gates say, and its headline figures.

    Args:
        run: as it began.
        done: of each of its stages the artifact, whether it was there already, and seconds.
        status: `gate failed` takes the place of `done` where one did.
    """
    stages = {
        name: StageRun(
            folder=artifact.folder,
            cached=cached,
            seconds=round(seconds, 3),
            digest=artifact.digest,
            code=str(artifact.manifest["code"]),
        )
        for name, (artifact, cached, seconds) in done.items()
    }
    gates = tuple(done["gates"][0].json("gates.json")) if "gates" in done else ()
    if status == "done" and not all(gate["passed"] for gate in gates):
        status = "gate failed"
    figures = tuple(headlines({name: artifact for name, (artifact, _, _) in done.items()}))
    page = Path(done["report"][0].bring()) / "index.html" if "report" in done else None
    return Outcome(run.ended(status, stages=stages, gates=gates, figures=figures), page)


def from_cache(plan: Plan) -> Outcome | None:
    """A run all of whose stages are done: recorded at once, without Prefect. None where something is to do.

    Where the workspace cannot be written, it is said that the run is not recorded.
    """
    if plan.missing():
        return None
    session, store = session_of(plan), StageStore(plan.files)
    done: dict[str, tuple[Artifact, bool, float]] = {}
    for job in plan.jobs:
        artifact = store.find(job.key)
        if artifact is None:
            return None
        session.progress.end(job.name, "cached")
        done[job.name] = (artifact, True, 0.0)
    try:
        outcome = outcome_of(_begun(plan, session), done, "done")
    except Altered as error:  # seen only when a file is fetched; its stage is marked
        session.progress.say(str(error))
        return None
    try:
        _close_orphans(plan.files)
        RunStore(plan.files).save(_listed(plan, outcome.run))
    except OSError as error:
        session.progress.say(f"this run is not recorded: the workspace cannot be written ({error.strerror})")
    return outcome


def carry_out(
    job: Job, session: Session, *, refresh: bool, around: Around = nothing_around, carry: Carry = carried_out
) -> tuple[Artifact, bool, float]:
    """One stage, with a line about it: the artifact, whether it was cached, and seconds.

    Args:
        job: whose inputs are finished.
        session: the run's.
        refresh: carry it out even if it is done.
        around: entered around the work, where there is some.
        carry: who does the work.

    Raises:
        InputError: bad input, or the user's own code failed. Interrupted: as it is.
        StageFailed: anything else, in one sentence.
    """
    began = time.perf_counter()
    try:
        artifact, cached = execute(job, session, refresh=refresh, around=around, carry=carry)
    except Interrupted:
        session.progress.end(job.name, "stopped; what is finished is kept")
        raise
    except OutOfMemory as error:
        session.progress.end(job.name, "out of memory")
        let_go(error)
        raise
    except InputError:
        session.progress.end(job.name, "failed")
        raise
    except (Exception, SystemExit) as error:
        session.progress.end(job.name, "failed")
        fault = None if is_full(error) or ran_out(error) else blamed(error)
        if fault:
            raise InputError(fault) from error
        raise StageFailed(f"stage {job.name} failed: {_sentence(error)}") from error
    seconds = time.perf_counter() - began
    session.progress.end(job.name, "cached" if cached else f"done in {seconds:.1f} s")
    return artifact, cached, seconds


def _ask_to_stop(number: int, _frame: FrameType | None) -> None:
    if STOP.is_set():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    STOP.set()
    os.write(2, b"stopping after the shard in hand; once more to stop at once\n")  # print() is not for handlers


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C, or a polite kill, asks the stages to end after the shard in hand; a second one ends at once.

    Prefect puts a handler of its own around the body of a flow that runs in the main thread, so the flows enter this
    inside, too. Outside the main thread, where no handler can be set, it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if signal.getsignal(signal.SIGINT) is not _ask_to_stop:
        STOP.clear()
    before = {number: signal.signal(number, _ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def await_heeding_signals(future: Future[Any] | PrefectFuture[Any], enough: Callable[[], bool] = lambda: False) -> None:
    """Wait for a future, Prefect's or another, in short steps: any thread may be given a signal, but its handler runs
    in the main one, which need not learn of it while it waits.

    Args:
        future: that is waited for.
        enough: whether to wait no more.
    """
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    while not done.wait(0.2) and not enough():
        pass


def prefect_environment(plan: Plan) -> None:
    """Settings for Prefect, before it is imported: no outbound call, and a home in the workspace where none is set."""
    settings: dict[str, str] = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
        "PREFECT_CLI_PROMPT": "false",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    logging.getLogger("EventsWorker").setLevel(logging.CRITICAL)  # for which Prefect has no setting
    if not server_configured():
        home = Path(os.environ.setdefault("PREFECT_HOME", plan.files.location("prefect")))
        home.mkdir(parents=True, exist_ok=True)


def server_configured() -> bool:
    """Whether the user told Prefect of a server, by the environment or a profile."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
    try:
        return "PREFECT_API_URL" in (home / "profiles.toml").read_text(encoding="utf-8")
    except OSError:
        return False


def _sentence(error: BaseException) -> str:
    if ran_out(error):
        return SHORT
    return FULL if is_full(error) else said(error)
