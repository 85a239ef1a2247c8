"""What keeping freed memory is worth (`microtome.memory.keep_freed`): a forward pass with it and without, in turn.

    python benchmarks/kept_memory.py [--networks resnet50 vgg16 squeezenet1_0 alexnet] [--rounds 3]

One JSON line per network: milliseconds of the processor per image of the bare forward pass up to the layer (batches of
16, 224 x 224, one thread), pages that the system cleared in it per image, and the process's peak memory; each the
median of processes of its own, which take turns. `ratio` is the time without by the time with it, and `same_maps`
whether all made the same maps, by their digests.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.dissection import LAYERS, SIZE, device_name

BATCH, PASSES = 16, 8


def measured(network: str, *, kept: bool) -> dict:
    """In this process."""
    import hashlib

    import torch

    from microtome.memory import keep_freed
    from microtome.networks import Capture, NetworkSpec, load_network, walk

    if kept and not keep_freed():
        raise SystemExit("the C library of this machine is not glibc")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = load_network(NetworkSpec(f"torchvision.models:{network}", {}))
    layers = walk(module, (SIZE, SIZE), [LAYERS[network]])
    batch = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with Capture(module, layers) as capture:
        maps = capture(batch)[LAYERS[network]]
        began, faults = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(PASSES):
            capture(batch)
        spent = time.process_time() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms": spent / PASSES / BATCH * 1e3,
        "pages": (usage.ru_minflt - faults) / PASSES / BATCH,
        "peak_mib": usage.ru_maxrss / 1024,
        "maps": hashlib.sha256(maps.numpy().tobytes()).hexdigest(),
    }


def line(network: str, rounds: int) -> dict:
    """Medians over processes, which take turns."""
    found: dict[bool, list[dict]] = {False: [], True: []}
    for _ in range(rounds):
        for kept, runs in found.items():
            call = [sys.executable, __file__, "--networks", network, "--one", str(int(kept))]
            runs.append(json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout))
    middle = {
        kept: {key: statistics.median(run[key] for run in runs) for key in ("ms", "pages", "peak_mib")}
        for kept, runs in found.items()
    }
    return {
        "network": network,
        "layer": LAYERS[network],
        "ratio": round(middle[False]["ms"] / middle[True]["ms"], 2),
        "without": {key: round(value, 1) for key, value in middle[False].items()},
        "with": {key: round(value, 1) for key, value in middle[True].items()},
        "same_maps": len({run["maps"] for runs in found.values() for run in runs}) == 1,
        "device": device_name("cpu"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "vgg16", "squeezenet1_0", "alexnet"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measured(options.networks[0], kept=bool(options.one))))
        return
    for network in options.networks:
        print(json.dumps(line(network, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
