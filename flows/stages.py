"""One stage run again, alone, its inputs from the cache: a flow of its own, so that it can be deployed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from prefect.states import State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.audit import ended, resolve, run_name, submit
from flows.claiming import claiming
from flows.console import progress
from flows.plan import Plan, Request
from flows.posting import Reported, posting, show
from flows.run import Outcome, remembered, session_of, start, stoppable
from microtome.errors import InputError


@flow(
    name="rerun",
    flow_run_name=run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]  # Prefect asks for a runner of `object` futures
    persist_result=False,
    validate_parameters=False,
)
def rerun(
    file: str,
    stage: str,
    *,
    workspace: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    variant: str = "",
) -> State[Outcome]:
    """Run one stage of an audit file again: all of its variants, or one.

    Args:
        file: the audit file.
        stage: its name.
        workspace, device: instead of the file's.
        overrides: `dotted.key=value`.
        variant: what the audit calls it after the colon.
    """
    with stoppable(), remembered(), posting() as post:
        named = f"{stage}:{variant}" if variant else stage
        plan = Plan(Request(Path(file), (named,), (named,), workspace, device, tuple(overrides)))
        with claiming(plan):
            unfinished = [job.name for job in plan.missing() if not job.called((named,))]
            if unfinished:
                what = ", ".join(unfinished)
                raise InputError(f"stage {named}: its inputs must be done, got none of {what}; run the audit")
            plan.probe()
            session = session_of(plan, Reported(progress(), post))
            run = start(plan, session)
            outcome = resolve(plan, submit(plan.jobs, session, (named,)), run)
            show(outcome, plan.files, post)
    return ended(outcome)
