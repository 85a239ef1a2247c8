"""Stage `adversarial`: attacks, their controls of the same size, and what moves inside the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.sampling import sampled
from microtome.datasets.source import Source, webp
from microtome.networks.geometry import LayerGeometry
from microtome.quantify.intervals import mean_interval, share_interval
from microtome.quantify.kept_labels import OwnCounts, joined_counts
from microtome.visualize.adversarial import Attack, attack, fgsm, moved, same_size_noise
from microtome.visualize.attribution import Scaled, answer_of, at_rest
from microtome.visualize.measures import SHARES, AttackMeasure, MeasureKind
from storage import Draft
from storage.tables import Row
from tasks.activations.result import Maps
from tasks.adversarial import AdversarialOptions
from tasks.adversarial.concepts import Annotated, Detectors
from tasks.adversarial.explained import Measured, Paths, Patterns
from tasks.dissection.result import Dissection
from tasks.graph.result import Graph
from tasks.index.result import Index
from tasks.session import Session
from tasks.subject import Subject
from tasks.thresholds.result import Thresholds
from tasks.tree.result import GrownTree

if TYPE_CHECKING:
    from microtome.report.adversarial import AttackedNumbers

BATCH = 8
SHOWN = 6


@dataclass(frozen=True)
class Inputs:
    """The network and its layers, and what the audit knows of it on the same pictures."""

    index: Index
    activations: Maps
    network: Subject
    thresholds: Thresholds | None = None
    dissection: Dissection | None = None
    tree: GrownTree | None = None
    graph: Graph | None = None


def shards(options: AdversarialOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """The attacks, by their numbers."""
    return {f"{number:03d}": 1 for number in range(len(options.eps) * (1 + len(options.norms)))}


class Shard:
    """Attacks a sample of the pictures; every attack beside noise of the same size.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: AdversarialOptions, inputs: Inputs, session: Session) -> None:
        self._source, self._network = inputs.index.source, inputs.network.pixels(session.device)
        self._chosen = sampled(len(self._source), options.images, session.seed)
        self._attacks = list(_attacks(options, session.seed))
        self._witness = _Witness.of(inputs, self._network, self._chosen, session.device)
        self._called = inputs.network.named(self._network, self._source.batch(self._chosen[:1], session.device))
        self._session = session
        self._unchanged: dict[int, dict[str, OwnCounts]] = {}  # by a batch's place: the same for every attack

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the first pictures of an attack, and leave its rows."""
        how, network, chosen = self._attacks[int(name)], self._network, self._chosen
        tally = _Tally(self._unchanged)
        shown: list[AttackedNumbers] = []
        for start in range(0, len(chosen), BATCH):
            some = chosen[start : start + BATCH]
            batch = _attacked(network, self._source, some, how=how.attack, session=self._session)
            if start not in self._unchanged:
                self._unchanged[start] = dict(self._witness.counts(batch, batch.pictures))
            for called, other in ((how.name, batch.changed), (f"noise like {how.name}", batch.control)):
                tally.take(called, self._witness, batch, other)
            if start < SHOWN:
                shown += _show(draft, how, batch, network, most=SHOWN - start)
            self._session.check()
        rows = [{**row, "norm": how.attack.norm, "eps": how.eps} for row in tally.rows(self._witness)]
        names = [{f"{when}_name": self._called(row[when]) for when in ("before", "after")} for row in shown]
        images = [{**row, **named} for row, named in zip(shown, names, strict=True)]
        draft.leave(name, {"adversarial": rows, "attacked_images": images})


def run(options: AdversarialOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Put the attacks' rows together."""
    parts = [draft.left(name) for name in shards(options, inputs, ())]
    for table in ("adversarial", "attacked_images"):
        draft.rows(table, [row for part in parts for row in part[table]])


class _Named(NamedTuple):
    """An attack and what tables call it."""

    name: str
    attack: Attack

    @property
    def eps(self) -> float:
        """Of 255."""
        return self.attack.eps * 255


def _attacks(options: AdversarialOptions, seed: int) -> Iterator[_Named]:
    for eps in options.eps:
        yield _Named("fgsm", fgsm(eps / 255))
        for norm in options.norms:
            name = "pgd" if norm == "linf" else "pgd l2"
            yield _Named(name, Attack(eps / 255, norm, steps=options.steps, seed=seed))


class _Batch(NamedTuple):
    """Pictures by number, as they are, what the network says of them, attacked, and moved as far at random."""

    images: list[int]
    pictures: torch.Tensor
    classes: torch.Tensor
    changed: torch.Tensor
    control: torch.Tensor


def _attacked(network: Scaled, source: Source, images: list[int], *, how: Attack, session: Session) -> _Batch:
    pictures = source.batch(images, session.device)
    with torch.no_grad(), at_rest(network):
        classes = network(pictures).argmax(1)
    changed = attack(network, pictures, classes, how)
    return _Batch(images, pictures, classes, changed, same_size_noise(pictures, changed, session.seed))


