"""What a process does that is handed parts of an audit: strings in, strings out, one stage in hand at a time.

A coordinator and its workers share files: the audit file, the data and the workspace. What is handed over says which
file, and which part; what comes back says which files were written, which nobody writes twice. So a part that is done a
second time, because a worker died or an answer was lost, costs a look.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.plan import Plan, Request
from microtome.errors import InputError
from microtome.importing import blamed
from microtome.memory import ran_out
from tasks.execution import InHand, carried_out
from tasks.session import Session
from tasks.stage import Job

if TYPE_CHECKING:
    from storage import Artifact


_HERE = ("execution.runner=local", "execution.address=null", "execution.pools=null")


def audit_text(plan: Plan, beside: int = 1) -> str:
    """The audit, in words that another process understands: of this run, so that a process that outlives it looks at
    the data, and at what lies in the workspace, once more for the next.

    Args:
        plan: of it.
        beside: workers that share a machine, and so its cores.
    """
    settings, request = plan.settings, plan.request
    return json.dumps(
        {
            "file": str(request.file.resolve()),
            "workspace": plan.workspace,
            "device": settings.device,
            "overrides": [*request.overrides, f"execution.threads={settings.threads}", *_HERE],
            "threads": plan.audit.execution.threads,
            "beside": beside,
            "run": uuid.uuid4().hex,
        }
    )


def job_text(job: Job) -> str:
    """A job: what the audit calls it, and the digest by which a worker sees that it means the same."""
    return f"{job.name} {job.key.digest}"


def work(audit: str, job: str, part: str) -> str:
    """Do a part of a job; gives what it wrote, as JSON. One after the other: a process has one network in memory.

    Args:
        audit: from `audit_text`.
        job: from `job_text`; empty to look at the audit's networks only, as before its first stage.
        part: of the job, as `tasks.execution.InHand.work` takes it.

    Raises:
        InputError: bad input, the user's own code failed, or this process has other code or data than the coordinator.
    """
    with _HAND.lock:
        try:
            if not job:
                _HAND.plan(audit).probe()
                return ""
            hand = _HAND.job(audit, job)
            written = hand.work(part)
            folder = hand.job.key.folder
            hand.session.files.settle(f"{folder}/{name}" for name in written)
            return json.dumps(written)
        except BaseException as error:
            _HAND.drop()
            fault = blamed(error) if isinstance(error, Exception) and not ran_out(error) else None
            if fault and not isinstance(error, InputError):
                raise InputError(fault) from error
            raise


def whole(audit: str, job: str) -> Artifact:
    """Do all of a job, here. Raises as `work`."""
    with _HAND.lock:
        hand = _HAND.job(audit, job)
        return carried_out(hand.job, hand.session)


class _Hand:
    """The audit and the job that this process has in hand."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._plan: tuple[str, Plan] | None = None
        self._bench: tuple[str, InHand] | None = None

    def plan(self, audit: str) -> Plan:
        """The audit, planned once."""
        if self._plan is None or self._plan[0] != audit:
            self.drop()
            self._plan = audit, _planned(audit)
        return self._plan[1]

    def job(self, audit: str, job: str) -> InHand:
        """The job, whose inputs stay. Raises InputError: this process knows it, but as another one."""
        if self._bench is None or self._bench[0] != audit + job:
            plan = self.plan(audit)
            self._let_go()
            name, _, digest = job.rpartition(" ")
            found = plan.planner.jobs.get(name)
            if found is None or found.key.digest != digest:
                got = found.key.digest if found else "no such job"
                raise InputError(
                    f"execution: a worker must have the code, packages and data of the coordinator, for which {name} "
                    f"is {digest}, got {got}; install the same version there, and let both read the same files"
                )
            self._bench = audit + job, InHand(found, _session(plan, found, json.loads(audit)))
        return self._bench[1]

    def drop(self) -> None:
        """Forget all."""
        self._plan = None
        self._let_go()

    def _let_go(self) -> None:
        """Of the job, and of what torch keeps of the device's memory beyond it."""
        self._bench = None
        torch = sys.modules.get("torch")
        if torch and torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()


_HAND = _Hand()


def _planned(audit: str) -> Plan:
    """Raises InputError: of what this machine lacks, a file, or a store's credentials, and which machine that is."""
    said = json.loads(audit)
    request = Request(
        Path(said["file"]), workspace=said["workspace"], device=said["device"], overrides=tuple(said["overrides"])
    )
    try:
        plan = Plan(request)
        _ = plan.jobs
    except InputError as error:
        raise InputError([f"{fault} (a worker says so, on {platform.node()})" for fault in error.faults]) from error
    return plan


def _session(plan: Plan, job: Job, said: dict[str, int]) -> Session:
    """Threads are this machine's, shared with the workers beside, unless they determine the result."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = said["threads"] or max(1, usable // said["beside"])
    determined = "threads" in job.stage.determined_by
    settings = plan.settings if determined else replace(plan.settings, threads=threads)
    return Session(plan.files, settings, Unheard())


class Unheard:
    """Progress of a worker, whose coordinator tells how far it is."""

    def begin(self, stage: str, total: int, unit: str) -> None:
        """Nothing."""

    def advance(self, stage: str, count: int) -> None:
        """Nothing."""

    def end(self, stage: str, note: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Into the worker's own output."""
        print(text, file=sys.stderr)
