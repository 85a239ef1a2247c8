"""Are pictures decoded quicker by threads or by processes? One JSON line.

    python benchmarks/decoding.py DATA [--turns 4]

DATA holds animal-parts/. 480 photographs become the network's input, 16 at a time, by one thread, two threads, and two
processes that hand the batches over, in turns: `per_second`, pictures, on the clock, of each turn;
`processes_by_threads`: two processes by two threads, turn by turn.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.dissection import SIZE, device_name
from microtome.datasets.formats import open_dataset
from microtome.datasets.frame import Frame
from microtome.datasets.source import Source
from microtome.networks.normalisation import Normalisation

BATCH, PICTURES = 16, 480
SOURCE: list[Source] = []  # of this process


def begin(data: str) -> None:
    """Open the data set, once in a process."""
    found = open_dataset("animal-parts", Path(data) / "animal-parts", {}, base=Path())
    scale = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    SOURCE.append(Source(found, Frame((SIZE, SIZE), "squash"), scale, range(len(found.records))))


def batch(first: int) -> np.ndarray:
    """(16, 3, height, width)."""
    return np.stack([SOURCE[0].normalised(image) for image in range(first, first + BATCH)])


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--turns", type=int, default=4)
    options = parser.parse_args()
    begin(options.data)
    spawned = multiprocessing.get_context("spawn")
    pools: dict[str, Executor] = {
        "one thread": ThreadPoolExecutor(1),
        "two threads": ThreadPoolExecutor(2),
        "two processes": ProcessPoolExecutor(2, spawned, begin, (options.data,)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in pools}
    for turn in range(options.turns + 1):
        for name, pool in pools.items():
            began = time.perf_counter()
            list(pool.map(batch, range(0, PICTURES, BATCH)))
            if turn:  # the first one warms up
                speeds[name].append(round(PICTURES / (time.perf_counter() - began), 1))
    both = zip(speeds["two processes"], speeds["two threads"], strict=True)
    line = {"benchmark": "decoding", "pictures": PICTURES, "per_second": speeds}
    line |= {"processes_by_threads": [round(one / other, 2) for one, other in both], "device": device_name("cpu")}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
