"""The walk of docs/prefect.md, for real: pools, deployments that pull the code, workers in folders of their own, one of
which dies in the middle of a run, a scheduled run, a failed gate and the message about it; and pages in a browser.
"""

import ast
import json
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from tests.conftest import NETWORK, asked, change_audit, long_form, write_audit
from tests.stores import lying, rclone_store, use
from tests.test_artifacts import HOSTILE

ROOT = Path(__file__).parent.parent
PREFECT = Path(sys.executable).with_name("prefect")
SLOW = "import time\ndef slow():\n    net = tiny()\n    net.register_forward_pre_hook(pause)\n    return net\n"
SLOW += "def pause(*_):\n    time.sleep(0.5)\n"
WITHIN = ("within: 90", "within: 35")  # s: the test does not wait for three heartbeats


PULLED = "0.0.0+pulled"  # version of the code in the repository, which is this one's but for that


@pytest.fixture(scope="module")
def walked(server, tmp_path_factory, broden):
    """A repository with an audit of a slow network, deployed as the page says: its folder and environment."""
    folder = tmp_path_factory.mktemp("repository")
    for room in ("flows", "tasks", "storage", "microtome"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    version = folder / "microtome/__init__.py"
    text, shipped = version.read_text(), '__version__ = "'
    assert shipped in text
    version.write_text(text.replace(shipped, f'{shipped}{PULLED}" or "'))
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
    pools = {"runner": "workers", "pools": {"gpu": "microtome-gpu", "cpu": "microtome-cpu"}}
    quick = content["network"] | {"load": "nets:tiny"}
    write_audit(
        folder / "examples/pooled.yaml",
        content | {"name": "pooled", "network": quick, "execution": pools, "workspace": "pooled"},
    )
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder)
    environment = {name: value for name, value in server.items() if name != "PYTHONPATH"} | {
        "PREFECT_CLI_PROMPT": "false"
    }

    def prefect(*arguments: str) -> str:
        return called([str(PREFECT), *arguments], folder, environment)

    for pool in ("microtome-cpu", "microtome-gpu"):
        prefect("work-pool", "create", pool, "--type", "process")
    prefect("deploy", "--all")
    prefect("automation", "create", "--from-file", "automations.yaml")
    return folder, environment, prefect


def called(call: list[str], folder: Path, environment: dict, *, timeout: int = 120) -> str:
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "as it is now")


def worker(folder: Path, environment: dict) -> subprocess.Popen:
    """In a folder of its own; it asks for work every second."""
    call = [str(PREFECT), "worker", "start", "--pool", "microtome-cpu"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(call, cwd=folder, env=environment | {"PREFECT_WORKER_QUERY_SECONDS": "1"}, **quiet)


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


def test_the_run_of_a_dead_worker_is_taken_up(walked, tmp_path):
    """Every deployment is made; a worker killed in mid-stage is followed by another, which finishes the same run."""
    folder, environment, prefect = walked
    found = {item["name"] for item in asked(environment, "deployments/filter", {})}
    assert found >= {"nightly", "audit-gpu", "rerun-cpu", "rerun-gpu"}
    first = worker(tmp_path, environment)
    try:
        prefect("deployment", "run", "audit/nightly")
        shards = folder / "examples/.microtome/stages/activations"
        shard = until(lambda: list(shards.rglob("layer-*/*.check.json")), 90)
        assert shard, "the first worker's run did not finish a shard in 90 s"
    finally:
        killed(first)
    before = shard[0].with_name(shard[0].name.removesuffix(".check.json")).stat().st_mtime_ns
    second = worker(tmp_path, environment)
    try:
        body = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}, "name": {"any_": ["walk"]}}}
        done = until(lambda: asked(environment, "flow_runs/filter", body), 150)
    finally:
        killed(second)
    assert [run["run_count"] for run in done] == [2]
    records = [
        json.loads(file.read_text()) for file in sorted((folder / "examples/.microtome/runs").glob("*/run.json"))
    ]
    assert [record["status"] for record in records] == ["killed", "done"]
    assert records[-1]["about"]["environment"]["microtome"] == PULLED
    kept = [file for file in shards.rglob("*.parquet") if file.stat().st_mtime_ns == before]
    assert len(kept) == 1, "the finished shard was computed again"


