"""What a network decides without units, judged: what it loses, beside the control, in the pictures that may say so.

A unit is judged by its own class, that of which the network loses most without it. Half of each class's pictures choose
it and the other half judges it, so that the choice does not flatter the figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.ablation import LEAST, Effect, choosing, dearest, effect, probability, regained
from microtome.quantify.accumulate import State
from microtome.quantify.intervals import mean_interval, mean_intervals
from microtome.quantify.significance import LEVEL, false_discovery

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


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

    @classmethod
    def joined(cls, left: Sequence[State]) -> Decisions:
        """From what shards left, in any order."""
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
        )

    @property
    def drop(self) -> Floats:
        """(removals, pictures) of the log-odds, in nats."""
        return self.score - self.without

    @cached_property
    def classes(self) -> dict[str | None, Places]:
        """The pictures of each class that has enough of them."""
        found = {name: np.flatnonzero(self.name == name) for name in sorted(set(self.name.tolist()))}
        return {name: pictures for name, pictures in found.items() if len(pictures) >= LEAST}

    @cached_property
    def every(self) -> dict[str | None, Places]:
        """The same, after all pictures together, whose name is None."""
        return {None: np.arange(len(self.score)), **self.classes}


@dataclass(frozen=True)
class Judgement:
    """What the network loses in some pictures by some removals; arrays with three columns hold value, low and high.

    Args:
        effect: on the log-odds; of the control and beyond it NaN where there is none.
        probability: (removals,) mean loss of the class's probability.
        probability_random: (removals,) the control's.
        accuracy: (removals, 3) loss of accuracy, over labelled pictures.
        flipped: (removals,) share of the pictures whose highest class becomes another.
        regained: (removals, 3) share of the score that what is kept brings back.
        regained_random: (removals,) the control's.
    """

    effect: Effect
    probability: Floats
    probability_random: Floats
    accuracy: Floats
    flipped: Floats
    regained: Floats
    regained_random: Floats


def judge(made: Decisions, removals: Places, control: Floats, pictures: Places) -> Judgement:
    """Removals, judged in some pictures beside their controls.

    Args:
        made: the decisions.
        removals: places of the removals.
        control: (removals, all removals) weights: `control @` values is the control's value; rows of zeros have none.
        pictures: places of the pictures.
    """
    alone = control.sum(1) == 0

    def cut(values: NDArray[np.generic]) -> Floats:
        return values[removals][:, pictures].astype(float)

    fallen = probability(made.score) - probability(made.without)
    base, score = made.base[pictures], made.score[pictures]
    found = effect(cut(made.drop), control @ made.drop[:, pictures])
    return Judgement(
        effect=Effect(found.drop, *(_none(part, alone) for part in (found.random, found.beyond, found.p))),
        probability=cut(fallen).mean(1),
        probability_random=_none(control @ fallen[:, pictures].mean(1), alone),
        accuracy=_accuracy_lost(made, removals, pictures),
        flipped=cut(made.flipped).mean(1),
        regained=regained(cut(made.kept), base, score),
        regained_random=_none(regained(control @ made.kept[:, pictures], base, score)[:, 0], alone),
    )


def _accuracy_lost(made: Decisions, removals: Places, pictures: Places) -> Floats:
    marked = pictures[made.labelled[pictures]]
    if not len(marked):
        return np.full((len(removals), 3), np.nan)
    return mean_intervals((made.hit.astype(float) - made.hit_without)[removals][:, marked])


def _none(values: Floats, where: Flags) -> Floats:
    found = values.copy()
    found[where] = np.nan
    return found


@dataclass(frozen=True)
class OwnClass:
    """Units, judged by the same class in the same pictures.

    Args:
        name: of the class; None where no class has enough pictures, and all of them judge.
        units: (members,) their numbers.
        pictures: places of the pictures that judge.
        judgement: of the units.
        surpassed: (members,) share of its control that each unit's drop surpasses, NaN without control.
        own_random: (members,) mean of what the control's units drop of their own classes, NaN without control.
    """

    name: str | None
    units: Places
    pictures: Places
    judgement: Judgement
    surpassed: Floats
    own_random: Floats


@dataclass(frozen=True)
class SingleUnits:
    """A layer's units, each removed alone.

    Args:
        made: the decisions; the first removals are those of the units.
        control: (units, units) weights of each unit's control.
        rng: halves the classes' pictures.
    """

    made: Decisions
    control: Floats
    rng: np.random.Generator

    @cached_property
    def padded(self) -> Floats:
        """(units, all removals) the control's weights."""
        units = len(self.control)
        return np.pad(self.control, ((0, 0), (0, len(self.made.without) - units)))

    @cached_property
    def chosen(self) -> tuple[list[str | None], list[Places]]:
        """Of each unit, the class that half of the pictures choose for it, and the class's pictures that judge it."""
        first = choosing(np.unique(self.made.name, return_inverse=True)[1], self.rng)
        wanted = self.made.classes or self.made.every
        inside = [np.isin(np.arange(len(first)), pictures) & first for pictures in wanted.values()]
        names = [list(wanted)[place] for place in dearest(self._drop, inside).tolist()]
        return names, [pictures[~first[pictures]] for pictures in map(self.made.every.__getitem__, names)]

    @cached_property
    def own_drop(self) -> Floats:
        """(units,) mean drop of each, of its own class, in the pictures that judge it."""
        return np.array([self._drop[unit, pictures].mean() for unit, pictures in enumerate(self.chosen[1])])

    @cached_property
    def judged(self) -> list[OwnClass]:
        """Every unit, by the class that judges it."""
        names, pictures = self.chosen
        members = {name: np.flatnonzero([own == name for own in names]) for name in dict.fromkeys(names)}
        return [self._judged(name, units, pictures[units[0]]) for name, units in members.items()]

    def _judged(self, name: str | None, units: Places, pictures: Places) -> OwnClass:
        drop, surpassed, own = self._drop[:, pictures].mean(1), [], []
        for unit in units.tolist():
            near = np.flatnonzero(self.control[unit])
            surpassed.append((drop[near] < drop[unit]).mean() if len(near) else np.nan)
            own.append(self.own_drop[near].mean() if len(near) else np.nan)
        judgement = judge(self.made, units, self.padded[units], pictures)
        return OwnClass(name, units, pictures, judgement, np.array(surpassed), np.array(own))

    @property
    def _drop(self) -> Floats:
        return self.made.drop[: len(self.control)]

    def of_units(self, values: Sequence[Floats]) -> Floats:
        """(units, ...) values by unit, from those of each group of `judged`."""
        order = np.argsort(np.concatenate([own.units for own in self.judged]))
        found: Floats = np.concatenate(values)[order]
        return found

    @cached_property
    def beyond(self) -> Floats:
        """(units, 3) drop beyond the control's."""
        return self.of_units([own.judgement.effect.beyond for own in self.judged])

    @cached_property
    def q(self) -> Floats:
        """(units,) false discovery rates of `beyond`, NaN without control."""
        return false_discovery(self.of_units([own.judgement.effect.p for own in self.judged]))

    @property
    def used(self) -> Flags:
        """(units,) of which the network loses more than of their controls."""
        return (self.q <= LEVEL) & (self.beyond[:, 0] > 0)

    def apart(self, units: Flags) -> tuple[Floats, float, Floats] | None:
        """Of some units: what they drop; what their controls drop of the same class; and how far what they drop is from
        what others as large drop each of its own class, in pairs.

        Args:
            units: (units,) which.

        Returns:
            mean, low and high; mean; mean, low and high: over units. None where none of them has a control.
        """
        own = self.of_units([own.own_random for own in self.judged])
        kept = units & ~np.isnan(own)
        if not kept.any():
            return None
        drop = self.of_units([own.judgement.effect.drop for own in self.judged])[kept, 0]
        random = self.of_units([own.judgement.effect.random for own in self.judged])[kept, 0]
        return np.array(mean_interval(drop)), float(random.mean()), np.array(mean_interval(drop - own[kept]))
