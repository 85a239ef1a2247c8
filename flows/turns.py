"""Turns on a device: where a Prefect server has a limit on the tag `gpu` or `cpu`, the stages that compute there wait.

Prefect makes its own tasks wait, by their tags, but then none can begin while the server is away, nor be stopped while
it waits. So the stage takes a slot of the same limit itself, and goes on without one when nobody answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import LOCKED
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.exceptions import PrefectHTTPStatusError
from prefect.utilities.context import get_task_and_flow_run_ids

from flows.server import SILENT, server_place, unanswered
from microtome.errors import Interrupted
from tasks.session import Session
from tasks.stage import Job

LEASE = 60.0  # s after which the slot of a process that died is free again
RENEW = 20.0  # s between two renewals of it
ASK = 1.0  # s between two questions for a slot
RELEASE = 2.0  # s that an audit waits for a slot to be given back


@contextmanager
def turn(job: Job, session: Session) -> Iterator[None]:
    """Hold a slot of the limit on the device's tag, if the stage computes on the device and there is such a limit.

    Args:
        job: that is carried out meanwhile.
        session: of its run.

    Raises:
        Interrupted: the user asked to stop while it waited.
    """
    if "device" not in job.stage.determined_by:
        yield
        return
    slot = _Slot("gpu" if job.settings.device == "cuda" else "cpu")
    try:
        slot.wait(job, session)
        yield
    finally:
        slot.give_back()


class _Slot:
    """A slot, held by a thread, so that nobody but it waits for the server."""

    def __init__(self, tag: str) -> None:
        task_run, _ = get_task_and_flow_run_ids()
        self._tag, self._holder = tag, ConcurrencyLeaseHolder(type="task_run", id=task_run) if task_run else None
        self._taken, self._over, self._back = threading.Event(), threading.Event(), threading.Event()
        threading.Thread(target=self._hold, daemon=True).start()

    def wait(self, job: Job, session: Session) -> None:
        """Until it is taken, or there is no such limit, or the server does not answer."""
        began, told = time.monotonic(), False
        while not self._taken.wait(0.2):
            if session.stop.is_set():
                raise Interrupted("stopped by the user while it waited for its turn")
            if time.monotonic() - began < SILENT:
                continue
            if unanswered(server_place()):
                return
            if not told:
                session.progress.say(f"{job.name:<12} waits for its turn: Prefect has a limit on the tag {self._tag}")
                told = True

    def give_back(self) -> None:
        """Without waiting long for the server; a slot that is granted after this is given back at once."""
        self._over.set()
        if self._taken.is_set():
            self._back.wait(RELEASE)

    def _hold(self) -> None:
        try:
            with get_client(sync_client=True) as client:
                lease = self._granted(client)
                self._taken.set()
                while lease and not self._over.wait(RENEW):
                    with suppress(HTTPError):  # the server may be back the next time
                        client.renew_concurrency_lease(lease, LEASE)
                if lease:
                    client.release_concurrency_slots_with_lease(lease)
        except Exception:  # the server is away: a limit is no reason to fail
            self._taken.set()
        self._back.set()

    def _granted(self, client: SyncPrefectClient) -> UUID | None:
        """The lease of a slot, as soon as there is one; None where there is no such limit, or nobody waits any more."""
        while True:
            try:
                answer = client.increment_concurrency_slots_with_lease(
                    [f"tag:{self._tag}"], 1, "concurrency", LEASE, self._holder
                ).json()
                return UUID(answer["lease_id"]) if answer["limits"] else None
            except PrefectHTTPStatusError as error:
                if error.response.status_code != LOCKED or self._over.wait(ASK):
                    return None
