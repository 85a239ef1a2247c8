"""What the filter loss adds to a training step: VGG-16, batch 32, forward and backward through every layer.

    python benchmarks/filter_loss.py [--repeats N] [--threads T] [--device cpu|cuda]

Steps with and without the loss take turns in one process; each line gives the median of both and their ratio, over all
repeats. Random weights, which changes no cost. Needs torch and torchvision.
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

from benchmarks.dissection import device_name
from microtome.disentangle.interpretable import interpretable_cnn
from microtome.disentangle.training import Trainer, TrainingRecipe

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    trainers = {}
    strengths = {"with": 1.0, "without": 0.0}
    for name, strength in strengths.items():
        network = interpretable_cnn("torchvision.models:vgg16", size=(224, 224), mask={}).to(options.device)
        trainers[name] = Trainer(network.train(), 0, TrainingRecipe(1, BATCH, (1e-5, 1e-5), strength))
    # Without any of it: the twin still measures the loss that it does not follow.
    trainers["without"]._press = lambda *_: 0.0
    pictures = torch.rand(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(options.device)
    labels = (torch.arange(BATCH) % 2).to(options.device)
    took: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(options.repeats + 1):
        for name, trainer in trainers.items():
            began = time.perf_counter()
            trainer.step(pictures, labels, strengths[name])
            if options.device == "cuda":
                torch.cuda.synchronize()
            if turn:
                took[name].append(time.perf_counter() - began)
    medians = {f"{name}_s": round(statistics.median(values), 3) for name, values in took.items()}
    added = medians["with_s"] / medians["without_s"] - 1
    line = {"network": "vgg16", "batch": BATCH, "threads": options.threads, **medians, "added": round(added, 4)}
    print(json.dumps({**line, "repeats": options.repeats, "device": device_name(options.device)}))


if __name__ == "__main__":
    main()
