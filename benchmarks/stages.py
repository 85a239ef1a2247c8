"""What every stage costs: one line each, of an audit that asks for all of them.

    python benchmarks/stages.py [--images N] [--threads T]

Audits N generated creatures (96 x 96) with the shipped network, whole, in a workspace of its own; a stage is timed as
an audit carries it out, imports included, on the clock and of the processor, which other work on the machine disturbs
less. `each` are milliseconds of the processor for each of what the stage goes through (pictures, or units, and what it
does with them), and `passes` the same in bare forward passes of one picture: a stage whose work is passes of the
network costs as many of another network's, one whose work is not does not.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.dissection import Quiet, device_name
from flows.plan import Plan, Request
from microtome.networks import NetworkSpec, load_network
from tasks.execution import execute
from tasks.session import Session

SIZE, BATCH = 96, 16
WEIGHTS = Path(__file__).resolve().parent.parent / "microtome/networks/weights/creature_net.safetensors"
# What stages go through, where it is not all pictures: their options, and how many of what.
ASKED = {
    "saliency": ({"images": 8}, 8, "picture, eight methods"),
    "features": ({"units": 4, "steps": 128}, 4 * 128, "unit and step"),
    "reliability": ({"images": 4}, 4, "picture, seven methods"),
    "occlusion": ({"units": 4, "top_images": 3, "minimal_images": 2}, 4 * 3 + 2, "unit and top picture, or picture"),
    "adversarial": ({"images": 32, "eps": [4]}, 32, "picture, three attacks"),
    "tree": ({"category": "bird"}, None, "picture"),
    "graph": ({"category": "bird"}, None, "picture"),
}


def planned(folder: Path, images: int, threads: int) -> Plan:
    """An audit that asks for everything that the data can answer."""
    content = {
        "name": "stages",
        "network": {
            "load": "microtome.networks.small:creature_net", "weights": str(WEIGHTS), "layers": ["features.12"],
            "input": {"size": [SIZE, SIZE], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        },
        "dataset": {"format": "creatures", "count": images, "size": SIZE, "seed": 3},
        "execution": {"threads": threads},
        "stages": {"dissection": {}, **{name: options for name, (options, _, _) in ASKED.items()}},
    }  # fmt: skip
    file = folder / "audit.yaml"
    file.write_text(json.dumps(content))  # JSON is YAML
    return Plan(Request(file))


def forward() -> float:
    """Milliseconds of the processor that a bare forward pass takes, per picture."""
    network = load_network(NetworkSpec("microtome.networks.small:creature_net", {}))
    batch = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        network(batch)
        began = time.process_time()
        for _ in range(20):
            network(batch)
    return (time.process_time() - began) / (20 * BATCH) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bare = forward()
    print(f"{options.images} creatures, {options.threads} thread(s); a forward pass takes {bare:.2f} ms a picture")
    print(f"of the processor; {device_name('cpu')}\n")
    print("| stage | seconds | of the processor | of | each, ms | passes | peak so far, MiB |\n|-|-|-|-|-|-|-|")
    with tempfile.TemporaryDirectory() as folder:
        plan = planned(Path(folder), options.images, options.threads)
        session = Session(plan.files, plan.settings, Quiet())
        for job in plan.jobs:
            began = time.perf_counter(), time.process_time()
            execute(job, session)
            clock, processor = time.perf_counter() - began[0], time.process_time() - began[1]
            _, count, of = ASKED.get(job.stage.name, ({}, None, "picture"))
            each = processor / (count or options.images) * 1e3
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"| {job.name} | {clock:.1f} | {processor:.1f} | {of} | {each:.2f} | {each / bare:.1f} | {peak:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
