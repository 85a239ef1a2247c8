"""What a compiled network and another memory layout gain, and what they change: one JSON line per network.

    python benchmarks/engines.py [DATA] [--networks alexnet resnet50 squeezenet1_0]

`forward_ms`: of one picture, up to the layer, on one thread, by engine and layout, in milliseconds of the processor:
the least of ten rounds over batches of 16 in which all ways take turns; `quicker`: how many times as fast as eager and
contiguous. `first_s`: what the first batch takes, compiling included, on the clock. `deviation`: of maps from those of
eager and contiguous, at most, as a share of the layer's largest value. With DATA, which holds broden-mini/ and
weights/, every unit is labelled by each way: `changed` is the share of units whose label, or being a detector, is
another one than by eager and contiguous, with a 95 % Wilson interval. Weights are random but for squeezenet1_0's, which
are in DATA.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torchvision

from benchmarks.dissection import LAYERS, SIZE, device_name
from benchmarks.pages import Quiet
from flows.plan import Plan, Request
from microtome.networks import walk
from microtome.networks.engine import FORMATS, capturing
from microtome.quantify.intervals import wilson
from tasks.execution import execute
from tasks.session import Session

BATCH, ROUNDS = 16, 10
WAYS = [(engine, layout) for engine in ("eager", "compiled") for layout in FORMATS]
PLAIN = "eager contiguous"


def timed(network: str) -> dict[str, object]:
    """Times and deviation of the ways to compute one network's maps."""
    torch.manual_seed(0)
    batch = torch.randn(BATCH, 3, SIZE, SIZE)
    calls, maps, first = {}, {}, {}
    for engine, layout in WAYS:
        torch.manual_seed(1)
        module = getattr(torchvision.models, network)().eval()
        layers = walk(module, (SIZE, SIZE), [LAYERS[network]])
        capture = capturing(engine, module.to(memory_format=FORMATS[layout]), layers).__enter__()
        shown, name = batch.contiguous(memory_format=FORMATS[layout]), f"{engine} {layout}"
        calls[name] = lambda capture=capture, shown=shown: capture(shown)[LAYERS[network]]
        began = time.perf_counter()
        maps[name] = calls[name]()
        if engine == "compiled":
            first[name] = round(time.perf_counter() - began, 1)
    least = rounds(calls)
    largest = float(maps[PLAIN].abs().max())
    return {
        "forward_ms": {name: round(seconds / BATCH * 1e3, 2) for name, seconds in least.items()},
        "quicker": {name: round(least[PLAIN] / seconds, 2) for name, seconds in least.items()},
        "first_s": first,
        "deviation": {name: float(f"{(own - maps[PLAIN]).abs().max() / largest:.1e}") for name, own in maps.items()},
    }


def rounds(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least seconds of the processor of each call, which take turns."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - began)
    return least


def changed(network: str, data: Path) -> dict[str, list[float]]:
    """Share of units that another way labels otherwise."""
    found = {name: labelled(network, data, *name.split()) for name in (f"{way[0]} {way[1]}" for way in WAYS)}
    plain = found.pop(PLAIN)
    told = {}
    for name, labels in found.items():
        differ = sum(one != other for one, other in zip(plain, labels, strict=True))
        ends = wilson(differ, len(plain))
        told[name] = [round(float(value), 5) for value in (differ / len(plain), *ends)]
    return told


def labelled(network: str, data: Path, engine: str, layout: str) -> list[tuple[object, ...]]:
    """Label of each unit, and whether it is a detector."""
    weights = data / "weights" / f"{network}.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audit.yaml"
        file.write_text(json.dumps({  # JSON is YAML
            "name": "engines",
            "network": {
                "load": f"torchvision.models:{network}", "layers": [LAYERS[network]], "input": {"size": [SIZE, SIZE]},
                **({"weights": str(weights)} if weights.exists() else {}),
            },
            "dataset": {"format": "broden", "root": str(data / "broden-mini")},
            "execution": {"engine": engine, "layout": layout, "threads": 1},
            "stages": {"dissection": {"bootstrap": 20, "permutations": 0}},
        }))  # fmt: skip
        plan = Plan(Request(file))
        session = Session(plan.files, plan.settings, Quiet())
        for job in plan.jobs:
            artifact, _ = execute(job, session)
            if job.name == "dissection":
                rows = artifact.table("units").to_pylist()
                return [(row["concept"], row["detector"]) for row in rows]
    raise RuntimeError("the audit must have a dissection, got none")


def main() -> None:
    """Print a line per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--networks", nargs="+", choices=list(LAYERS), default=["alexnet", "resnet50", "squeezenet1_0"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for network in options.networks:
        line = {"benchmark": "engines", "network": network, "layer": LAYERS[network], **timed(network)}
        line |= {"changed": changed(network, options.data)} if options.data else {}
        print(json.dumps(line | {"device": device_name("cpu"), "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
