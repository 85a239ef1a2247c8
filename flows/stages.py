"""One stage alone, its inputs from the cache, as flows of their own, so that they can be deployed: run again, or done
for a coordinator that hands its stages out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.again import until_it_fits
from flows.audit import ended, resolve, run_name, submit
from flows.claiming import claiming
from flows.console import progress
from flows.handed import whole, work
from flows.plan import Plan, Request
from flows.posting import Posting, Reported, posting, show
from flows.run import Outcome, remembered, session_of, start, stoppable
from flows.runners import carrying
from microtome.errors import InputError, OutOfMemory


def handed_name() -> str:
    """What the flow run of a stage is called that was handed over."""
    return flow_run.parameters["job"].rpartition(" ")[0] or "look at the networks"


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
        outcome = until_it_fits(plan, partial(_rerun, named, post))
    return ended(outcome)


def _rerun(named: str, post: Posting, plan: Plan) -> Outcome:
    with claiming(plan):
        unfinished = [job.name for job in plan.missing() if not job.called((named,))]
        if unfinished:
            what = ", ".join(unfinished)
            raise InputError(f"stage {named}: its inputs must be done, got none of {what}; run the audit")
        with carrying(plan) as carry:
            session = session_of(plan, Reported(progress(), post))
            run = start(plan, session)
            outcome = resolve(plan, submit(plan.jobs, session, (named,), carry), run)
        show(outcome, plan.files, post)
    return outcome


@flow(
    name="stage",
    flow_run_name=handed_name,
    persist_result=False,
    validate_parameters=False,
)
def stage(audit: str, job: str) -> State[str]:
    """Do a stage that a coordinator hands over (`execution.runner: workers`); the coordinator claims, and records.

    Args:
        audit: from `flows.handed.audit_text`.
        job: from `flows.handed.job_text`; empty to look at the audit's networks.
    """
    try:
        with stoppable():
            said = whole(audit, job).folder if job else work(audit, "", "")
    except OutOfMemory as error:
        return Failed(name=OutOfMemory.__name__, message=error.words)
    except InputError as error:
        return Failed(name=InputError.__name__, message="\n".join(error.faults))
    return Completed(message=said)
