"""Many workers: the same bytes whoever does the shards, and whoever dies meanwhile; what is refused before any work."""

import json
import os
import random
import shutil
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

from flows.handed import audit_text, job_text, work
from flows.plan import Plan, Request
from flows.runners import carrying
from microtome.errors import InputError, Interrupted
from storage import Artifact
from storage.tensors import ROW_GROUP
from tasks.execution import InHand, execute
from tasks.session import Session
from tasks.spans import SPAN, groups_within, spans
from tests.conftest import NETWORK, change_audit, count, soak, write_audit
from tests.test_pipeline import Silent

PAUSED = """
import os, time
from pathlib import Path
WORKING = Path(__file__).with_name("working")
def paused():
    net = tiny()
    net.register_forward_pre_hook(pause)
    return net
def pause(_module, given):
    WORKING.mkdir(exist_ok=True)
    WORKING.joinpath(str(os.getpid())).write_text(str(float(given[0].sum())))
    time.sleep(0.3)
"""


def written_audit(folder: Path) -> Path:
    """Of so many pictures that every stage over pictures has two shards."""
    (folder / "nets_of_workers.py").write_text(NETWORK + PAUSED)
    content = {
        "name": "two",
        "network": {"load": "nets_of_workers:tiny", "layers": ["4"], "input": {"size": [32, 32]}},
        "dataset": {"format": "creatures", "count": SPAN + 40, "size": 32},
        "stages": {"dissection": {"bootstrap": 250, "permutations": 30}, "report": False},
        "execution": {"threads": 1},
    }
    return write_audit(folder / "audit.yaml", content)


@pytest.fixture
def audit(tmp_path):
    return written_audit(tmp_path)


def planned(file: Path, workspace: str, *overrides: str) -> Plan:
    where = workspace if "://" in workspace else str(file.parent / workspace)
    return Plan(Request(file, workspace=where, overrides=overrides))


def carried(plan: Plan, progress=None) -> dict[str, Artifact]:
    """An audit carried out by its runner."""
    progress = progress or Silent()
    session = Session(plan.files, plan.settings, progress, progress.stop)
    with carrying(plan) as carry:
        return {job.name: execute(job, session, carry=carry)[0] for job in plan.jobs}


def contents(done: dict[str, Artifact]) -> dict[str, bytes]:
    """Every byte of every stage, by names that hold the stage's digest."""
    return {f"{found.folder}/{name}": found.read(name) for found in done.values() for name in found.names()}


def test_spans_cover_all_pictures_and_keep_what_is_finished():
    assert spans(100, 48) == {"000000000-000000048": 48, "000000048-000000096": 48, "000000096-000000100": 4}
    assert list(spans(200, 96, ["000000048-000000096"])) == [
        "000000000-000000048", "000000048-000000096", "000000096-000000192", "000000192-000000200",
    ]  # fmt: skip
    assert SPAN % ROW_GROUP == 0


@pytest.mark.parametrize(
    ("first", "last", "groups"),
    [(0, None, [0, 1, 2]), (96, 144, [0]), (144, 500, [1, 2]), (0, 96, []), (240, None, [])],
)
def test_row_groups_within_a_span(first, last, groups):
    assert list(groups_within("layer-000/000000096-000000210.parquet", first, last)) == groups


