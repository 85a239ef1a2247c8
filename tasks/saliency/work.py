"""Stage `saliency`: what each method makes of the predicted class, and whether the network uses what it marks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch.nn import functional

from microtome.datasets.sampling import sampled
from microtome.visualize import faithfulness as science
from microtome.visualize.attribution import contrast
from microtome.visualize.methods import Method
from microtome.visualize.reliability import edges
from storage import Draft
from storage.tables import Row
from tasks.index.result import Index
from tasks.saliency import SaliencyOptions
from tasks.saliency.at_hand import AtHand
from tasks.session import Session
from tasks.subject import Subject

BATCH = 4
Floats = NDArray[np.float64]
CONTROLS = ("edges", "centre")


@dataclass(frozen=True)
class Inputs:
    """Pictures, and the network that looks at them."""

    index: Index
    network: Subject


def run(options: SaliencyOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Compute the maps: raw values, by pixels in [0, 1]; colours are the report's. Then put them to the test."""
    chosen = sampled(len(inputs.index.source), options.images, session.seed)
    network = inputs.network.pixels(session.device)
    wanted = AtHand.of(options, network, inputs.index.frame.size, session)
    session.begin(len(chosen) * (2 * len(wanted.methods) + len(CONTROLS) + 1), "maps")
    test = _Test.of(inputs.index, network, chosen, session)
    called = inputs.network.named(network, test.x)
    rows: list[Row] = []
    marks: dict[str, torch.Tensor] = {}
    for name, method in wanted.methods.items():
        file = f"maps/{name.replace(' ', '-')}.safetensors"
        maps = test.maps(method)
        draft.write(file, save({"maps": maps.contiguous(), "images": torch.tensor(chosen)}))
        for image, target, one in zip(chosen, test.classes.tolist(), maps, strict=True):
            row = {"image": image, "target": target, "target_name": called(target), "method": name}
            rows.append({**row, "scale": contrast(one), "file": file})
        marks[name] = science.evidence(name, maps)
    marks |= zip(CONTROLS, (edges(test.x)[:, 0], science.centred(inputs.index.frame.size, len(chosen))), strict=True)
    draft.rows("saliency", rows)
    draft.rows("saliency_methods", wanted.rows)
    draft.rows("faithfulness", list(test.faithfulness(marks)))


@dataclass(frozen=True)
class _Test:
    """What maps are made of, and put to the test on.

    Args:
        network: takes pixels in [0, 1].
        x: (pictures, 3, height, width).
        classes: (pictures,) predicted.
        objects: (pictures, height, width) where each picture's object is; empty where nobody says.
        session: of the stage.
    """

    network: torch.nn.Module
    x: torch.Tensor
    classes: torch.Tensor
    objects: NDArray[np.bool_]
    session: Session

    @classmethod
    def of(cls, index: Index, network: torch.nn.Module, chosen: list[int], session: Session) -> _Test:
        """On some pictures."""
        x = index.source.batch(chosen, session.device)
        with torch.no_grad():
            classes = torch.cat([network(part).argmax(1) for part in torch.split(x, BATCH)])
        return cls(network, x, classes, objects(index, chosen), session)

    def maps(self, method: Method) -> torch.Tensor:
        """(pictures, 3 or 1, height, width) of the predicted class."""
        found = []
        for part, classes in zip(torch.split(self.x, BATCH), torch.split(self.classes, BATCH), strict=True):
            found.append(method(self.network, part, classes).float().cpu())
            self.session.advance(len(part))
        return torch.cat(found)

    def areas(self, order: torch.Tensor, steps: int) -> science.Areas:
        """Of every picture; `steps` of the stage's progress each."""
        parts = []
        for some in torch.split(torch.arange(len(self.x)), BATCH):
            parts.append(science.areas(self.network, self.x[some], self.classes[some], order[some]))
            self.session.advance(steps * len(some))
        return science.joined(parts)

    def faithfulness(self, marks: Mapping[str, torch.Tensor]) -> Iterator[Row]:
        """Rows of the table: methods and controls, beside chance and beside the better control of each measure."""
        values, chance = self._measured(marks)
        for measure, found in values.items():
            rival = science.strongest(measure, {name: found[name] for name in CONTROLS})
            for name, own in found.items():
                figure = science.scored(measure, own, chance=chance[measure], control=found[rival])
                yield {"method": name, "measure": measure, "control": rival, **asdict(figure)}

    def _measured(self, marks: Mapping[str, torch.Tensor]) -> tuple[dict[str, dict[str, Floats]], dict[str, Floats]]:
        """(pictures,) by measure and method; and what chance has."""
        orders = science.random_orders(len(self.x), self.session.seed)
        drawn = [self.areas(order, int(place == 0)) for place, order in enumerate(orders)]
        chance = {name: np.mean([getattr(one, name) for one in drawn], 0) for name in ("deletion", "insertion")}
        values: dict[str, dict[str, Floats]] = {name: {} for name in science.MEASURES}
        usable = science.pointable(self.objects)
        for name, heat in marks.items():
            found = self.areas(science.order_of(heat), 1)
            values["deletion"][name], values["insertion"][name] = found.deletion, found.insertion
            if usable.any():
                game = science.pointing(heat[torch.from_numpy(usable)], self.objects[usable])
                values["pointing"][name], chance["pointing"] = game.hit, game.chance
        return {measure: found for measure, found in values.items() if found}, chance


def objects(index: Index, images: list[int]) -> NDArray[np.bool_]:
    """(pictures, height, width) each picture's object box, else the mask of the concept that it is labelled with."""
    found = _masks_of_labels(index, images)
    for place, image in enumerate(images):
        record = index.source.record(image)
        if record.box is not None:
            x0, y0, x1, y1 = (max(0, round(value)) for value in record.box)
            plane = np.zeros((record.height, record.width), bool)
            plane[y0:y1, x0:x1] = True
            found[place] = index.source.placement(image).mask(plane, (record.width, record.height), index.frame.size)
    return found


def _masks_of_labels(index: Index, images: list[int]) -> NDArray[np.bool_]:
    """(pictures, height, width) the mask of the object that a picture's own label names; empty where there is none."""
    concepts, size = index.concepts, index.frame.size
    places = {concepts.name[place]: place for place in concepts.of_category("object")}
    labels = [index.source.record(image).label for image in images]
    wanted = sorted({places[label] for label in labels if label in places})
    masks = index.masks(np.array(images), wanted).reshape(len(images), len(wanted), *index.frame.masks)
    found = np.zeros((len(images), *size), bool)
    for place, label in enumerate(labels):
        if label in places:
            mask = torch.from_numpy(masks[place, wanted.index(places[label])])[None, None].float()
            found[place] = functional.interpolate(mask, size, mode="nearest-exact")[0, 0].numpy() > 0
    return found
