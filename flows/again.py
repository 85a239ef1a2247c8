"""An audit that runs out of memory goes on with half the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from flows.console import progress
from flows.plan import Plan
from microtome.errors import OutOfMemory
from microtome.memory import let_go

T = TypeVar("T")


def until_it_fits(plan: Plan, attempt: Callable[[Plan], T]) -> T:
    """Carry a plan out; where a batch does not fit into memory, the same audit with half of it, and so on.

    A batch is part of the names of what is computed with it: the stage begins again, and so does what reads it. All
    other stages are found finished.

    Args:
        plan: the audit.
        attempt: carries it out.

    Raises:
        OutOfMemory: one at a time does not fit.
    """
    while True:
        try:
            return attempt(plan)
        except OutOfMemory as error:
            smaller = halved(error)
        request = replace(plan.request, overrides=(*plan.request.overrides, smaller), verify=False)
        plan = Plan(request)


def halved(error: OutOfMemory) -> str:
    """What to override, `key=value`, and say so. Raises OutOfMemory: one at a time does not fit."""
    let_go(error)
    if error.batch == 1:
        raise error
    half = error.batch // 2
    progress().say(
        f"{error.key}: {error.batch} at a time do not fit into memory; what depends on it begins again with {half}, by "
        f"other digests (write {error.key}: {half} into the audit file, and the next audit begins there)"
    )
    return f"{error.key}={half}"
