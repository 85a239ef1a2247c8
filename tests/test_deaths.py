"""What no death and no damage may do: every test here ends processes, or alters files, and audits again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.plan import Plan, Request
from storage import StageStore
from tasks.execution import execute
from tasks.session import Session
from tests.conftest import (
    NETWORK,
    change_audit,
    clean_environment,
    contents,
    count,
    every_stage,
    soak,
    write_audit,
)
from tests.test_pipeline import Silent

SLOW = """
import time
def slow(seconds=0.3):
    net = tiny()
    net.register_forward_pre_hook(lambda *_: time.sleep(seconds))
    return net
"""


@pytest.fixture
def folder(tmp_path, broden) -> Path:
    """An audit without null or bootstrap, in shards of 48 pictures, of a network that can be made to take its time."""
    (tmp_path / "nets.py").write_text(NETWORK + SLOW)
    content = {
        "name": "tiny",
        "network": {"load": "nets:slow", "arguments": {"seconds": 0.0}, "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}},
        "execution": {"shard_images": 48},
    }
    write_audit(tmp_path / "audit.yaml", content)
    return tmp_path


@pytest.fixture
def command(server):
    """Runs `microtome ...` in a process against the session's server: no process starts one of its own."""

    def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
        return subprocess.run(call, cwd=cwd, env=server, capture_output=True, text=True, timeout=300)

    return run


