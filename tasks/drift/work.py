"""Stage `drift`: the same units of two networks, from the counts of both over the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InputError
from microtome.quantify import drift as science
from microtome.quantify.resampling import WeightedCounts, bootstrap_weights
from storage import Draft
from storage.tables import Gathered, Row
from tasks.activations.result import Maps
from tasks.drift import PlannedDrift
from tasks.drift.rows import MatchedLayer
from tasks.index.result import Index
from tasks.session import Session
from tasks.tally.result import Tally
from tasks.tally.runs import Runs
from tasks.thresholds.result import Thresholds

BLOCK_BYTES = 128_000_000  # of either network's counts, held for one block of resamples


@dataclass(frozen=True)
class Inputs:
    """Pictures, and what two networks made of them."""

    index: Index
    activations_before: Maps
    thresholds_before: Thresholds
    tally_before: Tally
    activations_after: Maps
    thresholds_after: Thresholds
    tally_after: Tally


def run(options: PlannedDrift, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Compare every layer that both networks have."""
    layers = shared_layers(inputs)
    session.begin(len(layers), "layers")
    units: Gathered = {}
    rows: list[Row] = []
    for layer in layers:
        compared = _Compared(options, inputs, session, layer)()
        for name, values in compared.unit_rows().items():
            units.setdefault(name, []).extend(values)
        rows.append(compared.layer_row())
        session.advance(1)
    draft.table("drift_units", units)
    draft.rows("drift_layers", rows)


@dataclass(frozen=True)
class LayerSide:
    """A layer in one of the networks: its name there, its place among the layers, and what was made of its maps."""

    name: str
    number: int
    units: int
    thresholds: Thresholds
    tally: Tally

    @property
    def scores(self) -> NDArray[np.float64]:
        """(units, concepts) IoU."""
        return self.tally.column(self.name, "iou", self.units)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """(units,) standard deviation of each unit's values."""
        found = {row["unit"]: row["std"] for row in self.thresholds.rows("thresholds", layer=self.name)}
        return np.array([found[unit] for unit in range(self.units)], np.float64)

    def threshold(self, tail: float) -> NDArray[np.float64]:
        """(units,) threshold of each unit."""
        return self.thresholds.at(self.name, tail).astype(np.float64)


@dataclass(frozen=True)
class SharedLayer:
    """A layer in both networks."""

    before: LayerSide
    after: LayerSide


def shared_layers(inputs: Inputs) -> list[SharedLayer]:
    """The layers of one name; a fine-tuned network keeps those of a network without a chain `features` under that name.

    Raises:
        InputError: there are none.
    """
    before, after = inputs.activations_before.layers, inputs.activations_after.layers
    numbers = {layer.name: number for number, layer in enumerate(after)}
    found = []
    for number, layer in enumerate(before):
        there = next((name for name in (layer.name, f"features.{layer.name}") if name in numbers), None)
        if there is not None:
            at = numbers[there]
            first = LayerSide(layer.name, number, layer.units, inputs.thresholds_before, inputs.tally_before)
            second = LayerSide(there, at, after[at].units, inputs.thresholds_after, inputs.tally_after)
            found.append(SharedLayer(first, second))
    if not found:
        raise InputError(
            f"drift: must have a layer in both networks, got {', '.join(layer.name for layer in before)} before and "
            f"{', '.join(numbers)} after"
        )
    return found


@dataclass(frozen=True)
class _Compared:
    """A layer under comparison."""

    options: PlannedDrift
    inputs: Inputs
    session: Session
    layer: SharedLayer

    def __call__(self) -> MatchedLayer:
        before, after, tail = self.layer.before, self.layer.after, self.options.tail
        found = science.matched(before.scores, after.scores)
        return MatchedLayer(
            before.name,
            found,
            science.redrawn(found, self.resampled()) if self.options.bootstrap else None,
            (before.threshold(tail), after.threshold(tail)),
            (before.deviation, after.deviation),
            self.inputs.index.concepts.name,
            self.inputs.index.images,
            self.options.min_iou,
            self.options.bootstrap,
        )

    def resampled(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """(units, concepts) IoU in both networks over each resample: the same pictures in both."""
        rng = np.random.default_rng([self.session.seed, 1])
        weights = bootstrap_weights(self.inputs.index.images, self.options.bootstrap, rng)
        before, after = self.layer.before, self.layer.after
        concepts = len(self.inputs.index.concepts.number)
        size = max(1, BLOCK_BYTES // (4 * max(before.units, after.units) * concepts))
        index = self.inputs.index
        runs = [(side, Runs(side.tally.image_counts(index, side.number, side.units))) for side in (before, after)]
        for first in range(0, len(weights), size):
            both = [self.weighted(*own, weights[first : first + size]) for own in runs]
            yield from ((both[0].scores(place), both[1].scores(place)) for place in range(len(both[0])))

    def weighted(self, side: LayerSide, runs: Runs, weights: NDArray[np.int32]) -> WeightedCounts:
        """One network's counts with pictures taken so many times."""
        category, everywhere = self.inputs.index.concepts.category_index, self.options.denominator == "all-images"
        counts = WeightedCounts(weights, side.units, category, all_images=everywhere)
        for run in runs:
            counts.update(run)
            self.session.check()
        return counts
