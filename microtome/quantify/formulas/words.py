"""Exact counts of where concepts meet, from masks held as words (`microtome/quantify/words.py`).

A cell is a tile of a picture: image * tiles + tile. Concepts are listed cell by cell, so that all pairs of concepts
are counted in one pass over the cells, and concept by concept, so that three of them are counted by walking their
lists side by side. Counts are taken over pictures in which certain categories are annotated; pictures of one pattern of
annotated categories are counted together, and the patterns are added up afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from microtome.compiling import compiled
from microtome.quantify.null import AllLabels, ones
from microtome.quantify.words import WHOLE, LitWords, label_words, pixels_of, tiles

Ints = NDArray[np.int64]
FULL = np.uint64(2**64 - 1)
MEMO = 1 << 18  # counts of three concepts that are remembered
inner = njit(nogil=True, no_cfunc_wrapper=True, no_cpython_wrapper=True)  # type: ignore[call-overload]
"""Of what only compiled code calls: it is compiled sooner so. Python must call its `py_func`: else it crashes."""


class ByCell(NamedTuple):
    """Concepts cell by cell: those of place i lie in start[i] to start[i + 1]."""

    start: Ints
    concept: NDArray[np.int32]
    word: NDArray[np.uint64]


class ByConcept(NamedTuple):
    """Cells concept by concept, ascending: those of concept c lie in start[c] to start[c + 1]."""

    start: Ints
    cell: Ints
    word: NDArray[np.uint64]


class UnitWords(NamedTuple):
    """What one unit lights: cells, ascending, and their words."""

    cell: Ints
    word: NDArray[np.uint64]

    def mask(self, image: int, masks: tuple[int, int]) -> NDArray[np.bool_]:
        """(height, width) what is lit of one picture.

        Args:
            image: its number.
            masks: (height, width) of a mask.
        """
        count = tiles(masks)
        words = np.zeros(count, np.uint64)
        here = (self.cell >= image * count) & (self.cell < (image + 1) * count)
        words[self.cell[here] - image * count] = self.word[here]
        return pixels_of(words, masks)


class Meeting(NamedTuple):
    """Pixels on which concepts meet what is lit, over the pictures in which categories are annotated.

    Args:
        lit: (categories, categories, categories) pixels lit where all three are annotated.
        one: (categories, categories, concepts) where the concept's own category and two more are annotated.
        two: (categories, concepts, concepts) where both own categories and one more are annotated.
    """

    lit: Ints
    one: Ints
    two: Ints


@dataclass(frozen=True)
class ConceptCells:
    """All annotations of a data set.

    Args:
        start: (categories, cells + 1) where a category's labels of a cell begin, and end.
        concept, word: of each label, sorted by category, cell, concept; no concept twice in a cell.
        category: (concepts,) number of each concept's category.
        tiles: of a picture.
    """

    start: Ints
    concept: NDArray[np.int32]
    word: NDArray[np.uint64]
    category: Ints
    tiles: int

    @classmethod
    def of(cls, labels: AllLabels, category: Ints, masks: tuple[int, int]) -> ConceptCells:
        """From the records that the permutation null reads.

        Args:
            labels: of all images.
            category: (concepts,) number of each concept's category.
            masks: (height, width) of the segmentation.
        """
        images, categories = labels.start.shape
        count, stored = tiles(masks), np.asarray(labels.labels).view(np.ndarray)
        owner = np.repeat(np.arange(images * categories), np.diff(np.append(labels.start.ravel(), len(stored))))
        filled = label_words(np.ones(masks[0] * masks[1], np.uint16), np.zeros(1, np.int64), masks)["word"]
        whole = np.flatnonzero(stored["tile"] == WHOLE)
        part = np.flatnonzero(stored["tile"] != WHOLE)
        which = np.concatenate([part, np.repeat(whole, count)])
        tile = np.concatenate([stored["tile"][part], np.tile(np.arange(count), len(whole))])
        word = np.concatenate([stored["word"][part], np.tile(filled, len(whole))])
        image, group = np.divmod(owner[which], categories)
        place = group * images * count + image * count + tile
        order = np.lexsort((stored["concept"][which], place))
        place, concept, word = place[order], stored["concept"][which][order], word[order]
        first = np.flatnonzero(np.append(True, (np.diff(place) != 0) | (np.diff(concept) != 0))[: len(place)])
        # what is labelled in two planes, or also as a whole, is labelled once
        word = np.bitwise_or.reduceat(word, first) if len(first) else word
        ends = np.searchsorted(place[first], np.arange(categories * images * count + 1))
        start = np.stack([ends[c * images * count : (c + 1) * images * count + 1] for c in range(categories)])
        return cls(start, concept[first].astype(np.int32), word, category.astype(np.int64), count)

    @property
    def images(self) -> int:
        """Number of pictures."""
        return int(self.start.shape[1] - 1) // self.tiles


def lit_by_unit(runs: Iterable[tuple[int, int, LitWords]], units: int, tiles_each: int) -> list[UnitWords]:
    """What each unit lights, from runs of images.

    Args:
        runs: first image, number of images, and what the units light in them.
        units: of the layer.
        tiles_each: of a picture.
    """
    parts = [(words.cell + first * tiles_each, words.unit, words.word) for first, _, words in runs]
    if not parts:
        return [UnitWords(np.zeros(0, np.int64), np.zeros(0, np.uint64))] * units
    cell, unit, word = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((cell, unit))
    ends = np.searchsorted(unit[order], np.arange(units + 1))
    return [
        UnitWords(cell[order[low:high]].astype(np.int64), word[order[low:high]].astype(np.uint64))
        for low, high in pairwise(ends)
    ]


@compiled
def gathered(labels, exchange, cell, lit):  # type: ignore[no-untyped-def]
    """Concepts on some cells, where they are lit; compiled when it is first called.

    Args:
        labels: start, concept and word of `ConceptCells`.
        exchange: (categories, images) whose annotation each image gets; (images,) which of them count; tiles of each.
        cell, lit: cells, and the word that is lit in each.

    Returns:
        `ByCell` of these cells; concepts that are not lit in a cell are left out.
    """
    (start, concept, word), (plan, on, tiles_each) = labels, exchange
    bounds = np.zeros(len(cell) + 1, np.int64)
    categories = plan.shape[0]
    most = 0
    for at in range(len(cell)):
        image, tile = divmod(cell[at], tiles_each)
        if on[image]:
            for category in range(categories):
                source = plan[category, image] * tiles_each + tile
                most += start[category, source + 1] - start[category, source]
    concepts, words = np.empty(most, np.int32), np.empty(most, np.uint64)
    count = 0
    for at in range(len(cell)):
        image, tile = divmod(cell[at], tiles_each)
        if on[image]:
            for category in range(categories):
                source = plan[category, image] * tiles_each + tile
                for label in range(start[category, source], start[category, source + 1]):
                    both = word[label] & lit[at]
                    if both:
                        concepts[count], words[count] = concept[label], both
                        count += 1
        bounds[at + 1] = count
    return bounds, concepts[:count], words[:count]


@compiled
def tabulated(shown, unit, patterns, n):  # type: ignore[no-untyped-def]
    """Count where each concept, and each pair, is lit, over the pictures in which categories are annotated.

    Args:
        shown: `ByCell` of the cells.
        unit: cells, and the word that is lit in each.
        patterns: (images,) number of each one's pattern of annotated categories; (patterns, categories) what is
            annotated; tiles of each picture.
        n: concepts.

    Returns:
        the arrays of a `Meeting`.
    """
    (bounds, concept, word), (cell, lit), (pattern, holds, tiles_each) = shown, unit, patterns
    all_lit = np.zeros(len(holds), np.int64)
    one = np.zeros((len(holds), n), np.int64)
    two = np.zeros((len(holds), n, n), np.int32)
    for at in range(len(cell)):
        which = pattern[cell[at] // tiles_each]
        all_lit[which] += ones(lit[at])
        for first in range(bounds[at], bounds[at + 1]):
            one[which, concept[first]] += ones(word[first])
            for second in range(first + 1, bounds[at + 1]):
                both = word[first] & word[second]
                if both:
                    two[which, concept[first], concept[second]] += ones(both)
    return _over_patterns(all_lit, one, two, holds)


@inner
def _over_patterns(all_lit, one, two, holds):  # type: ignore[no-untyped-def]
    """Add up the patterns in which categories are annotated; pairs come in either order. Arrays of a `Meeting`."""
    patterns, categories = holds.shape
    n = one.shape[1]
    lit_of = np.zeros((categories, categories, categories), np.int64)
    one_of = np.zeros((categories, categories, n), np.int64)
    two_of = np.zeros((categories, n, n), np.int64)
    for which in range(patterns):
        present = np.flatnonzero(holds[which])
        for a in range(n):
            for b in range(n):
                if two[which, a, b]:
                    for i in present:
                        two_of[i, a, b] += two[which, a, b]
                        two_of[i, b, a] += two[which, a, b]
        for i in present:
            for j in present:
                one_of[i, j] += one[which]
                for k in present:
                    lit_of[i, j, k] += all_lit[which]
    return lit_of, one_of, two_of


@compiled
def by_concept(shown, cell, concepts):  # type: ignore[no-untyped-def]
    """The same labels concept by concept: arrays of `ByConcept`."""
    bounds, concept, word = shown
    start = np.zeros(concepts + 1, np.int64)
    for label in concept:
        start[label + 1] += 1
    start = np.cumsum(start)
    place = start[:-1].copy()
    cells, words = np.empty(len(concept), np.int64), np.empty(len(concept), np.uint64)
    for at in range(len(cell)):
        for label in range(bounds[at], bounds[at + 1]):
            to = place[concept[label]]
            cells[to], words[to] = cell[at], word[label]
            place[concept[label]] += 1
    return start, cells, words


@inner
def _reached(cells, at, end, wanted):  # type: ignore[no-untyped-def]
    """The first place from `at` on whose cell is not before the wanted one, by steps that double."""
    step = 1
    while at + step < end and cells[at + step] < wanted:
        at += step
        step *= 2
    high = min(at + step, end)
    while at < high:
        middle = (at + high) // 2
        if cells[middle] < wanted:
            at = middle + 1
        else:
            high = middle
    return at


@inner
def met(lists, a, b, c):  # type: ignore[no-untyped-def]
    """Pixels that three concepts share.

    Args:
        lists: `ByConcept`.
        a, b, c: concepts.
    """
    start, cells, words = lists
    if start[b + 1] - start[b] < start[a + 1] - start[a]:
        a, b = b, a
    if start[c + 1] - start[c] < start[a + 1] - start[a]:
        a, c = c, a
    second, third, pixels = start[b], start[c], 0
    for first in range(start[a], start[a + 1]):
        cell = cells[first]
        second = _reached(cells, second, start[b + 1], cell)
        if second == start[b + 1]:
            break
        if cells[second] != cell:
            continue
        third = _reached(cells, third, start[c + 1], cell)
        if third == start[c + 1]:
            break
        if cells[third] == cell:
            pixels += ones(words[first] & words[second] & words[third])
    return pixels


@inner
def remembered(lists, memo, parts):  # type: ignore[no-untyped-def]
    """The same as `met`, which is not counted again as long as no other three concepts take its place in the memo."""
    a, b, c = parts
    if a > b:
        a, b = b, a
    if b > c:
        b, c = c, b
    if a > b:
        a, b = b, a
    keys, counts = memo
    n = len(lists[0])
    key = (a * n + b) * n + c
    place = key * 2654435761 % len(keys)
    if keys[place] != key:
        keys[place], counts[place] = key, met(lists, a, b, c)
    return counts[place]


def memo() -> tuple[Ints, Ints]:
    """An empty memo, for one thread."""
    return np.full(MEMO, -1, np.int64), np.zeros(MEMO, np.int64)
