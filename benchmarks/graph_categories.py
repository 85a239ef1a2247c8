"""Do a graph's nodes follow their part? Nine categories, two and four layers, held-out pictures only. JSON lines.

    python benchmarks/graph_categories.py DATA [--categories cat dog] [--rule anchors|paper] [--weights random]
        [--depths 2 4] [--cache FOLDER]

DATA holds animal-parts/ and weights/squeezenet1_0.safetensors. Each category twice: a graph is learned from every other
picture and judged in the rest, then the other way round (`--halves 1`: once). A line per category, half, depth and
layer; then, per depth, each category's difference from its rivals with Holm's p-values, and all of them together with
95 % intervals.
Judged are the nodes that the page would show, chosen in the training pictures. `shuffled`: their places exchanged among
the pictures. FOLDER keeps what was measured. Needs torch and torchvision; no Prefect.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from scipy.stats import norm

from benchmarks.animals import SIZE, Scene, learned_from, scene_of
from microtome.datasets import open_dataset
from microtome.disentangle import graph
from microtome.disentangle.graph_keys import Measure, Of
from microtome.disentangle.graph_layers import seen_in
from microtome.disentangle.graph_metrics import RESAMPLES, SHOWN, JudgedLayer, MovedLayer, chosen_nodes, steadiness
from microtome.quantify.intervals import mean_interval, paired_interval
from microtome.quantify.shift import Shifted

LAYERS = {2: ["features.9", "features.12"], 4: ["features.7", "features.9", "features.10", "features.12"]}
PERMUTATIONS = 200
RIVALS = {"filters": Of.DIFFERENCE, "themselves frozen": Of.OWN_FROZEN}


def judged(scene: Scene, train, options, depth: int):
    """By layer, what `steadiness` says of the chosen nodes in the held-out pictures; and with their places shuffled."""
    learned = learned_from(scene, train, LAYERS[depth], rule=options.rule, rounds=options.rounds)
    seen, after = (seen_in(learned, [maps[part.name] for part in learned], SIZE) for maps in (scene.maps, scene.moved))
    kept, offset = ~train, scene.shifted.offset / np.array(SIZE[::-1])
    flags = [torch.from_numpy(some) for some in (train, kept)]
    shown = Shifted(scene.shifted.offset[kept], scene.shifted.inside[kept])
    marks = {name: places[kept] for name, places in scene.marks.items()}
    order = torch.from_numpy(np.random.default_rng(0).permutation(int(kept.sum())))
    found = {}
    for part, own, moved in zip(learned, seen, after, strict=True):
        best = chosen_nodes(own.of(flags[0]), moved.of(flags[0]), offset[train], count=SHOWN // depth)
        maps, copy = (every[part.name][kept][:, part.filters.numbers] for every in (scene.maps, scene.moved))
        held = JudgedLayer(
            own.of(flags[1]), maps, part.filters.geometry, marks, MovedLayer(moved.of(flags[1]), copy, shown)
        )
        steady = steadiness(held, best, size=SIZE, permutations=PERMUTATIONS)
        mixed = replace(held, seen=replace(held.seen, position=held.seen.position[order]), moved=None)
        chance = steadiness(mixed, best, size=SIZE, permutations=PERMUTATIONS)
        found[part.name] = figures(steady, chance, nodes=len(part.kept), judged=len(best))
    return found


def figures(steady, chance, **more):
    """All that is kept of a layer."""
    value = {(row.metric, row.of): row.value for row in steady.rows}
    mixed = {(row.metric, row.of): row.value for row in chance.rows}
    return {
        **more,
        "instability": value[Measure.INSTABILITY, Of.NODES],
        "of filters": value[Measure.INSTABILITY, Of.FILTERS],
        "frozen": value[Measure.INSTABILITY, Of.NODES] - value[Measure.INSTABILITY, Of.OWN_FROZEN],
        "best constant": value[Measure.INSTABILITY, Of.CONSTANT],
        "shuffled": mixed[Measure.INSTABILITY, Of.NODES],
        "shuffled tracks": mixed[Measure.TRACKS, Of.NODES],
        "own spread": value[Measure.SPREAD, Of.NODES],
        **{
            f"{name}{of}": value[measure, key]
            for of, key in (("", Of.NODES), (" of filters", Of.FILTERS))
            for name, measure in (("slope", Measure.SLOPE), ("follow", Measure.FOLLOWS), ("track", Measure.TRACKS))
        },
        "drawn": {name.value: own.tolist() for name, own in steady.drawn.items()},
        "slopes": {name.value: own.tolist() for name, own in steady.slopes.items()},
    }


class Measured:
    """A category; what was measured of it lies in a file per half and depth."""

    def __init__(self, options, category: str) -> None:
        self.options, self.category = options, category

    @cached_property
    def scene(self) -> Scene:
        return scene_of(self.options.data, self.category, LAYERS[4], weights=self.options.weights)

    def half(self, half: int, depth: int):
        """From the cache where it is there."""
        options = self.options
        name = f"graph-{options.rule}-{options.weights}-{self.category}-{half}-{depth}.json"
        file = options.cache / name if options.cache else None
        if file and file.exists():
            return json.loads(file.read_text())
        started = time.perf_counter()
        train = np.arange(len(self.scene.shifted.offset)) % 2 == half
        found = judged(self.scene, train, options, depth)
        print(name, round(time.perf_counter() - started, 1), file=sys.stderr, flush=True)
        if file:
            file.write_text(json.dumps(found))
        return found


def independent(layers, seed: tuple[int, int]):
    """The same with its resamples in an order of its own: pictures of two categories or halves have nothing in common.

    Within a half the order is one, since what is compared there is compared on the same pictures.
    """
    order = np.random.default_rng(seed).permutation(RESAMPLES)
    return {
        name: own | {kind: {of: np.array(v)[order] for of, v in own[kind].items()} for kind in ("drawn", "slopes")}
        for name, own in layers.items()
    }


def told(options, category: str, found) -> None:
    """A line per half, depth and layer."""
    for key, layers in found.items():
        half, depth = map(int, key.split())
        for layer, own in layers.items():
            values = {name: round(value, 4) for name, value in own.items() if not isinstance(value, dict)}
            line = {"category": category, "rule": options.rule, "weights": options.weights, "half": half}
            print(json.dumps({**line, "depth": depth, "layer": layer, **values}))


def mean_of(found, depth: int, name: str) -> float:
    """Over halves and layers of a category."""
    return float(np.mean([own[name] for key, own in cells(found, depth)]))


def drawn_of(found, depth: int, kind: str, name: str):
    return np.mean([own[kind][name] for _, own in cells(found, depth)], axis=0)


def cells(found, depth: int):
    return [(key, own) for key, layers in found.items() if key.endswith(f" {depth}") for own in layers.values()]


def pooled(options, everything, depth: int) -> None:
    """Each category beside its rivals, then all of them together."""
    base = {"rule": options.rule, "weights": options.weights, "depth": depth, "categories": len(everything)}
    for rival in RIVALS:
        against(base, everything, depth, rival)
    for of, name in ((Of.NODES, "slope"), (Of.FILTERS, "slope of filters")):
        drawn = np.mean([drawn_of(found, depth, "slopes", of.value) for found in everything.values()], axis=0)
        ends = [rounded(value) for value in np.quantile(drawn, (0.025, 0.975))]
        print(json.dumps({**base, name: over_all(everything, depth, name), "low, high": ends}))
    apart = [
        mean_of(found, depth, "track") - mean_of(found, depth, "track of filters") for found in everything.values()
    ]
    more = [rounded(value) for value in mean_interval(np.array(apart))]
    each = {name: over_all(everything, depth, name) for name in MEANS}
    print(json.dumps({**base, **each, "nodes track more, low, high": more}), flush=True)


def against(base, everything, depth: int, rival: str) -> None:
    """Nodes' instability less a rival's: of each category, with Holm's p over them; then of all."""
    own = "of filters" if rival == "filters" else "frozen"
    values = [(mean_of(found, depth, "instability"), mean_of(found, depth, own)) for found in everything.values()]
    whose = (Of.NODES, RIVALS[rival])
    draws = [tuple(drawn_of(found, depth, "drawn", of.value) for of in whose) for found in everything.values()]
    p = [2 * norm.sf(abs(v[0] - v[1]) / (d[0] - d[1]).std()) for v, d in zip(values, draws, strict=True)]
    adjusted = holm(p)
    for number, name in enumerate(everything):
        told = difference(values[number], draws[number])
        print(json.dumps({**base, "category": name, "rival": rival, **told, "holm": rounded(adjusted[number])}))
    together = [tuple(np.mean(part, 0) for part in zip(*group, strict=True)) for group in (values, draws)]
    print(json.dumps({**base, "rival": rival, **difference(*together)}))