POOLS = """
import sys
from pathlib import Path
from flows.plan import Plan, Request
from flows.pools import Pools

plan = Plan(Request(Path("examples/pooled.yaml"), overrides=tuple(sys.argv[1:])))
pools = Pools(plan)
print({job.name: pools.deployment(job) for job in plan.jobs})
"""


@long_form
@pytest.mark.soak
def test_a_coordinator_hands_its_stages_to_the_workers_of_pools(walked, tmp_path):
    """The audit is called by hand, a worker does each stage, and what it made is what this process would have made."""
    folder, environment, _ = walked
    microtome = [sys.executable, "-m", "microtome", "audit", "examples/pooled.yaml", "--only", "activations"]
    working = worker(tmp_path, environment)
    try:
        called(microtome, folder, environment, timeout=280)
    finally:
        killed(working)
    runs = asked(environment, "flow_runs/filter", {"flow_runs": {"name": {"any_": ["index", "activations"]}}})
    done = {run["name"]: (run["state_type"], run["work_pool_name"]) for run in runs}
    assert done == dict.fromkeys(("index", "activations"), ("COMPLETED", "microtome-cpu"))
    here = ("--set", "execution.runner=local", "--set", "execution.pools=null")
    called([*microtome, *here], folder, environment)
    files = (folder / "examples/pooled/runs").glob("*/run.json")
    first, second = map(json.loads, map(Path.read_text, sorted(files)))
    assert [first["status"], second["status"]] == ["done", "done"]
    cached = {name: (stage["cached"], stage["digest"]) for name, stage in second["stages"].items()}
    assert cached == {name: (True, stage["digest"]) for name, stage in first["stages"].items()}


@long_form
@pytest.mark.soak
def test_a_pools_workers_and_their_coordinator_meet_in_an_object_store(walked, monkeypatch, tmp_path):
    """The workers have another folder of copies, as on another machine; the bytes are those of a folder."""
    folder, environment, _ = walked
    microtome = [sys.executable, "-m", "microtome", "audit", "examples/pooled.yaml", "--only", "thresholds"]
    here = ("--set", "execution.runner=local", "--set", "execution.pools=null", "--workspace", str(tmp_path / "folder"))
    called([*microtome, *here], folder, environment, timeout=280)
    for store in rclone_store(tmp_path / "store"):
        use(monkeypatch, store)
        there = environment | store.environment | {"XDG_CACHE_HOME": str(tmp_path / "coordinator")}
        working = worker(tmp_path, there | {"XDG_CACHE_HOME": str(tmp_path / "worker")})
        try:
            called([*microtome, "--workspace", f"{store.address}/pools"], folder, there, timeout=280)
        finally:
            killed(working)
        stages = tmp_path / "folder/stages"
        made = {f"stages/{file.relative_to(stages)}": file.read_bytes() for file in stages.rglob("*.*")}
        assert lying(f"{store.address}/pools") == {
            name: content for name, content in made.items() if not name.endswith(("manifest.json", ".verified.json"))
        }
    runs = asked(environment, "flow_runs/filter", {"flow_runs": {"name": {"any_": ["thresholds"]}}})
    assert [(run["state_type"], run["work_pool_name"]) for run in runs] == [("COMPLETED", "microtome-cpu")]


def test_what_computes_on_a_gpu_goes_to_its_pool(walked):
    folder, environment, _ = walked
    chosen = called([sys.executable, "-c", POOLS, "device=cuda"], folder, environment)
    where = {name: found.removeprefix("stage/stage-") for name, found in ast.literal_eval(chosen).items()}
    assert {name for name, pool in where.items() if pool == "gpu"} == {"activations", "tally"}
    assert {name for name, pool in where.items() if pool == "cpu"} == {"index", "thresholds", "dissection"}
    refused = [sys.executable, "-c", POOLS, "execution.pools.gpu=nowhere"]
    said = subprocess.run(refused, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert (
        "execution.pools.gpu: must be a work pool with a deployment of the flow `stage`, got 'nowhere'" in said.stderr
    )


@pytest.fixture
def hook():
    """A web hook on loopback: its address, and what it is sent."""
    heard: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    listening = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}/hook", heard
    listening.shutdown()
    listening.server_close()


