"""What a dissection costs whose maps are stored, and whose maps are made again: one JSON line per way.

    python benchmarks/recomputed.py [DATA] [--network squeezenet1_0] [--layers features.12] [--pictures 548]

With DATA, which holds broden-mini/ and weights/, its photographs and weights; else generated creatures and random
weights. Each way comes from a process of its own, on one thread, with 1,000 resamples and 200 permutations: `none` and
`lz4` store the maps, `recompute` does not. `activations_mb`: what that stage leaves on the disk; `workspace_mb`: what
all stages do. `seconds`: of the processor, by stage, which other work on the machine disturbs less than the clock;
`whole`: of all of them together, the report left out; `times`: by those of `none`. `same`: whether every file of every
other stage has the bytes that it has by `none`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.dissection import SIZE, device_name
from benchmarks.pages import Quiet
from flows.plan import Plan, Request
from tasks.execution import execute
from tasks.session import Session

WAYS = ("none", "lz4", "recompute")


def audit(options: argparse.Namespace, way: str) -> dict[str, object]:
    """The audit file."""
    weights = options.data / "weights" / f"{options.network}.safetensors" if options.data else None
    creatures = {"format": "creatures", "count": options.pictures, "size": SIZE}
    photographs = {"format": "broden", "root": str(options.data / "broden-mini"), "limit": options.pictures}
    return {
        "name": "recomputed",
        "network": {
            "load": f"torchvision.models:{options.network}", "layers": options.layers, "input": {"size": [SIZE, SIZE]},
            **({"weights": str(weights)} if weights and weights.exists() else {}),
        },
        "dataset": photographs if options.data else creatures,
        "execution": {"storage": way, "threads": 1},
        "stages": {"dissection": {}, "report": False},
    }  # fmt: skip


def carried_out(options: argparse.Namespace, way: str) -> dict[str, object]:
    """One way, in this process: its figures, and the checksums of what it wrote."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audit.yaml"
        file.write_text(json.dumps(audit(options, way)))  # JSON is YAML
        plan = Plan(Request(file))
        session = Session(plan.files, replace(plan.settings, threads=1), Quiet())
        seconds, written, sizes, images = {}, {}, {}, 0
        for job in plan.jobs:
            began = time.process_time()
            artifact, _ = execute(job, session)
            seconds[job.name], sizes[job.name] = round(time.process_time() - began, 1), artifact.size
            entries = artifact.manifest["files"].items()
            images = artifact.row_count("images") if job.name == "index" else images
            written |= {f"{job.name}/{name}": entry["sha256"] for name, entry in entries if job.name != "activations"}
    return {
        "pictures": images,
        "activations_mb": round(sizes["activations"] / 1e6, 2),
        "workspace_mb": round(sum(sizes.values()) / 1e6, 1),
        "seconds": seconds,
        "whole": round(sum(seconds.values()), 1),
        "written": written,
    }


def main() -> None:
    """Print a line per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--layers", nargs="+", default=["features.12"])
    parser.add_argument("--pictures", type=int, default=548)
    parser.add_argument("--way", choices=WAYS, help="this one alone, with checksums")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(carried_out(options, options.way)))
        return
    plain: dict[str, object] = {}
    for way in WAYS:
        call = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        found = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        plain, same = plain or found, not plain or found["written"] == plain["written"]
        about = {"benchmark": "recomputed", "network": options.network, "layers": options.layers, "storage": way}
        line = about | {name: value for name, value in found.items() if name != "written"}
        line |= {"times": round(found["whole"] / plain["whole"], 2), "same": same}
        print(json.dumps(line | {"device": device_name("cpu"), "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
