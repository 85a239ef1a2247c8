"""Workers of a Dask cluster that carry shards out: `execution: {runner: dask}`.

Shards are batched futures of Dask, not task runs of Prefect, whose overhead is a hundred times as much. prefect-dask
reaches the cluster, or makes one on this machine for as long as the audit runs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from distributed import as_completed
from distributed.scheduler import KilledWorker
from prefect_dask import DaskTaskRunner

from flows.handed import audit_text, job_text, work
from microtome.errors import InputError
from tasks.execution import WHOLE, InHand, Written
from tasks.stage import Job

if TYPE_CHECKING:
    from distributed import Client

    from flows.plan import Plan

PAUSE = 0.05  # s between two looks for what has ended, and whether the user asked to stop
ANSWER = 15  # s within which a scheduler must answer


class Cluster:
    """The workers of a cluster.

    Args:
        client: of the cluster.
        audit: from `flows.handed.audit_text`.
    """

    def __init__(self, client: Client, audit: str) -> None:
        self._client, self._audit = client, audit

    def each(self, hand: InHand, parts: Sequence[str]) -> Generator[Written, None, None]:
        """Carry parts of a job out. See `tasks.execution.Each`; closed, it calls off what has not begun."""
        job = hand.job
        ended = as_completed(self._begun(job, parts), loop=self._client.loop, with_results=True)
        try:
            while not ended.is_empty():
                batch = ended.next_batch(block=False)
                for future, written in batch:
                    future.release()  # or it would be done again when the worker dies that holds the answer
                    yield json.loads(written)
                if not batch:
                    hand.session.check()
                    time.sleep(PAUSE)
        except KilledWorker as error:
            what = f"{job.name} {str(error.task).partition('/')[2]}"
            raise RuntimeError(f"one worker after the other died at {what}: have they memory enough?") from error
        finally:
            self._client.cancel(list(ended.futures))

    def probe(self, job: Job | None) -> None:
        """Have a worker look at the audit's networks, before the first stage. Raises InputError.

        Args:
            job: one that computes on the audit's device; None where there is none.
        """
        call = functools.partial(work, self._audit, "")
        (future,) = self._client.map(call, [WHOLE], key=[f"probe/{uuid.uuid4().hex}"], resources=_wanted(job))
        try:
            future.result()
        except ModuleNotFoundError as error:
            raise InputError(
                f"execution.address: its workers must have microtome installed, got {error}; start them in an "
                "environment that has"
            ) from error

    def _begun(self, job: Job, parts: Sequence[str]) -> list[object]:
        """One batch of futures: strings that are common to all go once."""
        call = functools.partial(work, self._audit, job_text(job))
        run = uuid.uuid4().hex  # the same part again is another task, of another answer
        keys = [f"{job.name}-{run}/{part}" for part in parts]
        found: list[object] = self._client.map(call, parts, key=keys, pure=False, resources=_wanted(job))
        return found


def _wanted(job: Job | None) -> dict[str, int] | None:
    """What a worker must have: a device, where the stage computes on one."""
    gpu = job and job.settings.device == "cuda" and "device" in job.stage.determined_by
    return {"GPU": 1} if gpu else None


@contextlib.contextmanager
def cluster(plan: Plan) -> Iterator[Cluster]:
    """The cluster that the audit file names, or one of its own.

    Raises:
        InputError: it does not answer, or has no workers that could do the work.
    """
    execution = plan.audit.execution
    for name in ("distributed", "prefect"):  # what goes wrong is raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_connected(execution.address, execution.processes))
        workers = client.scheduler_info(n_workers=-1)["workers"]
        fault = _fault(workers, gpu=plan.settings.device == "cuda")
        if fault:
            raise InputError(f"execution.address: {fault}")
        beside = max(Counter(worker["host"] for worker in workers.values()).values())
        yield Cluster(client, audit_text(plan, beside))


@contextlib.contextmanager
def _connected(address: str | None, processes: int) -> Iterator[Client]:
    if address:
        runner = DaskTaskRunner(address=address, client_kwargs={"timeout": ANSWER})
    else:
        made = {"n_workers": processes, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
        runner = DaskTaskRunner(cluster_kwargs=made)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runner)
        try:
            client = runner.client
        except (OSError, ValueError) as error:
            raise InputError(
                f"execution.address: a Dask scheduler must answer there, got {address} ({error}); start one with "
                "`dask scheduler`, and workers with `dask worker ADDRESS --nthreads 1`"
            ) from error
        yield client


class _Worker(TypedDict):
    """What a scheduler says of a worker, as far as it is looked at."""

    nthreads: int
    resources: Mapping[str, float]


def _fault(workers: Mapping[str, _Worker], *, gpu: bool) -> str:
    """What is wrong with the workers; empty where nothing is."""
    start = "start them with `dask worker ADDRESS --nworkers 1 --nthreads 1"
    if not workers:
        return f"the scheduler must have workers, got none; {start}`"
    threads = max(worker["nthreads"] for worker in workers.values())
    if threads > 1:
        return f"every worker must take one shard at a time, got one with {threads} threads of Dask; {start}`"
    if gpu and not any(worker["resources"].get("GPU") for worker in workers.values()):
        return f"a worker must have a CUDA device, got none with the resource GPU; {start} --resources GPU=1`"
    return ""
