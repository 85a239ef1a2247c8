"""Rows of the tables of `ablation`, from the decisions without units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.ablation import (
    DRAWS,
    LEAST,
    Effect,
    choosing,
    dearest,
    effect,
    probability,
    regained,
)
from microtome.quantify.accumulate import State
from microtome.quantify.intervals import mean_interval, mean_intervals, wilson
from microtome.quantify.significance import LEVEL, false_discovery
from storage.tables import Row
from tasks.ablation.layers import RemovedLayer
from tasks.index.result import ConceptTable

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]
CHOOSING_SEED = 47  # tells the halves' chance from others


@dataclass(frozen=True)
class Decisions:
    """What the network decided: the pictures in the order of their numbers.

    Args:
        name: (pictures,) of each picture's class.
        labelled: (pictures,) whether that is its label, and an output's.
        hit: (pictures,) whether its class is the highest.
        score: (pictures,) log-odds of its class.
        nothing: (pictures,) how far they move when nothing is removed.
        base: (pictures,) the same with every unit at its mean.
        without, kept: (removals, pictures) the same without, and with nothing but, a group of units.
        hit_without: (removals, pictures) whether its class is the highest.
        flipped: (removals, pictures) whether the highest class is another than before.
        reason: why the whole network was run.
    """

    name: NDArray[np.str_]
    labelled: Flags
    hit: Flags
    score: Floats
    nothing: Floats
    base: Floats
    without: Floats
    kept: Floats
    hit_without: Flags
    flipped: Flags
    reason: str

    @classmethod
    def joined(cls, left: Sequence[State]) -> Decisions:
        """From what shards left."""
        order = np.argsort(np.concatenate([part["image"] for part in left]))

        def whole(name: str) -> NDArray[np.generic]:
            return np.concatenate([part[name] for part in left], axis=-1)[..., order]

        top, without, wanted = whole("top"), whole("top_without"), whole("class")
        plain = {name: whole(name) for name in ("name", "labelled", "score", "nothing", "base", "without", "kept")}
        return cls(
            **plain,  # type: ignore[arg-type]  # of the types that the shards left
            hit=top == wanted,
            hit_without=without == wanted,
            flipped=without != top,
            reason=str(left[0]["reason"]),
        )


@dataclass(frozen=True)
class _Judged:
    """Removals, judged in some pictures beside their controls: `control @` values is the control's value.

    Args:
        made: the decisions.
        removals: places of the removals.
        control: (removals, all removals) weights; rows of zeros have no control.
        pictures: places of the pictures.
    """

    made: Decisions
    removals: Places
    control: Floats
    pictures: Places

    @cached_property
    def effect(self) -> Effect:
        """On the log-odds."""
        drop = self._cut(self.made.score - self.made.without)
        return effect(drop, self.control @ (self.made.score - self.made.without)[:, self.pictures])

    def rows(self) -> list[dict[str, object]]:
        """Columns of the effect, a row per removal."""
        found, alone = self.effect, self.control.sum(1) == 0
        columns = {
            **_ends("drop", found.drop),
            **_ends("random", _nulled(found.random, alone)),
            **_ends("beyond", _nulled(found.beyond, alone)),
            "p_value": _nulled(found.p, alone),
            **self._decided(alone),
        }
        return _rows(columns)

    def regained(self) -> list[dict[str, object]]:
        """Columns of insertion, a row per removal."""
        made, pictures = self.made, self.pictures
        base, score = made.base[pictures], made.score[pictures]
        own = regained(self._cut(made.kept), base, score)
        control = regained(self.control @ made.kept[:, pictures], base, score)[:, 0]
        return _rows({**_ends("regained", own), "regained_random": _nulled(control, self.control.sum(1) == 0)})

    def _decided(self, alone: Flags) -> dict[str, Floats]:
        made = self.made
        fallen = probability(made.score) - probability(made.without)
        marked = self.pictures[made.labelled[self.pictures]]
        lost = (made.hit.astype(float) - made.hit_without)[self.removals][:, marked]
        accuracy = mean_intervals(lost) if len(marked) else np.full((len(self.removals), 3), np.nan)
        return {
            "probability_drop": self._cut(fallen).mean(1),
            "probability_random": _nulled(self.control @ fallen[:, self.pictures].mean(1), alone),
            **_ends("accuracy_drop", accuracy),
            "flipped": self._cut(made.flipped).mean(1),
        }

    def _cut(self, values: NDArray[np.generic]) -> Floats:
        return values[self.removals][:, self.pictures].astype(float)


@dataclass(frozen=True)
class AblatedLayer:
    """A layer, and what was decided without its units.

    Args:
        layer: its units.
        made: the decisions.
        concepts: of the dissection's data set.
    """

    layer: RemovedLayer
    made: Decisions
    concepts: ConceptTable

    @property
    def units(self) -> int:
        """Their number."""
        return self.layer.geometry.units

    @cached_property
    def classes(self) -> dict[str | None, Places]:
        """The pictures of each class that has enough of them."""
        found = {name: np.flatnonzero(self.made.name == name) for name in sorted(set(self.made.name.tolist()))}
        return {name: pictures for name, pictures in found.items() if len(pictures) >= LEAST}

    @cached_property
    def every(self) -> dict[str | None, Places]:
        """The same, after all pictures together."""
        return {None: np.arange(len(self.made.score)), **self.classes}

    @cached_property
    def control(self) -> Floats:
        """(units, all removals) weights of the single units' controls."""
        weights = np.zeros((self.units, len(self.layer.removals)))
        weights[:, : self.units] = self.layer.control
        return weights

    @cached_property
    def chosen(self) -> tuple[list[str | None], list[Places]]:
        """Of each unit, the class that half of the pictures choose for it, and the class's pictures that judge it."""
        numbers = np.unique(self.made.name, return_inverse=True)[1]
        rng = np.random.default_rng([self.layer.seed, CHOOSING_SEED, self.layer.number])
        first = choosing(numbers, rng)
        wanted = self.classes or self.every
        drop = (self.made.score - self.made.without)[: self.units]
        inside = [np.isin(np.arange(len(first)), pictures) & first for pictures in wanted.values()]
        names = [list(wanted)[place] for place in dearest(drop, inside).tolist()]
        return names, [pictures[~first[pictures]] for pictures in map(self.every.__getitem__, names)]

    @cached_property
    def own_drop(self) -> Floats:
        """(units,) mean drop of each, of its own class, in the pictures that judge it."""
        drop = self.made.score - self.made.without
        return np.array([drop[unit, pictures].mean() for unit, pictures in enumerate(self.chosen[1])])

    @cached_property
    def judged(self) -> list[dict[str, object]]:
        """Of each unit, beside its control, in the pictures that judge it."""
        names, pictures = self.chosen
        found: list[dict[str, object]] = [{} for _ in names]
        for name in set(names):
            units = np.array([unit for unit, own in enumerate(names) if own == name])
            judge = _Judged(self.made, units, self.control[units], pictures[units[0]])
            drop = (self.made.score - self.made.without)[: self.units, judge.pictures].mean(1)
            for unit, row, more in zip(units.tolist(), judge.rows(), judge.regained(), strict=True):
                near = np.flatnonzero(self.layer.control[unit])
                found[unit] = {**row, **more, **self._beside(unit, near, drop), **self._place(name, judge.pictures)}
        return found

    def _beside(self, unit: int, near: Places, drop: Floats) -> dict[str, object]:
        """How a unit stands among the units of its control."""
        if not len(near):
            return {"surpassed": None, "own_random": None}
        return {"surpassed": float((drop[near] < drop[unit]).mean()), "own_random": float(self.own_drop[near].mean())}

    def _place(self, name: str | None, pictures: Places) -> dict[str, object]:
        return {"class_name": name, "images": len(pictures)}

    @cached_property
    def q(self) -> list[float | None]:
        """Of each unit."""
        return _q_values(self.judged)

    @cached_property
    def used(self) -> Flags:
        """(units,) of which the network loses more than of their controls."""
        pairs = zip(self.judged, self.q, strict=True)
        return np.array([q is not None and q <= LEVEL and float(str(row["beyond"])) > 0 for row, q in pairs])

    def unit_rows(self) -> Iterator[Row]:
        """Of `ablation_units`."""
        for unit, row in enumerate(self.judged):
            place = self.layer.detects[unit]
            pictures = self.chosen[1][unit]
            yield {
                "layer": self.layer.geometry.name,
                "unit": unit,
                "concept": self.concepts.name[place] if place >= 0 else None,
                "size": self.layer.size[unit],
                "matched": int((self.layer.control[unit] > 0).sum()),
                "score": float(self.made.score[pictures].mean()),
                **row,
                "q_value": self.q[unit],
                "used": bool(self.used[unit]),
            }

    def class_rows(self) -> Iterator[Row]:
        """Of `ablation_classes`."""
        rows: list[dict[str, object]] = []
        for name, pictures in self.every.items():
            judge = _Judged(self.made, np.arange(self.units), self.control, pictures)
            for unit, row in enumerate(judge.rows()):
                key = {"layer": self.layer.geometry.name, "unit": unit}
                rows.append({**key, **self._place(name, pictures), **row})
        return _with_q(rows)

    def group_rows(self) -> Iterator[Row]:
        """Of `ablation_groups`."""
        groups = self.layer.groups
        places = self.units + (1 + DRAWS) * np.arange(len(groups))
        control = np.zeros((len(groups), len(self.layer.removals)))
        for weights, place in zip(control, places.tolist(), strict=True):
            weights[place + 1 : place + 1 + DRAWS] = 1 / DRAWS
        rows: list[dict[str, object]] = []
        for name, pictures in self.every.items() if groups else ():
            judge = _Judged(self.made, places, control, pictures)
            for group, row, more in zip(groups, judge.rows(), judge.regained(), strict=True):
                key = {
                    "layer": self.layer.geometry.name,
                    "concept": self.concepts.name[group.concept],
                    "category": self.concepts.category[group.concept],
                    "units": len(group.members),
                    "members": group.members.tolist(),
                    "score": float(self.made.score[pictures].mean()),
                }
                rows.append({**key, **self._place(name, pictures), **row, **more})
        return _with_q(rows)

    def layer_row(self) -> Row:
        """Of `ablation_layers`."""
        made, detects = self.made, self.layer.detects >= 0
        marked, used = made.hit[made.labelled], int(self.used.sum())
        idle = int((detects & ~self.used).sum())
        return {
            "layer": self.layer.geometry.name,
            "units": self.units,
            "images": len(made.score),
            "labelled": len(marked),
            "classes": len(self.classes),
            "remove": self.layer.options.remove,
            "whole": made.reason or None,
            "nothing": float(made.nothing.max()),
            **_share("accuracy", "accuracy", int(marked.sum()), len(marked)),
            "score": float(made.score.mean()),
            "used": used,
            **_share("used_share", "used", used, self.units),
            "detectors": int(detects.sum()),
            "bystanders": idle,
            **_share("bystander_share", "bystander", idle, int(detects.sum())),
            **self._detectors(detects),
            "groups": len(self.layer.groups),
        }

    def _detectors(self, detects: Flags) -> Row:
        """What detectors drop, beside others as large: of the same class, and each of its own."""
        rows = [row for row, own in zip(self.judged, detects, strict=True) if own and row["own_random"] is not None]
        names = ("detector_drop", "detector_low", "detector_high", "detector_random")
        if not rows:
            return dict.fromkeys((*names, "detector_apart", "apart_low", "apart_high"))
        drop, random, own = (np.array([row[name] for row in rows], float) for name in ("drop", "random", "own_random"))
        apart = dict(zip(("detector_apart", "apart_low", "apart_high"), mean_interval(drop - own), strict=True))
        return {**dict(zip(names, (*mean_interval(drop), float(random.mean())), strict=True)), **apart}


def _share(name: str, ends: str, hits: int, trials: int) -> Row:
    low, high = wilson(hits, trials) if trials else (None, None)
    return {name: hits / trials if trials else None, f"{ends}_low": low, f"{ends}_high": high}


def _ends(name: str, values: Floats) -> dict[str, Floats]:
    return {name: values[:, 0], f"{name}_low": values[:, 1], f"{name}_high": values[:, 2]}


def _nulled(values: Floats, where: Flags) -> Floats:
    found = values.copy()
    found[where] = np.nan
    return found


def _rows(columns: dict[str, Floats]) -> list[dict[str, object]]:
    """Rows of columns; NaN is none."""
    lists = [[None if np.isnan(value) else float(value) for value in column] for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _q_values(rows: Sequence[dict[str, object]]) -> list[float | None]:
    """Over the rows that have a p-value."""
    q = false_discovery(np.array([row["p_value"] for row in rows], np.float64))  # None becomes NaN
    return [None if np.isnan(value) else float(value) for value in q]


def _with_q(rows: Sequence[dict[str, object]]) -> Iterator[Row]:
    for row, q in zip(rows, _q_values(rows), strict=True):
        yield {**row, "q_value": q}
