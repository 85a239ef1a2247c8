"""Stage `features`: the picture that a unit answers to most, beside the natural pictures that it answers to most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.sampling import sampled
from microtome.datasets.source import Source, webp
from microtome.memory import fitting
from microtome.networks.geometry import LayerGeometry
from microtome.visualize.attribution import Target, answer_of, at_rest, attribute, on_grey, units_called
from microtome.visualize.features import Feature, FeatureRecipe, visualise
from storage import Draft
from storage.tables import Row
from tasks.features import FeaturesOptions
from tasks.session import Session
from tasks.spans import layer_part, of_layer_part
from tasks.subject import Subject
from tasks.thresholds.result import SeenPictures

CROPS = 5


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """The network, its layers, and the pictures in which their units are highest."""

    network: Subject


def shards(options: FeaturesOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Batches of each layer's chosen units, by the first one's place among them."""
    return {
        layer_part(number, start): min(options.batch, chosen - start)
        for number, layer in enumerate(inputs.activations.layers)
        for chosen in [min(options.units, layer.units)]
        for start in range(0, chosen, options.batch)
    }


class Shard:
    """Makes the pictures of batches of a layer's units, and deconvolution crops of their top images.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: FeaturesOptions, inputs: Inputs, session: Session) -> None:
        self._options, self._inputs, self._session = options, inputs, session
        self._network = inputs.network.pixels(session.device)

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the batch's pictures, and leave its rows."""
        options, session, source = self._options, self._session, self._inputs.index.source
        number, start = of_layer_part(name)
        layer = self._inputs.activations.layers[number]
        some = sampled(layer.units, options.units, session.seed)[start : start + options.batch]
        recipe = FeatureRecipe(
            source.frame.size, options.objective, options.steps, batch=options.batch, seed=session.seed
        )
        cropper = _Cropper(self._network, source, layer, draft, session.device)
        top = self._inputs.thresholds.top_images(layer.name)
        features: list[Row] = []
        crops: list[Row] = []
        with fitting("stages.features.batch", options.batch):
            found = visualise(self._network, layer, some, recipe)
        for unit, feature in zip(some, found, strict=True):
            features.append(_feature(draft, layer.name, unit, feature, natural=top[unit][0][1]))
            crops += cropper(unit, [image for image, _ in top[unit][:CROPS]])
        draft.leave(name, {"features": features, "unit_crops": crops})


def run(options: FeaturesOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Put the batches' rows together."""
    parts = [draft.left(name) for name in shards(options, inputs, ())]
    for table in ("features", "unit_crops"):
        draft.rows(table, [row for part in parts for row in part[table]])


def _feature(draft: Draft, layer: str, unit: int, feature: Feature, *, natural: float) -> Row:
    file = f"features/{layer}/{unit:05d}.webp"
    draft.write(file, webp(_bytes(feature.picture.permute(1, 2, 0).numpy()), quality=92))
    return {
        "layer": layer,
        "unit": unit,
        "objective": feature.objective,
        "transformed": feature.transformed,
        "natural_max": natural,
        "ratio": feature.peak / natural if natural > 0 else None,
        "high_frequency": feature.high_frequency,
        "unreached": feature.unreached,
        "file": file,
        "peak": feature.peak,
    }


@dataclass(frozen=True)
class _Cropper:
    """Cuts crops of a layer's units out of pictures, and of what deconvolution hands down in them.

    In a network that has no deconvolution (`rules.BackwardRule.check`) the gradient stands in its place, and is called
    so.
    """

    network: torch.nn.Module
    source: Source
    layer: LayerGeometry
    draft: Draft
    device: str

    @cached_property
    def kind(self) -> str:
        """What is handed down."""
        calls = units_called(self.network, self.source.frame.size, self.layer)
        return "gradient" if calls.refusal else "deconvolution"

    def __call__(self, unit: int, images: Sequence[int]) -> Iterator[Row]:
        """About the unit's highest cell, as large as its field."""
        batch = self.source.batch(images, self.device)
        with torch.no_grad(), at_rest(self.network):
            answer = answer_of(self.network, batch, self.layer)
        cells = answer[:, unit].flatten(1).argmax(1).tolist()
        target = Target(unit, self.layer)
        maps = attribute(self.network, batch, target, method=self.kind).cpu()
        for image, cell, signal in zip(images, cells, maps, strict=True):
            x0, y0, x1, y1 = self.layer.field_box(cell, self.source.frame.size)
            shown = on_grey(signal).permute(1, 2, 0).numpy()
            for kind, picture in (("natural", self.source.pixels(image)), (self.kind, shown)):
                file = f"crops/{self.layer.name}/{unit:05d}-{image:06d}-{kind}.webp"
                self.draft.write(file, webp(_bytes(picture[y0:y1, x0:x1])))
                place = {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "file": file}
                yield {"layer": self.layer.name, "unit": unit, "image": image, "kind": kind, **place}


def _bytes(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (picture * 255).round().astype(np.uint8)
