"""Parts from a few boxes on real animals: the blend beside every rival; nine categories, two parts. JSON lines.

    python benchmarks/parts.py DATA [--categories cat dog] [--boxes 3 6 12] [--draws 10]
        [--layers features.9 features.12] [--cache FOLDER] [--no-graph]

DATA holds animal-parts/ and weights/squeezenet1_0.safetensors. A line per category, part, number of boxes and method,
and one per rival: the blend's error less the rival's over all of these together, with 95 % intervals over pictures and
draws, and in how many it is significantly nearer or farther (Holm over all of them). FOLDER keeps errors by category.
Needs torch and torchvision; no Prefect.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from microtome.datasets import Frame, open_dataset
from microtome.datasets.base import chosen
from microtome.datasets.source import Source
from microtome.disentangle import graph, parts
from microtome.disentangle.exemplars import Looks, blend, exemplar
from microtome.disentangle.graph_inference import LayerMaps
from microtome.disentangle.graph_keys import Locator
from microtome.disentangle.graph_layers import GraphFilters, LearnedLayer, cell_axes, top_first
from microtome.disentangle.part_errors import Tried, comparisons, summaries
from microtome.networks import Capture, match_layers, walk
from microtome.networks.load import NetworkSpec, load_network
from microtome.networks.normalisation import Normalisation

SIZE = (224, 224)
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PATTERN_FILTERS, GRAPH_FILTERS = 128, 64


def captured(data: Path, category: str, names: list[str]):
    """Geometries of the layers, the top one first, their maps, and places of the parts in input pixels."""
    network = load_network(
        NetworkSpec("torchvision.models:squeezenet1_0", {}, str((data / "weights/squeezenet1_0.safetensors").resolve()))
    )
    layers = walk(network, SIZE, match_layers(network, names))
    layers = [layers[number] for number in top_first(layers)]
    dataset = open_dataset("animal-parts", data / "animal-parts", {})
    source = Source(dataset, Frame(SIZE, crop="object"), IMAGENET, chosen(dataset.records, categories=[category]))
    maps = {layer.name: [] for layer in layers}
    with Capture(network, layers) as capture:
        for first in range(0, len(source), 16):
            some = range(first, min(first + 16, len(source)))
            found = capture(torch.from_numpy(np.stack([source.normalised(image) for image in some])))
            for name, own in maps.items():
                own.append(found[name].numpy())
    marks = [source.landmarks(image) for image in range(len(source))]
    places = {
        name: np.array([shown.get(name, (np.nan, np.nan)) for shown in marks])
        for name in sorted({name for shown in marks for name in shown})
    }
    return layers, [np.concatenate(maps[layer.name]) for layer in layers], places


def sources(layers, maps, *, with_graph: bool):
    """By method, what may become a pattern."""
    units = [
        parts.unit_candidates(own, *cell_axes(layer, SIZE), layer=place, count=PATTERN_FILTERS)
        for place, (layer, own) in enumerate(zip(layers, maps, strict=True))
    ]
    joined = units[0]
    for more in units[1:]:
        joined = joined.joined(more)
    found = {Locator.PATTERNS: joined}
    if with_graph:
        filters = [GraphFilters.most_active(layer, own, GRAPH_FILTERS) for layer, own in zip(layers, maps, strict=True)]
        z = [own.maps(values, SIZE) for own, values in zip(filters, maps, strict=True)]
        kept = torch.arange(len(maps[0])) % 5 != 0  # a fifth is only looked up
        learned = graph.learn([LayerMaps(part.maps[kept], part.x, part.y) for part in z])
        named = [LearnedLayer(own, layer).node_filters for own, layer in zip(filters, learned, strict=True)]
        found[Locator.NODES] = parts.node_candidates(graph.infer(learned, z), named)
    return found


def located(layers, maps, *, with_graph: bool):
    """A function from boxes to where every method locates the part, and what the blend chose."""
    looks = Looks.of(maps[0], *cell_axes(layers[0], SIZE))
    peaks = np.concatenate([parts.peak_places(own, layer, SIZE) for layer, own in zip(layers, maps, strict=True)], 1)
    votes = sources(layers, maps, with_graph=with_graph)

    def locate(boxes):
        blended, weighing = blend(looks, boxes)
        return {
            Locator.BLEND: blended,
            Locator.EXEMPLAR: exemplar(looks, boxes),
            **{method: parts.locate(parts.mine(own, boxes), own)[0] for method, own in votes.items()},
            Locator.MEAN_POSITION: parts.mean_position(boxes, len(maps[0])),
            Locator.BEST_FILTER: parts.best_filter(peaks, boxes)[0],
            Locator.TOP_FILTERS: parts.top_filters(peaks, boxes),
        }, weighing

    return locate


def tried(data: Path, category: str, options, number: int):
    """Every part and number of boxes of a category, and the chosen weights of looks."""
    layers, maps, places = captured(data, category, options.layers)
    locate = located(layers, maps, with_graph=options.graph)
    found, weighings = [], []
    for part, truth in places.items():
        for count in options.boxes:
            errors: dict[str, list[np.ndarray]] = {}
            for draw in range(options.draws):
                boxes, rest = parts.drawn_boxes(truth, count, SIZE, np.random.default_rng([0, count, draw]))
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
    found, weighings = tried(options.data, category, options, number)
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
