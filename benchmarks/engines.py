"""What a compiled network, another memory layout and bf16 gain, and what they change: one JSON line per network.

    python benchmarks/engines.py [DATA] [--networks alexnet resnet50 squeezenet1_0] [--ways "eager contiguous bf16"]

`forward_ms`: of one picture, up to the layer, on one thread, by engine, layout and arithmetic, in milliseconds of the
processor: the least of ten rounds over batches of 16 in which all ways take turns; `quicker`: how many times as fast as
eager and contiguous in float32, beside which the other ways stand. `first_s`: what the first batch takes, compiling
included, on the clock. `deviation`: of maps from those, at most, as a share of the layer's largest value. With DATA,
which holds broden-mini/ and weights/, every unit is labelled by each way: `changed` is the share of units whose label,
or being a detector, is another one, with a 95 % Wilson interval. Weights are random but for squeezenet1_0's, which are
in DATA.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torchvision

from benchmarks.dissection import LAYERS, SIZE, device_name
from benchmarks.pages import Quiet
from flows.plan import Plan, Request
from microtome.arithmetic import Arithmetic, computing
from microtome.memory import keep_freed
from microtome.networks import Capture, walk
from microtome.networks.engine import FORMATS, CompiledCapture, capturing
from microtome.quantify.intervals import wilson
from tasks.execution import execute
from tasks.session import Session

BATCH, ROUNDS = 16, 10
PLAIN = "eager contiguous"
WAYS = [f"{engine} {layout}" for engine in ("eager", "compiled") for layout in FORMATS] + [f"{PLAIN} bf16"]
"""Engine, layout and, where it is another one than float32, arithmetic."""


def timed(network: str, ways: list[str], count: int) -> dict[str, object]:
    """Times and deviation of the ways to compute one network's maps."""
    torch.manual_seed(0)
    batch = torch.randn(BATCH, 3, SIZE, SIZE)
    calls, maps, first = {}, {}, {}
    for name in ways:
        engine, layout, arithmetic = understood(name)
        torch.manual_seed(1)
        module = getattr(torchvision.models, network)().eval()
        layers = walk(module, (SIZE, SIZE), [LAYERS[network]])
        capture = capturing(engine, module.to(memory_format=FORMATS[layout]), layers).__enter__()
        shown = batch.contiguous(memory_format=FORMATS[layout])
        calls[name] = partial(computed, arithmetic, capture, shown, LAYERS[network])
        began = time.perf_counter()
        maps[name] = calls[name]()
        if engine == "compiled":
            first[name] = round(time.perf_counter() - began, 1)
    least = rounds(calls, count)
    largest = float(maps[PLAIN].abs().max())
    return {
        "forward_ms": {name: round(seconds / BATCH * 1e3, 2) for name, seconds in least.items()},
        "quicker": {name: round(least[PLAIN] / seconds, 2) for name, seconds in least.items()},
        "first_s": first,
        "deviation": {name: float(f"{(own - maps[PLAIN]).abs().max() / largest:.1e}") for name, own in maps.items()},
    }


def understood(way: str) -> tuple[str, str, str]:
    """Engine, layout and arithmetic."""
    engine, layout, *more = way.split()
    return engine, layout, more[0] if more else "float32"


def computed(
    arithmetic: Arithmetic, capture: Capture | CompiledCapture, shown: torch.Tensor, layer: str
) -> torch.Tensor:
    """The layer's maps."""
    with computing(arithmetic):
        return capture(shown)[layer].float()


def rounds(calls: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Least seconds of the processor of each call, which take turns."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(count):
        for name, call in calls.items():
            began = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - began)
    return least


def changed(network: str, options: argparse.Namespace, ways: list[str]) -> dict[str, list[float]]:
    """Share of units that another way labels otherwise."""
    found = {name: labelled(network, options.data, name, options.pictures) for name in ways}
    plain = found.pop(PLAIN)
    told = {}
    for name, labels in found.items():
        differ = sum(one != other for one, other in zip(plain, labels, strict=True))
        ends = wilson(differ, len(plain))
        told[name] = [round(float(value), 5) for value in (differ / len(plain), *ends)]
    return told


def labelled(network: str, data: Path, way: str, pictures: int) -> list[tuple[object, ...]]:
    """Label of each unit, and whether it is a detector."""
    engine, layout, arithmetic = understood(way)
    weights = data / "weights" / f"{network}.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audit.yaml"
        file.write_text(json.dumps({  # JSON is YAML
            "name": "engines",
            "network": {
                "load": f"torchvision.models:{network}", "layers": [LAYERS[network]], "input": {"size": [SIZE, SIZE]},
                **({"weights": str(weights)} if weights.exists() else {}),
            },
            "dataset": {"format": "broden", "root": str(data / "broden-mini"), "limit": pictures},
            "execution": {"engine": engine, "layout": layout, "arithmetic": arithmetic, "threads": 1},
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
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help=f"beside {PLAIN}")
    parser.add_argument("--pictures", type=int, default=548, help="that units are labelled by, the first so many")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    ways = list(dict.fromkeys([PLAIN, *options.ways]))
    keep_freed()  # as the stages do
    torch.set_num_threads(1)
    for network in options.networks:
        line = {
            "benchmark": "engines",
            "network": network,
            "layer": LAYERS[network],
            **timed(network, ways, options.rounds),
        }
        line |= {"pictures": options.pictures, "changed": changed(network, options, ways)} if options.data else {}
        print(json.dumps(line | {"device": device_name("cpu"), "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
