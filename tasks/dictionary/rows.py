"""Rows of the tables of `dictionary`, from what was counted of each basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.dictionary.directions import Floats, Reading
from microtome.quantify.dictionary.matching import MatchedCosine
from microtome.quantify.intervals import paired_interval, ratio_intervals
from storage.tables import Columns, Row
from tasks.dictionary import PlannedDictionary
from tasks.dissection.work import SummarisedLayer, layer_row, unit_rows
from tasks.index.result import ConceptTable

UNITS = "units"
"""The basis of the units themselves, and its method."""
NEAR = 0.9  # cosine with a unit from which on a direction is all but that unit
Counts = NDArray[np.int64]
Drawn = NDArray[np.float64]
Shared = tuple[float, Drawn | None]
_TAKEN = ("confirmed", "confirmed_low", "confirmed_high", "detectors", "detectors_low", "detectors_high")
_ALSO = ("significant", "dead", "saturated", "mean_iou", "min_iou", "images", "permutations")


@dataclass(frozen=True)
class JudgedBasis:
    """A basis of a layer, dissected.

    Args:
        layer, basis, method: what it is.
        options: of the stage.
        concepts: of the pictures.
        images: how many there are.
        found: by the dissection's rule.
        vectors: (directions, units).
        thresholds: (directions,).
        detectors_drawn: (resamples, 3) detectors, unique per category, unique per unit; None without resamples.
        confirmed_drawn: (resamples,) numbers of confirmed detectors; None without resamples or null.
        readings: of the pictures of the half that was not fitted.
    """

    layer: str
    basis: str
    method: str
    options: PlannedDictionary
    concepts: ConceptTable
    images: int
    found: SummarisedLayer
    vectors: Floats
    thresholds: NDArray[np.float32]
    detectors_drawn: Counts | None
    confirmed_drawn: Counts | None
    readings: Sequence[Reading]

    @property
    def directions(self) -> int:
        """Of the basis."""
        return self.found.geometry.units

    def columns(self, cosines: NDArray[np.float64] | None) -> Columns:
        """Rows of the table `dictionary`.

        Args:
            cosines: (directions,) with other initialisations' directions; None where nothing was learned.
        """
        own = dict(unit_rows(self.found, self.concepts, self.thresholds, self.options.min_iou))
        return {
            **{name: values for name, values in own.items() if name not in ("layer", "unit")},
            "layer": [self.layer] * self.directions,
            "basis": [self.basis] * self.directions,
            "direction": own["unit"],
            "unit": self.nearest[0],
            "unit_cosine": self.nearest[1],
            "cosine": [None] * self.directions if cosines is None else cosines,
        }

    @property
    def nearest(self) -> tuple[NDArray[np.int64], Floats]:
        """(directions,) the unit that each direction is nearest to, and their cosine."""
        unit = np.abs(self.vectors).argmax(1)
        return unit, self.vectors[np.arange(len(unit)), unit]

    @cached_property
    def counted(self) -> Row:
        """The basis as a row of `layers`."""
        return layer_row(self.found, self.options, self.images)

    def row(self, units: JudgedBasis) -> Row:
        """The row of the table `dictionary_bases`.

        Args:
            units: the basis that it is compared with, over the same pictures and resamples.
        """
        counted, firm = self.counted, self.found.confirmed
        unique = {
            "unique": "unique_per_unit",
            "unique_low": "unique_per_unit_low",
            "unique_high": "unique_per_unit_high",
        }
        return {
            "layer": self.layer,
            "basis": self.basis,
            "method": self.method,
            "directions": self.directions,
            **{name: counted[name] for name in (*_TAKEN, *_ALSO)},
            **{name: counted[other] for name, other in unique.items()},
            "confirmed_unique": None if firm is None else len(np.unique(self.found.found.concept[firm.units])),
            **{f"share{end}": self._shared(f"confirmed{end}") for end in ("", "_low", "_high")},
            **_apart("apart", self.confirmed, units.confirmed),
            **_apart("detectors_apart", self.detectors, units.detectors),
            **_apart("unique_apart", self.unique, units.unique, whole=True),
            "near_unit": int((np.abs(self.nearest[1]) >= NEAR).sum()),
            "heldout_iou": float(self.found.heldout.mean()),
            **self.explained,
            "active": sum(one.active for one in self.readings) / max(1, sum(one.cells for one in self.readings)),
            "judged": len(self.readings),
            "bootstrap": self.options.bootstrap,
        }

    def _shared(self, name: str) -> float | None:
        value = self.counted[name]
        return None if value is None else float(value) / self.directions  # type: ignore[arg-type]  # a number

    @property
    def confirmed(self) -> Shared | None:
        """Share of confirmed directions, and that in resamples; None without a null."""
        firm = self.found.confirmed
        return None if firm is None else (float(firm.units.mean()), _shares(self.confirmed_drawn, self.directions))

    @property
    def detectors(self) -> Shared:
        """Share of detectors, and that in resamples."""
        drawn = None if self.detectors_drawn is None else self.detectors_drawn[:, 0]
        return self.found.counted.units / self.directions, _shares(drawn, self.directions)

    @property
    def unique(self) -> Shared:
        """Concepts that are the label of a detector, and that in resamples."""
        drawn = None if self.detectors_drawn is None else self.detectors_drawn[:, 2]
        return float(self.found.counted.per_unit), _shares(drawn, 1)

    @property
    def explained(self) -> Row:
        """Share of the cells' variance that codes account for, over the pictures that were not fitted."""
        cells = sum(np.prod(self.found.geometry.grid) for _ in self.readings)
        mean = np.sum([one.total for one in self.readings], axis=0) / cells
        each = float(np.prod(self.found.geometry.grid))
        spread = np.array([one.square - 2 * mean @ one.total + each * mean @ mean for one in self.readings])
        error = np.array([[one.error for one in self.readings]])
        value, low, high = ratio_intervals(error, spread)[0]
        return {name: _known(1 - part) for name, part in zip(_EXPLAINED, (value, high, low), strict=True)}


