"""The audit: the whole DAG as one Prefect flow.

    index -> activations -> thresholds -> tally -> null -> dissection -----------> gates -> report
         \\-> landmarks ---------> stability -----------------------------------------/
          -> finetuning (and its twin) -> activations, stability of what came out ---/
                                      \\-> tree -\\
             activations -> graph -> parts -----> adversarial; saliency, features, ... -/

What each stage reads is its own plan's to say (`tasks/<stage>`); here the planned jobs become task runs.
The verified stage directory is the cache: a task whose stage is done returns `Cached`, and Prefect keeps no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import Task, flow
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.again import until_it_fits
from flows.artifacts import headline
from flows.auditfile import read_audit
from flows.claiming import claiming
from flows.console import progress
from flows.plan import Plan, Request
from flows.posting import Posting, Reported, posting, show
from flows.run import (
    GateFailed,
    Outcome,
    StageFailed,
    await_heeding_signals,
    carry_out,
    finish,
    from_cache,
    remembered,
    session_of,
    start,
    stoppable,
)
from flows.runners import carrying
from flows.turns import turn
from microtome.errors import InputError, Interrupted
from storage import Artifact, RunRecord
from storage.files import is_full
from tasks.execution import Carry
from tasks.registry import STAGES
from tasks.session import Session
from tasks.stage import Job

Done = tuple[Artifact, bool, float]  # what a stage wrote, whether it was there already, seconds

_TOLD = 300  # letters of why a run failed that its record keeps


def _run_stage(job: Job, session: Session, refresh: bool, carry: Carry) -> State[Done]:
    artifact, cached, seconds = done = carry_out(job, session, refresh=refresh, around=turn, carry=carry)
    words = "was done before" if cached else f"done in {seconds:.1f} s"
    return Completed(name="Cached" if cached else "Completed", message=f"{words}: {artifact.folder}", data=done)


def _worth_another_try(_task: object, _run: object, state: State[Done]) -> bool:
    """Only a failing disk or network can be better the next time; wrong input and a full disk cannot."""
    error = state.result(raise_on_failure=False)
    cause = getattr(error, "__cause__", None)
    return isinstance(cause, OSError) and not is_full(cause) and not isinstance(error, InputError | Interrupted)


STAGE_TASKS: dict[str, Task[Any, Any]] = {
    stage.name: Task(
        _run_stage,
        name=stage.name,
        task_run_name="{job.name}",
        retries=stage.retries,
        retry_delay_seconds=5,
        retry_condition_fn=_worth_another_try if stage.retries else None,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    for stage in STAGES
}


def submit(
    jobs: Sequence[Job], session: Session, refresh: Sequence[str], carry: Carry
) -> dict[str, PrefectFuture[Done]]:
    """One task run per job, each after what it reads.

    Args:
        jobs: each after what it reads.
        session: of the run.
        refresh: names of stages that run even if they are done.
        carry: who does the work.
    """
    futures: dict[str, PrefectFuture[Done]] = {}
    for job in jobs:
        needed = [futures[name.name] for name in job.jobs.values() if name.name in futures]
        task, anew = STAGE_TASKS[job.stage.name], job.called(refresh)
        futures[job.name] = task.submit(job, session, anew, carry, wait_for=needed)
    return futures


def run_name() -> str:
    """What a flow run is called: the audit's name, and the stages that are asked for; the file where it has no name."""
    given = flow_run.parameters
    try:
        name = read_audit(Path(given["file"]), given["overrides"]).name
    except InputError:
        name = str(given["file"])
    if "stage" in given:
        stage = f"{given['stage']}:{given['variant']}" if given["variant"] else given["stage"]
        return f"{stage} of {name}"
    asked = [("only", given["only"]), ("anew", given["refresh"])]
    return ", ".join([name, *(f"{word} {' '.join(stages)}" for word, stages in asked if stages)])


def resolve(plan: Plan, futures: dict[str, PrefectFuture[Done]], run: RunRecord) -> Outcome:
    """Wait for every task; the first failure is raised after all are resolved, and what is done is recorded."""
    done: dict[str, Done] = {}
    failure: Exception | None = None
    for name, future in futures.items():
        await_heeding_signals(future)
        future.wait()
        if future.state.is_completed():
            done[name] = future.state.data if isinstance(future.state.data, tuple) else future.result()
        elif failure is None:
            failure = _failure(future)
    if failure is not None:
        with suppress(OSError, StageFailed):  # must not hide why; the next audit closes the record
            finish(plan, _told(run, failure), done, "stopped" if isinstance(failure, Interrupted) else "failed")
        raise failure
    return finish(plan, run, done, "done")


def _told(run: RunRecord, failure: Exception) -> RunRecord:
    """The run with why it came to no end, for its history."""
    return replace(run, about={**run.about, "failure": str(failure).strip().partition("\n")[0][:_TOLD]})


def _failure(future: PrefectFuture[Done]) -> Exception:
    try:
        future.result(raise_on_failure=True)
    except Exception as error:
        return error
    return RuntimeError(f"task run ended as {future.state.name}")


@flow(
    name="audit",
    flow_run_name=run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]  # Prefect asks for a runner of `object` futures
    persist_result=False,
    validate_parameters=False,
)
def audit(
    file: str,
    only: Sequence[str] = (),
    refresh: Sequence[str] = (),
    *,
    workspace: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    verify: bool = False,
) -> State[Outcome]:
    """Audit a network as a file says.

    Args:
        file: the audit file.
        only, refresh: names of stages.
        workspace, device: instead of the file's.
        overrides: `dotted.key=value`.
        verify: whether every byte of the inputs and the finished stages is read first.
    """
    with stoppable(), remembered(), posting() as post:
        plan = Plan(Request(Path(file), tuple(only), tuple(refresh), workspace, device, tuple(overrides), verify))
        outcome = until_it_fits(plan, partial(_audited, refresh, post))
    return ended(outcome)


def _audited(refresh: Sequence[str], post: Posting, plan: Plan) -> Outcome:
    with claiming(plan) as fault:
        outcome = from_cache(plan) if fault else None
        if outcome is None:
            with carrying(plan) as carry:
                session = session_of(plan, Reported(progress(), post))
                run = start(plan, session)
                outcome = resolve(plan, submit(plan.jobs, session, refresh, carry), run)
        show(outcome, plan.files, post)
    return outcome


def ended(outcome: Outcome) -> State[Outcome]:
    """The state in which a flow run ends: it fails, by a name of its own, where gates failed."""
    words = f"run {outcome.run.run_id}: {headline(outcome.run)}"
    if outcome.run.status == "gate failed":
        return Failed(name="GateFailed", message=words, data=GateFailed(outcome))
    return Completed(message=words, data=outcome)
