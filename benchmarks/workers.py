"""What many workers cost and gain: one JSON line for each measurement.

    python benchmarks/workers.py scaling [--pictures 20000] [--network alexnet] [--rounds 2]
    python benchmarks/workers.py dispatch [--shards 10000]
    python benchmarks/workers.py kills [--kills 20]

`scaling`: extraction and dissection of generated pictures (index, activations, thresholds, tally, null with 200
permutations, dissection with 1,000 resamples) by one process and by two, of one thread each, in turns. On the clock a
machine that has other work gives two processes twice the share of one, so beside the `clock` there are seconds of the
processor: of the `coordinator`, and of the `workers`. `path` is what two cores would have needed that nobody shares:
for each stage the busiest worker's shards, then the merge, and the coordinator. `efficiency` is that of one worker by
twice that of two. What processes need to start counts.

`dispatch`: so many shards that do nothing but write their mark, by two workers of a Dask cluster whose scheduler is a
process of its own: the coordinator's peak memory, and what it and the scheduler spend on a shard. `share` is that by
the 30 s that a shard should take.

`kills`: an audit by two processes, one of which is killed, in mid-shard, so many times; `same` says whether every byte
of every stage is that of an audit that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

LAYERS = {"alexnet": "features.11", "squeezenet1_0": "features.12", "resnet18": "layer4"}
SHARD = 30.0  # s that a shard should take


class Quiet:
    """Progress that nobody sees."""

    def begin(self, *_: object) -> None: ...
    def advance(self, *_: object) -> None: ...
    def end(self, *_: object) -> None: ...
    def say(self, *_: object) -> None: ...


def spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


class Watched:
    """Parts of stages, done by processes whose time is taken.

    Args:
        each: that does them.
    """

    def __init__(self, each) -> None:
        self._each, self.shards, self.path = each, 0.0, 0.0

    def __call__(self, hand, parts):
        before = {process.pid: spent(process) for process in workers()}
        yield from self._each(hand, parts)
        own = [spent(process) - before.get(process.pid, 0.0) for process in workers()]
        self.shards += sum(own)
        self.path += max(own, default=0.0)


def once(file: Path, count: int) -> dict[str, float]:
    """The audit by so many processes of one thread."""
    from flows.handed import audit_text
    from flows.plan import Plan, Request
    from flows.processes import Processes
    from flows.runners import _spread
    from tasks.execution import execute
    from tasks.session import Session

    with tempfile.TemporaryDirectory() as workspace:
        plan = Plan(Request(file, workspace=workspace))
        session = Session(plan.files, plan.settings, Quiet())
        processes = Processes(audit_text(plan, count), count)
        watched = Watched(processes.each)
        jobs = plan.jobs
        began, own = time.perf_counter(), time.process_time()
        for job in jobs:
            execute(job, session, carry=partial(_spread, watched))
        clock, coordinator = time.perf_counter() - began, time.process_time() - own
        processes.close()
    return {"clock": clock, "coordinator": coordinator, "workers": watched.shards, "path": watched.path + coordinator}


def scaling(pictures: int, network: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audit.yaml"
        content = {
            "name": "scaling",
            "network": {
                "load": f"torchvision.models:{network}",
                "layers": [LAYERS[network]],
                "input": {"size": [224, 224]},
            },
            "dataset": {"format": "creatures", "count": pictures, "size": 112},
            "execution": {"threads": 1},
            "stages": {"dissection": {}, "report": False},
        }
        file.write_text(json.dumps(content))
        for _ in range(rounds):
            one, two = once(file, 1), once(file, 2)
            told("scaling", network=network, pictures=pictures, one=rounded(one), two=rounded(two),
                 efficiency=round(one["path"] / (2 * two["path"]), 3),
                 efficiency_clock=round(one["clock"] / (2 * two["clock"]), 3))  # fmt: skip


def empty(folder: str, digest: str, audit: str, job: str, part: str) -> str:
    """A shard that does nothing but write a file and its mark, as `InHand.work` does."""
    from storage import StageKey, StageStore, open_files
    from tasks.execution import _mark

    draft = StageStore(open_files(folder, Path())).part(StageKey("empty", digest), ())
    draft.write(_mark(part), json.dumps([_mark(part)]).encode())
    return json.dumps(draft.entries)


def dispatch(shards: int) -> None:
    from distributed import Client

    import flows.cluster
    from storage import StageKey, open_files
    from tasks.execution import carried_out
    from tasks.session import Session
    from tasks.stage import Settings

    names = {f"{number:09d}": 1 for number in range(shards)}
    inputs = SimpleNamespace(of=lambda *_: None)
    stage = SimpleNamespace(
        name="empty", tables=(), sharded="images", threads="none", determined_by=frozenset(), inputs=inputs,
        shards=lambda *_: names,
    )  # fmt: skip
    settings = Settings(0, "cpu", 1)
    key = StageKey("empty", "0")
    job = SimpleNamespace(name="empty", key=key, stage=stage, settings=settings, options=None, jobs={}, reads={})
    with tempfile.TemporaryDirectory() as folder, made_cluster(folder) as (address, scheduler):
        files = open_files(folder, Path())
        flows.cluster.work = partial(empty, folder, "0")
        client = Client(address)
        cluster = flows.cluster.Cluster(client, "x" * 400)
        list(cluster.each(SimpleNamespace(job=job, session=Session(files, settings, Quiet())), ["warm"]))
        stage.run = None
        before = spent(psutil.Process()), spent(scheduler), time.perf_counter()
        session = Session(files, settings, Quiet())
        carried_out(job, session, lambda hand, parts: cluster.each(hand, [part for part in parts if part]))
        own, scheduling, clock = (
            now - then
            for now, then in zip((spent(psutil.Process()), spent(scheduler), time.perf_counter()), before, strict=True)
        )
        client.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told("dispatch", shards=shards, clock=round(clock, 1), coordinator=round(own, 1), scheduler=round(scheduling, 1),
         peak_mib=round(peak), ms_per_shard=round(1e3 * (own + scheduling) / shards, 2),
         share=round((own + scheduling) / (shards * SHARD), 6))  # fmt: skip


class made_cluster:
    """A scheduler and two workers, processes of their own."""

    def __init__(self, folder: str) -> None:
        self._file = Path(folder) / "scheduler.json"

    def __enter__(self) -> tuple[str, psutil.Process]:
        dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        where = ["--scheduler-file", str(self._file), "--no-dashboard"]
        self._all = [subprocess.Popen([*dask, *where], **quiet, env=environment)]
        while not self._file.exists():
            time.sleep(0.1)
        address = json.loads(self._file.read_text())["address"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", "1", "--nthreads", "1"]
        more = ["--no-dashboard", "--local-directory", str(self._file.parent)]
        self._all += [subprocess.Popen([*worker, *more], **quiet, env=environment) for _ in range(2)]
        return address, psutil.Process(self._all[0].pid)

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._all):
            process.terminate()
            process.wait(30)


def kills(wanted: int) -> None:
    from tests.test_workers import carried, contents, killing, planned, written_audit

    with tempfile.TemporaryDirectory() as folder:
        file = written_audit(Path(folder))
        more = (f"dataset.count={70 * wanted}", "network.load='nets:paused'", "execution.shard_images=48")
        plan = planned(file, "killed", *more, "execution.processes=2")
        began = time.perf_counter()
        with killing(plan, wanted) as struck:
            killed = contents(carried(plan))
        clock = time.perf_counter() - began
        same = killed == contents(carried(planned(file, "whole", *more)))
    told("kills", kills=struck.total(), shards=len(struck), clock=round(clock, 1), files=len(killed), same=same)


def rounded(times: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in times.items()}


def told(what: str, **found: object) -> None:
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    print(json.dumps({"what": what, **found, "machine": machine, "load": round(os.getloadavg()[0], 1)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="what", required=True)
    scale = kinds.add_parser("scaling")
    scale.add_argument("--pictures", type=int, default=20000)
    scale.add_argument("--network", default="alexnet", choices=LAYERS)
    scale.add_argument("--rounds", type=int, default=2)
    kinds.add_parser("dispatch").add_argument("--shards", type=int, default=10000)
    kinds.add_parser("kills").add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    if given.what == "scaling":
        scaling(given.pictures, given.network, given.rounds)
    elif given.what == "dispatch":
        dispatch(given.shards)
    else:
        kills(given.kills)


if __name__ == "__main__":
    main()
