"""What the stages of an explanatory graph share: the pictures of a category, maps in one frame, the learned graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.folds import split_by_file
from microtome.disentangle.graph import GraphLayer
from microtome.disentangle.graph_inference import LayerMaps, Nodes
from microtome.errors import InputError
from microtome.networks import LayerGeometry
from storage import Artifact
from tasks.reading import activation_blocks, geometry_from, layers_of
from tasks.stage import Work


@dataclass(frozen=True)
class Chosen:
    """The pictures of a category: numbers in the index, and their split."""

    category: str
    images: NDArray[np.int64]
    splits: list[str]


def category_images(work: Work) -> Chosen:
    """The pictures that a graph is about: of one category, or all of them.

    Raises:
        InputError: no such category, or too few pictures.
    """
    rows = work.inputs["index"].table("images", ["image", "file", "label"]).to_pylist()
    names = sorted({row["label"] for row in rows if row["label"]})
    wanted = work.parameters["category"]
    if wanted is None and len(names) == 1:
        wanted = names[0]
    if wanted is not None and wanted not in names:
        raise InputError(f"{work.job.stage.name}.category: must be one of {', '.join(names)}, got {wanted!r}")
    mine = [row for row in rows if wanted is None or row["label"] == wanted]
    mine = mine[: work.parameters["images"]]
    if len(mine) < 10:
        raise InputError(f"{work.job.stage.name}: needs ten pictures or more, got {len(mine)} of {wanted or 'any'}")
    files = [row["file"] for row in mine]
    images = np.array([row["image"] for row in mine])
    splits = split_by_file(files, [wanted or "all"] * len(mine), folds=5, fold=0, seed=work.parameters["seed"])
    return Chosen(wanted or "all", images, splits)


def ordered_layers(work: Work) -> list[tuple[int, LayerGeometry]]:
    """The layers with their numbers among the activations, the top one (of the widest field) first."""
    layers = list(enumerate(layers_of(work.inputs["activations"])))
    return sorted(layers, key=lambda item: (-item[1].field[0] * item[1].field[1], item[0]))


@dataclass(frozen=True)
class Made:
    """A layer as the graph takes it: geometry, filters, maps as z, deviation of each filter."""

    geometry: LayerGeometry
    filters: NDArray[np.int64]
    maps: LayerMaps
    spread: NDArray[np.float32]


def maps_of(work: Work, number: int, images: NDArray[np.int64]) -> NDArray[np.float32]:
    """(images, filters, rows, columns) of some images."""
    parts = []
    for block in activation_blocks(work.inputs["activations"], number):
        inside = np.isin(np.arange(block.first, block.first + len(block.tensors)), images)
        parts.append(block.tensors[inside].astype(np.float32))
    return np.concatenate(parts)


def frame_of(work: Work, layer: LayerGeometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x of the columns and y of the rows, in relative image coordinates."""
    height, width = work.job.reach["frame"].size
    return np.array(layer.centres(1)) / width, np.array(layer.centres(0)) / height


def landmarks_of(work: Work, images: NDArray[np.int64]) -> Mapping[str, NDArray[np.float64]]:
    """(images, 2) x, y in input pixels of every landmark; NaN where a picture does not show it."""
    if "landmarks" not in work.inputs:
        return {}
    rows = work.inputs["landmarks"].table("landmarks").to_pylist()
    place = {image: n for n, image in enumerate(images.tolist())}
    found: dict[str, NDArray[np.float64]] = {}
    for row in rows:
        if row["image"] in place:
            marks = found.setdefault(row["landmark"], np.full((len(images), 2), np.nan))
            marks[place[row["image"]]] = row["x"], row["y"]
    return {name: marks for name, marks in sorted(found.items()) if np.isfinite(marks).all(1).sum() >= 3}


@dataclass(frozen=True)
class Learned:
    """A learned layer, as a finished stage wrote it: geometry, its filters in the graph, their deviations, nodes."""

    geometry: LayerGeometry
    filters: NDArray[np.int64]
    spread: NDArray[np.float32]
    layer: GraphLayer

    def maps(self, maps: NDArray[np.float32], size: tuple[int, int]) -> LayerMaps:
        """What `infer` takes.

        Args:
            maps: (images, all filters of the layer, rows, columns).
            size: (height, width) of the network's input.
        """
        z = np.clip(maps[:, self.filters] / self.spread[:, None, None], 0, None).astype(np.float32)
        axes = (np.array(self.geometry.centres(axis), np.float32) / size[axis] for axis in (1, 0))
        x, y = (torch.from_numpy(axis.astype(np.float32)) for axis in axes)
        return LayerMaps(torch.from_numpy(z), x, y)


def learned_graph(artifact: Artifact) -> list[Learned]:
    """The learned layers of a finished stage, the top one first."""
    from safetensors.torch import load

    arrays = load(artifact.read("graph.safetensors"))
    found = []
    for number, row in enumerate(artifact.json("graph-about.json")["geometry"]):
        mu, sigma, home = (arrays[f"{number}.{what}"] for what in ("mu", "sigma", "home"))
        nodes = Nodes(mu, sigma, arrays.get(f"{number}.parents"))
        filters, spread = (arrays[f"{number}.{what}"].numpy() for what in ("filters", "spread"))
        found.append(Learned(geometry_from(row), filters, spread, GraphLayer(nodes, None, home, ())))
    return found
