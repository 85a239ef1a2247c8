"""The best formulas of a unit, with their proof, over some pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.compiling import compiled
from microtome.quantify.formulas import words
from microtome.quantify.formulas.grammar import LAST, Form, holds, parts_of
from microtome.quantify.formulas.search import reached, search
from microtome.quantify.formulas.words import FULL, ByCell, ByConcept, ConceptCells, Ints, Meeting, UnitWords, inner
from microtome.quantify.null import ones


@dataclass(frozen=True)
class SearchLimits:
    """How far to search.

    Args:
        length: most concepts of a formula, 1 to 3.
        beam: width of the beam search.
        effort: formulas of three concepts that are looked at for one unit, at most.
    """

    length: int = 3
    beam: int = 10
    effort: int = 100_000_000


@dataclass(frozen=True)
class BestFormulas:
    """What the search found for one unit.

    Args:
        best: the best formula of up to one, two and three concepts.
        iou: (3,) theirs; 0 where the unit meets no concept.
        bound: no formula has a higher IoU; equal to the last of `iou` where that is proven.
        beam: what the beam search found, and its IoU.
        looked: formulas of three concepts whose bound was computed.
        counted: how many of them had to be counted.
    """

    best: tuple[Form, ...]
    iou: tuple[float, ...]
    bound: float
    beam: Form
    beam_iou: float
    looked: int
    counted: int

    @property
    def proven(self) -> bool:
        """Whether no formula has a higher IoU."""
        return self.bound <= self.iou[-1]


@inner
def _step(lists, at, end, found):  # type: ignore[no-untyped-def]
    """The next cell of any of three lists, whose words are put into `found`, 0 where it is not in a list; or LAST."""
    _, cells, word = lists
    here = LAST
    for part in range(3):
        if at[part] < end[part]:
            here = min(here, cells[at[part]])
    for part in range(3):
        found[part] = 0
        if at[part] < end[part] and cells[at[part]] == here:
            found[part] = word[at[part]]
            at[part] += 1
    return here


@compiled
def _by_image(lists, unit, formula, counted):  # type: ignore[no-untyped-def]
    """Add up, picture by picture, where a formula holds, by walking the lists of its concepts and of what is lit.

    Args:
        lists: `ByConcept`.
        unit: cells, and the word that it lights in each.
        formula: form, and concepts or -1.
        counted: (3, images) I, A and L, added to; tiles of each picture.
    """
    (cell, lit), (pixels, tiles_each) = unit, counted
    at, end, found = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.uint64)
    for part in range(3):
        if formula[1 + part] >= 0:
            at[part], end[part] = lists[0][formula[1 + part]], lists[0][formula[1 + part] + 1]
    place, here = 0, _step(lists, at, end, found)
    while here != LAST:
        held = holds(formula[0], found[0], found[1], found[2])  # type: ignore[no-untyped-call]
        pixels[2, here // tiles_each] += ones(held)
        while place < len(cell) and cell[place] < here:
            place += 1
        if place < len(cell) and cell[place] == here:
            pixels[0, here // tiles_each] += ones(held & lit[place])
        here = _step(lists, at, end, found)
    for each in range(len(cell)):
        pixels[1, cell[each] // tiles_each] += ones(lit[each])


class FormulaSearch:
    """Searches formulas for units, over some pictures and one assignment of annotations to them.

    Args:
        cells: all annotations.
        annotated: (images, categories) whose pictures count for which category; none of one that is left out.
        plan: (categories, images) whose annotation each image gets; its own where None.
        least: pictures in which all categories of a formula of several must be annotated; others have IoU 0.
    """

    def __init__(
        self,
        cells: ConceptCells,
        annotated: NDArray[np.bool_],
        plan: NDArray[np.int32] | None = None,
        *,
        least: int = 1,
    ) -> None:
        images, categories = annotated.shape
        own = np.broadcast_to(np.arange(images), (categories, images))
        self._cells, self._annotated = cells, annotated
        seen = annotated.astype(np.int64)
        number = np.einsum("ni,nj,nk->ijk", seen, seen, seen, optimize=True)
        several = np.ones(number.shape, bool)
        several[(np.arange(categories),) * 3] = False
        self._too_few = several & (number < least)
        self._plan = np.ascontiguousarray(own if plan is None else plan, np.int64)
        self._on = annotated.any(1)
        ordered = np.argsort(cells.category, kind="stable")
        self._members = ordered, np.searchsorted(cells.category[ordered], np.arange(categories + 1))
        self._holds, pattern = np.unique(annotated, axis=0, return_inverse=True)
        self._pattern = pattern.reshape(-1).astype(np.int64)
        every = np.flatnonzero(np.repeat(self._on, cells.tiles))
        self.everywhere, self.total = self._counted(UnitWords(every, np.full(len(every), FULL)))

    def _counted(self, lit: UnitWords) -> tuple[ByConcept, Meeting]:
        """Where concepts meet what is lit: their lists, and the counts of one and of two."""
        cells = self._cells
        labels = cells.start, cells.concept, cells.word
        exchange = self._plan, self._on, cells.tiles
        shown = ByCell(*words.gathered(labels, exchange, lit.cell, lit.word))
        table = words.tabulated(shown, lit, (self._pattern, self._holds, cells.tiles), len(cells.category))
        table[0][self._too_few] = 0  # what lights nothing has IoU 0
        return ByConcept(*words.by_concept(shown, lit.cell, len(cells.category))), Meeting(*table)

    def _counts(self, lit: UnitWords, memo: tuple[Ints, Ints]) -> tuple[object, ...]:
        lists, unit = self._counted(lit)
        rest = Meeting(unit.lit, self.total.one - unit.one, self.total.two - unit.two)
        return unit, rest, self._cells.category, self._members, lists, self.everywhere, memo

    def best(self, lit: UnitWords, limits: SearchLimits, memo: tuple[Ints, Ints]) -> BestFormulas:
        """The best formulas of one unit.

        Args:
            lit: what it lights.
            limits: how far to search.
            memo: of the thread, from `formula_words.memo`; of this search alone.
        """
        n = len(self._cells.category)
        iou, keys, bound, beam, key, told = search(self._counts(lit, memo), limits.length, limits.beam, limits.effort)
        forms = tuple(Form(*parts_of.py_func(int(each), n)) for each in keys[1:])
        ious = tuple(float(value) for value in iou[1:])
        return BestFormulas(
            forms, ious, float(bound), Form(*parts_of.py_func(int(key), n)), float(beam), int(told[0]), int(told[1])
        )

    def reaches(self, lit: UnitWords, floor: float, limits: SearchLimits, memo: tuple[Ints, Ints]) -> bool:
        """Whether any formula has at least a given IoU; also yes where the effort ends before that is known.

        Args:
            lit: what the unit lights.
            floor: an IoU; 0 is always reached.
            limits, memo: as above.
        """
        return floor <= 0 or bool(reached(self._counts(lit, memo), limits.length, floor, limits.effort))

    def domain(self, formula: Form) -> NDArray[np.bool_]:
        """(images,) in which every category of a formula is annotated."""
        return np.asarray(self._annotated[:, self._cells.category[formula.concepts]].all(1), bool)

    def by_image(self, lit: UnitWords, formula: Form) -> Ints:
        """(3, images) I, A and L of one unit and formula; nothing where not every category of it is annotated."""
        pixels = np.zeros((3, self._cells.images), np.int64)
        _by_image(self.everywhere, lit, np.array(formula), (pixels, self._cells.tiles))
        return pixels * self.domain(formula)
