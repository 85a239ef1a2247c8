"""Rows of the tables of `ablation`, from the decisions without units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.ablation import DRAWS
from microtome.quantify.decisions import Decisions, Judgement, SingleUnits, judge
from microtome.quantify.intervals import wilson
from microtome.quantify.significance import false_discovery
from storage.tables import Row
from tasks.ablation.layers import RemovedLayer
from tasks.index.result import ConceptTable

Floats = NDArray[np.float64]
Columns = dict[str, Floats]
CHOOSING_SEED = 47  # tells the halves' chance from others


@dataclass(frozen=True)
class AblatedLayer:
    """A layer, and what was decided without its units.

    Args:
        layer: its units.
        made: the decisions.
        whole: why the whole network was run; empty where it was cut.
        concepts: of the dissection's data set.
    """

    layer: RemovedLayer
    made: Decisions
    whole: str
    concepts: ConceptTable

    @property
    def units(self) -> int:
        """Their number."""
        return self.layer.geometry.units

    @cached_property
    def single(self) -> SingleUnits:
        """Each unit removed alone."""
        rng = np.random.default_rng([self.layer.seed, CHOOSING_SEED, self.layer.number])
        return SingleUnits(self.made, self.layer.control, rng)

    def unit_rows(self) -> Iterator[Row]:
        """Of `ablation_units`."""
        found: dict[int, dict[str, object]] = {}
        for own in self.single.judged:
            columns = {**_lost(own.judgement), **_regained(own.judgement)}
            columns |= {"surpassed": own.surpassed, "own_random": own.own_random}
            about = {**_place(own.name, own.pictures), "score": float(self.made.score[own.pictures].mean())}
            for unit, row in zip(own.units.tolist(), _rows(columns), strict=True):
                found[unit] = {**about, **row}
        q = _values(self.single.q)
        for unit in range(self.units):
            place = self.layer.detects[unit]
            yield {
                "layer": self.layer.geometry.name,
                "unit": unit,
                "concept": self.concepts.name[place] if place >= 0 else None,
                "size": self.layer.size[unit],
                "matched": int((self.layer.control[unit] > 0).sum()),
                **found[unit],
                "q_value": q[unit],
                "used": bool(self.single.used[unit]),
            }

    def class_rows(self) -> Iterator[Row]:
        """Of `ablation_classes`."""
        rows: list[dict[str, object]] = []
        for name, pictures in self.made.every.items():
            judgement = judge(self.made, np.arange(self.units), self.single.padded, pictures)
            for unit, row in enumerate(_rows(_lost(judgement))):
                key = {"layer": self.layer.geometry.name, "unit": unit}
                rows.append({**key, **_place(name, pictures), **row})
        return _with_q(rows)

    def group_rows(self) -> Iterator[Row]:
        """Of `ablation_groups`."""
        groups = self.layer.groups
        places = self.units + (1 + DRAWS) * np.arange(len(groups))
        control = np.zeros((len(groups), len(self.layer.removals)))
        for weights, place in zip(control, places.tolist(), strict=True):
            weights[place + 1 : place + 1 + DRAWS] = 1 / DRAWS
        rows: list[dict[str, object]] = []
        for name, pictures in self.made.every.items() if groups else ():
            judgement = judge(self.made, places, control, pictures)
            found = _rows({**_lost(judgement), **_regained(judgement)})
            for group, row in zip(groups, found, strict=True):
                key = {
                    "layer": self.layer.geometry.name,
                    "concept": self.concepts.name[group.concept],
                    "category": self.concepts.category[group.concept],
                    "units": len(group.members),
                    "members": group.members.tolist(),
                    "score": float(self.made.score[pictures].mean()),
                }
                rows.append({**key, **_place(name, pictures), **row})
        return _with_q(rows)

    def layer_row(self) -> Row:
        """Of `ablation_layers`."""
        made, detects, used = self.made, self.layer.detects >= 0, self.single.used
        marked, idle = made.hit[made.labelled], int((detects & ~used).sum())
        return {
            "layer": self.layer.geometry.name,
            "units": self.units,
            "images": len(made.score),
            "labelled": len(marked),
            "classes": len(made.classes),
            "remove": self.layer.options.remove,
            "whole": self.whole or None,
            "nothing": float(made.nothing.max()),
            **_share("accuracy", "accuracy", int(marked.sum()), len(marked)),
            "score": float(made.score.mean()),
            "used": int(used.sum()),
            **_share("used_share", "used", int(used.sum()), self.units),
            "detectors": int(detects.sum()),
            "bystanders": idle,
            **_share("bystander_share", "bystander", idle, int(detects.sum())),
            **self._detectors(),
            "groups": len(self.layer.groups),
        }

    def _detectors(self) -> Row:
        """What detectors drop, beside others as large: of the same class, and each of its own."""
        names = ("detector_drop", "detector_low", "detector_high")
        beside = ("detector_apart", "apart_low", "apart_high")
        found = self.single.apart(self.layer.detects >= 0)
        if found is None:
            return dict.fromkeys((*names, "detector_random", *beside))
        drop, random, apart = found
        return {**_named(names, drop), "detector_random": random, **_named(beside, apart)}


def _lost(found: Judgement) -> Columns:
    """Columns of removal."""
    return {
        **_ends("drop", found.effect.drop),
        **_ends("random", found.effect.random),
        **_ends("beyond", found.effect.beyond),
        "p_value": found.effect.p,
        "probability_drop": found.probability,
        "probability_random": found.probability_random,
        **_ends("accuracy_drop", found.accuracy),
        "flipped": found.flipped,
    }


def _regained(found: Judgement) -> Columns:
    """Columns of insertion."""
    return {**_ends("regained", found.regained), "regained_random": found.regained_random}


def _place(name: str | None, pictures: NDArray[np.int64]) -> dict[str, object]:
    return {"class_name": name, "images": len(pictures)}


def _share(name: str, ends: str, hits: int, trials: int) -> Row:
    low, high = wilson(hits, trials) if trials else (None, None)
    return {name: hits / trials if trials else None, f"{ends}_low": low, f"{ends}_high": high}


def _named(names: Sequence[str], values: Floats) -> Row:
    return dict(zip(names, values.tolist(), strict=True))


def _ends(name: str, values: Floats) -> Columns:
    return {name: values[:, 0], f"{name}_low": values[:, 1], f"{name}_high": values[:, 2]}


def _rows(columns: Mapping[str, Floats]) -> list[dict[str, object]]:
    """Rows of columns; NaN is none."""
    lists = [_values(column) for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _values(column: Floats) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in column]


def _with_q(rows: Sequence[dict[str, object]]) -> Iterator[Row]:
    """With false discovery rates over the rows that have a p-value."""
    q = _values(false_discovery(np.array([row["p_value"] for row in rows], np.float64)))  # None becomes NaN
    for row, value in zip(rows, q, strict=True):
        yield {**row, "q_value": value}
