"""How long learning a graph takes by the paper's rule; a line of JSON each. What it is worth: `graph_categories.py`.

    python benchmarks/graph.py [--filters 64] [--images 200] [--side 13] [--layers 1] [--threads 2] [--device cpu|cuda]
    python benchmarks/graph.py --vgg16 --device cuda     as in the paper: 512 filters, 40/40/20/20 nodes

Maps are drawn: blobs at fixed places about a thing that moves, with noise. 20 rounds a layer. Needs no Prefect.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.dissection import device_name
from microtome.disentangle import graph
from microtome.disentangle.graph_inference import LayerMaps

VGG16 = (14, 14, 28, 28)  # top first
ROUNDS = 20  # as in the paper


def drawn(images: int, filters: int, side: int, device: str) -> LayerMaps:
    """Blobs about a moving thing."""
    draw = torch.Generator().manual_seed(side)
    places = (torch.arange(side) + 0.5) / side
    thing = 0.5 + 0.2 * (torch.rand(images, 1, 2, generator=draw) - 0.5)
    where = thing + 0.6 * (torch.rand(filters, 2, generator=draw) - 0.5)
    x, y = (torch.exp(-(places - where[..., axis, None]).square() / (2 * 0.05**2)) for axis in (0, 1))
    maps = y[..., :, None] * x[..., None, :] + 0.05 * torch.rand(images, filters, side, side, generator=draw)
    return LayerMaps(graph.standardised(maps, graph.deviations(maps)).to(device), places.to(device), places.to(device))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("filters", 64), ("images", 200), ("side", 13), ("layers", 1), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--vgg16", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sides = VGG16 if options.vgg16 else (options.side,) * options.layers
    filters = 512 if options.vgg16 else options.filters
    layers = [drawn(options.images, filters, side, options.device) for side in sides]
    started = time.perf_counter()
    learned = graph.learn(layers, rounds=ROUNDS)
    line = {
        "device": device_name(options.device),
        "threads": options.threads,
        "images": options.images,
        "filters": filters,
        "sides": sides,
        "nodes_per_filter": [layer.nodes.sigma.shape[1] for layer in learned],
        "rounds": ROUNDS,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
