"""How long growing a decision tree takes, over the number of positives; a line of JSON each.

    python benchmarks/tree.py [--positives 100 300 1000] [--filters 512] [--threads 1]

Rationales are drawn, not measured: eight modes of decision, each of 40 filters, with noise; as many negatives.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks.dissection import device_name
from microtome.disentangle.decision_tree import RationaleExamples, grow, replay
from microtome.disentangle.rationales import Rationales

MODES, FILTERS_PER_MODE, NOISE = 8, 40, 0.6


def drawn(images: int, filters: int, rng: np.random.Generator, *, positive: bool) -> Rationales:
    """Rationales of modes: a mode's filters fire, and are what the decision rests on."""
    modes = np.zeros((MODES, filters))
    for mode in modes:
        mode[rng.choice(filters, FILTERS_PER_MODE, replace=False)] = 1
    which = rng.integers(MODES, size=images)
    g = modes[which] / FILTERS_PER_MODE**0.5 + NOISE * rng.normal(size=(images, filters)) / filters**0.5
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    x = rng.gamma(2, 20, size=(images, filters)) * (0.3 + modes[which] * (1.5 if positive else 0.0))
    b = rng.normal(scale=0.1, size=images) - (0 if positive else 60)
    return Rationales(x, g, (g * x).sum(1) + b, b, np.ones(images))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--positives", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--filters", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for count in options.positives:
        rng = np.random.default_rng(0)
        state = rng.bit_generator.state
        positives = drawn(count, options.filters, rng, positive=True)
        rng.bit_generator.state = state  # the same modes
        negatives = drawn(count, options.filters, rng, positive=False)
        examples = RationaleExamples(positives, negatives)
        started = time.perf_counter()
        tree = grow(examples)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        replay(examples, tree.merges)
        line = {
            "device": device_name("cpu"),
            "threads": options.threads,
            "positives": count,
            "negatives": count,
            "filters": options.filters,
            "merges": len(tree.merges),
            "second_layer": len(tree.second_layer),
            "seconds": round(seconds, 1),
            "of_which_replay": round(time.perf_counter() - started, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
