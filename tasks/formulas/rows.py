"""Rows of the tables of `formulas`, from what was searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.drift import Estimate
from microtome.quantify.formulas.best import BestFormulas
from microtome.quantify.formulas.checks import Halves, estimate
from microtome.quantify.formulas.grammar import Form
from microtome.quantify.intervals import wilson
from microtome.quantify.significance import LEVEL, false_discovery, p_values
from storage.tables import Columns, Row
from tasks.formulas import PlannedFormulas
from tasks.index.result import ConceptTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recounted:
    """A unit's best formula, counted again picture by picture.

    Args:
        counts: I, A and L.
        images: pictures in which all of its categories are annotated.
        part_iou: best IoU of one of its own concepts over these pictures.
        drawn, drawn_concept: (resamples,) IoU of the formula, and of the best single concept, in resamples.
    """

    counts: tuple[int, int, int]
    images: int
    part_iou: float
    drawn: Floats
    drawn_concept: Floats


@dataclass(frozen=True)
class SearchedLayer:
    """What was found in a layer.

    Args:
        name: of the layer.
        options: of the stage.
        concepts: of the data set.
        images: indexed pictures.
        found: of each unit, over all pictures.
        recounted: the same formulas, counted again.
        chosen: of each unit, over one half of the pictures.
        halves: the same formulas on the other half.
        reached: (permutations, units) whether any formula reaches a unit's IoU.
    """

    name: str
    options: PlannedFormulas
    concepts: ConceptTable
    images: int
    found: Sequence[BestFormulas]
    recounted: Sequence[Recounted]
    chosen: Sequence[BestFormulas]
    halves: Halves
    reached: NDArray[np.bool_]

    @cached_property
    def iou(self) -> Floats:
        """(units, 3) best IoU of up to one, two, three concepts."""
        return np.array([found.iou for found in self.found])

    @cached_property
    def p(self) -> Floats | None:
        """(units,) p-values; None without permutations."""
        return p_values(np.ones(len(self.found)), self.reached.astype(np.float64)) if len(self.reached) else None

    @cached_property
    def q(self) -> Floats | None:
        """(units,) false discovery rates."""
        return None if self.p is None else false_discovery(self.p)

    @property
    def beaten(self) -> NDArray[np.bool_]:
        """(units,) whether the best formula is better than that of the beam search."""
        return self.iou[:, 2] > np.array([found.beam_iou for found in self.found])

    def unit_rows(self) -> Columns:
        """Columns of the table `formulas`."""
        rows = [{**self._formula(unit), **self._sure(unit), **self._rivals(unit)} for unit in range(len(self.found))]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _worded(self, formula: Form, iou: float) -> str | None:
        return formula.worded(self.concepts.name) if iou > 0 else None

    def _formula(self, unit: int) -> Row:
        found, again = self.found[unit], self.recounted[unit]
        return {
            "layer": self.name,
            "unit": unit,
            "formula": self._worded(found.best[-1], found.iou[-1]),
            "form": found.best[-1].form,
            "concept_ids": [int(self.concepts.number[place]) for place in found.best[-1].concepts],
            "length": len(found.best[-1].concepts),
            "iou": found.iou[-1],
            "images": again.images,
            "intersection": again.counts[0],
            "activation": again.counts[1],
            "label_pixels": again.counts[2],
            "proven": found.proven,
            "gap": found.bound - found.iou[-1],
            "looked": found.looked,
            "counted": found.counted,
            "concept": self._worded(found.best[0], found.iou[0]),
            "concept_iou": found.iou[0],
            "part_iou": again.part_iou,
        }

    def _sure(self, unit: int) -> Row:
        found, again, chosen = self.found[unit], self.recounted[unit], self.chosen[unit]
        sure = estimate(found.iou[-1], again.drawn, self.images)
        gain = estimate(found.iou[-1] - found.iou[0], again.drawn - again.drawn_concept, self.images)
        held = self.halves.heldout[unit]
        return {
            "iou_low": sure.low,
            "iou_high": sure.high,
            "gain": gain.value,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "heldout_formula": self._worded(chosen.best[-1], chosen.iou[-1]),
            "chosen_iou": chosen.iou[-1],
            "heldout_iou": held[-1],
            "concept_heldout_iou": held[0],
            "heldout_gain": held[-1] - held[0],
            "p_value": None if self.p is None else self.p[unit],
            "q_value": None if self.q is None else self.q[unit],
        }

    def _rivals(self, unit: int) -> Row:
        found = self.found[unit]
        return {
            "beam_formula": self._worded(found.beam, found.beam_iou),
            "beam_iou": found.beam_iou,
            "beaten": bool(self.beaten[unit]),
        }

    def curve_rows(self) -> list[Row]:
        """Rows of the table `formula_curve`."""
        return [
            {
                "layer": self.name,
                "penalty": point.penalty,
                "length": point.length,
                "chosen_iou": point.chosen_iou,
                **_ends("heldout", point.heldout, value="heldout_iou"),
                **_ends("gain", point.gain),
            }
            for point in self.halves.curve()
        ]

    def layer_row(self) -> Row:
        """The row of the table `formula_layers`."""
        units, beaten = len(self.found), int(self.beaten.sum())
        proven = sum(found.proven for found in self.found)
        low, high = wilson(beaten, units)
        drawn = np.mean([again.drawn - again.drawn_concept for again in self.recounted], axis=0)
        gain = estimate(float((self.iou[:, 2] - self.iou[:, 0]).mean()), drawn, self.images)
        apart = self.halves.heldout[:, 2] - self.halves.heldout[:, 0]
        by = [found.iou[2] / found.beam_iou - 1 for found in self.found if found.iou[2] > found.beam_iou > 0]
        return {
            "layer": self.name,
            "units": units,
            "proven": proven,
            "proven_share": proven / units,
            "longer": sum(found.best[-1].form > 0 for found in self.found),
            "beaten": beaten,
            "beaten_share": beaten / units,
            "beaten_low": low,
            "beaten_high": high,
            "beaten_by": median(by) if by else None,
            "mean_iou": float(self.iou[:, 2].mean()),
            "concept_iou": float(self.iou[:, 0].mean()),
            **_ends("gain", gain),
            "chosen_gain": float((self.halves.iou[:, 2] - self.halves.iou[:, 0]).mean()),
            **_ends("heldout_gain", self.halves.point(0.0).gain),
            "heldout_better": int((apart > 0).sum()),
            "heldout_worse": int((apart < 0).sum()),
            "significant": None if self.q is None else int((self.q <= LEVEL).sum()),
            **self._asked(),
        }

    def _asked(self) -> Row:
        return {
            "permutations": self.options.permutations,
            "bootstrap": self.options.bootstrap,
            "images": self.images,
            "concepts": len(self.concepts.name),
            "max_length": self.options.length,
            "pictures": self.options.pictures,
            "beam": self.options.beam,
            "effort": self.options.effort,
        }


def _ends(name: str, found: Estimate, *, value: str = "") -> Row:
    return {value or name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