@contextmanager
def cluster(**made: object):
    """A Dask cluster in this process: its overrides."""
    quiet = {"processes": False, "protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(**quiet, **made) as found:
        yield "execution.runner=dask", f"execution.address='{found.scheduler_address}'"


@pytest.mark.soak
def test_the_same_bytes_and_names_whoever_does_the_work(audit):
    """In this process; by two of its own; by the worker of a cluster; at length, by two of one that is made for it."""
    one = contents(carried(planned(audit, "one")))
    assert contents(carried(planned(audit, "two", "execution.processes=2"))) == one
    with cluster(n_workers=1, threads_per_worker=1) as there:
        assert contents(carried(planned(audit, "dask", *there))) == one
    if soak(0, 1):
        assert contents(carried(planned(audit, "made", "execution.runner=dask", "execution.processes=2"))) == one
    assert not [name for name in one if "/parts/" in name]


def workers() -> list[int]:
    """Processes of this one that carry shards out, and live."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ended between the two looks
            found += [child.pid] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


@contextmanager
def killing(working: Path, wanted: int):
    """Kill a process while it shows a batch to the network, again and again; at each batch once, at a shard thrice."""
    rng, over, struck = random.Random(0), threading.Event(), set[str]()

    def kill() -> None:
        while not over.wait(rng.uniform(0.1, 0.4)) and len(struck) < wanted:
            shown = {pid: working.joinpath(str(pid)) for pid in workers()}
            at = {pid: file.read_text() for pid, file in shown.items() if file.exists()}
            if fresh := [pid for pid, batch in at.items() if batch and batch not in struck]:
                os.kill(pid := rng.choice(fresh), signal.SIGKILL)
                struck.add(at[pid])

    thread = threading.Thread(target=kill)
    thread.start()
    yield struck
    over.set()
    thread.join()


@pytest.mark.soak
def test_the_same_bytes_though_processes_are_killed_in_mid_shard(audit):
    pictures = f"dataset.count={soak(200, 1400)}"
    more = (
        pictures,
        "network.load='nets_of_workers:paused'",
        "execution.shard_images=48",
        "stages.dissection.permutations=0",
    )
    kills = soak(2, 20)
    plan = planned(audit, "killed", *more, "execution.processes=2")
    with killing(audit.with_name("working"), kills) as struck:
        killed = contents(carried(plan))
    assert len(struck) == kills
    count("kills", kills)
    assert killed == contents(carried(planned(audit, "whole", *more)))


def test_a_stop_ends_after_the_shards_in_hand_and_what_is_done_stays(audit):
    more = ("execution.shard_images=48", "execution.processes=2")
    with pytest.raises(Interrupted):
        carried(planned(audit, "stopped", *more), Silent("activations", after=40))
    shards = list((audit.parent / "stopped/stages/activations").rglob("layer-000/*.parquet"))
    assert 1 <= len(shards) < 11
    before = {shard: shard.stat().st_mtime_ns for shard in shards}
    again = planned(audit, "stopped", *more)
    done = carried(again)
    assert {shard: shard.stat().st_mtime_ns for shard in shards} == before
    assert done["activations"].row_count("layer-000/000000000-000000048") == 48


def test_a_shard_that_is_done_costs_a_look(audit):
    plan = planned(audit, "one")
    job = plan.job("index")
    hand = InHand(job, Session(plan.files, plan.settings, Silent()))
    (name, _) = hand.shards(hand.draft())
    written = hand.work(name)
    place = Path(plan.files.location(job.key.folder))
    before = {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()}
    assert hand.work(name) == written
    assert {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()} == before
    next(place.glob("annotations/*.parquet")).write_bytes(b"short")
    assert hand.work(name) == written


def test_a_worker_that_outlives_an_audit_looks_at_the_data_again(audit_file, broden, tmp_path):
    shutil.copytree(broden, tmp_path / "data")
    change_audit(audit_file, dataset={"format": "broden", "root": "data"})
    seen = set()
    for _ in range(2):
        plan = Plan(Request(audit_file))
        job = plan.job("index")
        hand = InHand(job, Session(plan.files, plan.settings, Silent()))
        (name,) = hand.shards(hand.draft())
        assert json.loads(work(audit_text(plan), job_text(job), name))
        seen.add(job.key.digest)
        picture = next((tmp_path / "data").rglob("*.jpg"))
        picture.write_bytes(picture.read_bytes() + b"altered")
    assert len(seen) == 2


def unused() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def refused(plan: Plan) -> str:
    with pytest.raises(InputError) as error, carrying(plan):
        pass
    return str(error.value)


def test_what_is_refused_before_any_work(audit, monkeypatch):
    monkeypatch.setattr("flows.cluster.ANSWER", 2)
    nobody = f"tcp://127.0.0.1:{unused()}"
    said = refused(planned(audit, "w", "execution.runner=dask", f"execution.address='{nobody}'"))
    assert said.startswith(f"execution.address: a Dask scheduler must answer there, got {nobody}")
    assert "`dask scheduler`" in said
    for workers, threads, device, fault in (
        (0, 1, "cpu", "the scheduler must have workers, got none; start them with `dask worker ADDRESS"),
        (1, 2, "cpu", "every worker must take one shard at a time, got one with 2 threads of Dask; start them with"),
        (1, 1, "cuda", "a worker must have a CUDA device, got none with the resource GPU; start them with"),
    ):
        with cluster(n_workers=workers, threads_per_worker=threads) as there:
            said = refused(planned(audit, "w", *there, f"device={device}"))
            assert said.startswith(f"execution.address: {fault}")
    assert not (audit.parent / "w/stages").exists()


def test_a_worker_with_other_code_or_data_says_so(audit):
    plan = planned(audit, "one")
    with pytest.raises(InputError, match=r"the code, packages and data of the coordinator.* got [0-9a-f]{32};"):
        work(audit_text(plan), f"index {'0' * 32}", "")
    with pytest.raises(InputError, match="got no such job"):
        work(audit_text(plan), f"tree {'0' * 32}", "")