@dataclass(frozen=True)
class _Witness:
    """The network, and all that the audit knows of it: what looks at changed pictures."""

    network: Scaled
    layers: list[LayerGeometry]
    detectors: Mapping[str, Detectors]
    paths: Paths | None
    patterns: Patterns | None

    @classmethod
    def of(cls, inputs: Inputs, network: Scaled, chosen: list[int], device: str) -> _Witness:
        """Of a stage's inputs."""
        layers = inputs.activations.layers
        detectors: dict[str, Detectors] = {}
        if inputs.dissection and inputs.thresholds:
            annotated = Annotated(inputs.index, chosen)
            for layer in layers:
                found = Detectors(layer, inputs.dissection, inputs.thresholds, annotated=annotated, device=device)
                if len(found.units):
                    detectors[layer.name] = found
        return cls(
            network,
            layers,
            detectors,
            Paths(inputs.tree.frozen, network) if inputs.tree else None,
            Patterns(inputs.graph, network, inputs.index.frame.size) if inputs.graph else None,
        )

    def measures(self, batch: _Batch, other: torch.Tensor) -> Iterator[Measured]:
        """(pictures,) each: what changed in the network, and in its explanations."""
        found = moved(self.network, batch.pictures, other, batch.classes, layers=self.layers)
        yield {
            AttackMeasure(MeasureKind.FLIPPED): found.flipped,
            AttackMeasure(MeasureKind.LOGIT_LOST): found.logit_lost,
        }
        for layer, units in found.layers.items():
            yield {
                AttackMeasure(MeasureKind.UNITS_CHANGED, layer): units.change,
                AttackMeasure(MeasureKind.UNITS_KEPT, layer): units.kept,
            }
        yield {AttackMeasure(MeasureKind.SALIENCY): found.saliency}
        if self.paths:
            yield self.paths.moved(batch.pictures, other)
        if self.patterns:
            yield self.patterns.moved(batch.pictures, other, batch.images)

    def counts(self, batch: _Batch, other: torch.Tensor) -> Iterator[tuple[str, OwnCounts]]:
        """Each layer's detectors on changed pictures."""
        for layer in self.layers:
            if layer.name in self.detectors:
                with torch.no_grad(), at_rest(self.network):
                    maps = answer_of(self.network, other, layer)
                yield layer.name, self.detectors[layer.name].counts(maps, batch.images)


@dataclass
class _Tally:
    """What one attack and its control moved, batch by batch.

    Args:
        unchanged: what each layer's detectors count where nothing did, by batch, in the order of the pictures.
    """

    unchanged: Mapping[int, Mapping[str, OwnCounts]]
    measured: dict[tuple[str, AttackMeasure], list[NDArray[np.float64]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    counted: dict[tuple[str, str], list[OwnCounts]] = field(default_factory=lambda: defaultdict(list))

    def take(self, name: str, witness: _Witness, batch: _Batch, other: torch.Tensor) -> None:
        """One batch, changed in one way."""
        for measures in witness.measures(batch, other):
            for measure, values in measures.items():
                self.measured[name, measure].append(values)
        for layer, counts in witness.counts(batch, other):
            self.counted[name, layer].append(counts)

    def rows(self, witness: _Witness) -> Iterator[Row]:
        """Means over the pictures; of the detectors that detect their own label on these pictures as they are, the
        share that still does: on a sample some do not, whoever attacks it."""
        for (name, measure), parts in self.measured.items():
            values = np.concatenate(parts)
            values = values[np.isfinite(values)]  # explanations speak of their own category only
            if len(values) > 1:
                interval = share_interval(values) if measure.kind in SHARES else mean_interval(values)
                yield _row(name, measure, interval, len(values))
        for (name, layer), counted in self.counted.items():
            least = witness.detectors[layer].min_iou
            detecting = joined_counts([part[layer] for part in self.unchanged.values()]).detecting(least)
            if detecting.any():
                counts = joined_counts(counted).of(detecting)
                interval = counts.kept_interval(least)
                row = _row(name, AttackMeasure(MeasureKind.LABELS_KEPT, layer), interval, len(counts.label))
                yield {**row, "detectors": int(detecting.sum())}


def _row(name: str, measure: AttackMeasure, interval: tuple[float, float, float], count: int) -> Row:
    value, low, high = interval
    return {
        "attack": name,
        "measure": str(measure),
        "value": value,
        "low": low,
        "high": high,
        "n": count,
        "detectors": None,
    }


def _show(draft: Draft, how: _Named, batch: _Batch, network: Scaled, *, most: int) -> Iterator[AttackedNumbers]:
    """Keep the first pictures of an attack, for the report; the difference at full contrast about grey."""
    with torch.no_grad(), at_rest(network):
        now = network(batch.changed).argmax(1)
    for place, image in enumerate(batch.images[:most]):
        stem = f"attacked/{how.name.replace(' ', '-')}-{how.eps:g}/{image:06d}"
        difference = 0.5 + 0.5 * (batch.changed[place] - batch.pictures[place]) / how.attack.eps
        for kind, picture in (("changed", batch.changed[place]), ("difference", difference.clamp(0, 1))):
            content = (picture.cpu().permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            draft.write(f"{stem}-{kind}.webp", webp(content, quality=92))
        yield {
            "attack": how.name,
            "norm": how.attack.norm,
            "eps": how.eps,
            "image": image,
            "before": int(batch.classes[place]),
            "after": int(now[place]),
            "file": stem,
        }
