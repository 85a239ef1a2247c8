"""Which process a run or a claim is of, told apart from a later one that was given the same number."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import psutil
from typing_extensions import TypedDict

CLOCK = 2.0  # s by which a process's start may seem to move when the machine's clock is set


class ThisProcess(TypedDict):
    """Number, host and start of a process."""

    process: int
    host: str
    process_started: float | None


def this_process() -> ThisProcess:
    """Number, host and start of this process: what a run's record, and a claim, keep of it."""
    return {"process": os.getpid(), "host": socket.gethostname(), "process_started": _started(os.getpid())}


def here(about: Mapping[str, object]) -> bool:
    """Whether a process is, or was, of this host, so that it can be asked whether it is there."""
    return about.get("host", socket.gethostname()) == socket.gethostname()


def ended(about: Mapping[str, object]) -> bool:
    """Whether the process that a record, or a claim, names is known to be gone.

    A process of another host cannot be asked: it counts as there. One with the same number that started at another
    time is another process.

    Args:
        about: of a record; from `this_process`, or from an older version that kept the number alone.
    """
    if not here(about):
        return False
    now, then = _started(about.get("process")), about.get("process_started")
    if now is None:
        return True
    return isinstance(then, int | float) and abs(now - then) > CLOCK


def _started(number: object) -> float | None:
    """When a process began, in seconds since the epoch; None where there is none."""
    if not isinstance(number, int) or isinstance(number, bool) or number <= 0:
        return None
    try:
        found = psutil.Process(number)
        return None if found.status() == psutil.STATUS_ZOMBIE else found.create_time()
    except psutil.Error:
        return None
