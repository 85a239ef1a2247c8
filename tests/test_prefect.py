"""The walk of docs/prefect.md: pools, deployments, workers, and a worker that dies in the middle of a run."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import NETWORK, asked, write_audit

ROOT = Path(__file__).parent.parent
PREFECT = Path(sys.executable).with_name("prefect")
SLOW = "import time\ndef slow():\n    net = tiny()\n    net.register_forward_pre_hook(pause)\n    return net\n"
SLOW += "def pause(*_):\n    time.sleep(0.5)\n"
WITHIN = ("within: 90", "within: 35")  # s: the test does not wait for three heartbeats


@pytest.fixture(scope="module")
def walked(server, tmp_path_factory, broden):
    """A checkout with an audit of a slow network, deployed as the page says: its folder and environment."""
    folder = tmp_path_factory.mktemp("checkout")
    for room in ("flows", "tasks", "storage", "microtome"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", folder)
    text = (ROOT / "automations.yaml").read_text()
    assert WITHIN[0] in text
    (folder / "automations.yaml").write_text(text.replace(*WITHIN))
    (folder / "examples").mkdir()
    (folder / "examples/nets.py").write_text(NETWORK + SLOW)
    content = {
        "name": "walk",
        "network": {"load": "nets:slow", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}, "report": False},
        "execution": {"shard_images": 48},
    }
    write_audit(folder / "examples/creatures.yaml", content)
    environment = server | {"PYTHONPATH": str(folder), "PREFECT_CLI_PROMPT": "false"}

    def prefect(*arguments: str) -> str:
        call = [str(PREFECT), *arguments]
        done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for pool in ("microtome-cpu", "microtome-gpu"):
        prefect("work-pool", "create", pool, "--type", "process")
    prefect("deploy", "--all")
    prefect("automation", "create", "--from-file", "automations.yaml")
    return folder, environment, prefect


def worker(folder: Path, environment: dict) -> subprocess.Popen:
    call = [str(PREFECT), "worker", "start", "--pool", "microtome-cpu"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(call, cwd=folder, env=environment, **quiet)


def killed(process: subprocess.Popen) -> None:
    """A process and all that it started, at once."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    process.wait(20)


def until(condition, seconds: float):
    """What a condition gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@pytest.mark.slow
def test_the_run_of_a_dead_worker_is_taken_up(walked):
    """Every deployment is made; a worker killed in mid-stage is followed by another, which finishes the same run."""
    folder, environment, prefect = walked
    found = {item["name"] for item in asked(environment, "deployments/filter", {})}
    assert found >= {"nightly", "audit-gpu", "rerun-cpu", "rerun-gpu"}
    first = worker(folder, environment)
    try:
        prefect("deployment", "run", "audit/nightly")
        shards = folder / "examples/.microtome/stages/activations"
        shard = until(lambda: list(shards.rglob("*.check.json")), 90)
        assert shard, "the first worker's run did not finish a shard in 90 s"
    finally:
        killed(first)
    before = shard[0].with_name(shard[0].name.removesuffix(".check.json")).stat().st_mtime_ns
    second = worker(folder, environment)
    try:
        body = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}, "name": {"like_": "examples/creatures.yaml"}}}
        done = until(lambda: asked(environment, "flow_runs/filter", body), 150)
    finally:
        killed(second)
    assert [run["run_count"] for run in done] == [2]
    records = [
        json.loads(file.read_text()) for file in sorted((folder / "examples/.microtome/runs").glob("*/run.json"))
    ]
    assert [record["status"] for record in records] == ["killed", "done"]
    kept = [file for file in shards.rglob("*.parquet") if file.stat().st_mtime_ns == before]
    assert len(kept) == 1, "the finished shard was computed again"
