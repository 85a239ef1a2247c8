"""What a workspace in an object store costs beside one in a folder: the same audit, first and cached, and first by more
than one process; whether the bytes are the same. Writes Markdown.

    python benchmarks/objects.py > benchmarks/results/objects.md

The stores are those of the tests on this machine: `rclone serve s3`, once as it is, once with 30 ms before each
request's answer, as a store that is some way off has; and Azurite, where it is installed. Prefect is left out. Each
figure is the least of the rounds, which take turns.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import yaml

from flows.claiming import claiming
from flows.plan import Plan, Request
from flows.run import carry_out, finish, from_cache, session_of, start
from flows.runners import carrying
from storage.bucket import Bucket

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.stores import azure_store, rclone_store

ROUNDS, PICTURES, LATENCY = 2, 200, 0.03
RUNNERS = {
    "two processes": ("execution.processes=2",),
    "a Dask cluster of two": ("execution.runner=dask", "execution.processes=2"),
}
AUDIT = {
    "name": "objects",
    "network": {
        "load": "microtome.networks.small:creature_net",
        "layers": ["features.12"],
        "input": {"size": [96, 96], "mean": [0.5] * 3, "std": [0.25] * 3},
    },
    "dataset": {"format": "creatures", "count": PICTURES, "seed": 3},
    "stages": {"dissection": {"bootstrap": 200, "permutations": 50}, "report": {}},
    "execution": {"threads": 1},
}
_REQUESTS = [0, 0.0]  # how many, and what each waits in addition, in seconds
_plain = Bucket._worded
Step = tuple[float, float, int]  # seconds of the clock, of this process's processor, requests


@contextmanager
def _slow(self: Bucket, name: str) -> Iterator[None]:
    _REQUESTS[0] += 1
    time.sleep(_REQUESTS[1])
    with _plain(self, name):
        yield


def audit(file: Path, workspace: str, *overrides: str) -> tuple[Step, dict[str, str]]:
    """Seconds of an audit, planning included, of the clock and of this process's processor; requests; and the checksums
    of all files of its stages but the report's pages, which say when they were made.
    """
    began, used, _REQUESTS[0] = time.perf_counter(), time.process_time(), 0
    plan = Plan(Request(file, workspace=workspace, overrides=overrides))
    with claiming(plan):
        outcome = from_cache(plan)
        if outcome is None:
            with carrying(plan) as carry:
                session = session_of(plan)
                run = start(plan, session)
                done = {job.name: carry_out(job, session, refresh=False, carry=carry) for job in plan.jobs}
                outcome = finish(plan, run, done, "done")
    step = time.perf_counter() - began, time.process_time() - used, int(_REQUESTS[0])
    made = {job.name: session_of(plan).store.find(job.key) for job in plan.jobs}
    if outcome.run.status != "done":
        raise SystemExit(f"{workspace}: the audit must be done, got {outcome.run.status}")
    return step, {
        f"{name}/{file}": entry["sha256"]
        for name, found in made.items()
        for file, entry in (found.manifest["files"] if found else {}).items()
        if not file.endswith(".html")
    }


def one_round(file: Path, folder: Path, number: int, places: dict[str, tuple[float, str]]) -> dict[str, list[Step]]:
    """First, again, and from a machine that has no copies; for each place. Then by more than one process."""
    found: dict[str, list[Step]] = {}
    bytes_: list[dict[str, str]] = []
    for name, (latency, place) in places.items():
        _REQUESTS[1] = latency
        found[name] = []
        for machine in ("cache", "cache", "other"):
            os.environ["XDG_CACHE_HOME"] = str(folder / f"{machine}-{number}")
            step, made = audit(file, f"{place}/round-{number}-{latency}")
            found[name].append(step)
            bytes_.append(made)
    _REQUESTS[1] = 0.0
    for runner, overrides in RUNNERS.items():
        for name in ("a folder", "s3, loopback"):
            os.environ["XDG_CACHE_HOME"] = str(folder / f"{runner}-{number}")
            step, made = audit(file, f"{places[name][1]}/{runner.split()[1]}-{number}", *overrides)
            found[f"{runner}, {name}"] = [step]
            bytes_.append(made)
    if any(made != bytes_[0] for made in bytes_):
        raise SystemExit("the bytes must be the same everywhere, got others")
    return found


def main() -> None:
    Bucket._worded = _slow  # type: ignore[method-assign]
    folder = Path(tempfile.mkdtemp())
    file = folder / "audit.yaml"
    file.write_text(yaml.safe_dump(AUDIT))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        s3 = stack.enter_context(contextmanager(rclone_store)(folder / "rclone"))
        os.environ |= s3.environment
        places = {
            "a folder": (0.0, str(folder / "local")),
            "s3, loopback": (0.0, f"{s3.address}/near"),
            "s3, 30 ms more": (LATENCY, f"{s3.address}/far"),
        }
        if shutil.which("azurite-blob"):
            azure = stack.enter_context(contextmanager(azure_store)(folder / "azurite"))
            os.environ |= azure.environment
            places["az, loopback"] = 0.0, f"{azure.address}/near"
        audit(file, str(folder / "warm"))
        rounds = [one_round(file, folder, number, places) for number in range(ROUNDS)]
        size = sum(found.stat().st_size for found in (folder / "local/round-0-0.0").rglob("*") if found.is_file())
    print(f"{PICTURES} pictures, one thread, {size / 1e6:.1f} MB of results; seconds, the least of {ROUNDS} rounds.\n")
    print("Of the clock, and, in brackets, of the processor by the audit's process alone. All bytes were equal.\n")
    print("| workspace | first | cached | cached, another machine | requests of each |\n|-|-|-|-|-|")
    for name in places:
        steps = [_least([found[name][step] for found in rounds]) for step in range(3)]
        requests = ", ".join(str(requests) for *_, requests in steps)
        print(f"| {name} | " + " | ".join(f"{clock:.1f} ({used:.1f})" for clock, used, _ in steps) + f" | {requests} |")
    print("\n| who does the work | in a folder | in s3, loopback | ratio |\n|-|-|-|-|")
    for runner in ("", *(f"{runner}, " for runner in RUNNERS)):
        here, there = (
            _least([found[f"{runner}{name}"][0] for found in rounds])[0] for name in ("a folder", "s3, loopback")
        )
        print(f"| {runner.rstrip(', ') or 'this process'} | {here:.1f} | {there:.1f} | {there / here:.2f} |")


def _least(steps: list[Step]) -> Step:
    return min(step[0] for step in steps), min(step[1] for step in steps), steps[0][2]


if __name__ == "__main__":
    main()
