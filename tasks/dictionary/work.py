"""Stage `dictionary`: units, random rotations and dictionaries side by side, dissected by one rule; and how steady."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from microtome.quantify.dictionary.directions import Directions, Floats, Reading
from microtome.quantify.dictionary.matching import MatchedCosine, matched_cosine
from microtome.quantify.dictionary.rotation import one_hot, random_vectors
from storage import Draft
from storage.tables import Columns, Row, stacked
from tasks.activations.result import Maps
from tasks.dictionary import PlannedDictionary
from tasks.dictionary.rows import UNITS, JudgedBasis, SteadyMethod
from tasks.directions import LEARNED
from tasks.directions.result import METHODS, Fitted, bases
from tasks.dissection.work import Inputs as Dissected
from tasks.dissection.work import LayerDissection
from tasks.null.result import Null
from tasks.session import Session
from tasks.tally.result import Tally
from tasks.thresholds.result import SeenPictures, Thresholds

RANDOM = 13  # what a draw is for, in its seed


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """The units' maps with their counts and null, and the same of maps along directions."""

    tally: Tally
    directions: Fitted
    projected: Maps
    thresholds_along: Thresholds
    tally_along: Tally
    null: Null | None = None
    null_along: Null | None = None

    @property
    def units(self) -> Dissected:
        """What a dissection reads of the units."""
        return Dissected(self.index, self.activations, self.thresholds, self.tally, self.null)

    @property
    def along(self) -> Dissected:
        """What a dissection reads of the directions, each basis being a layer."""
        return Dissected(self.index, self.projected, self.thresholds_along, self.tally_along, self.null_along)

    def place(self, layer: int, basis: int) -> int:
        """Of a layer's basis among the layers of `projected`."""
        return layer * len(bases(self.directions.options)) + basis


def run(options: PlannedDictionary, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Judge every basis of every layer."""
    layers = inputs.activations.layers
    session.begin(len(layers) * (1 + len(bases(options))), "bases")
    found: list[Columns] = []
    rows: dict[str, list[Row]] = {"dictionary_bases": [], "dictionary_stability": []}
    for number in range(len(layers)):
        with threadpool_limits(1):  # sums split over threads round differently
            layer = _JudgedLayer(options, inputs, session, number)
            units, *others = layer.bases()
            found += [basis.columns(layer.cosines.get(basis.method)) for basis in (units, *others)]
            rows["dictionary_bases"] += [basis.row(units) for basis in (units, *others)]
            rows["dictionary_stability"] += [steady.row() for steady in layer.steady]
    draft.table("dictionary", stacked(found))
    for name, some in rows.items():
        draft.rows(name, some)


@dataclass(frozen=True)
class _JudgedLayer:
    """A layer in hand."""

    options: PlannedDictionary
    inputs: Inputs
    session: Session
    number: int

    def bases(self) -> Iterator[JudgedBasis]:
        """The units, then the other bases."""
        channels = self.inputs.activations.layers[self.number].units
        yield self._judged((UNITS, UNITS), one_hot(channels, channels), (self.inputs.units, self.number))
        for place, fit in enumerate(bases(self.options)):
            directions = self.inputs.directions.fitted(self.number, fit)
            named = (fit.basis, fit.method)
            yield self._judged(named, directions, (self.inputs.along, self.inputs.place(self.number, place)))

    def _judged(self, named: tuple[str, str], directions: Directions, of: tuple[Dissected, int]) -> JudgedBasis:
        """Args: basis and method; its directions; what a dissection reads of it, and its place there."""
        seen, place = of
        summary = LayerDissection(self.options, seen, self.session, place)
        draws = confirmed = None
        if self.options.bootstrap:
            draws, confirmed = summary.draws(slice(0, self.options.bootstrap))
        drawn = [] if draws is None else [{**vars(draws), **({} if confirmed is None else {"confirmed": confirmed})}]
        judged = JudgedBasis(
            layer=self.inputs.activations.layers[self.number].name,
            basis=named[0],
            method=named[1],
            options=self.options,
            concepts=self.inputs.index.concepts,
            images=self.inputs.index.images,
            found=summary(drawn),
            vectors=directions.vectors,
            thresholds=seen.thresholds.at(summary.layer.name, self.options.tail),
            detectors_drawn=None if draws is None else draws.layer,
            confirmed_drawn=confirmed,
            readings=self._readings(directions, seen.activations, place, summary.halves[1].astype(bool)),
        )
        self.session.advance(1)
        return judged

    def _readings(self, directions: Directions, maps: Maps, place: int, judged: np.ndarray) -> list[Reading]:
        """How well codes stand for the units' maps, of each picture of the half that was not fitted."""
        found = []
        both = zip(self.inputs.activations.blocks(self.number), maps.blocks(place), strict=True)
        for units, along in both:
            for offset in np.flatnonzero(judged[units.first : units.first + len(units.tensors)]):
                own = units.tensors[offset].astype(np.float32, copy=False)
                found.append(Reading.of(directions, own, along.tensors[offset].astype(np.float32, copy=False)))
            self.session.check()
        return found

    @cached_property
    def steady(self) -> list[SteadyMethod]:
        """Of every method that starts at random."""
        return [self._steady(method) for method in METHODS if method in LEARNED and method in self.options.methods]

    @property
    def cosines(self) -> dict[str, np.ndarray]:
        """Method -> (directions,) with which cosine other initialisations have the first one's directions."""
        return {steady.method: steady.own.of_direction for steady in self.steady}

    def _steady(self, method: str) -> SteadyMethod:
        kind = next(name for name in METHODS if name == method)
        own, apart = (self.inputs.directions.starts(self.number, kind, shuffled=flag) for flag in (False, True))
        rng = np.random.default_rng([self.session.seed, RANDOM, METHODS.index(kind), self.number])
        drawn: list[Floats] = [random_vectors(one.shape, rng, positive=kind == "nmf") for one in own]
        agreed: list[MatchedCosine] = [matched_cosine(some) for some in (own, apart, drawn)]
        return SteadyMethod(self.inputs.activations.layers[self.number].name, kind, self.options, *agreed)
