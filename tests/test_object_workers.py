"""Many workers over a workspace in an object store, each of them a machine with copies of its own: the same bytes as
one process leaves in a folder, and nothing beside them.
"""

import json
import os
import platform
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from distributed import Client

from flows import handed
from flows.plan import Plan
from microtome.errors import InputError
from storage import Artifact
from tasks.execution import carried_out, execute
from tasks.session import Session
from tests.conftest import clean_environment, long_form
from tests.stores import lying, rclone_store, use
from tests.test_pipeline import Silent
from tests.test_workers import carried, cluster, contents, planned, written_audit

SMALL = ("dataset.count=100", "execution.shard_images=48")  # three shards over pictures
DASK = Path(sys.executable).with_name("dask")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    yield from rclone_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    return written_audit(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def in_a_folder(audit) -> dict[str, bytes]:
    """Every byte of the audit, by one process."""
    return contents(carried(planned(audit, "folder", *SMALL)))


@pytest.fixture
def place(store, monkeypatch, tmp_path, request) -> str:
    use(monkeypatch, store)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "coordinator"))
    return f"{store.address}/{request.node.name}"


def removed(done: dict[str, Artifact]) -> None:
    for artifact in done.values():
        artifact.files.remove(artifact.folder)


class Machines:
    """Workers that outlive an audit, one after the other in this process: each with what it has in hand, and copies,
    of its own.
    """

    def __init__(self, monkeypatch, folder: Path, count: int) -> None:
        self._patch = monkeypatch
        self._all = [(folder / f"machine-{number}", handed._Hand()) for number in range(count)]

    def carried(self, plan: Plan) -> dict[str, Artifact]:
        """As `flows.runners` has a cluster do it."""
        text, session = handed.audit_text(plan), Session(plan.files, plan.settings, Silent())
        carry = partial(carried_out, each=partial(self._each, text))
        return {job.name: execute(job, session, carry=carry)[0] for job in plan.jobs}

    def _each(self, text, hand, parts):
        for number, part in enumerate(parts):
            place, held = self._all[number % len(self._all)]
            with self._patch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(place))
                patch.setattr(handed, "_HAND", held)
                written = handed.work(text, handed.job_text(hand.job), part)
            yield json.loads(written)


def test_what_a_machine_still_has_does_not_pass_for_sent(audit, place, in_a_folder, tmp_path, monkeypatch):
    """Two machines make an audit, its stages are removed elsewhere, and the same machines make it again."""
    machines = Machines(monkeypatch, tmp_path, 2)
    for _ in range(2):
        done = machines.carried(planned(audit, place, *SMALL))
        assert lying(place) == in_a_folder
        removed(done)


def test_a_worker_that_may_not_come_in_says_that_it_is_one(audit, place, monkeypatch):
    text = handed.audit_text(planned(audit, place, *SMALL))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match=rf"access was denied .*\(a worker says so, on {platform.node()}\)$"):
        handed.work(text, "", "")


@long_form
@pytest.mark.soak
def test_two_processes(audit, place, in_a_folder):
    assert contents(carried(planned(audit, place, *SMALL, "execution.processes=2"))) == in_a_folder
    assert lying(place) == in_a_folder


@contextmanager
def dask_of_machines(tmp_path: Path, *names: str):
    """A cluster whose workers have folders of copies of their own: its overrides."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        there = stack.enter_context(cluster(n_workers=0))
        address = there[1].split("'")[1]
        for name in names:
            call = [str(DASK), "worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"]
            environment = clean_environment(tmp_path) | {"XDG_CACHE_HOME": str(tmp_path / name)}
            worker = subprocess.Popen(call, cwd=tmp_path, env=environment, **quiet)
            stack.callback(worker.wait)
            stack.callback(worker.terminate)
        with Client(address, timeout=30) as client:
            client.wait_for_workers(len(names), timeout=60)
        yield there


@long_form
@pytest.mark.soak
def test_two_machines_of_a_dask_cluster_and_once_more(audit, place, in_a_folder, tmp_path):
    with dask_of_machines(tmp_path, "one", "two") as there:
        for _ in range(2):
            done = carried(planned(audit, place, *SMALL, *there))
            assert contents(done) == in_a_folder
            assert lying(place) == in_a_folder
            removed(done)
    assert {"one", "two", "coordinator"} <= set(os.listdir(tmp_path))


@long_form
@pytest.mark.soak
def test_a_dask_cluster_that_is_made_for_it(audit, place, in_a_folder):
    done = carried(planned(audit, place, *SMALL, "execution.runner=dask", "execution.processes=2"))
    assert contents(done) == in_a_folder
    assert lying(place) == in_a_folder