_EXPLAINED = ("explained", "explained_low", "explained_high")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _shares(drawn: Counts | None, of: int) -> Drawn | None:
    return None if drawn is None else drawn / of


def _apart(name: str, mine: Shared | None, units: Shared | None, *, whole: bool = False) -> Row:
    """A figure minus that of the units, over the same resamples; of whole numbers, ends are rounded outwards."""
    ends: tuple[float | None, float | None, float | None] = (None, None, None)
    if mine is not None and units is not None:
        (value, one), (other, two) = mine, units
        ends = (value - other, None, None)
        if one is not None and two is not None:
            apart, low, high = paired_interval((value, other), (one, two))
            low, high = (np.floor(low), np.ceil(high) + 0.0) if whole else (low, high)  # + 0.0: no minus before nought
            ends = (apart, float(min(low, apart)), float(max(high, apart)))
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


@dataclass(frozen=True)
class SteadyMethod:
    """How far initialisations of a method agree.

    Args:
        layer, method: what it is.
        options: of the stage.
        own: of the dictionaries.
        apart: of those of shuffled channels.
        random: of random directions.
    """

    layer: str
    method: str
    options: PlannedDictionary
    own: MatchedCosine
    apart: MatchedCosine
    random: MatchedCosine

    def row(self) -> Row:
        """The row of the table `dictionary_stability`."""
        beyond = [self.own.low > control.high for control in (self.random, self.apart)]
        named = {"cosine": self.own, "shuffled": self.apart, "random": self.random}
        ends = {f"{name}_{end}": getattr(found, end) for name, found in named.items() for end in ("low", "high")}
        return {
            "layer": self.layer,
            "method": self.method,
            "directions": len(self.own.of_direction),
            "initialisations": self.options.initialisations,
            **{name: found.cosine for name, found in named.items()},
            **ends,
            "beyond_random": beyond[0],
            "beyond_shuffled": beyond[1],
            "steady": all(beyond),
            "cells": self.options.cells,
        }
