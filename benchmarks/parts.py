"""Parts from a few boxes on real animals: the blend beside every rival; nine categories, two parts. JSON lines.

    python benchmarks/parts.py DATA [--categories cat dog] [--boxes 3 6 12] [--draws 10]
        [--layers features.9 features.12] [--cache FOLDER] [--rule anchors|paper] [--no-graph]
        [--weights random] [--shuffled]

DATA holds animal-parts/ and weights/squeezenet1_0.safetensors. A line per category, part, number of boxes and method,
and one per rival: the blend's error less the rival's over all of these together, with 95 % intervals over pictures and
draws, and in how many it is significantly nearer or farther (Holm over all of them). FOLDER keeps errors by category.
Nulls: random weights; `--shuffled`, boxes that lie where the part is in other pictures. FOLDER is of one of them.
Needs torch and torchvision; no Prefect.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from functools import reduce
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks.animals import SIZE, Scene, learned_from, scene_of
from microtome.datasets import open_dataset
from microtome.disentangle import parts
from microtome.disentangle.exemplars import Looks, blend, exemplar
from microtome.disentangle.graph_keys import Locator
from microtome.disentangle.graph_layers import cell_axes, seen_in
from microtome.disentangle.part_errors import Tried, comparisons, summaries
from microtome.disentangle.parts import Candidates

PATTERN_FILTERS = 128


def sources(scene: Scene, options):
    """By method, what may become a pattern."""
    units = [
        parts.unit_candidates(scene.maps[name], *cell_axes(layer, SIZE), layer=place, count=PATTERN_FILTERS)
        for place, (name, layer) in enumerate(scene.layers.items())
    ]
    found = {Locator.PATTERNS: reduce(Candidates.joined, units)}
    if options.graph:
        train = np.arange(len(scene.shifted.offset)) % 2 == 0  # the other half is only looked up
        learned = learned_from(scene, train, list(scene.layers), rule=options.rule)
        seen = seen_in(learned, [scene.maps[part.name] for part in learned], SIZE)
        found[Locator.NODES] = parts.node_candidates(seen, [part.node_filters for part in learned])
    return found


def located(scene: Scene, options):
    """A function from boxes to where every method locates the part, and what the blend chose."""
    top = next(iter(scene.layers))
    looks = Looks.of(scene.maps[top], *cell_axes(scene.layers[top], SIZE))
    peaks = [parts.peak_places(scene.maps[name], layer, SIZE) for name, layer in scene.layers.items()]
    peaks, votes = np.concatenate(peaks, 1), sources(scene, options)

    def locate(boxes):
        blended, weighing = blend(looks, boxes)
        return {
            Locator.BLEND: blended,
            Locator.EXEMPLAR: exemplar(looks, boxes),
            **{method: parts.locate(parts.mine(own, boxes), own)[0] for method, own in votes.items()},
            Locator.MEAN_POSITION: parts.mean_position(boxes, len(peaks)),
            Locator.BEST_FILTER: parts.best_filter(peaks, boxes)[0],
            Locator.TOP_FILTERS: parts.top_filters(peaks, boxes),
        }, weighing

    return locate


def tried(category: str, options, number: int):
    """Every part and number of boxes of a category, and the chosen weights of looks."""
    scene = scene_of(options.data, category, options.layers, weights=options.weights)
    locate = located(scene, options)
    found, weighings = [], []
    for part, truth in scene.marks.items():
        for count in options.boxes:
            shown = np.random.default_rng(0).permutation(truth) if options.shuffled else truth
            errors: dict[str, list[np.ndarray]] = {}
            for draw in range(options.draws):
                boxes, rest = parts.drawn_boxes(shown, count, SIZE, np.random.default_rng([0, count, draw]))
                where, weighing = locate(boxes)
                weighings.append((f"{part} {count}", weighing.beta, weighing.spread))
                for method, own in where.items():
                    error = np.full(len(truth), np.nan)
                    error[rest] = parts.location_error(own, truth, SIZE)[rest]
                    errors.setdefault(method, []).append(error)
            found.append(Tried(part, count, {method: np.stack(rows) for method, rows in errors.items()}, number))
    return found, weighings


def kept_or_made(options, category: str, number: int):
    """From the cache where it is there."""
    file = options.cache / f"parts-{category}.npz" if options.cache else None
    if file and file.exists():
        stored = np.load(file)
        cells: dict[tuple[str, int], dict[Locator, np.ndarray]] = {}
        for key in stored.files:
            part, count, method = key.split("|")
            cells.setdefault((part, int(count)), {})[Locator(method)] = stored[key]
        return [Tried(part, count, errors, number) for (part, count), errors in cells.items()]
    started = time.perf_counter()
    found, weighings = tried(category, options, number)
    line = {"category": category, "seconds": round(time.perf_counter() - started, 1)}
    for name, place in (("beta", 1), ("spread", 2)):
        line[name] = {cell: sorted(row[place] for row in weighings if row[0] == cell) for cell, *_ in weighings}
    print(json.dumps(line), flush=True)
    if file:
        np.savez(file, **{f"{t.part}|{t.boxes}|{m}": e for t in found for m, e in t.errors.items()})
    return found


def rounded(row, **more):
    values = {key: round(value, 5) if isinstance(value, float) else value for key, value in asdict(row).items()}
    return json.dumps({**more, **{key: value for key, value in values.items() if value is not None}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--boxes", type=int, nargs="+", default=[3, 6, 12])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--layers", nargs="+", default=["features.9", "features.12"])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--rule", choices=["anchors", "paper"], default="anchors", help="of the graph")
    parser.add_argument("--weights", choices=["imagenet", "random"], default="imagenet")
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--no-graph", dest="graph", action="store_false")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = open_dataset("animal-parts", options.data / "animal-parts", {})
    names = options.categories or sorted({record.label for record in dataset.records})
    found = {name: kept_or_made(options, name, number) for number, name in enumerate(names)}
    for name, cells in found.items():
        for row in summaries(cells):
            print(rounded(row, category=name))
    everything = comparisons([item for cells in found.values() for item in cells])
    for rival in dict.fromkeys(row.rival for row in everything):
        rows = [row for row in everything if row.rival == rival]
        sure = [row for row in rows if row.holm is not None and row.holm <= 0.05]
        nearer, farther = (sum(sign * row.difference < 0 for row in sure) for sign in (1, -1))
        print(
            rounded(rows[0], cells=len(rows) - 1, significantly_nearer=nearer, significantly_farther=farther),
            flush=True,
        )


if __name__ == "__main__":
    main()
