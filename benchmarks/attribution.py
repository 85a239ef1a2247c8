"""What attribution costs beside a plain forward and backward pass, and what batching units gains in visualisation.

    python benchmarks/attribution.py [--networks vgg16 resnet18 squeezenet1_0] [--threads T] [--device cpu|cuda]

Batch 16 at 224 x 224, random weights. The plain pass is `autograd.grad` of the summed logits by the input, in eval
mode, parameters without gradient; rules and plain passes take turns, each figure is a median. A JSON line per network,
and one for feature visualisation: seconds per unit and step with 1 and with 8 units in a batch. Needs torchvision.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torchvision.models

from benchmarks.dissection import device_name
from microtome.visualize.attribution import Target, attribute, scaled
from microtome.visualize.features import FeatureRecipe, visualise
from microtome.visualize.rules import RULES

BATCH = 16


def plain(network: torch.nn.Module, pictures: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    x = pictures.clone().requires_grad_()
    return torch.autograd.grad(network(x)[torch.arange(len(x)), classes].sum(), x)[0]


def timed(call, device: str) -> float:
    began = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def one(name: str, repeats: int, device: str) -> dict:
    network = getattr(torchvision.models, name)(weights=None).eval().requires_grad_(False).to(device)
    pictures = torch.rand(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)
    classes = torch.arange(BATCH).to(device)
    calls = {"plain": lambda: plain(network, pictures, classes)}
    for rule in RULES:
        calls[rule] = lambda rule=rule: attribute(network, pictures, Target(classes), method=rule)
    took: dict[str, list[float]] = {call: [] for call in calls}
    for turn in range(repeats + 1):
        for call, function in calls.items():
            seconds = timed(function, device)
            if turn:
                took[call].append(seconds)
    medians = {call: statistics.median(values) for call, values in took.items()}
    ratios = {f"{rule}_ratio": round(medians[rule] / medians["plain"], 3) for rule in RULES}
    return {"network": name, "batch": BATCH, "plain_ms": round(medians["plain"] / BATCH * 1e3, 2), **ratios}


def batching(device: str) -> dict:
    torch.manual_seed(0)
    network = scaled(torchvision.models.squeezenet1_0(weights=None).eval(), (0.5,) * 3, (0.25,) * 3).to(device)
    steps, found = 8, {}
    for size in (1, 8):
        units = list(range(8))
        recipe = FeatureRecipe((224, 224), steps=steps, batch=size)
        visualise(network, "features.12", units[:size], FeatureRecipe((224, 224), steps=1, batch=size))
        seconds = timed(lambda: visualise(network, "features.12", units, recipe), device)  # noqa: B023
        found[f"ms_per_unit_step_batch_{size}"] = round(seconds / 8 / steps * 1e3, 2)
    gain = found["ms_per_unit_step_batch_1"] / found["ms_per_unit_step_batch_8"]
    return {"network": "squeezenet1_0", "layer": "features.12", **found, "gain": round(gain, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet18", "squeezenet1_0"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.networks:
        line = one(name, options.repeats, options.device)
        print(json.dumps({**line, "threads": options.threads, "device": device_name(options.device)}), flush=True)
    print(json.dumps({**batching(options.device), "threads": options.threads, "device": device_name(options.device)}))


if __name__ == "__main__":
    main()