def killed(folder: Path, environment: dict[str, str], *, at: str, after: float = 0.0) -> None:
    """Begin an audit and kill it for good so many seconds after a stage began."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "audit", "audit.yaml"],
        cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith(at):
            break
    time.sleep(after)
    process.kill()
    process.wait(30)
    process.stderr.close()


def records(folder: Path) -> list[dict]:
    found = [json.loads(file.read_text()) for file in (folder / ".microtome/runs").glob("*/run.json")]
    return sorted(found, key=lambda record: record["started"])


def tables(workspace: Path) -> dict[str, bytes]:
    """Every finished table, by stage and name."""
    found = sorted(file for file in (workspace / "stages").rglob("*.parquet") if "layer-" not in str(file))
    return {f"{file.relative_to(workspace / 'stages').parts[0]}/{file.name}": file.read_bytes() for file in found}


@pytest.mark.soak
@pytest.mark.parametrize(
    ("at", "mode"),
    [("activations", "embedded"), ("pages", "server"), ("index", "server"), ("tally", "server")][: soak(2, 4)],
)
def test_a_kill_leaves_a_workspace_that_the_next_audit_takes_up(folder, command, server, tmp_path_factory, at, mode):
    """`kill -9` anywhere: the next audit closes the orphan's record and ends with the same bytes."""
    environment = server if mode == "server" else clean_environment(tmp_path_factory.mktemp("home"))
    killed(folder, environment, at=at, after=0.05)
    assert records(folder)[0]["status"] == "running"
    again = command("audit", "audit.yaml", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "Traceback" not in again.stderr
    assert [record["status"] for record in records(folder)] == ["killed", "done"]
    clean = command("audit", "audit.yaml", "--workspace", "clean", cwd=folder)
    assert clean.returncode == 0, clean.stderr
    assert tables(folder / ".microtome") == tables(folder / "clean")


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """An audit with every stage, carried out without a death: what each job's files must be, and its seconds."""
    plan = Plan(Request(every_stage(tmp_path_factory.mktemp("everything"))))
    session, made = Session(plan.files, plan.settings, Silent()), {}
    for job in plan.jobs:
        began = time.monotonic()
        made[job.name] = contents(execute(job, session)[0]), time.monotonic() - began
    return made


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("mode", ["embedded", "server"][: soak(1, 2)])
def test_kills_all_over_an_audit_with_every_stage(tmp_path, server, tmp_path_factory, everything, mode):
    """One workspace, a kill after the other, each in a process of its own and at a random moment of a random stage."""
    environment = server if mode == "server" else clean_environment(tmp_path_factory.mktemp("home"))
    file, chance = every_stage(tmp_path), random.Random(mode)
    names = [name for name in everything if name != "gates"]  # which is over before it says anything
    kills = soak(3 if mode == "server" else 2, 25)
    points = sorted((chance.randrange(len(names)), chance.random()) for _ in range(kills))
    for number, share in points:
        name = names[number]
        killed(tmp_path, environment, at=f"{name:<12} ", after=share * everything[name][1])
        count("kills")
    call = [sys.executable, "-m", "flows.cli", "audit", "audit.yaml"]
    again = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "Traceback" not in again.stderr
    assert [record["status"] for record in records(tmp_path)] == ["killed"] * kills + ["done"]
    plan = Plan(Request(file))
    for job in plan.jobs:
        assert contents(StageStore(plan.files).find(job.key)) == everything[job.name][0], job.name


def test_a_reused_process_number_does_not_keep_a_run_running(folder, command):
    """The record's number is that of this living process, but it began at another time."""
    command("audit", "audit.yaml", cwd=folder)
    file = next((folder / ".microtome/runs").glob("*/run.json"))
    record = json.loads(file.read_text()) | {"status": "running", "seal": None}
    record["about"] |= {"process": os.getpid(), "process_started": record["about"]["process_started"] - 1000}
    file.write_text(json.dumps(record))
    assert command("audit", "audit.yaml", cwd=folder).returncode == 0
    assert records(folder)[0]["status"] == "killed"


@pytest.mark.soak
@pytest.mark.parametrize("where", ["elsewhere", "this host"][: soak(1, 2)])
def test_a_run_that_is_going_on_stays_running(folder, command, where):
    """Of this living process, or of another host, which nobody here can ask."""
    from storage.process import this_process

    command("audit", "audit.yaml", cwd=folder)
    file = next((folder / ".microtome/runs").glob("*/run.json"))
    record = json.loads(file.read_text()) | {"status": "running", "seal": None}
    record["about"] |= this_process() if where == "this host" else {"host": "elsewhere", "process": 1 << 22}
    file.write_text(json.dumps(record))
    command("audit", "audit.yaml", cwd=folder)
    assert records(folder)[0]["status"] == "running"


@pytest.mark.soak
@pytest.mark.parametrize("damage", ["checksum", "zero", "flip"][: soak(1, 3)])
def test_a_damaged_shard_of_an_unfinished_stage_is_made_again(folder, command, server, damage):
    """The first shard is finished when the audit dies; then it is altered in place, its size kept."""
    change_audit(folder / "audit.yaml", network={
        "load": "nets:slow", "arguments": {"seconds": 0.4}, "layers": ["4"], "input": {"size": [64, 64]}})  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "audit", "audit.yaml"],
        cwd=folder, env=server, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    shards = folder / ".microtome/stages/activations"
    deadline = time.monotonic() + 120
    while not (found := list(shards.rglob("*.parquet.check.json"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    shard = found[0].with_name(found[0].name.removesuffix(".check.json"))
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[len(content) // 2 + 3] ^= 0x10
    elif damage == "zero":
        content[4096:8192] = bytes(4096)
    else:
        found[0].write_text('{"bytes": 3')
    shard.write_bytes(content)
    again = command("audit", "audit.yaml", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "it is made again" in again.stderr
    clean = command("audit", "audit.yaml", "--workspace", "clean", cwd=folder)
    assert clean.returncode == 0, clean.stderr
    assert tables(folder / ".microtome") == tables(folder / "clean")


@pytest.mark.soak
@pytest.mark.parametrize("damage", ["flip", "cut"][: soak(1, 2)])
def test_a_stage_that_cannot_read_its_input_has_it_made_again_once(folder, command, damage):
    """The input is altered behind the clock's back, its size and time kept, where they can be."""
    command("audit", "audit.yaml", "--only", "thresholds", cwd=folder)
    workspace = folder / ".microtome"
    shard = sorted((workspace / "stages/activations").rglob("*.parquet"))[0]
    before = shard.stat()
    content = bytearray(shard.read_bytes())
    content = content[:-200] + bytes(200) if damage == "flip" else content[:-300]
    shard.write_bytes(content)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = command("audit", "audit.yaml", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "the stage runs again" in again.stderr
    command("audit", "audit.yaml", "--workspace", "clean", cwd=folder)
    assert tables(workspace) == tables(folder / "clean")


LEAVING = {
    "module": ("raise SystemExit\ndef net():\n    pass\n", "network.load"),
    "factory": ("def net():\n    raise SystemExit(0)\n", "network.load"),
    "wrong": ("def net(:\n", "network.load"),
    "raising": ("def net():\n    return {}['gone']\n", "network.load"),
    "forward": (NETWORK + "def net():\n    n = tiny()\n    n.register_forward_pre_hook(leave)\n    return n\n"
                "def leave(*_):\n    raise SystemExit(0)\n", "network.load"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEAVING)
def test_a_network_that_leaves_the_process_is_not_an_audit_that_passed(folder, command, kind):
    code, key = LEAVING[kind]
    (folder / "leaving.py").write_text(code)
    overrides = ("--set", "network.load=leaving:net", "--set", "network.arguments={}")
    process = command("audit", "audit.yaml", *overrides, cwd=folder)
    assert process.returncode == 2, process.stderr
    assert f"error: {key}: " in process.stderr
    assert "leaving.py, line " in process.stderr
    assert "Traceback" not in process.stderr


DATA = """
from microtome.datasets.creatures import Creatures

class Mine(Creatures):
    def __init__(self):
        super().__init__(count=12, size=64)
        {opening}

    def picture(self, index):
        {reading}
        return super().picture(index)
"""


@pytest.mark.parametrize("where", ["module", "opening", "reading"])
def test_a_data_set_that_leaves_the_process_is_not_an_audit_that_passed(folder, command, where):
    parts = {name: "raise SystemExit(0)" if name == where else "pass" for name in ("opening", "reading")}
    (folder / "own.py").write_text(("raise SystemExit(0)\n" if where == "module" else "") + DATA.format(**parts))
    process = command("audit", "audit.yaml", "--set", "dataset={format: 'own:Mine'}", cwd=folder)
    assert process.returncode == 2, process.stderr
    assert "error: dataset" in process.stderr
    assert "own.py, line " in process.stderr
