"""Stage `occlusion`: how large units' fields really are, and which parts of a picture its prediction needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from safetensors.torch import save

from microtome.datasets.sampling import sampled
from microtome.datasets.source import webp
from microtome.networks.geometry import LayerGeometry
from microtome.visualize.attribution import Scaled, laid_out
from microtome.visualize.occlusion import (
    Occluder,
    discrepancy,
    kept_at_random,
    minimal_image,
    receptive_field,
    superpixels,
)
from storage import Draft
from storage.tables import Row
from tasks.index.result import Index
from tasks.occlusion import OcclusionOptions
from tasks.session import Session
from tasks.spans import layer_part, of_layer_part
from tasks.subject import Subject
from tasks.thresholds.result import SeenPictures

STRIPPED = "picture/"


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """The network, its layers, and the pictures in which their units are highest."""

    network: Subject


def shards(options: OcclusionOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Each layer's chosen units one by one, by their places among them; then the chosen pictures."""
    layers = enumerate(inputs.activations.layers)
    fields = [layer_part(n, place) for n, layer in layers for place in range(min(options.units, layer.units))]
    stripped = [f"{STRIPPED}{place:06d}" for place in range(min(options.minimal_images, inputs.index.images))]
    return dict.fromkeys([*fields, *stripped], 1)


class Shard:
    """Measures units, and strips pictures, of a sample.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: OcclusionOptions, inputs: Inputs, session: Session) -> None:
        self._options, self._inputs, self._session = options, inputs, session
        self._covering = _Covering(options, inputs, session, inputs.network.pixels(session.device))

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the picture of one, and leave its row."""
        options, seed = self._options, self._session.seed
        if name.startswith(STRIPPED):
            image = sampled(self._inputs.index.images, options.minimal_images, seed)[int(name.removeprefix(STRIPPED))]
            draft.leave(name, self._covering.minimal(draft, image))
            return
        number, place = of_layer_part(name)
        layer = self._inputs.activations.layers[number]
        unit = sampled(layer.units, options.units, seed)[place]
        top = self._inputs.thresholds.top_images(layer.name)[unit][: options.top_images]
        draft.leave(name, self._covering.field(draft, layer, unit, images=[image for image, _ in top]))


def run(options: OcclusionOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Put the rows together."""
    rows = {name: draft.left(name) for name in shards(options, inputs, ())}
    minimal = [row for name, row in rows.items() if name.startswith(STRIPPED)]
    draft.rows("occlusion", [row for name, row in rows.items() if not name.startswith(STRIPPED)])
    if minimal:
        draft.rows("minimal_images", minimal)


@dataclass(frozen=True)
class _Covering:
    """Covers parts of pictures and watches what the network makes of it."""

    options: OcclusionOptions
    inputs: Inputs
    session: Session
    scaled: Scaled

    @cached_property
    def network(self) -> torch.nn.Module:
        """As it is asked."""
        return laid_out(self.scaled)

    @property
    def index(self) -> Index:
        """Of the data set."""
        return self.inputs.index

    def field(self, draft: Draft, layer: LayerGeometry, unit: int, *, images: list[int]) -> Row:
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
        draft.write(file, save({"heat": torch.from_numpy(found.heat.astype(np.float32))}))
        size = {"size_x": found.size[1], "size_y": found.size[0], "theoretical": layer.field[0]}
        return {"layer": layer.name, "unit": unit, **size, "images": found.images, "whole": found.whole, "file": file}

    def minimal(self, draft: Draft, image: int) -> Row:
        """A picture stripped to what its prediction needs."""
        segments = superpixels(self.index.source.pixels(image), self.options.segments)
        picture = self._picture(image)
        found = minimal_image(self.network, picture, segments)
        control = kept_at_random(self.network, picture, segments, found, seed=self.session.seed)
        file = f"minimal/{image:06d}.webp"
        shown = (found.picture.cpu().permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        draft.write(file, webp(shown))
        return {
            "image": image,
            "segments": int(segments.max() + 1),
            "kept": int(found.kept.sum()),
            "score": found.scores[-1],
            "whole_score": found.scores[0],
            "area": float(np.isin(segments, np.flatnonzero(found.kept)).mean()),
            "file": file,
            "target": found.predicted,
            "target_name": self.inputs.network.named(self.scaled, picture[None])(found.predicted),
            "kept_at_random": float(control.mean()),
        }

    def _picture(self, image: int) -> torch.Tensor:
        return self.index.source.batch([image], self.session.device)[0]
