"""What benchmarks of graphs and parts share: a category of animal-parts as squeezenet1_0 sees it, and graphs of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from microtome.datasets import Frame, open_dataset
from microtome.datasets.base import chosen
from microtome.datasets.source import Source
from microtome.disentangle import graph
from microtome.disentangle.anchors import learn_anchors
from microtome.disentangle.graph_layers import GraphFilters, LearnedLayer, raw_maps, top_first
from microtome.networks import Capture, match_layers, walk
from microtome.networks.geometry import LayerGeometry
from microtome.networks.load import NetworkSpec, load_network
from microtome.networks.normalisation import Normalisation
from microtome.quantify.shift import Shifted

SIZE = (224, 224)
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WEIGHTS = "weights/squeezenet1_0.safetensors"
FILTERS, SHIFT = 64, 0.15


@dataclass(frozen=True)
class Scene:
    """A category: geometries of the layers, the top one first, and by layer the maps of its pictures and of their moved
    copies; landmarks in input pixels, and offsets."""

    layers: dict[str, LayerGeometry]
    maps: dict[str, np.ndarray]
    moved: dict[str, np.ndarray]
    marks: dict[str, np.ndarray]
    shifted: Shifted


def scene_of(data: Path, category: str, names: Sequence[str], *, weights: str = "imagenet") -> Scene:
    """Show a category to the network: with the weights of DATA, or with `random` ones."""
    spec = NetworkSpec("torchvision.models:squeezenet1_0", {}, str((data / WEIGHTS).resolve()))
    torch.manual_seed(0)
    network = load_network(replace(spec, weights=None) if weights == "random" else spec)
    layers = walk(network, SIZE, match_layers(network, names))
    layers = {layers[number].name: layers[number] for number in top_first(layers)}
    dataset = open_dataset("animal-parts", data / "animal-parts", {})
    source = Source(dataset, Frame(SIZE, crop="object"), IMAGENET, chosen(dataset.records, categories=[category]))
    copy = replace(source, shift=SHIFT)
    places = [copy.moved(image) for image in range(len(copy))]
    shown = [source.landmarks(image) for image in range(len(source))]
    parts = sorted({name for own in shown for name in own})
    marks = {name: np.array([own.get(name, (np.nan, np.nan)) for own in shown]) for name in parts}
    shifted = Shifted(np.array([place.offset for place in places]), np.array([place.inside for place in places]))
    return Scene(layers, captured(network, layers, source), captured(network, layers, copy), marks, shifted)


def captured(network, layers: dict[str, LayerGeometry], source: Source) -> dict[str, np.ndarray]:
    """By layer, maps of all pictures."""
    maps = {name: [] for name in layers}
    with Capture(network, list(layers.values())) as capture:
        for first in range(0, len(source), 15):
            some = range(first, min(first + 15, len(source)))
            found = capture(torch.from_numpy(np.stack([source.normalised(image) for image in some])))
            for name, own in maps.items():
                own.append(found[name].numpy())
    return {name: np.concatenate(own) for name, own in maps.items()}


def learned_from(
    scene: Scene, train: np.ndarray, names: Sequence[str], *, rule: str = "anchors", rounds: int = graph.ROUNDS
) -> list[LearnedLayer]:
    """A graph of some layers in some pictures, as the stage learns it."""
    geometries = [layer for name, layer in scene.layers.items() if name in names]
    filters = [GraphFilters.most_active(layer, scene.maps[layer.name][train], FILTERS) for layer in geometries]
    copies, anchors, hung = [scene.maps], None, None
    if rule == "anchors":
        copies = [scene.maps, scene.moved]
        raw = [raw_maps(geometries[0], copy[geometries[0].name][train], SIZE) for copy in copies]
        offset = torch.from_numpy(scene.shifted.offset[train] / np.array(SIZE[::-1])).float()
        anchors = learn_anchors(*raw, offset)
        hung = graph.hung_on(anchors, *raw)
    layers = [part.maps(np.concatenate([copy[part.geometry.name][train] for copy in copies]), SIZE) for part in filters]
    made = graph.learn(layers, hung, rounds=rounds)
    return [
        LearnedLayer(part, layer, None if number else anchors)
        for number, (part, layer) in enumerate(zip(filters, made, strict=True))
    ]
