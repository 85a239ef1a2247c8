"""Stage `features`: the picture that a unit answers to most, beside the natural pictures that it answers to most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from microtome.networks import LayerGeometry
from microtome.visualize.attribution import Target, answer_of, at_rest, attribute, on_grey
from microtome.visualize.features import FeatureRecipe, visualise
from tasks.pictures import Pictures, file_of, pixel_network, sampled
from tasks.reading import layers_of
from tasks.stage import Work

CROPS = 5


def run(work: Work) -> None:
    """Make the pictures of a sample of each layer's units; deconvolution crops of their top images."""
    torch.set_num_threads(work.session.threads)
    network, pictures = pixel_network(work), Pictures(work)
    layers = layers_of(work.inputs["activations"])
    chosen = {layer.name: sampled(layer.units, work.parameters["units"], work.parameters["seed"]) for layer in layers}
    recipe = FeatureRecipe(
        work.job.reach["frame"].size,
        work.parameters["objective"],
        work.parameters["steps"],
        batch=work.parameters["batch"],
        seed=work.parameters["seed"],
    )
    work.begin(sum(len(units) for units in chosen.values()), "units")
    rows: dict[str, list[Any]] = defaultdict(list)
    crops: dict[str, list[Any]] = defaultdict(list)
    for layer in layers:
        top = _top_images(work, layer.name)
        units = chosen[layer.name]
        for start in range(0, len(units), recipe.batch):
            some = units[start : start + recipe.batch]
            for unit, feature in zip(some, visualise(network, layer.name, some, recipe), strict=True):
                natural = top[unit][0][1]
                file = f"features/{layer.name}/{unit:05d}.webp"
                picture = (feature.picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
                work.draft.write(file, file_of(picture, quality=92))
                row = {
                    "layer": layer.name,
                    "unit": unit,
                    "objective": feature.objective,
                    "transformed": feature.transformed,
                    "natural_max": natural,
                    "ratio": feature.peak / natural if natural > 0 else None,
                    "high_frequency": feature.high_frequency,
                    "dead": feature.dead,
                    "file": file,
                    "peak": feature.peak,
                }
                for name, value in row.items():
                    rows[name].append(value)
                _crops(work, crops, (network, pictures, layer, unit), [image for image, _ in top[unit][:CROPS]])
            work.advance(len(some))
    work.draft.table("features", rows)
    work.draft.table("unit_crops", crops)


def _top_images(work: Work, layer: str) -> dict[int, list[tuple[int, float]]]:
    """unit -> (image, peak), the highest first."""
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for row in work.inputs["thresholds"].table("top_images").to_pylist():
        if row["layer"] == layer:
            found[row["unit"]].append((row["image"], row["peak"]))
    return found


Subject = tuple[torch.nn.Module, Pictures, LayerGeometry, int]


def _crops(work: Work, rows: dict[str, list[Any]], subject: Subject, images: Sequence[int]) -> None:
    """Natural crops about the unit's highest cell, as large as its field, and what deconvolution hands down there."""
    network, pictures, layer, unit = subject
    batch = pictures.batch(images, work.session.device)
    with torch.no_grad(), at_rest(network):
        cells = answer_of(network, batch, layer.name)[:, unit].flatten(1).argmax(1).tolist()
    maps = attribute(
        network,
        batch,
        Target(unit, layer.name),
        method="deconvolution",
        allow_gradient_fallback=True,
    ).cpu()
    for image, cell, signal in zip(images, cells, maps, strict=True):
        box = layer.field_box(cell, work.job.reach["frame"].size)
        rows_, columns = slice(box[1], box[3]), slice(box[0], box[2])
        natural = pictures.pixels(image)[rows_, columns]
        shown = on_grey(signal).permute(1, 2, 0).numpy()[rows_, columns]
        for kind, crop in (("natural", natural), ("deconvolution", shown)):
            file = f"crops/{layer.name}/{unit:05d}-{image:06d}-{kind}.webp"
            work.draft.write(file, file_of((crop * 255).round().astype(np.uint8)))
            row = {"layer": layer.name, "unit": unit, "image": image, "kind": kind, "file": file}
            row |= dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
            for name, value in row.items():
                rows[name].append(value)
