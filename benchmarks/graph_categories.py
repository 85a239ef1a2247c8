"""Do a graph's nodes follow their part? Nine categories, two and four layers, held-out pictures only. JSON lines.

    python benchmarks/graph_categories.py DATA [--categories cat dog] [--rule anchors|paper] [--weights random]
        [--depths 2 4] [--cache FOLDER]

DATA holds animal-parts/ and weights/squeezenet1_0.safetensors. Each category twice: a graph is learned from every other
picture and judged in the rest, then the other way round. A line per category, half, depth and layer; then, per depth,
each category's difference from its rivals with Holm's p-values, and all of them together with 95 % intervals.
Judged are the nodes that the page would show, chosen in the training pictures. `shuffled`: their places exchanged among
the pictures. FOLDER keeps what was measured. Needs torch and torchvision; no Prefect.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from scipy.stats import norm

from benchmarks.parts import IMAGENET, SIZE
from microtome.datasets import Frame, open_dataset
from microtome.datasets.base import chosen
from microtome.datasets.source import Source
from microtome.disentangle import graph
from microtome.disentangle.anchors import learn_anchors
from microtome.disentangle.graph_keys import Measure, Of
from microtome.disentangle.graph_layers import GraphFilters, LearnedLayer, raw_maps, seen_in, top_first
from microtome.disentangle.graph_metrics import SHOWN, JudgedLayer, MovedLayer, chosen_nodes, steadiness
from microtome.networks import Capture, match_layers, walk
from microtome.networks.load import NetworkSpec, load_network
from microtome.quantify.intervals import mean_interval, paired_interval
from microtome.quantify.shift import Shifted

WEIGHTS = "weights/squeezenet1_0.safetensors"
LAYERS = {2: ["features.9", "features.12"], 4: ["features.7", "features.9", "features.10", "features.12"]}
FILTERS, SHIFT, PERMUTATIONS, RESAMPLES = 64, 0.15, 200, 300
RIVALS = {"filters": Of.DIFFERENCE, "themselves frozen": Of.OWN_FROZEN}


@dataclass(frozen=True)
class Scene:
    """A category: geometries, maps of its pictures and of their moved copies, by layer; landmarks, and offsets."""

    layers: dict
    maps: dict
    moved: dict
    marks: dict
    shifted: Shifted


def scene_of(options, category: str) -> Scene:
    spec = NetworkSpec("torchvision.models:squeezenet1_0", {}, str((options.data / WEIGHTS).resolve()))
    torch.manual_seed(0)
    network = load_network(replace(spec, weights=None) if options.weights == "random" else spec)
    layers = {layer.name: layer for layer in walk(network, SIZE, match_layers(network, LAYERS[4]))}
    dataset = open_dataset("animal-parts", options.data / "animal-parts", {})
    source = Source(dataset, Frame(SIZE, crop="object"), IMAGENET, chosen(dataset.records, categories=[category]))
    copy = replace(source, shift=SHIFT)
    places = [copy.moved(image) for image in range(len(copy))]
    shown = [source.landmarks(image) for image in range(len(source))]
    marks = {name: np.array([own.get(name, (np.nan, np.nan)) for own in shown]) for name in ("front_legs", "head")}
    shifted = Shifted(np.array([place.offset for place in places]), np.array([place.inside for place in places]))
    return Scene(layers, captured(network, layers, source), captured(network, layers, copy), marks, shifted)


def captured(network, layers, source):
    maps = {name: [] for name in layers}
    with Capture(network, list(layers.values())) as capture:
        for first in range(0, len(source), 15):
            some = range(first, min(first + 15, len(source)))
            found = capture(torch.from_numpy(np.stack([source.normalised(image) for image in some])))
            for name, own in maps.items():
                own.append(found[name].numpy())
    return {name: np.concatenate(own) for name, own in maps.items()}


def learned_from(scene: Scene, train, options, depth: int):
    """A graph of some pictures, and whatever took its time."""
    geometries = [scene.layers[name] for name in LAYERS[depth]]
    geometries = [geometries[number] for number in top_first(geometries)]
    filters = [GraphFilters.most_active(layer, scene.maps[layer.name][train], FILTERS) for layer in geometries]
    copies, anchors, hung = [scene.maps], None, None
    if options.rule == "anchors":
        copies = [scene.maps, scene.moved]
        raw = [raw_maps(geometries[0], copy[geometries[0].name][train], SIZE) for copy in copies]
        offset = torch.from_numpy(scene.shifted.offset[train] / np.array(SIZE[::-1])).float()
        anchors = learn_anchors(*raw, offset)
        hung = graph.hung_on(anchors, *raw)
    layers = [part.maps(np.concatenate([copy[part.geometry.name][train] for copy in copies]), SIZE) for part in filters]
    made = graph.learn(layers, hung, rounds=options.rounds)
    return [
        LearnedLayer(part, layer, None if number else anchors)
        for number, (part, layer) in enumerate(zip(filters, made, strict=True))
    ]


def judged(scene: Scene, train, options, depth: int):
    """By layer, what `steadiness` says of the chosen nodes in the held-out pictures; and with their places shuffled."""
    learned = learned_from(scene, train, options, depth)
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
        return scene_of(self.options, self.category)

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
    everything = {name: {} for name in names}
    for half in range(options.halves):
        for name, found in everything.items():
            measured = Measured(options, name)
            for depth in options.depths:
                found[f"{half} {depth}"] = measured.half(half, depth)
    for name, found in everything.items():
        told(options, name, found)
    for depth in options.depths:
        pooled(options, everything, depth)


if __name__ == "__main__":
    main()