def difference(value, drawn):
    """Of two means, and its interval."""
    between = [rounded(own) for own in paired_interval(value, drawn)]
    return {"nodes": rounded(value[0]), "rival's": rounded(value[1]), "difference, low, high": between}


def over_all(everything, depth: int, name: str) -> float:
    return rounded(np.mean([mean_of(found, depth, name) for found in everything.values()]))


MEANS = (
    "track", "track of filters", "shuffled tracks", "follow", "follow of filters", "shuffled", "best constant",
    "own spread", "nodes",
)  # fmt: skip


def holm(p):
    """Adjusted p-values."""
    order, adjusted, worst = np.argsort(p), np.ones(len(p)), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, p[place] * (len(p) - rank)))
        adjusted[place] = worst
    return adjusted


def rounded(value) -> float:
    return round(float(value), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--rule", choices=["anchors", "paper"], default="anchors")
    parser.add_argument("--weights", choices=["imagenet", "random"], default="imagenet")
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--halves", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=graph.ROUNDS)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = open_dataset("animal-parts", options.data / "animal-parts", {})
    names = options.categories or sorted({record.label for record in dataset.records})
    everything = {}
    for name in names:
        measured = Measured(options, name)
        each = itertools.product(range(options.halves), options.depths)
        everything[name] = {
            f"{half} {depth}": independent(measured.half(half, depth), (len(everything), half)) for half, depth in each
        }
    for name, found in everything.items():
        told(options, name, found)
    for depth in options.depths:
        pooled(options, everything, depth)


if __name__ == "__main__":
    main()
