"""What other tools publish of a network's units, read from their files: NetDissect's tallies, and lists of labels.

A tally is the CSV that NetDissect (`LAYER-result.csv`) and NetDissect-Lite (`tally.csv`) write, a row per unit. Its
columns are `unit`, counted from one; `category`, `label` and `score` of the unit's best concept; and, of the best
concept within each category, `-label`, `-truth` (L), `-activation` (A), `-intersect` (I) and `-iou`. So each IoU in it
can be computed again:

    IoU = I / (A + L - I)

Both tools count label 0, the background, among the concepts where pictures are labelled with it as a whole: it stands
there without a name, is no concept, and is taken for none.

A list of labels has a row per unit, counted from zero, with `layer`, `unit`, `description`, and `similarity` where the
method gives one: CLIP-Dissect (Oikarinen and Weng 2023, arXiv 2204.10965), MILAN (Hernandez et al. 2022, arXiv
2201.11114).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, partial
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.tables import finite, read_table, read_text, shown, text, unique, whole
from microtome.errors import InputError
from microtome.quantify.dissection import Best, DetectorCount, detectors, iou

Value = TypeVar("Value")

MIN_IOU = 0.04
"""A detector lies above it: the papers', and both tools'."""
UNIT_COLUMNS = ("unit", "category", "label", "score")
CATEGORY_COLUMNS = ("label", "truth", "activation", "intersect", "iou")
LABEL_COLUMNS = ("layer", "unit", "description")
MOST_UNITS = 10**6  # of a layer
SHOWN_MISSING = 5  # units that a fault lists
MOST_COUNT = 2**53  # of pixels: NetDissect-Lite counts in float64
SLACK = 1e-9  # beyond rounding: NetDissect-Lite adds 1e-10 to each union


@dataclass(frozen=True)
class PublishedTally:
    """The tally of one layer, as it was computed again. Units are counted from zero, and in order.

    Args:
        layer: its name.
        categories: in the file's order.
        concepts: (units, categories) name of the best concept; None where the unit meets none, or the background.
        label: (units,) index of the category whose concept is the unit's label.
        intersection, activation, label_pixels: (units, categories) I, A and L of that concept, in pixels.
        printed: (units, categories) the IoU as the file has it.
    """

    layer: str
    categories: Sequence[str]
    concepts: Sequence[Sequence[str | None]]
    label: NDArray[np.int64]
    intersection: NDArray[np.int64]
    activation: NDArray[np.int64]
    label_pixels: NDArray[np.int64]
    printed: NDArray[np.float64]

    @property
    def units(self) -> int:
        """How many."""
        return len(self.label)

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """(units, categories) computed again from the counts; 0 where the unit meets no concept."""
        met = np.array([[concept is not None for concept in row] for row in self.concepts])
        return np.where(met, iou(self.intersection, self.activation, self.label_pixels), 0.0)

    @property
    def background(self) -> int:
        """Units and categories whose best concept is label 0, the background, which has no name: it is no concept."""
        return sum(
            concept is None and printed > 0
            for row, scores in zip(self.concepts, self.printed.tolist(), strict=True)
            for concept, printed in zip(row, scores, strict=True)
        )

    @property
    def labels(self) -> list[tuple[str | None, str, float]]:
        """Concept, category and IoU of each unit's label; the concept is None where it meets none."""
        return [
            (self.concepts[unit][at], self.categories[at], float(self.iou[unit, at]))
            for unit, at in enumerate(self.label.tolist())
        ]

    @property
    def detectors(self) -> DetectorCount:
        """Units whose label lies above MIN_IOU, and the different concepts among them, in both ways of counting."""
        names = {pair: number for number, pair in enumerate(sorted(set(self._named())))}
        by_category = np.full((self.units, len(self.categories)), -1)
        scores = np.zeros((self.units, len(names) + 1))  # the last column is of no concept
        for unit, row in enumerate(self.concepts):
            for at, concept in enumerate(row):
                if concept is not None:
                    by_category[unit, at] = names[self.categories[at], concept]
                    scores[unit, by_category[unit, at]] = self.iou[unit, at]
        own = np.take_along_axis(by_category, self.label[:, None], 1)[:, 0]
        best = np.take_along_axis(self.iou, self.label[:, None], 1)[:, 0]
        return detectors(scores, Best(own, best, by_category, own[:, None]), MIN_IOU)

    def _named(self) -> Iterator[tuple[str, str]]:
        for row in self.concepts:
            yield from (
                (category, name) for category, name in zip(self.categories, row, strict=True) if name is not None
            )


@dataclass(frozen=True)
class UnitLabel:
    """What a method calls a unit: its layer, its number from zero, the label, and its score where there is one."""

    layer: str
    unit: int
    label: str
    score: float | None


@dataclass(frozen=True)
class _Scored:
    """A unit's best concept of one category, as the file has it; `room` is what rounding may move the IoU by."""

    concept: str | None
    label_pixels: int
    activation: int
    intersection: int
    printed: float
    room: float


