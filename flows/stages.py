"""A flow per stage: run one again, alone, its inputs from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.audit import resolve, submit
from flows.plan import Plan, Request
from flows.run import session_of, start, stoppable
from microtome.errors import InputError
from tasks.registry import BY_NAME as STAGES


def _rerun(stage: str, file: str, workspace: str | None, device: str | None, overrides: Sequence[str]) -> State[Any]:
    plan = Plan(Request(Path(file), (stage,), (stage,), workspace, device, tuple(overrides)))
    unfinished = [job.name for job in plan.missing() if not job.called((stage,))]
    if unfinished:
        raise InputError(f"stage {stage}: its inputs must be done, got none of {', '.join(unfinished)}; run the audit")
    session = session_of(plan)
    run = start(plan, session)
    outcome = resolve(plan, submit(plan.jobs, session, (stage,)), run)
    return Completed(message=f"run {outcome.run.run_id}: {outcome.run.status}", data=outcome)


def stage_flow(stage: str) -> Flow[..., Any]:
    """The flow that reruns a stage."""

    @flow(
        name=f"rerun-{stage}",
        task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
        persist_result=False,
        validate_parameters=False,
    )
    def rerun(
        file: str,
        workspace: str | None = None,
        device: str | None = None,
        overrides: Sequence[str] = (),
        variant: str = "",
    ) -> State[Any]:
        """Run one stage of an audit file again: all of its variants, or one."""
        with stoppable():
            return _rerun(f"{stage}:{variant}" if variant else stage, file, workspace, device, overrides)

    return rerun


RERUNS = {name: stage_flow(name) for name in STAGES}
globals().update(RERUNS)
