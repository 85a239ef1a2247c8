"""Stage `directions`: dictionaries of a layer's channel space, each from several starts, and their controls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from microtome.errors import InputError
from microtome.quantify.dictionary.autoencoder import AutoencoderPlan, fitted
from microtome.quantify.dictionary.cells import drawn_cells, shuffled
from microtome.quantify.dictionary.directions import Directions, Floats
from microtome.quantify.dictionary.nmf import nmf, unsettled
from microtome.quantify.dictionary.rotation import one_hot, rotation
from microtome.quantify.resampling import halves
from storage import Draft
from storage.tables import Columns, stacked
from tasks.directions import LEARNED, DirectionsOptions
from tasks.directions.result import METHODS, Fit, bases, fits, packed, unpacked
from tasks.session import Session
from tasks.thresholds.result import SeenPictures

CELLS, SHUFFLE, START = 10, 11, 12  # what a draw is for, in its seed


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """Maps of indexed pictures."""


def run(options: DirectionsOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Fit every layer's dictionaries; each lies in a file of its own, which an interrupted run keeps."""
    layers = inputs.activations.layers
    _refuse_negative(options, inputs)
    session.begin(len(layers) * len(list(fits(options))), "dictionaries")
    rows: list[Columns] = []
    for number in range(len(layers)):
        with threadpool_limits(1):  # sums split over threads round differently
            layer = _FittedLayer(options, inputs, session, number)
            layer.fit(draft)
            rows += [layer.rows(draft, fit) for fit in bases(options)]
    draft.table("directions", stacked(rows))


def _refuse_negative(options: DirectionsOptions, inputs: Inputs) -> None:
    """NMF has no way to say less than nothing. Raises InputError before any fit."""
    if "nmf" not in options.methods:
        return
    for layer in inputs.activations.layers:
        least = float(inputs.thresholds.extremes(layer.name)[0].min())
        if least < 0:
            raise InputError(
                f"stages.dictionary.methods: nmf needs maps without negative values, got {least:.3g} in layer "
                f"{layer.name}; name the ReLU behind it in network.layers, or leave nmf out"
            )


@dataclass(frozen=True)
class _FittedLayer:
    """A layer in hand."""

    options: DirectionsOptions
    inputs: Inputs
    session: Session
    number: int

    @property
    def units(self) -> int:
        """Of the layer."""
        return self.inputs.activations.layers[self.number].units

    def rng(self, *of: int) -> np.random.Generator:
        """The chance of one draw."""
        return np.random.default_rng([self.session.seed, *of, self.number])

    def fit(self, draft: Draft) -> None:
        """Write all dictionaries that are not there yet."""
        wanted = [fit for fit in fits(self.options) if not draft.has(fit.file(self.number))]
        self.session.advance(len(list(fits(self.options))) - len(wanted))
        learned = any(fit.method in LEARNED for fit in wanted)
        cells = self.cells() if learned else np.zeros((0, self.units), np.float32)
        apart = shuffled(cells, self.rng(SHUFFLE)) if learned else cells
        with unsettled(), ThreadPoolExecutor(self.session.threads, "directions") as pool:
            found = pool.map(lambda fit: self.fitted(fit, apart if fit.shuffled else cells), wanted)
            for fit, directions in zip(wanted, found, strict=True):
                draft.write(fit.file(self.number), packed(directions))
                self.session.advance(1)

    def cells(self) -> Floats:
        """Cells of the pictures on which the dissection's held-out labels are chosen, and not judged."""
        images = self.inputs.index.images
        first = halves(images, np.random.default_rng([self.session.seed, 2]))[0]
        blocks = ((block.first, block.tensors) for block in self.inputs.activations.blocks(self.number))
        return drawn_cells(blocks, np.flatnonzero(first), self.options.cells, self.rng(CELLS))

    def fitted(self, fit: Fit, cells: NDArray[np.float32]) -> Directions:
        """One dictionary."""
        self.session.check()
        rng = self.rng(START, METHODS.index(fit.method), fit.run, fit.shuffled)
        wanted = self.options.directions or self.units
        if fit.method == "rotation":
            return rotation(self.units, min(wanted, self.units), rng)
        if fit.method == "one-hot":
            return one_hot(self.units, min(wanted, self.units))
        seed = int(rng.integers(2**31))
        if fit.method == "nmf":
            return nmf(cells, wanted, seed)
        plan = AutoencoderPlan(wanted, min(self.options.active, wanted), self.options.steps)
        return fitted(cells, plan, seed, device=self.session.device, check=self.session.check)

    def rows(self, draft: Draft, fit: Fit) -> Columns:
        """Rows of the table `directions`, from what was written."""
        with draft.read(fit.file(self.number)) as source:
            vectors = unpacked(fit.method, source.read()).vectors
        count = len(vectors)
        layer = self.inputs.activations.layers[self.number].name
        return {
            "layer": [layer] * count,
            "basis": [fit.basis] * count,
            "direction": range(count),
            "values": list(vectors),
        }