@dataclass(frozen=True)
class _Unit:
    """A row of a tally."""

    where: str
    unit: int
    label: int
    scored: Sequence[_Scored]


def is_tally(file: Path) -> bool:
    """Whether the head of a CSV is that of a tally, whole or not: a unit, and something of categories.

    Raises:
        InputError: it cannot be read.
    """
    head = read_text(file).partition("\n")[0].strip().split(",")
    return "unit" in head and ("category" in head or any(name.endswith("-iou") for name in head))


def layer_of(file: Path) -> str:
    """The layer that a tally's name names: `conv5-result.csv`, `tally_layer4.csv`, `anything_layer4.csv`; or empty."""
    stem = re.sub(r"^tally[-_]?", "", file.stem)
    whole_name = re.fullmatch(r"(.+)-result", stem)
    return whole_name[1] if whole_name else stem.rpartition("_")[2]


def read_tally(file: Path, layer: str) -> PublishedTally:
    """A tally, checked and computed again.

    Args:
        file: the CSV.
        layer: whose it is.

    Raises:
        InputError: columns are missing; cells are no numbers; a unit stands twice or is left out; an IoU is not that of
            its counts beyond rounding; the label is not the best concept; one concept has several numbers of pixels.
            All faults, each with its line.
    """
    faults: list[str] = []
    rows = list(read_table(file, UNIT_COLUMNS, faults))
    if not rows:
        raise InputError([*faults, f"{file}: must have a row per unit, got none"])
    categories = _categories(file, rows[0][1])
    units = [unit for line, row in rows for unit in _unit(f"{file}:{line}", row, categories, faults)]
    faults += _numbering(file, rows)
    faults += _sizes(file, units, categories)
    if faults:
        raise InputError(sorted(faults, key=partial(_line, file)))
    return _tally(layer, categories, sorted(units, key=lambda unit: unit.unit))


def _line(file: Path, fault: str) -> int:
    found = re.match(r":(\d+):", fault.removeprefix(str(file)))
    return int(found[1]) if found else 0


def _categories(file: Path, row: Mapping[str, str]) -> list[str]:
    """The categories that columns are named by. Raises InputError: there are none, or some lack columns."""
    parts = [name.rpartition("-") for name in row]
    found = list(dict.fromkeys(category for category, dash, part in parts if dash and part in CATEGORY_COLUMNS))
    wanted = [f"{category}-{part}" for category in found for part in CATEGORY_COLUMNS]
    missing = [name for name in wanted if name not in row]
    if missing:
        raise InputError(f"{file}:1: each category must have five columns, got no {', '.join(missing)}")
    if not found:
        raise InputError(f"{file}:1: must have columns of categories, such as object-iou, got {', '.join(row)}")
    return found


def _unit(where: str, row: Mapping[str, str], categories: Sequence[str], faults: list[str]) -> Iterator[_Unit]:
    """The row's unit, counted from zero; where something is wrong with it, that is added to the faults instead."""
    own: list[str] = []
    unit = _tried(own, partial(whole, row["unit"], "unit, which is counted from one,", 1, MOST_UNITS))
    scored = [found for category in categories if (found := _tried(own, partial(_scored, row, category)))]
    if len(scored) == len(categories):
        label = _tried(own, partial(_label, row, categories, scored))
        if unit is not None and label is not None:
            yield _Unit(where, unit - 1, label, scored)
    faults += [f"{where}: {fault}" for fault in own]


def _tried(faults: list[str], read: Callable[[], Value]) -> Value | None:
    """What is read; None where it cannot be, which is added to the faults."""
    try:
        return read()
    except ValueError as error:
        faults.append(str(error))
        return None


def _scored(row: Mapping[str, str], category: str) -> _Scored:
    """The best concept of a category, its IoU held against its counts. Raises ValueError."""
    name = row[f"{category}-label"].strip()
    label_pixels, activation, intersection = (
        whole(finite(row[f"{category}-{part}"], f"{category}-{part}"), f"{category}-{part}", 0, MOST_COUNT)
        for part in ("truth", "activation", "intersect")
    )
    printed, room = _printed(row[f"{category}-iou"], f"{category}-iou")
    if not name and printed == 0:  # it meets none of the category, and the background stands there with its own counts
        return _Scored(None, 0, 0, 0, printed, room)
    if name and intersection > min(label_pixels, activation):  # pixels of the background may be counted in none of them
        raise ValueError(
            f"{category}-intersect must be no more than {category}-truth and {category}-activation, got "
            f"{intersection} of {label_pixels} and {activation}"
        )
    again = float(iou(np.array(intersection), np.array(activation), np.array(label_pixels)))
    if abs(again - printed) > room:
        raise ValueError(
            f"{category}-iou must be {again:.9g}, which is {intersection} / ({activation} + {label_pixels} - "
            f"{intersection}), got {printed:.9g}"
        )
    return _Scored(name if name and intersection else None, label_pixels, activation, intersection, printed, room)


