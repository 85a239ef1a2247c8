"""Workers of Prefect's pools that carry stages out: `execution: {runner: workers, pools: {gpu: ..., cpu: ...}}`.

The coordinator, itself a flow run, runs a deployment of the flow `stage` for each stage: on the `gpu` pool what
computes on the device where that is a GPU, on the `cpu` pool the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelling, State

from flows.handed import audit_text, job_text
from flows.run import session_of
from microtome.errors import InputError, OutOfMemory
from storage import Artifact
from tasks.session import Session
from tasks.stage import Job

if TYPE_CHECKING:
    from flows.plan import Plan

PAUSE = 1.0  # s between two questions whether a stage has ended
FLOW = "stage"


class Pools:
    """The pools that the audit file names.

    Args:
        plan: of the audit.

    Raises:
        InputError: a pool has no deployment of the flow `stage`.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._audit = plan, audit_text(plan)
        pools = plan.audit.execution.pools
        named = {"gpu": pools.gpu, "cpu": pools.cpu} if pools else {}
        with get_client(sync_client=True) as client:
            self._deployments = {kind: _deployment(client, kind, pool) for kind, pool in named.items()}

    def probe(self) -> None:
        """Have a worker look at the networks that the audit is going to load. Raises InputError."""
        looking = [job for job in self._plan.missing() if job.stage.network]
        if looking:
            self._run(self.deployment(looking[0]), "", session_of(self._plan))

    def carry(self, job: Job, session: Session) -> Artifact:
        """Have a worker do a job whose inputs are finished. See `tasks.execution.Carry`."""
        self._run(self.deployment(job), job_text(job), session, lambda: session.store.find(job.key) is not None)
        found = session.store.find(job.key)
        if found is None:
            raise RuntimeError(f"its worker ended, but {job.key.folder} is not there; has it the same workspace?")
        return found

    def deployment(self, job: Job) -> str:
        """The deployment that does a job."""
        on_device = job.settings.device == "cuda" and "device" in job.stage.determined_by
        return self._deployments["gpu" if on_device else "cpu"]

    def _run(self, deployment: str, job: str, session: Session, done: Callable[[], bool] = lambda: False) -> None:
        """Run the deployment, and wait until it has ended, or what it was to do is there, whatever became of it."""
        call = {"audit": self._audit, "job": job}
        run = cast(FlowRun, run_deployment(deployment, parameters=call, timeout=0))
        with get_client(sync_client=True) as client:
            try:
                state = _ended(client, run, session, done)
            except BaseException:
                client.set_flow_run_state(run.id, Cancelling(), force=True)
                raise
        if state is None:
            return
        if state.name == OutOfMemory.__name__:
            raise OutOfMemory.of(state.message or "")
        if state.name == InputError.__name__:
            raise InputError((state.message or "").split("\n"))
        if not state.is_completed():
            raise RuntimeError(f"its worker's flow run {run.name} ended as {state.name}: {state.message}")


def _ended(client: SyncPrefectClient, run: FlowRun, session: Session, done: Callable[[], bool]) -> State | None:
    """How a flow run ended, which may be begun again by another worker when the first one dies; None where what it was
    to do is there: a worker that made it may have been taken for dead.
    """
    while not done():
        with suppress(HTTPError):  # the server may be back the next time
            state = client.read_flow_run(run.id).state
            if state and state.is_final():
                return state
        session.check()
        time.sleep(PAUSE)
    return None


def _deployment(client: SyncPrefectClient, kind: str, pool: str) -> str:
    """The deployment of the flow `stage` in a pool."""
    found = client.read_deployments(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    if not found:
        raise InputError(
            f"execution.pools.{kind}: must be a work pool with a deployment of the flow `{FLOW}`, got {pool!r}, which "
            "has none; `prefect deploy --all` makes those of prefect.yaml"
        )
    return f"{FLOW}/{found[0].name}"
