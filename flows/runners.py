"""Who carries stages out: this process, more of this machine, a Dask cluster, or workers of Prefect's pools.

None of it changes a result, or its name: the same shards are done by the same code, whoever does them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from flows.handed import audit_text
from flows.processes import Processes
from microtome.errors import InputError
from microtome.missing import needing
from storage import Artifact
from tasks.execution import Carry, Each, carried_out
from tasks.session import Session
from tasks.stage import Job

if TYPE_CHECKING:
    from flows.plan import Plan


@contextmanager
def carrying(plan: Plan) -> Iterator[Carry]:
    """Whoever the audit file names as its runner, who has looked at the networks that the audit is going to load.

    Raises:
        InputError: it is not to be had, or a network is not sound.
    """
    execution = plan.audit.execution
    if execution.runner == "workers":
        from flows.pools import Pools

        pools = Pools(plan)
        pools.probe()
        yield pools.carry
    elif execution.runner == "dask":
        with needing("execution.runner: dask"):
            from flows.cluster import cluster
        with cluster(plan) as found:
            missing = plan.missing()
            if any(job.stage.network for job in missing):
                found.probe(next((job for job in missing if "device" in job.stage.determined_by), None))
            yield partial(_spread, found.each)
    else:
        plan.probe()
        with _local(plan) as carry:
            yield carry


@contextmanager
def _local(plan: Plan) -> Iterator[Carry]:
    count = plan.audit.execution.processes
    if count == 1:
        yield carried_out
        return
    _check_devices(plan.settings.device, count)
    processes = Processes(audit_text(plan, beside=count), count)
    try:
        yield partial(_spread, processes.each)
    finally:
        processes.close()


def _check_devices(device: str, count: int) -> None:
    if device != "cuda":
        return
    import torch

    there = torch.cuda.device_count()
    if count > there:
        raise InputError(
            f"execution.processes: must be at most the CUDA devices, one for each process, got {count} for {there}"
        )


def _spread(each: Each, job: Job, session: Session) -> Artifact:
    """What computes goes to workers; what only reads tables is done here, sooner than it would be handed over."""
    far = job.stage.sharded or job.stage.threads != "none"
    return carried_out(job, session, each) if far else carried_out(job, session)