def _printed(cell: str, what: str) -> tuple[float, float]:
    """A score, and by how much rounding may have changed it: half of its last digit; 0.0 and 1.0 are exact.

    Raises ValueError.
    """
    value = finite(cell, what)
    if not 0 <= value <= 1:
        raise ValueError(f"{what} must be from 0 to 1, got {shown(cell)}")
    exponent = int(Decimal(cell.strip()).as_tuple().exponent)
    return value, SLACK + (0.5 * 10.0**exponent if exponent < -1 else 0.0)


def _label(row: Mapping[str, str], categories: Sequence[str], scored: Sequence[_Scored]) -> int:
    """Which category's concept is the label. Raises ValueError: none, or not the best."""
    if row["category"] not in categories:
        raise ValueError(f"category must be one of {', '.join(categories)}, got {shown(row['category'])}")
    at = categories.index(row["category"])
    named = row[f"{row['category']}-label"]
    if row["label"] != named:
        raise ValueError(f"label must be that of its category, {shown(named)}, got {shown(row['label'])}")
    score, room = _printed(row["score"], "score")
    if abs(score - scored[at].printed) > room + scored[at].room:
        raise ValueError(f"score must be that of its category, {scored[at].printed:g}, got {score:g}")
    better = max(scored, key=lambda each: each.printed)
    if better.printed > scored[at].printed + better.room + scored[at].room:
        raise ValueError(f"label must be the best concept, got {shown(named)}, below {shown(better.concept)}")
    return at


def _numbering(file: Path, rows: Sequence[tuple[int, Mapping[str, str]]]) -> Iterator[str]:
    """Units that stand twice, and those that are left out."""
    seen: dict[int, str] = {}
    for line, row in rows:
        if (cell := row["unit"].strip()).isdecimal():
            twice = list[str]()
            _tried(twice, partial(unique, seen, int(cell), f"line {line}", "unit"))
            yield from (f"{file}:{line}: {fault}" for fault in twice)
    left = max(seen, default=0) - len(seen)
    if left > 0:
        missing = islice((unit for unit in count(1) if unit not in seen), min(left, SHOWN_MISSING))
        some = ", ".join(map(str, missing)) + (f" and {left - SHOWN_MISSING} more" if left > SHOWN_MISSING else "")
        yield f"{file}: must have every unit from 1 to {max(seen)}, got no row of {some}"


def _sizes(file: Path, units: Sequence[_Unit], categories: Sequence[str]) -> Iterator[str]:
    """Concepts that have several numbers of pixels."""
    pixels: dict[tuple[str, str], tuple[int, str]] = {}
    for row in units:
        for category, found in zip(categories, row.scored, strict=True):
            if found.concept is not None:
                size, where = pixels.setdefault((category, found.concept), (found.label_pixels, row.where))
                if size != found.label_pixels:
                    yield (
                        f"{row.where}: {category}-truth of {shown(found.concept)} must be the same in all rows, got "
                        f"{found.label_pixels}, and {size} in line {where.rpartition(':')[2]}"
                    )


def _tally(layer: str, categories: Sequence[str], units: Sequence[_Unit]) -> PublishedTally:
    def column(part: str) -> NDArray[np.int64]:
        return np.array([[getattr(found, part) for found in unit.scored] for unit in units], np.int64)

    return PublishedTally(
        layer,
        categories,
        [[found.concept for found in unit.scored] for unit in units],
        np.array([unit.label for unit in units], np.int64),
        column("intersection"),
        column("activation"),
        column("label_pixels"),
        np.array([[found.printed for found in unit.scored] for unit in units]),
    )


def read_labels(file: Path) -> list[UnitLabel]:
    """A list of labels, by layer in the file's order and by unit.

    Args:
        file: the CSV; its units are counted from zero.

    Raises:
        InputError: columns are missing, cells are no numbers or empty, a unit of a layer stands twice. All faults, each
            with its line.
    """
    faults: list[str] = []
    seen: dict[tuple[str, int], str] = {}
    found: dict[str, list[UnitLabel]] = defaultdict(list)
    for line, row in read_table(file, LABEL_COLUMNS, faults):
        own: list[str] = []
        label = _tried(own, partial(_unit_label, row))
        if label:
            found[label.layer].append(label)
            _tried(own, partial(unique, seen, (label.layer, label.unit), f"line {line}", "layer and unit"))
        faults += [f"{file}:{line}: {fault}" for fault in own]
    if not found and not faults:
        faults.append(f"{file}: must have a row per unit, got none")
    if faults:
        raise InputError(faults)
    return [label for layer in found.values() for label in sorted(layer, key=lambda each: each.unit)]


def _unit_label(row: Mapping[str, str]) -> UnitLabel:
    """A row of a list of labels. Raises ValueError."""
    score = row.get("similarity")
    return UnitLabel(
        text(row["layer"], "layer"),
        whole(row["unit"], "unit, which is counted from zero,", 0, MOST_UNITS),
        text(row["description"], "description").strip(),
        None if score is None else finite(score, "similarity"),
    )
