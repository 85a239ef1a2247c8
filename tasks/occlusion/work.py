"""Stage `occlusion`: how large units' fields really are, and which parts of a picture its prediction needs."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from safetensors.torch import save

from microtome.networks import LayerGeometry
from microtome.visualize.occlusion import Occluder, discrepancy, minimal_image, receptive_field, superpixels
from tasks.pictures import Pictures, file_of, pixel_network, sampled
from tasks.reading import layers_of
from tasks.rows import Rows
from tasks.stage import Work

FIELD_IMAGES = 10


def run(work: Work) -> None:
    """Measure a sample of each layer's units, and strip a sample of the pictures."""
    torch.set_num_threads(work.session.threads)
    network, pictures = pixel_network(work), Pictures(work)
    layers = layers_of(work.inputs["activations"])
    chosen = {layer.name: sampled(layer.units, work.parameters["units"], work.parameters["seed"]) for layer in layers}
    stripped = sampled(len(pictures), work.parameters["minimal_images"], work.parameters["seed"])
    work.begin(sum(len(units) for units in chosen.values()) + len(stripped), "units and pictures")
    rows: Rows = defaultdict(list)
    for layer in layers:
        for unit in chosen[layer.name]:
            _unit(work, rows, (network, pictures), layer, unit)
            work.advance(1)
    minimal: Rows = defaultdict(list)
    for image in stripped:
        _picture(work, minimal, (network, pictures), image)
        work.advance(1)
    work.draft.table("occlusion", rows)
    if minimal:
        work.draft.table("minimal_images", minimal)


Subject = tuple[torch.nn.Module, Pictures]


def _unit(work: Work, rows: Rows, subject: Subject, layer: LayerGeometry, unit: int) -> None:
    network, pictures = subject
    occluder = Occluder(work.parameters["width"], work.parameters["stride"], seed=work.parameters["seed"])
    top = [
        row["image"]
        for row in work.inputs["thresholds"].table("top_images").to_pylist()
        if row["layer"] == layer.name and row["unit"] == unit and row["rank"] < work.parameters["top_images"]
    ]
    maps, centres = [], []
    for image in top:
        heat, cell = discrepancy(
            network, layer.name, unit, pictures.batch([image], work.session.device)[0], occluder=occluder
        )
        maps.append(heat)
        centres.append((layer.start[0] + cell[0] * layer.jump[0], layer.start[1] + cell[1] * layer.jump[1]))
        work.session.check()
    field = receptive_field(maps, centres, occluder=occluder)
    file = f"fields/{layer.name}/{unit:05d}.safetensors"
    work.draft.write(file, save({"heat": torch.from_numpy(field.heat.astype(np.float32))}))
    row = {
        "layer": layer.name,
        "unit": unit,
        "size_x": field.size[1],
        "size_y": field.size[0],
        "theoretical": layer.field[0],
        "images": field.images,
        "file": file,
    }
    for name, value in row.items():
        rows[name].append(value)


def _picture(work: Work, rows: Rows, subject: Subject, image: int) -> None:
    network, pictures = subject
    pixels = pictures.pixels(image)
    segments = superpixels(pixels, work.parameters["segments"])
    found = minimal_image(network, pictures.batch([image], work.session.device)[0], segments)
    file = f"minimal/{image:06d}.webp"
    work.draft.write(file, file_of((found.picture.cpu().permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)))
    row = {
        "image": image,
        "segments": int(segments.max() + 1),
        "kept": int(found.kept.sum()),
        "score": found.scores[-1],
        "whole_score": found.scores[0],
        "area": float(np.isin(segments, np.flatnonzero(found.kept)).mean()),
        "file": file,
    }
    for name, value in row.items():
        rows[name].append(value)
