"""What no death and no damage may do: every test here ends processes, or alters files, and audits again."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.plan import Plan, Request
from storage import StageStore
from storage.process import this_process
from tests.commands import left
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
from tests.test_pipeline import run

SLOW = """
import time
def slow(seconds=0.3):
    net = tiny()
    net.register_forward_pre_hook(lambda *_: time.sleep(seconds))
    return net
"""
NET = {"load": "slow_nets:slow", "arguments": {"seconds": 0.0}, "layers": ["4"], "input": {"size": [64, 64]}}


def written(folder: Path, broden: Path) -> Path:
    """An audit without null or bootstrap, in shards of 48 pictures, of a network that can be made to take its time."""
    (folder / "slow_nets.py").write_text(NETWORK + SLOW)
    content = {
        "name": "tiny",
        "network": dict(NET),
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}},
        "execution": {"shard_images": 48},
    }
    write_audit(folder / "audit.yaml", content)
    return folder


@pytest.fixture
def folder(tmp_path, broden) -> Path:
    """An audit's."""
    return written(tmp_path, broden)


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory, broden) -> dict[str, bytes]:
    """Every table of that audit, carried out without a death or damage."""
    folder = written(tmp_path_factory.mktemp("unharmed"), broden)
    run(folder / "audit.yaml")
    return tables(folder / ".microtome")


@pytest.fixture
def command(server):
    """Runs `microtome ...` in a process against one server: no process starts one of its own."""

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
def test_a_kill_leaves_a_workspace_that_the_next_audit_takes_up(
    folder, command, server, tmp_path_factory, unharmed, at, mode
):
    """`kill -9` anywhere: the next audit closes the orphan's record and ends with the same bytes."""
    environment = server if mode == "server" else clean_environment(tmp_path_factory.mktemp("home"))
    killed(folder, environment, at=at, after=0.05)
    assert records(folder)[0]["status"] == "running"
    again = command("audit", "audit.yaml", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "Traceback" not in again.stderr
    assert [record["status"] for record in records(folder)] == ["killed", "done"]
    assert tables(folder / ".microtome") == unharmed


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("mode", ["server", "embedded"][: soak(1, 2)])
def test_kills_all_over_an_audit_with_every_stage(tmp_path, server, tmp_path_factory, everything, mode):
    """One workspace, a kill after the other, each in a process of its own and at a random moment of a random stage."""
    environment = server if mode == "server" else clean_environment(tmp_path_factory.mktemp("home"))
    file, chance = every_stage(tmp_path), random.Random(mode)
    names = [name for name in everything if name != "gates"]  # which is over before it says anything
    kills = soak(2, 25)
    points = sorted((chance.randrange(len(names)), chance.random()) for _ in range(kills))
    for number, share in points:
        name = names[number]
        killed(tmp_path, environment, at=f"{name:<12} ", after=share * everything[name].manifest["seconds"])
        count("kills")
    call = [sys.executable, "-m", "flows.cli", "audit", "audit.yaml"]
    again = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "Traceback" not in again.stderr
    assert [record["status"] for record in records(tmp_path)] == ["killed"] * kills + ["done"]
    plan = Plan(Request(file))
    for job in plan.jobs:
        assert contents(StageStore(plan.files).find(job.key)) == contents(everything[job.name]), job.name


def still_running(finished: Path, folder: Path, about: dict[str, object]) -> str:
    """The status that a finished run has when its record says that it goes on, and the next audit has ended."""
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    (folder / "whole").rename(folder / ".microtome")
    file = sorted((folder / ".microtome/runs").glob("*/run.json"))[0]
    record = json.loads(file.read_text()) | {"status": "running", "seal": None}
    record["about"] |= about
    file.write_text(json.dumps(record))
    ended = left("audit", folder / "audit.yaml")
    assert ended.returncode == 0, ended.stderr
    return json.loads(file.read_text())["status"]


def test_a_reused_process_number_does_not_keep_a_run_running(finished_workspace, tmp_path):
    """The record's number is that of this living process, but it began at another time."""
    began = this_process()["process_started"]
    earlier = {"process": os.getpid(), "process_started": began - 1000}
    assert still_running(finished_workspace, tmp_path, earlier) == "killed"


@pytest.mark.parametrize("where", ["elsewhere", "this host"])
def test_a_run_that_is_going_on_stays_running(finished_workspace, tmp_path, where):
    """Of this living process, or of another host, which nobody here can ask."""
    about = this_process() if where == "this host" else {"host": "elsewhere", "process": 1 << 22}
    assert still_running(finished_workspace, tmp_path, about) == "running"


@pytest.mark.soak
@pytest.mark.parametrize("damage", ["checksum", "zero", "flip"][: soak(1, 3)])
def test_a_damaged_shard_of_an_unfinished_stage_is_made_again(folder, command, server, unharmed, damage):
    """The first shard is finished when the audit dies; then it is altered in place, its size kept."""
    change_audit(folder / "audit.yaml", network=NET | {"arguments": {"seconds": 0.4}})
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
    assert tables(folder / ".microtome") == unharmed


@pytest.mark.soak
@pytest.mark.parametrize("damage", ["flip", "cut"][: soak(1, 2)])
def test_a_stage_that_cannot_read_its_input_has_it_made_again_once(folder, command, unharmed, damage):
    """The input is altered behind the clock's back, its size and time kept, where they can be."""
    run(folder / "audit.yaml", until="thresholds")
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
    assert tables(workspace) == unharmed


LEAVING = {
    "module": ("raise SystemExit\ndef net():\n    pass\n", "network.load"),
    "factory": ("def net():\n    raise SystemExit(0)\n", "network.load"),
    "wrong": ("def net(:\n", "network.load"),
    "raising": ("def net():\n    return {}['gone']\n", "network.load"),
    "forward": (NETWORK + "def net():\n    n = tiny()\n    n.register_forward_pre_hook(leave)\n    return n\n"
                "def leave(*_):\n    raise SystemExit(0)\n", "network.load"),
}  # fmt: skip


def of_leaving(module: str) -> tuple[str, ...]:
    return "--set", f"network.load={module}:net", "--set", "network.arguments={}"


def refused(ended: subprocess.CompletedProcess[str], key: str, module: str) -> None:
    assert ended.returncode == 2, ended.stderr
    assert f"error: {key}" in ended.stderr
    assert f"{module}.py, line " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("kind", LEAVING)
def test_a_network_that_leaves_the_process_is_not_an_audit_that_passed(folder, kind):
    code, key = LEAVING[kind]
    module = f"leaving_{kind}"  # a process imports a name once
    (folder / f"{module}.py").write_text(code)
    refused(left("audit", folder / "audit.yaml", *of_leaving(module)), f"{key}: ", module)


def test_a_process_that_a_network_wants_to_leave_has_its_own_status(folder, command):
    code, key = LEAVING["forward"]
    (folder / "leaving.py").write_text(code)
    refused(command("audit", "audit.yaml", *of_leaving("leaving"), cwd=folder), f"{key}: ", "leaving")


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
def test_a_data_set_that_leaves_the_process_is_not_an_audit_that_passed(folder, where):
    parts = {name: "raise SystemExit(0)" if name == where else "pass" for name in ("opening", "reading")}
    module = f"own_{where}"
    text = ("raise SystemExit(0)\n" if where == "module" else "") + DATA.format(**parts)
    (folder / f"{module}.py").write_text(text)
    refused(left("audit", folder / "audit.yaml", "--set", f"dataset={{format: '{module}:Mine'}}"), "dataset", module)
