"""What running audits use is never collected; what the dead left is."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from flows.collect import collect
from flows.plan import Plan, Request
from flows.run import carry_out, session_of
from microtome.errors import Interrupted
from storage import RunRecord, RunStore, StageKey, StageStore, open_files
from storage.claims import EXPIRY, Claims, making
from storage.process import this_process
from tasks.execution import execute
from tests.conftest import NETWORK, change_audit, clean_environment, count, soak


@pytest.fixture
def files(tmp_path):
    return open_files(str(tmp_path))


def stage(files, name: str, value: int = 0) -> str:
    """A finished stage; gives its folder."""
    draft = StageStore(files).draft(StageKey("index", "code", {"name": name}), ())
    draft.write("value.json", json.dumps(value).encode())
    return draft.commit(environment={}).folder


def recorded(files, audit: str, folder: str, status: str = "done") -> None:
    run = RunRecord.start(audit, "net", {})
    RunStore(files).save(run.ended(status, stages={"index": {"folder": folder}}))


def collected(files, keep: int = 1, **more) -> list[str]:
    return sorted(name for name, _ in collect(files, keep, **{"dry_run": False, "waiting": lambda: None, **more}))


def there(files, folder: str) -> bool:
    return StageStore(files).load(folder) is not None


def dead_claim(files, folder: str, **about) -> str:
    name = f"claims/{len(files.names('claims'))}.json"
    files.write(name, json.dumps({**this_process(), "folders": [folder], **about}).encode())
    return name


def test_a_claimed_stage_stays_and_goes_when_the_claim_ends(files):
    used, claimed, unused = stage(files, "used"), stage(files, "claimed"), stage(files, "unused")
    recorded(files, "one", used)
    with Claims(files).held([claimed, "stages/index/not-there-yet"]) as fault:
        assert fault is None
        assert collected(files, dry_run=True) == [unused]
        assert there(files, unused)
        assert collected(files) == [unused]
        assert there(files, claimed)
    assert [name for name in files.names("claims") if name.endswith(".json")] == []
    assert collected(files) == [claimed]
    assert there(files, used)


@pytest.mark.parametrize(
    ("about", "kept"),
    [
        ({}, True),
        ({"process": 1 << 22}, False),
        ({"process_started": 1.0}, False),
        ({"host": "elsewhere", "process": 1 << 22}, True),
        ({"folders": None}, False),
    ],
)
def test_whose_claims_count(files, about, kept):
    """Of this process, of none, of an earlier one with its number, of another host; and a damaged one."""
    folder = stage(files, "one")
    name = dead_claim(files, folder, **about)
    assert collected(files) == ([] if kept else [folder])
    assert there(files, folder) == kept
    assert (name in files.names("claims")) == kept


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff"])
def test_a_damaged_claim_is_of_the_dead(files, content):
    files.write("claims/x.json", content)
    folder = stage(files, "one")
    assert collected(files) == [folder]
    assert "claims/x.json" not in files.names("claims")


@pytest.mark.parametrize(("age", "kept"), [(EXPIRY - 60, True), (EXPIRY + 60, False)])
def test_a_claim_of_another_host_counts_while_it_is_renewed(files, age, kept):
    folder = stage(files, "one")
    name = dead_claim(files, folder, host="elsewhere")
    then = time.time() - age
    os.utime(files.location(name), (then, then))
    assert collected(files) == ([] if kept else [folder])


def test_a_claim_is_renewed_while_it_is_held(files, monkeypatch):
    monkeypatch.setattr("storage.claims.BEAT", 0.02)
    threads = threading.active_count()
    with Claims(files).held(["stages/index/one"]):
        (name,) = [name for name in files.names("claims") if name.endswith(".json")]
        first, deadline = files.stamp(name), time.monotonic() + 10
        while files.stamp(name) == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert files.stamp(name).changed > first.changed
        assert json.loads(files.read(name))["host"] == socket.gethostname()
    assert threading.active_count() == threads


def test_a_claim_waits_for_a_collection_and_a_collection_for_a_claim(files):
    """Of one lock: whoever comes second sees what the first did."""
    order, waited = [], threading.Event()

    def claim():
        with Claims(files, waited.set).held(["stages/index/one"]):
            order.append("claimed")

    with Claims(files).collecting():
        thread = threading.Thread(target=claim)
        thread.start()
        assert waited.wait(10)
        time.sleep(0.2)
        order.append("collected")
    thread.join(10)
    assert order == ["collected", "claimed"]


def test_a_collection_refuses_where_there_are_no_locks_and_a_claim_does_without(files, monkeypatch):
    import errno
    import fcntl

    from microtome.errors import InputError

    def none(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    folder = stage(files, "one")
    monkeypatch.setattr(fcntl, "flock", none)
    with Claims(files).held([folder]) as fault:
        assert fault is None
        assert Claims(files).in_use().folders == {folder}
    with pytest.raises(InputError, match="gc: needs locks"):
        collected(files)
    assert there(files, folder)


def test_finished_runs_are_kept_and_what_was_begun_since(files):
    """A run that failed, or goes on, does not push out the last one that finished."""
    folders = [stage(files, name) for name in "abcde"]
    for folder, status in zip(folders, ("done", "gate failed", "done", "failed", "stopped"), strict=True):
        recorded(files, "one", folder, status)
    assert collected(files, 2, dry_run=True) == folders[:1]
    assert collected(files, 1) == sorted(folders[:2])
    assert collected(files, 1) == []


def test_what_the_dead_left_half_written_goes(files):
    """An unfinished stage whole, a lone half-written file, one in a finished stage; old ones elsewhere."""
    used, claimed = stage(files, "used"), "stages/index/claimed"
    recorded(files, "one", used)
    unfinished = StageStore(files).draft(StageKey("tally", "code"), ())
    unfinished.write("shard", b"123")
    places = [f"{used}/.x.0a.part", "stages/null/dead/.x.1b.part", f"{claimed}/.x.2c.part", "runs/.x.3d.part",
              ".digests.json.4e.part"]  # fmt: skip
    for place in places:
        Path(files.location(place)).parent.mkdir(parents=True, exist_ok=True)
        Path(files.location(place)).write_bytes(b"half")
    then = time.time() - EXPIRY - 60
    os.utime(files.location(places[4]), (then, then))
    with Claims(files).held([claimed]):
        assert collected(files) == sorted([unfinished.key.folder, places[0], "stages/null/dead", places[4]])
    assert there(files, used)
    assert files.unfinished("") == sorted(places[2:4])


def test_a_kill_in_a_claim_or_a_collection_holds_nobody_up(files, tmp_path):
    """Killed with the lock in hand: the next one has it at once, and the claim of the dead goes."""
    code = (
        "import os, signal, sys\nfrom storage import open_files\nfrom storage.claims import Claims\n"
        "claims = Claims(open_files(sys.argv[1]))\n"
        "with claims.held(['stages/index/one']), claims.collecting():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    call = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(call, env=clean_environment(tmp_path), timeout=60).returncode == -9
    assert len([name for name in files.names("claims") if name.endswith(".json")]) == 1
    with Claims(files, lambda: pytest.fail("nobody has the lock")).collecting() as in_use:
        assert in_use.folders == set()
    assert [name for name in files.names("claims") if name.endswith(".json")] == []


def held_elsewhere(tmp_path, folders, anew) -> subprocess.Popen:
    """A process that has claimed, until it is told to end."""
    code = (
        "import sys\nfrom storage import open_files\nfrom storage.claims import Claims\n"
        f"with Claims(open_files(sys.argv[1])).held({folders!r}, anew={anew!r}):\n"
        "    print('claimed', flush=True)\n    input()\n"
    )
    call, pipe = [sys.executable, "-c", code, str(tmp_path)], subprocess.PIPE
    process = subprocess.Popen(call, env=clean_environment(tmp_path), stdin=pipe, stdout=pipe, text=True)
    assert process.stdout.readline() == "claimed\n"
    return process


class Waited(Exception):
    pass


def impatient(why: str) -> None:
    raise Waited(why)


@pytest.mark.parametrize(
    ("theirs", "mine", "words"),
    [
        ([], [], None),
        (["stages/index/two"], [], None),
        ([], ["stages/index/three"], None),
        (["stages/index/one"], [], "has made stages/index/one again"),
        ([], ["stages/index/one"], "has ended, which uses stages/index/one, which is to be made again"),
        (["stages/index/one"], ["stages/index/one"], "has made stages/index/one again"),
    ],
)
def test_what_one_process_makes_anew_no_other_uses(files, tmp_path, theirs, mine, words):
    """They share one stage of three; whoever comes second waits, until the other has ended, however it ends."""
    process = held_elsewhere(tmp_path, ["stages/index/one", "stages/index/two"], theirs)
    claims, folders = Claims(files, busy=impatient), ["stages/index/one", "stages/index/three"]
    try:
        if words is None:
            with claims.held(folders, anew=mine):
                return
        with pytest.raises(Waited, match=f"^process {process.pid} {words}$"), claims.held(folders, anew=mine):
            pass
        assert len([name for name in files.names("claims") if name.endswith(".json")]) == 1
    finally:
        process.kill()
        process.communicate()
    with claims.held(folders, anew=mine) as fault:
        assert fault is None


def test_who_only_looks_is_told_and_does_not_wait(files, tmp_path):
    process, heard = held_elsewhere(tmp_path, ["stages/index/one"], ["stages/index/one"]), []
    with Claims(files, busy=heard.append).held(["stages/index/one"], patient=False):
        assert heard == [f"process {process.pid} has made stages/index/one again"]
        assert len([name for name in files.names("claims") if name.endswith(".json")]) == 2
    process.kill()
    process.communicate()


def test_a_process_does_not_wait_for_itself(files):
    """The command claims, and so does the flow in it."""
    one, claims = ["stages/index/one"], Claims(files, busy=impatient)
    with claims.held(one, anew=one), claims.held(one, anew=one) as fault:
        assert fault is None


@pytest.mark.parametrize(("age", "waits"), [(EXPIRY - 60, True), (EXPIRY + 60, False)])
def test_another_host_is_waited_for_while_it_renews_its_claim(files, age, waits):
    name = dead_claim(files, "stages/index/one", host="elsewhere", process=7, anew=["stages/index/one"])
    then = time.time() - age
    os.utime(files.location(name), (then, then))
    words = "^process 7 of elsewhere has made stages/index/one again$"
    told = pytest.raises(Waited, match=words) if waits else contextlib.nullcontext()
    with told, Claims(files, busy=impatient).held(["stages/index/one"]) as fault:
        assert fault is None


def test_what_two_audits_want_at_once_is_made_once(audit_file):
    """Else the second would begin by taking away the first one's manifest."""
    change_audit(audit_file, stages={"dissection": {"bootstrap": 0, "permutations": 0}, "report": False})
    plans, together, found = [Plan(Request(audit_file)) for _ in range(2)], threading.Barrier(2), []

    def one(plan):
        session = session_of(plan)
        for job in plan.jobs:
            together.wait(60)
            found.append((job.name, carry_out(job, session, refresh=False)[1]))

    threads = [threading.Thread(target=one, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(found) == sorted((job.name, cached) for job in plans[0].jobs for cached in (False, True))


def test_a_wait_for_whoever_makes_a_stage_is_said_and_can_be_stopped(audit_file, capsys):
    plan = Plan(Request(audit_file))
    job, session = plan.jobs[0], session_of(plan)
    with making(plan.files, job.key.folder, lambda: None):
        threading.Timer(0.3, session.stop.set).start()
        try:
            with pytest.raises(Interrupted):
                execute(job, session)
        finally:
            session.stop.clear()
    assert capsys.readouterr().err.count("index: waiting until another process has made it") == 1
    assert execute(job, session)[1] is False


def test_locks_of_stages_that_nobody_claims_are_collected(files):
    with making(files, "stages/index/one", lambda: None), making(files, "stages/index/two", lambda: None):
        pass
    with Claims(files).held(["stages/index/two"]), Claims(files).collecting():
        assert [name for name in files.names("claims") if name.endswith(".making")] == [
            "claims/stages.index.two.making"
        ]


AUDITS = """
import sys
from pathlib import Path
from flows.claiming import claiming
from flows.plan import Plan, Request
from flows.run import carry_out, finish, session_of, start
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    tail = f"stages.dissection.tail={0.004 + number % 3 / 1000}"
    plan = Plan(Request(Path("audit.yaml"), overrides=(tail, *sys.argv[3:])))
    with claiming(plan):
        session = session_of(plan)
        run = start(plan, session)
        finish(plan, run, {job.name: carry_out(job, session, refresh=False) for job in plan.jobs}, "done")
    print("done", number, flush=True)
"""
RERUNS = """
import random, sys
from pathlib import Path
from flows.claiming import claiming
from flows.plan import Plan, Request
from flows.run import carry_out, finish, session_of, start
chance = random.Random(int(sys.argv[1]))
for number in range(int(sys.argv[2])):
    stage = (chance.choice(["index", "activations", "thresholds", "tally", "dissection"]),)
    plan = Plan(Request(Path("audit.yaml"), stage, stage))
    with claiming(plan):
        session = session_of(plan)
        run = start(plan, session)
        done = {job.name: carry_out(job, session, refresh=job.called(stage)) for job in plan.jobs}
        finish(plan, run, done, "done")
    print("done", *stage, flush=True)
"""
COLLECTIONS = """
import time
from flows.collect import collect
from storage import open_files
removed = 0
while True:
    removed += len(collect(open_files(".microtome"), 1, dry_run=False, waiting=lambda: None))
    print(removed, flush=True)
    time.sleep(0.02)
"""


@pytest.mark.soak
def test_audits_and_collections_beside_each_other(audit_file, tmp_path):
    """Three settings in turn, each of which gc takes for superseded as soon as the next one is recorded."""
    environment = clean_environment(tmp_path)
    change_audit(
        audit_file,
        stages={"dissection": {"bootstrap": 0, "permutations": 0}, "report": False},
        execution={"threads": 1},
    )
    processes, audits = soak(1, 4), soak(12, 60)

    def started(code, *arguments, **more):
        call = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.Popen(call, cwd=audit_file.parent, env=environment, text=True, stdout=subprocess.PIPE, **more)

    collecting = started(COLLECTIONS)
    try:
        for process in [started(AUDITS, first, first + audits, stderr=subprocess.PIPE) for first in range(processes)]:
            said = process.communicate(timeout=soak(300, 3600))
            assert process.returncode == 0, said[1]
            assert said[0].count("done") == audits
            assert "runs again" not in said[1]
    finally:
        collecting.kill()
        removed = int(collecting.communicate()[0].split()[-1])
    assert removed >= audits, "nothing was collected: the test has seen nothing"
    count("audits beside gc", processes * audits)
    count("stages removed beside audits", removed)
    clean = started(AUDITS, 0, 3, "workspace=clean", stderr=subprocess.DEVNULL)
    assert clean.wait(300) == 0
    left = written(audit_file.parent / ".microtome")
    assert left
    assert left.items() <= written(audit_file.parent / "clean").items()


@pytest.mark.soak
def test_reruns_beside_each_other(audit_file, tmp_path):
    """Processes that make random stages of one audit again and again, each of which the others read."""
    environment = clean_environment(tmp_path)
    change_audit(
        audit_file,
        stages={"dissection": {"bootstrap": 0, "permutations": 0}, "report": False},
        execution={"threads": 1},
    )
    processes, reruns = soak(2, 4), soak(3, 40)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    calls = [[sys.executable, "-c", RERUNS, str(number), str(reruns)] for number in range(processes)]
    for process in [subprocess.Popen(call, cwd=audit_file.parent, **pipes) for call in calls]:
        said = process.communicate(timeout=soak(300, 3600))
        assert process.returncode == 0, said[1]
        assert said[0].count("done") == reruns
        assert "runs again" not in said[1]
    count("reruns beside each other", processes * reruns)
    records = [json.loads(file.read_text()) for file in audit_file.parent.glob(".microtome/runs/*/run.json")]
    assert [record["status"] for record in records] == ["done"] * processes * reruns


HELD = """
import pathlib, time
def held():
    net = tiny()
    net.register_forward_pre_hook(wait)
    return net
def wait(_, inputs):  # not where it is merely looked at, two pictures at a time
    while len(inputs[0]) > 2 and pathlib.Path("hold").exists():
        time.sleep(0.05)
"""


def test_a_rerun_waits_for_the_audit_that_reads_its_stage(audit_file, server):
    """As users have it. A Ctrl-C ends the waiting. The audit's network is held until both reruns wait."""
    (audit_file.parent / "nets.py").write_text(NETWORK + HELD)
    network = {"load": "nets:held", "layers": ["4"], "input": {"size": [64, 64]}}
    change_audit(audit_file, network=network, stages={"dissection": {"bootstrap": 0, "permutations": 0}})

    def started(*arguments):
        """It heeds Ctrl-C even where these tests run in a shell's background, whose jobs ignore it."""
        call, pipe = [sys.executable, "-m", "flows.cli", *arguments], subprocess.PIPE
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(
            call, cwd=audit_file.parent, env=server, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeding
        )

    def heard(process, words):
        return next(line for line in process.stderr if words in line)

    audit = started("audit", "audit.yaml")
    heard(audit, "index        done")
    hold = audit_file.parent / "hold"
    hold.touch()  # long before the next stage has loaded torch and the network
    heard(audit, "activations  70")
    (folder,) = (audit_file.parent / ".microtome/stages/index").iterdir()
    waiting = f"waiting until process {audit.pid} has ended, which uses stages/index/{folder.name}, which is to be made"
    stopped, rerun = started("rerun", "index", "audit.yaml"), started("rerun", "index", "audit.yaml")
    for process in (stopped, rerun):
        heard(process, waiting)
    stopped.send_signal(signal.SIGINT)
    assert "stopped" in stopped.communicate(timeout=60)[1]
    assert stopped.returncode == 130
    assert (folder / "manifest.json").exists()
    hold.unlink()
    said = audit.communicate(timeout=120)[1]
    assert audit.returncode == 0, said
    assert "runs again" not in said
    said = rerun.communicate(timeout=120)[1]
    assert rerun.returncode == 0, said
    assert (folder / "manifest.json").exists()


def written(workspace: Path) -> dict[str, bytes]:
    """Every table, by stage, digest and name."""
    found = (workspace / "stages").rglob("*.parquet")
    return {str(file.relative_to(workspace)): file.read_bytes() for file in found}
