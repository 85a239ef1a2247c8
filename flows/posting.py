"""What is told to Prefect beside the states of runs: artifacts, how far a long stage is, that gates failed.

It is sent by a thread of its own: a server that is slow or away costs an audit nothing, and no failure of it is the
audit's.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.events import emit_event
from prefect.utilities.context import get_task_and_flow_run_ids
from prefect.utilities.urls import url_for

from flows.artifacts import PrefectArtifact, artifacts_of, headline, key_of, markdown, place_of
from flows.console import warn
from flows.run import Outcome
from flows.verdicts import gate_lines
from microtome.importing import said
from storage import Files
from storage.runs import verdict
from tasks.session import Progress

GATES_FAILED = "microtome.gates.failed"
"""The event's name; its resource is `microtome.audit.KEY`."""
LONG = 10.0  # s after which a stage's progress is shown
EVERY = 5.0  # s between two tellings of it
PATIENCE = 5.0  # s that an audit waits at its end for what is still to be sent


class Posting:
    """A queue of calls on Prefect's API, made one after the other by a thread."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[SyncPrefectClient], None] | threading.Event | None] = queue.Queue()
        self._faults: list[str] = []
        threading.Thread(target=self._work, daemon=True).start()

    def put(self, call: Callable[[SyncPrefectClient], None]) -> None:
        """Have a call made, some time."""
        self._calls.put(call)

    @property
    def behind(self) -> bool:
        """Whether calls are waiting."""
        return not self._calls.empty()

    def finish(self) -> None:
        """Wait for the calls so far, for PATIENCE at most, and say it where not all could be made."""
        over = threading.Event()
        self._calls.put(over)
        if not over.wait(PATIENCE):
            self._faults.append(f"the server takes more than {PATIENCE:g} s")
        if self._faults:
            warn(f"not everything is shown in Prefect: {self._faults[0]}")
        self._faults.clear()

    def close(self) -> None:
        """Have the thread end when the calls so far are made."""
        self._calls.put(None)

    def _work(self) -> None:
        client: SyncPrefectClient | None = None
        with contextlib.ExitStack() as entered:
            while (call := self._calls.get()) is not None:
                if isinstance(call, threading.Event):
                    call.set()
                    continue
                try:
                    client = client or entered.enter_context(get_client(sync_client=True))
                    call(client)
                except Exception as error:  # whatever it is, the audit goes on
                    self._faults.append(said(error))


@contextmanager
def posting() -> Iterator[Posting]:
    """Around the body of a flow."""
    post = Posting()
    try:
        yield post
    finally:
        post.finish()
        post.close()


def show(outcome: Outcome, files: Files, post: Posting) -> None:
    """Send what there is to show of a run that has ended, and the event, if gates failed.

    Args:
        outcome: how it ended.
        files: the workspace.
        post: sends it.
    """
    _, own = get_task_and_flow_run_ids()
    for made in artifacts_of(outcome, files):
        post.put(partial(_create, made, own))
    with contextlib.suppress(Exception):  # too large for Prefect; the run's record and the verdict say the same
        tell_gates(outcome, files)


def tell_gates(outcome: Outcome, files: Files) -> None:
    """Emit the event `microtome.gates.failed`, if gates failed; Prefect adds the flow run, its flow and deployment."""
    run = outcome.run
    failed = [gate for gate in run.gates if verdict(gate) == "failed"]
    if not failed:
        return
    _, own = get_task_and_flow_run_ids()
    page, report = url_for("flow-run", own) or "", place_of(outcome.report, files) if outcome.report else ""
    lines = [f"{run.name}: {headline(run)} (run {run.run_id})", *gate_lines(failed), page]
    payload: dict[str, object] = {"audit": run.name, "run": run.run_id, "network": run.network, "gates": failed}
    payload |= {"text": "\n".join(lines).rstrip(), "flow_run": page, "report": report}
    resource = {"prefect.resource.id": f"microtome.audit.{key_of(run.name)}", "prefect.resource.name": run.name}
    emit_event(GATES_FAILED, resource=resource, payload=payload)


def _create(made: PrefectArtifact, own: UUID | None, client: SyncPrefectClient) -> None:
    told = made.description
    client.create_artifact(
        ArtifactCreate(key=made.key, type=made.type, data=made.data, description=told, flow_run_id=own)
    )


@dataclass
class _Stage:
    """How far a stage is, and the artifact that shows it."""

    total: int
    unit: str
    runs: tuple[UUID | None, UUID | None]
    began: float = field(default_factory=time.monotonic)
    told: float = 0.0
    done: int = 0
    artifact: UUID | None = None


class Reported:
    """Progress that goes where it went, and, of stages that take long, into an artifact of the task run.

    Args:
        inner: where it went.
        post: sends it.
    """

    def __init__(self, inner: Progress, post: Posting) -> None:
        self._inner, self._post = inner, post
        self._stages: dict[str, _Stage] = {}

    def begin(self, stage: str, total: int, unit: str) -> None:
        """A stage begins; the task run of this thread is its."""
        self._inner.begin(stage, total, unit)
        self._stages[stage] = _Stage(total, unit, get_task_and_flow_run_ids())

    def advance(self, stage: str, count: int) -> None:
        """Tell how far it is, now and then."""
        self._inner.advance(stage, count)
        found, now = self._stages[stage], time.monotonic()
        found.done += count
        if now - found.began > LONG and now - found.told > EVERY and not self._post.behind:
            found.told = now
            self._tell(stage, found)

    def end(self, stage: str, note: str) -> None:
        """Tell how it ended, if it was told that it goes on."""
        self._inner.end(stage, note)
        found = self._stages.pop(stage, None)
        if found and found.told:
            self._tell(stage, found, f"{markdown(stage)}: {markdown(note)}")

    def say(self, text: str) -> None:
        """One sentence."""
        self._inner.say(text)

    def _tell(self, stage: str, found: _Stage, words: str = "") -> None:
        share = min(100.0 * found.done / max(found.total, 1), 100.0)
        told = words or f"{markdown(stage)}: {found.done:,} of {found.total:,} {found.unit}"

        def call(client: SyncPrefectClient) -> None:
            if found.artifact is not None:
                client.update_artifact(found.artifact, ArtifactUpdate(data=share, description=told))
                return
            task, flow = found.runs
            wanted = ArtifactCreate(type="progress", data=share, description=told, task_run_id=task, flow_run_id=flow)
            found.artifact = client.create_artifact(wanted).id

        self._post.put(call)
