"""Stage `ablation`: removes and keeps every unit, and concepts' units together, and reads the network's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.sampling import sampled
from microtome.errors import InputError
from microtome.networks.classes import class_names
from microtome.networks.cut import Cut, cut_at
from microtome.quantify.accumulate import State
from microtome.quantify.decisions import Decisions
from microtome.quantify.removal import Removal, said
from storage import Draft
from storage.tables import Row
from tasks.ablation import PlannedAblation
from tasks.ablation.layers import RemovedLayer
from tasks.ablation.rows import AblatedLayer
from tasks.index.result import Index
from tasks.session import Session
from tasks.spans import layer_part, of_layer_part
from tasks.subject import Subject
from tasks.tally.result import Tally
from tasks.thresholds.result import SeenPictures

BATCH = 10  # pictures at a time: what follows the layer is quickest where its values fit the cache
PICTURES_SEED = 43  # tells the order of the pictures from other chance


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """What the dissection saw, the pictures to be decided, and the network that decides."""

    tally: Tally
    pictures: Index
    network: Subject


def parts(options: PlannedAblation, pictures: Index, seed: int) -> list[NDArray[np.int64]]:
    """The wanted pictures in random order, in batches of nearly one size: the next picture is another one at random."""
    chosen = np.array(sampled(pictures.images, options.images, seed), np.int64)
    shuffled = np.random.default_rng([seed, PICTURES_SEED]).permutation(chosen)
    return np.array_split(shuffled, -(-len(shuffled) // BATCH))


def shards(options: PlannedAblation, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Batches of pictures, for each layer."""
    count = min(options.images, inputs.pictures.images)
    sizes = [len(part) for part in np.array_split(np.arange(count), -(-count // BATCH))]
    layers = range(len(inputs.activations.layers))
    return {layer_part(layer, number): size for layer in layers for number, size in enumerate(sizes)}


class Shard:
    """Decides a batch of pictures without, and with nothing but, each unit and group of a layer.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: PlannedAblation, inputs: Inputs, session: Session) -> None:
        self._options, self._inputs, self._session = options, inputs, session
        self._network = inputs.network.load().to(session.device)
        self._parts = parts(options, inputs.pictures, session.seed)
        self._layer = cache(lambda number: RemovedLayer(options, inputs, inputs.tally, number, session.seed))
        self._cut = cache(self._cut_at)

    def __call__(self, draft: Draft, name: str) -> None:
        """Leave the scores and the highest classes."""
        number, part = of_layer_part(name)
        images = self._parts[part]
        with torch.inference_mode():
            found = self._decided(number, images)
        draft.leave_arrays(name, {"image": images, **found})

    def _decided(self, number: int, images: NDArray[np.int64]) -> State:
        layer, batch, cut = self._layer(number), self._batch(images), self._cut(number)
        answer = self._network(batch)
        known = self._known(images, answer)
        wanted = torch.from_numpy(known["class"]).to(batch.device)
        removal = Removal(cut, layer.geometry, layer.mean, cut.below(batch), wanted, self._session.check)
        whole, without = said(answer, wanted), removal.without(layer.removals, self._options.remove)
        return {
            **known,
            "reason": np.array(cut.reason),
            "nothing": np.abs(removal.nothing().score - whole.score),
            "base": removal.kept(np.zeros((1, layer.geometry.units), bool)).score[0],
            "kept": removal.kept(layer.removals).score,
            "score": whole.score,
            "top": whole.top,
            "without": without.score,
            "top_without": without.top,
        }

    def _known(self, images: NDArray[np.int64], answer: torch.Tensor) -> State:
        """The class of each picture: that of its label, where an output bears its name, else the highest one."""
        if answer.shape[1] < 2:
            raise InputError(f"network: ablation needs two classes at least, got {answer.shape[1]} output")
        names = class_names(self._network, self._inputs.network.spec.load, answer.shape[1])
        places = {_plain(name): place for place, name in enumerate(names or ())}
        labels = [self._inputs.pictures.source.record(image).label for image in images.tolist()]
        target = np.array([-1 if label is None else places.get(_plain(label), -1) for label in labels])
        classes = np.where(target >= 0, target, answer.argmax(1).cpu().numpy())
        called = [
            label or (names[place] if names else f"output {place}")
            for label, place in zip(labels, classes.tolist(), strict=True)
        ]
        return {"class": classes, "labelled": target >= 0, "name": np.array(called)}

    def _cut_at(self, number: int) -> Cut:
        layer = self._layer(number).geometry.name
        cut = cut_at(self._network, layer, self._batch(self._parts[0][:2]))
        if cut.reason:
            self._session.progress.say(f"{self._session.name}: {layer}: the whole network is run: {cut.reason}")
        return cut

    def _batch(self, images: NDArray[np.int64]) -> torch.Tensor:
        source = self._inputs.pictures.source
        pixels = np.stack([source.normalised(image) for image in images.tolist()])
        return torch.from_numpy(pixels).to(self._session.device)


def _plain(name: str) -> str:
    """A class's name as it is compared: `Giant_panda` and `giant panda` are one."""
    return name.replace("_", " ").casefold()


def run(options: PlannedAblation, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Summarise what the shards left."""
    names = list(shards(options, inputs, ()))
    rows: dict[str, list[Row]] = {"units": [], "classes": [], "groups": [], "layers": []}
    for number in range(len(inputs.activations.layers)):
        left = [draft.left_arrays(name) for name in names if of_layer_part(name)[0] == number]
        layer = RemovedLayer(options, inputs, inputs.tally, number, session.seed)
        found = AblatedLayer(layer, Decisions.joined(left), str(left[0]["reason"]), inputs.index.concepts)
        rows["units"] += found.unit_rows()
        rows["classes"] += found.class_rows()
        rows["groups"] += found.group_rows()
        rows["layers"].append(found.layer_row())
        session.check()
    for name, some in rows.items():
        draft.rows(f"ablation_{name}", some)
