"""Stage `occlusion`: how large units' fields really are, and which parts of a picture its prediction needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save

from microtome.datasets.sampling import sampled
from microtome.datasets.source import webp
from microtome.networks.geometry import LayerGeometry
from microtome.visualize.attribution import laid_out
from microtome.visualize.occlusion import Occluder, discrepancy, minimal_image, receptive_field, superpixels
from storage import Draft
from storage.tables import Row
from tasks.index.result import Index
from tasks.occlusion import OcclusionOptions
from tasks.session import Session
from tasks.subject import Subject
from tasks.thresholds.result import SeenPictures


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """The network, its layers, and the pictures in which their units are highest."""

    network: Subject


def run(options: OcclusionOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Measure a sample of each layer's units, and strip a sample of the pictures."""
    layers = inputs.activations.layers
    covering = _Covering(options, inputs.index, draft, session, laid_out(inputs.network.pixels(session.device)))
    chosen = {layer.name: sampled(layer.units, options.units, session.seed) for layer in layers}
    stripped = sampled(len(inputs.index.source), options.minimal_images, session.seed)
    session.begin(sum(len(units) for units in chosen.values()) + len(stripped), "units and pictures")
    fields: list[Row] = []
    for layer in layers:
        top = inputs.thresholds.top_images(layer.name)
        for unit in chosen[layer.name]:
            fields.append(covering.field(layer, unit, [image for image, _ in top[unit][: options.top_images]]))
            session.advance(1)
    minimal: list[Row] = []
    for image in stripped:
        minimal.append(covering.minimal(image))
        session.advance(1)
    draft.rows("occlusion", fields)
    if minimal:
        draft.rows("minimal_images", minimal)


@dataclass(frozen=True)
class _Covering:
    """Covers parts of pictures and watches what the network makes of it."""

    options: OcclusionOptions
    index: Index
    draft: Draft
    session: Session
    network: torch.nn.Module

    def field(self, layer: LayerGeometry, unit: int, images: list[int]) -> Row:
        """A unit's measured field, over its top images."""
        occluder = Occluder(self.options.width, self.options.stride, seed=self.session.seed)
        maps, centres = [], []
        for image in images:
            heat, cell = discrepancy(self.network, layer, unit, self._picture(image), occluder=occluder)
            maps.append(heat)
            centres.append((layer.start[0] + cell[0] * layer.jump[0], layer.start[1] + cell[1] * layer.jump[1]))
            self.session.check()
        found = receptive_field(maps, centres, occluder=occluder)
        file = f"fields/{layer.name}/{unit:05d}.safetensors"
        self.draft.write(file, save({"heat": torch.from_numpy(found.heat.astype(np.float32))}))
        size = {"size_x": found.size[1], "size_y": found.size[0], "theoretical": layer.field[0]}
        return {"layer": layer.name, "unit": unit, **size, "images": found.images, "file": file}

    def minimal(self, image: int) -> Row:
        """A picture stripped to what its prediction needs."""
        segments = superpixels(self.index.source.pixels(image), self.options.segments)
        found = minimal_image(self.network, self._picture(image), segments)
        file = f"minimal/{image:06d}.webp"
        shown = (found.picture.cpu().permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        self.draft.write(file, webp(shown))
        return {
            "image": image,
            "segments": int(segments.max() + 1),
            "kept": int(found.kept.sum()),
            "score": found.scores[-1],
            "whole_score": found.scores[0],
            "area": float(np.isin(segments, np.flatnonzero(found.kept)).mean()),
            "file": file,
        }

    def _picture(self, image: int) -> torch.Tensor:
        return self.index.source.batch([image], self.session.device)[0]
