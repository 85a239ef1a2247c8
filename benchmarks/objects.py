"""What a workspace in an object store costs beside one in a folder: the same audit, first and cached; writes Markdown.

    python benchmarks/objects.py > benchmarks/results/objects.md

The store is `rclone serve s3` on this machine; once as it is, once with 30 ms before each request's answer, as a store
that is some way off has. Prefect is left out. Each figure is the least of the rounds, which take turns.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import yaml

from flows.claiming import claiming
from flows.plan import Plan, Request
from flows.run import carry_out, finish, from_cache, session_of, start
from storage.bucket import Bucket

ROUNDS, PICTURES, LATENCY = 2, 200, 0.03
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
KEYS = ("AKIAMEASUREDMEASURED", "measured/measured/measured/measured/meas")
_REQUESTS = [0, 0.0]  # how many, and what each waits in addition, in seconds
_plain = Bucket._worded


@contextmanager
def _slow(self: Bucket, name: str) -> Iterator[None]:
    _REQUESTS[0] += 1
    time.sleep(_REQUESTS[1])
    with _plain(self, name):
        yield


def store(folder: Path) -> subprocess.Popen[bytes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "measured").mkdir(parents=True)
    place = Path(sys.executable).with_name("rclone")
    serve = [place, "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(KEYS)]
    process = subprocess.Popen([*serve, folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEYS[0],
        "AWS_SECRET_ACCESS_KEY": KEYS[1],
        "AWS_REGION": "us-east-1",
    }
    time.sleep(2)
    return process


def audit(file: Path, workspace: str) -> tuple[float, float, int]:
    """Seconds of an audit, planning included, of the clock and of this process's processor; and requests."""
    began, used, _REQUESTS[0] = time.perf_counter(), time.process_time(), 0
    plan = Plan(Request(file, workspace=workspace))
    with claiming(plan):
        if from_cache(plan) is None:
            session = session_of(plan)
            run = start(plan, session)
            finish(plan, run, {job.name: carry_out(job, session, refresh=False) for job in plan.jobs}, "done")
    return time.perf_counter() - began, time.process_time() - used, int(_REQUESTS[0])


def one_round(file: Path, folder: Path, number: int) -> dict[str, list[tuple[float, float, int]]]:
    """First, again, and from a machine that has no copies; for each place."""
    found = {}
    for name, latency, workspace in (
        ("a folder", 0.0, str(folder / f"local-{number}")),
        ("s3, loopback", 0.0, f"s3://measured/near-{number}"),
        ("s3, 30 ms more", LATENCY, f"s3://measured/far-{number}"),
    ):
        _REQUESTS[1] = latency
        os.environ["XDG_CACHE_HOME"] = str(folder / f"cache-{number}")
        found[name] = [audit(file, workspace), audit(file, workspace)]
        os.environ["XDG_CACHE_HOME"] = str(folder / f"cache-{number}-other")
        found[name].append(audit(file, workspace))
    return found


def main() -> None:
    Bucket._worded = _slow  # type: ignore[method-assign]
    folder = Path(tempfile.mkdtemp())
    file = folder / "audit.yaml"
    file.write_text(yaml.safe_dump(AUDIT))
    process = store(folder / "store")
    try:
        audit(file, str(folder / "warm"))
        rounds = [one_round(file, folder, number) for number in range(ROUNDS)]
        size = sum(found.stat().st_size for found in (folder / "local-0").rglob("*") if found.is_file())
    finally:
        process.kill()
        shutil.rmtree(folder)
    print(f"{PICTURES} pictures, one thread, {size / 1e6:.1f} MB of results; seconds, the least of {ROUNDS} rounds.\n")
    print("Of the clock, and, in brackets, of the processor by the audit's process alone.\n")
    print("| workspace | first | cached | cached, another machine | requests of each |\n|-|-|-|-|-|")
    for name in rounds[0]:
        least = [[min(found[name][step][kind] for found in rounds) for kind in (0, 1)] for step in range(3)]
        requests = ", ".join(str(rounds[0][name][step][2]) for step in range(3))
        print(f"| {name} | " + " | ".join(f"{clock:.1f} ({used:.1f})" for clock, used in least) + f" | {requests} |")


if __name__ == "__main__":
    main()