def test_a_scheduled_run_fires_and_somebody_is_told_of_its_failed_gate(walked, hook, tmp_path):
    """A gate that is committed after the deployment: the next scheduled run pulls and fails it, and the hook hears."""
    folder, environment, prefect = walked
    address, heard = hook
    called([sys.executable, "-m", "flows.alarm", address], folder, environment)
    change_audit(folder / "examples/creatures.yaml", name="gated", gates=[{"metric": "layers.detectors", "min": 99}])
    commit(folder)
    prefect("deployment", "schedule", "create", "audit/nightly", "--interval", "15", "--replace", "-y")
    body = {"flow_runs": {"name": {"any_": ["gated"]}, "state": {"name": {"any_": ["GateFailed"]}}}}
    started = worker(tmp_path, environment)
    try:
        told = until(lambda: heard, 150)
        ended = until(lambda: asked(environment, "flow_runs/filter", body), 60)
    finally:
        killed(started)
        prefect("deployment", "schedule", "clear", "audit/nightly", "-y")
    assert told, "nobody was told of the failed gate within 150 s"
    (run, *_) = ended
    assert run["auto_scheduled"]
    assert run["state_type"] == "FAILED"
    text = json.loads(told[0])["text"]
    assert text.startswith("gated: 1 of 1 gates failed (run ")
    assert "FAILED  layers.detectors: min 99: " in text
    assert text.endswith(f"/runs/flow-run/{run['id']}")
    shown = asked(environment, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert {item["key"] for item in shown} == {"gated-verdict", "gated-gates", "gated-figures"}


TURNS = """
import threading, time
from types import SimpleNamespace
from flows.turns import turn

said, inside, most = [], [], []
both = threading.Barrier(2)
job = SimpleNamespace(stage=SimpleNamespace(determined_by={"device"}), settings=SimpleNamespace(device="cuda"))
job.name = "tally"
session = SimpleNamespace(stop=threading.Event(), progress=SimpleNamespace(say=said.append))

def work():
    with turn(job, session):
        inside.append(1)
        most.append(len(inside))
        WORK
        inside.pop()

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(max(most), both.broken, said)
"""


def test_a_limit_on_a_tag_gives_turns(server):
    """As `prefect concurrency-limit create gpu 1` makes it; the first two have no limit, and wait for nobody."""

    def turns(work: str) -> str:
        return called([sys.executable, "-c", TURNS.replace("WORK", work)], ROOT, server)

    assert turns("both.wait(60)") == "2 False []\n"  # each leaves only when the other is inside, too
    called([str(PREFECT), "concurrency-limit", "create", "gpu", "1"], ROOT, server)
    try:
        waits = "tally        waits for its turn: Prefect has a limit on the tag gpu"
        assert turns("time.sleep(6)") == f"1 False [{waits!r}]\n"
    finally:
        called([str(PREFECT), "concurrency-limit", "delete", "gpu"], ROOT, server)


EVIL = """
import sys, json
from prefect import flow
from flows.posting import posting, show
from flows.run import Outcome
from storage import RunRecord, open_files

names = json.loads(sys.argv[1])
row = {"value": 1.0, "limit": 2.0, "passed": False, "low": None, "high": None, "verdict": "failed"}
gates = tuple(row | {"gate": name, "note": name} for name in names)
figures = tuple({"stage": name, "figure": name, "row": name, "value": 0.5, "low": 0.1, "high": 0.9} for name in names)

@flow(flow_run_name=names[0])
def evil():
    run = RunRecord("r", names[0], names[1], 0.0, 1.0, "gate failed", {}, gates, figures)
    with posting() as post:
        show(Outcome(run, None), open_files(sys.argv[2]), post)

evil()
"""


@pytest.mark.browser
def test_hostile_names_are_text_in_both_of_prefects_interfaces(server, browser, tmp_path):
    called([sys.executable, "-c", EVIL, json.dumps(HOSTILE), str(tmp_path)], ROOT, server)
    shown = [item for item in asked(server, "artifacts/filter", {}) if (item["key"] or "").startswith("img-src-x")]
    assert {item["type"] for item in shown} == {"markdown", "table"}
    tab = browser.new_page(viewport={"width": 1440, "height": 1000})
    heard: list[str] = []
    tab.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: heard.append(request.url) if "evil.example" in request.url else None)
    base = server["PREFECT_API_URL"].removesuffix("/api")
    for item in shown:
        for interface in ("", "/v2"):
            tab.goto(f"{base}{interface}/artifacts/artifact/{item['id']}")
            tab.get_by_text("onerror=alert(1)").nth(2).wait_for()  # beside the title's, a cell
            assert tab.locator("img[src='x'], [href*=evil], [href^=javascript], [src*=evil]").count() == 0
    tab.close()
    assert heard == []
