"""The best logical formula of up to three concepts for a unit, and a proof that there is no better one.

Compositional explanations (Mu and Andreas 2020, arXiv 2006.14032) label a unit with a formula of concepts, built from
the left: concept, then `and`, `or` or `and not` another concept, and so on. They search by beam; here the search is by
branch and bound over exact counts, so that what is found is the best, or the result says by how much at most it is not.

    IoU_{k,F} = I / (A + L - I) = I / (A + O)

I: pixels that unit k lights and F holds on; O: pixels that F holds on and k does not light, L = I + O; A: pixels that k
lights; all over the pictures D_F in which every category of F's concepts is annotated. Of equal IoU (equal as float64,
of integers divided once) the shorter formula is taken, then the first in the order of `FORMS`, then that of the lowest
concept numbers; so a formula of one concept is the unit's label of a dissection.

What is below is compiled by numba when it is first called. Small letters m are counts of lit pixels, o of others, both
over D_F: m_a on concept a, m_ab on a and b. t = m_abc and u = o_abc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable
from numpy.typing import NDArray

from microtome.quantify import formula_words as words
from microtome.quantify.formula_words import FULL, ByCell, ByConcept, ConceptCells, Meeting, UnitWords, inner
from microtome.quantify.null import ones

Ints = NDArray[np.int64]
FORMS = (
    "{a}",
    "{a} and {b}",
    "{a} or {b}",
    "{a} and not {b}",
    "{a} and {b} and {c}",
    "({a} and {b}) or {c}",
    "({a} and {b}) and not {c}",
    "({a} or {b}) and {c}",
    "{a} or {b} or {c}",
    "({a} or {b}) and not {c}",
    "({a} and not {b}) or {c}",
    "({a} and not {b}) and not {c}",
)
"""All that the grammar can say of one, two and three different concepts, each once: 1, 4 and 23 meanings."""
LENGTHS = (1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3)
AND, OR, NOT = 0, 1, 2  # what joins a formula and one more concept
AAA, AAO, AAN, OOA, OOO, OON, NNO, NNN = range(4, 12)
SIGN = np.array([0, 0, 0, 0, 1, -1, -1, -1, 1, 1, 1, 1])  # of the count of all three in a form's count
LAST = np.iinfo(np.int64).max


class Form(NamedTuple):
    """A formula.

    Args:
        form: place in `FORMS`.
        a, b, c: concepts, -1 for none. What commutes is in ascending order.
    """

    form: int
    a: int
    b: int = -1
    c: int = -1

    @property
    def concepts(self) -> list[int]:
        """In the order in which they are written."""
        return [self.a, self.b, self.c][: LENGTHS[self.form]]

    def worded(self, names: Sequence[str]) -> str:
        """Written out; `names` are those of all concepts."""
        a, b, c = (names[place] if place >= 0 else "" for place in (self.a, self.b, self.c))
        return FORMS[self.form].format(a=a, b=b, c=c)


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
def base(form, counts):  # type: ignore[no-untyped-def]
    """Pixels on which a form of three concepts holds, but for those that all three share, which count SIGN times.

    Inclusion and exclusion, form by form: |F| = base + SIGN |abc|. It holds for lit pixels, for others, and for all.
    Counts are of a, b, c, ab, ac, bc.
    """
    x_a, x_b, x_c, x_ab, x_ac, x_bc = counts
    if form == AAA:
        return 0
    if form == AAO:
        return x_ab + x_c
    if form == AAN:
        return x_ab
    if form == OOA:
        return x_ac + x_bc
    if form == OOO:
        return x_a + x_b + x_c - x_ab - x_ac - x_bc
    if form == OON:
        return x_a + x_b - x_ab - x_ac - x_bc
    if form == NNO:
        return x_a - x_ab + x_c - x_ac
    return x_a - x_ab - x_ac


@inner
def shared(counts, room):  # type: ignore[no-untyped-def]
    """Least and most pixels that three concepts can share, given what one and two of them cover.

    Most: no more than any pair shares, and, since the union, S1 - S2 + x_abc by inclusion and exclusion, has no more
    than `room` pixels, no more than room - S1 + S2. Least: the pairs ab and ac lie in a, which has no more than x_a, so
    that x_ab + x_ac - x_abc <= x_a; likewise in b and c (Bonferroni).
    """
    x_a, x_b, x_c, x_ab, x_ac, x_bc = counts
    least = max(0, x_ab + x_ac - x_a, x_ab + x_bc - x_b, x_ac + x_bc - x_c)
    most = min(x_ab, x_ac, x_bc, room - x_a - x_b - x_c + x_ab + x_ac + x_bc)
    return least, most


@inner
def leaf_bound(bases, sign, lit, ranges):  # type: ignore[no-untyped-def]
    """No IoU of a form is above this, with t = m_abc and u = o_abc anywhere in their ranges.

    I / (A + O) rises with I and falls with O. I = base_m + sign t is greatest at one end of t, O = base_o + sign u
    least at one end of u; t and u count different pixels, so that both ends may come together, and no better.

    Args:
        bases: from `base`, of lit pixels and of others.
        sign: SIGN of the form.
        lit: A, above 0.
        ranges: of t and of u, least and most.
    """
    (base_m, base_o), (t, u) = bases, ranges
    most = base_m + (t[1] if sign > 0 else -t[0])
    least = base_o + (u[0] if sign > 0 else -u[1])
    return most / (lit + max(least, 0))


@inner
def grown(i, o, lit, more):  # type: ignore[no-untyped-def]
    """No formula `f or g` has an IoU above this, with f given and g of a set of formulas.

    Its lit pixels are no more than those of f and of g together, nor than all: I <= min(A, I_f + I_g). It covers what f
    covers: O >= O_f.

    Args:
        i, o: I and O of f.
        lit: A, above 0.
        more: largest I_g. Where the O of a g says that nothing that covers g can reach a floor, A / (A + O_g) < floor,
            that g need not be regarded: then this bounds what reaches the floor.
    """
    return min(lit, i + more) / (lit + o)


@inner
def cut(i, o, lit, less):  # type: ignore[no-untyped-def]
    """No formula `f and not g` has an IoU above this, with f given and g of a set; nor `f and g`, with less = o.

    It lies within f: I <= I_f. What is taken away lies in f and g: O >= O_f - O_fg.

    Args:
        i: I of f, or what else I cannot exceed.
        o: O of f.
        lit: A, above 0.
        less: largest O of what f and g share, or more.
    """
    return i / (lit + max(0, o - less))


@inner
def _two(form, x_a, x_b, x_ab):  # type: ignore[no-untyped-def]
    """Pixels on which a form of two concepts holds."""
    if form == 1:
        return x_ab
    if form == 2:
        return x_a + x_b - x_ab
    return x_a - x_ab


@inner
def _key(formula, n):  # type: ignore[no-untyped-def]
    """The order among formulas of equal IoU: the lowest is taken. c or b is -1 where there is none."""
    form, a, b, c = formula
    return ((form * (n + 1) + a + 1) * (n + 1) + b + 1) * (n + 1) + c + 1


@inner
def _parts(key, n):  # type: ignore[no-untyped-def]
    """Form and concepts of a key."""
    rest, c = divmod(key, n + 1)
    rest, b = divmod(rest, n + 1)
    form, a = divmod(rest, n + 1)
    return form, a - 1, b - 1, c - 1


@inner
def _canonical(node, join, c):  # type: ignore[no-untyped-def]
    """The formula of three concepts that `(form of a and b) join c` means, its concepts in order."""
    form, a, b = node
    if form == 1 and join == AND:
        low, high = min(a, b, c), max(a, b, c)
        return AAA, low, a + b + c - low - high, high
    if form == 2 and join == OR:
        low, high = min(a, b, c), max(a, b, c)
        return OOO, low, a + b + c - low - high, high
    if form == 1:
        return (AAO if join == OR else AAN), a, b, c
    if form == 2:
        return (OOA if join == AND else OON), a, b, c
    if join == AND:  # (a and not b) and c is (a and c) and not b
        return AAN, min(a, c), max(a, c), b
    if join == OR:
        return NNO, a, b, c
    return NNN, a, min(b, c), max(b, c)


@inner
def _iou_one(unit, rest, category, a):  # type: ignore[no-untyped-def]
    """IoU of a concept."""
    k = category[a]
    union = unit[0][k, k, k] + rest[1][k, k, a]
    return unit[1][k, k, a] / union if union else 0.0


@inner
def _pair(unit, category, node, k):  # type: ignore[no-untyped-def]
    """Pixels on which a form of two concepts holds, over the pictures in which category k is annotated, too."""
    form, a, b = node
    return _two(form, unit[1][category[b], k, a], unit[1][category[a], k, b], unit[2][k, a, b])


@inner
def _iou_two(unit, rest, category, node):  # type: ignore[no-untyped-def]
    """IoU of a form of two concepts."""
    k = category[node[2]]
    lit = unit[0][category[node[1]], k, k]
    return _pair(unit, category, node, k) / (lit + _pair(rest, category, node, k)) if lit else 0.0


@inner
def _iou_three(counts, formula, floor):  # type: ignore[no-untyped-def]
    """IoU of a form of three concepts; -1 where a bound already says that it lies below the floor.

    Args:
        counts: see `_search`.
        formula: form, a, b and c.
        floor: what is of interest.

    Returns:
        IoU, and how much had to be counted: 0 nothing, 1 something.
    """
    unit, rest, category, _, lists, everywhere, memo = counts
    form, a, b, c = formula
    i, j, k = category[a], category[b], category[c]
    lit = unit[0][i, j, k]
    if lit == 0:
        return 0.0, 0
    m = unit[1][j, k, a], unit[1][i, k, b], unit[1][i, j, c], unit[2][k, a, b], unit[2][j, a, c], unit[2][i, b, c]
    o = rest[1][j, k, a], rest[1][i, k, b], rest[1][i, j, c], rest[2][k, a, b], rest[2][j, a, c], rest[2][i, b, c]
    bases, sign = (base(form, m), base(form, o)), SIGN[form]
    t, u = shared(m, lit), shared(o, o[0] + o[1] + o[2])  # no room is known of others but the concepts' own
    if leaf_bound(bases, sign, lit, (t, u)) < floor:
        return -1.0, 0
    both = t[0] if t[0] == t[1] else words.met(lists, a, b, c)
    if leaf_bound(bases, sign, lit, ((both, both), u)) < floor:
        return -1.0, 1
    others = u[0] if u[0] == u[1] else words.remembered(everywhere, memo, (a, b, c)) - both
    return (bases[0] + sign * both) / (lit + bases[1] + sign * others), 1


@inner
def _offer(found, length, value, key):  # type: ignore[no-untyped-def]
    """Take a formula in place of the best so far where it is better, or as good and before it in order."""
    best, keys = found
    if value > best[length] or (value == best[length] and key < keys[length]):
        best[length], keys[length] = value, key


@inner
def _short(counts, found, length):  # type: ignore[no-untyped-def]
    """The best formulas of one and of two concepts: all of them are looked at."""
    (best, keys), unit, rest, category = found, counts[0], counts[1], counts[2]
    n = len(category)
    for a in range(n):
        _offer(found, 1, _iou_one(unit, rest, category, a), _key((0, a, -1, -1), n))
    best[2], keys[2] = best[1], keys[1]
    if length > 1:
        for a in range(n):
            for b in range(n):
                for form in range(1, 4):
                    if a != b and (form == 3 or a < b):
                        value = _iou_two(unit, rest, category, (form, a, b))
                        _offer(found, 2, value, _key((form, a, b, -1), n))
    best[3], keys[3] = best[2], keys[2]


@inner
def _reach(counts, floor):  # type: ignore[no-untyped-def]
    """How much a third concept x of each category can add or take away at most, for every beginning.

    An addition is regarded only where its own O does not rule it out (`grown`); floor is an IoU that is held already.

    Returns:
        alone: (categories, categories, categories) most m_x, of category k, where categories i, j and k are annotated.
        within: (categories, concepts, categories) most m_xb with concept b, where category i is annotated, too.
        added: the same, of those x that may be added.
        beside: the same, of x and not b.
        taken: (categories, concepts, categories) most o_xb.
    """
    unit, rest, category = counts[0], counts[1], counts[2]
    n, categories = len(category), unit[0].shape[0]
    alone = np.zeros((categories, categories, categories), np.int64)
    tables = np.zeros((4, categories, n, categories), np.int64)
    for i in range(categories):
        for j in range(categories):
            for x in range(n):
                k = category[x]
                lit = unit[0][i, j, k]
                if lit and lit / (lit + rest[1][i, j, x]) >= floor:
                    alone[i, j, k] = max(alone[i, j, k], unit[1][i, j, x])
        for b in range(n):
            j = category[b]
            for x in range(n):
                k = category[x]
                lit, both, others = unit[0][i, j, k], unit[2][i, b, x], rest[2][i, b, x]
                if x == b or lit == 0:
                    continue
                tables[0, i, b, k] = max(tables[0, i, b, k], both)
                tables[3, i, b, k] = max(tables[3, i, b, k], others)
                if lit / (lit + others) >= floor:
                    tables[1, i, b, k] = max(tables[1, i, b, k], both)
                if lit / (lit + rest[1][i, j, x] - others) >= floor:
                    tables[2, i, b, k] = max(tables[2, i, b, k], unit[1][i, j, x] - both)
    return alone, tables


@inner
def _reach_of(reach, categories, node, k):  # type: ignore[no-untyped-def]
    """What of it concerns a form of concepts a and b, of categories i and j, and one more of category k."""
    (alone, tables), (i, j), (_, a, b) = reach, categories, node
    return (
        alone[i, j, k],
        tables[0, j, a, k],
        tables[0, i, b, k],
        tables[1, j, a, k],
        tables[1, i, b, k],
        tables[2, i, b, k],
        tables[3, j, a, k],
        tables[3, i, b, k],
    )


@inner
def _move_bound(form, move, size, reach):  # type: ignore[no-untyped-def]
    """No formula that a move makes of a form of two concepts and any x of a category has an IoU above this.

    -1 where the form has no such move. Moves are, of `a and b`: 0 `and x`, 1 `or x`, 2 `and not x`, 3 `or (x and b)`,
    which is (a or x) and b, 4 `or (x and a)`, which is (b or x) and a. Of `a or b`: 1 `or x`. Of `a and not b`:
    1 `or x`, 2 `and not x`, 3 `or (x and not b)`, which is (a or x) and not b. All forms of three are among these.

    Args:
        form: of two concepts.
        move: as above.
        size: I, O and A of the form, A above 0.
        reach: from `_reach_of`; for a single x, what x itself adds and takes away.
    """
    (both, others, lit), (alone, within_a, within_b, added_a, added_b, beside, taken_a, taken_b) = size, reach
    if (form == 2 and move != 1) or (form == 3 and (move == 0 or move == 4)):
        return -1.0
    if move == 0:
        return cut(min(both, within_a, within_b), others, lit, others)
    if move == 1:
        return grown(both, others, lit, alone)
    if move == 2:
        return cut(both, others, lit, min(taken_a, taken_b) if form == 1 else taken_a)
    if form == 3:
        return grown(both, others, lit, beside)
    return grown(both, others, lit, added_b if move == 3 else added_a)


@inner
def _passing(passed, rows, members, asked):  # type: ignore[no-untyped-def]
    """Which concepts x of a category may make a formula not below the floor, by what x covers alone and in pairs.

    As `_move_bound`, and a formula that covers what x adds has no less O than that has.

    Args:
        passed: (concepts,) filled from the front.
        rows: (concepts,) of lit pixels: m_x, m_ax, m_bx; of others: o_x, o_ax, o_bx.
        members: the category's concepts.
        asked: the form with a and b; its I, O and A; the move; the least IoU that is of interest.

    Returns:
        how many passed, and how many were looked at.
    """
    (form, a, b), (both, others, lit), move, floor = asked
    m_x, m_a, m_b, o_x, o_a, o_b = rows
    count = looked = 0
    for x in members:
        if x in (a, b):
            continue
        looked += 1
        least = others
        if move == 1:
            least = max(others, o_x[x])
        elif move == 3 and form == 3:
            least = max(others, o_x[x] - o_b[x])
        elif move == 3:
            least = max(others, o_b[x])
        elif move == 4:
            least = max(others, o_a[x])
        own = (m_x[x], m_a[x], m_b[x], m_a[x], m_b[x], m_x[x] - m_b[x], o_a[x], o_b[x])
        if _move_bound(form, move, (both, least, lit), own) >= floor:
            passed[count] = x
            count += 1
    return count, looked


@inner
def _moved(node, move, x):  # type: ignore[no-untyped-def]
    """The formula that a move makes; form -1 where another node and concept make the same one."""
    form, a, b = node
    if form == 1:
        if move == 0:
            return (AAA if x > b else -1), a, b, x
        if move < 3:
            return (AAO if move == 1 else AAN), a, b, x
        own, common = (a, b) if move == 3 else (b, a)
        return (OOA if x > own else -1), own, x, common
    if form == 2:
        return (OOO if x > b else -1), a, b, x
    if move == 1:
        return NNO, a, b, x
    if move == 2:
        return (NNN if x > b else -1), a, b, x
    return (OON if x > a else -1), a, x, b


@inner
def _node_bound(counts, reach, node):  # type: ignore[no-untyped-def]
    """No formula of three concepts that is made from a form of two has an IoU above this."""
    unit, rest, category, (form, a, b) = counts[0], counts[1], counts[2], node
    i, j, most = category[a], category[b], -1.0
    for k in range(unit[0].shape[0]):
        lit = unit[0][i, j, k]
        if lit:
            size = _pair(unit, category, node, k), _pair(rest, category, node, k), lit
            own = _reach_of(reach, (i, j), node, k)
            for move in range(5):
                most = max(most, _move_bound(form, move, size, own))
    return most


@inner
def _nodes(counts, reach, floor):  # type: ignore[no-untyped-def]
    """Forms of two concepts from which a formula not below the floor may be made: bounds, and their keys."""
    n = len(counts[2])
    bounds, keys = np.empty(2 * n * (n - 1)), np.empty(2 * n * (n - 1), np.int64)
    count = 0
    for a in range(n):
        for b in range(n):
            for form in range(1, 4):
                if a == b or (form < 3 and a > b):
                    continue
                most = _node_bound(counts, reach, (form, a, b))
                if most >= floor:
                    bounds[count], keys[count] = most, _key((form, a, b, -1), n)
                    count += 1
    return bounds[:count], keys[:count]


@inner
def _expand(counts, reach, key, found):  # type: ignore[no-untyped-def]
    """Look at all formulas that are made from a node, but for moves and concepts that their bounds rule out.

    Args:
        counts: see `_search`.
        reach: from `_reach`, for a floor no higher than the best.
        key: of a form of two concepts.
        found: best IoU and keys by length, replaced where a formula is better; formulas looked at and formulas counted,
            added to.
    """
    (best, keys, told), unit, rest, category = found, counts[0], counts[1], counts[2]
    n = len(category)
    form, a, b, _ = _parts(key, n)
    node, i, j = (form, a, b), category[a], category[b]
    passed, (members, ends) = np.empty(n, np.int64), counts[3]
    rows = (unit[1][i, j], unit[2][j, a], unit[2][i, b], rest[1][i, j], rest[2][j, a], rest[2][i, b])
    for k in range(unit[0].shape[0]):
        lit = unit[0][i, j, k]
        if lit == 0:
            continue
        size = _pair(unit, category, node, k), _pair(rest, category, node, k), lit
        own = _reach_of(reach, (i, j), node, k)
        for move in range(5):
            if _move_bound(form, move, size, own) < best[3]:
                continue
            some = members[ends[k] : ends[k + 1]]
            count, looked = _passing(passed, rows, some, (node, size, move, best[3]))
            told[0] += looked
            for x in passed[:count]:
                formula = _moved(node, move, x)
                if formula[0] >= 0:
                    value, counted = _iou_three(counts, formula, best[3])
                    told[1] += counted
                    if value >= 0:
                        _offer((best, keys), 3, value, _key(formula, n))


@inner
def _insert(held, count, value, key):  # type: ignore[no-untyped-def]
    """Put a formula into the beam, by IoU, then by order; gives how many it holds."""
    beam, keys = held
    width = len(beam)
    if value <= 0:
        return count
    at = count
    while at > 0 and (value > beam[at - 1] or (value == beam[at - 1] and key < keys[at - 1])):
        at -= 1
    if at == width:
        return count
    for place in range(count):
        if keys[place] == key:
            return count
    for place in range(min(count, width - 1), at, -1):
        beam[place], keys[place] = beam[place - 1], keys[place - 1]
    beam[at], keys[at] = value, key
    return min(count + 1, width)


@inner
def _joined(counts, node, more, floor):  # type: ignore[no-untyped-def]
    """IoU and key of a formula of one or two concepts, joined with one more; IoU -1 where it lies below the floor."""
    n, (form, a, _), (join, c) = len(counts[2]), node, more
    if form == 0:
        low, high = (a, c) if join == NOT else (min(a, c), max(a, c))
        pair = (join + 1, low, high)
        return _iou_two(counts[0], counts[1], counts[2], pair), _key((join + 1, low, high, -1), n)
    formula = _canonical(node, join, c)
    value, _ = _iou_three(counts, formula, floor)
    return value, _key(formula, n)


@inner
def _beam(counts, width, length):  # type: ignore[no-untyped-def]
    """Beam search from the left (Mu and Andreas 2020): the best `width` formulas, each extended by every concept.

    One formula takes one place, however it could be written. What its bound rules out is not counted; the beam is the
    same. Gives the best IoU and its key.
    """
    unit, rest, category = counts[0], counts[1], counts[2]
    n = len(category)
    beam, keys, count = np.zeros(width), np.full(width, LAST), 0
    for a in range(n):
        count = _insert((beam, keys), count, _iou_one(unit, rest, category, a), _key((0, a, -1, -1), n))
    for step in range(2, length + 1):
        before, held = keys.copy(), count
        for place in range(held):
            form, a, b, _ = _parts(before[place], n)
            if form > 3 or (step == 3 and form == 0):  # extended already
                continue
            for c in range(n):
                if c not in (a, b):
                    for join in range(3):
                        value, key = _joined(counts, (form, a, b), (join, c), beam[width - 1])
                        count = _insert((beam, keys), count, value, key)
    return beam[0], (keys[0] if count else _key((0, 0, -1, -1), n))


@njit(nogil=True)
def _search(counts, length, width, effort):  # type: ignore[no-untyped-def]
    """The best formula of each length, by branch and bound, the nodes of the highest bound first.

    Args:
        counts: of the unit, of all other pixels, category of each concept, concepts sorted by category and where each
            category begins and ends, the unit's `ByConcept`, that of all pixels, and a memo.
        length: most concepts.
        width: of the beam, whose formula is the first to beat.
        effort: formulas of three concepts that are looked at, at most: the node in hand is finished.

    Returns:
        (4,) IoU and keys by length, the bound on what was not looked at, the beam's IoU and key, formulas looked at and
        counted.
    """
    best, keys, told = np.full(4, -1.0), np.full(4, LAST), np.zeros(2, np.int64)
    _short(counts, (best, keys), length)
    beam, key = _beam(counts, width, length)
    bound = best[3]
    if length > 2:
        _offer((best, keys), 3, beam, key)
        reach = _reach(counts, best[3])
        bounds, nodes = _nodes(counts, reach, best[3])
        bound = best[3]
        for place in np.argsort(-bounds, kind="mergesort"):
            if bounds[place] < best[3]:
                break
            if told[0] >= effort:
                bound = bounds[place]
                break
            _expand(counts, reach, nodes[place], (best, keys, told))
    return best, keys, max(bound, best[length]), beam, key, told


@njit(nogil=True)
def _reaches(counts, length, floor, effort):  # type: ignore[no-untyped-def]
    """Whether any formula of up to so many concepts has at least a given IoU, above 0; yes where effort ends it."""
    best, keys, told = np.full(4, -1.0), np.full(4, LAST), np.zeros(2, np.int64)
    _short(counts, (best, keys), length)
    if best[length] >= floor or length < 3:
        return best[length] >= floor
    reach = _reach(counts, floor)
    best[3], keys[3] = floor, LAST
    _, nodes = _nodes(counts, reach, floor)
    for node in nodes:
        _expand(counts, reach, node, (best, keys, told))
        if keys[3] != LAST or told[0] >= effort:
            return True
    return False


@register_jitable
def _first(form, x, y):  # type: ignore[no-untyped-def]
    """Word of the pixels on which the first two concepts of a form hold, as they are joined."""
    if form in (1, AAA, AAO, AAN):
        return x & y
    if form in (2, OOA, OOO, OON):
        return x | y
    return x & ~y


@register_jitable
def holds(form, x, y, z):  # type: ignore[no-untyped-def]
    """Word of the pixels on which a form holds, from the words of its concepts; of masks, the mask."""
    if form == 0:
        return x
    first = _first(form, x, y)  # type: ignore[no-untyped-call]
    if form < AAA:
        return first
    if form in (AAA, OOA):
        return first & z
    if form in (AAO, OOO, NNO):
        return first | z
    return first & ~z


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


@njit(nogil=True)
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


def held_on(formula: Form, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(pixels,) where a formula holds, from the masks of its concepts in the order in which they are written.

    Args:
        formula: the formula.
        masks: (its concepts, pixels).
    """
    none = np.zeros(masks.shape[1], bool)
    found: NDArray[np.bool_] = holds(formula.form, *[*masks, none, none][:3])  # type: ignore[no-untyped-call]
    return found


class FormulaSearch:
    """Searches formulas for units, over some pictures and one assignment of annotations to them.

    Args:
        cells: all annotations.
        annotated: (images, categories) whose pictures count for which category; none of one that is left out.
        plan: (categories, images) whose annotation each image gets; its own where None.
        least: pictures in which all categories of a formula of several must be annotated; others have IoU 0.
    """

    def __init__(
        self, cells: ConceptCells, annotated: NDArray[np.bool_], plan: Ints | None = None, *, least: int = 1
    ) -> None:
        images, categories = annotated.shape
        own = np.broadcast_to(np.arange(images), (categories, images))
        self._cells, self._annotated = cells, annotated
        seen = annotated.astype(np.int64)
        number = np.einsum("ni,nj,nk->ijk", seen, seen, seen, optimize=True)
        several = np.ones(number.shape, bool)
        several[(np.arange(categories),) * 3] = False
        self._too_few = several & (number < least)
        self._plan = np.ascontiguousarray(own if plan is None else plan)
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
        iou, keys, bound, beam, key, told = _search(self._counts(lit, memo), limits.length, limits.beam, limits.effort)
        forms = tuple(Form(*_parts.py_func(int(each), n)) for each in keys[1:])
        ious = tuple(float(value) for value in iou[1:])
        return BestFormulas(
            forms, ious, float(bound), Form(*_parts.py_func(int(key), n)), float(beam), int(told[0]), int(told[1])
        )

    def reaches(self, lit: UnitWords, floor: float, limits: SearchLimits, memo: tuple[Ints, Ints]) -> bool:
        """Whether any formula has at least a given IoU; also yes where the effort ends before that is known.

        Args:
            lit: what the unit lights.
            floor: an IoU; 0 is always reached.
            limits, memo: as above.
        """
        return floor <= 0 or bool(_reaches(self._counts(lit, memo), limits.length, floor, limits.effort))

    def domain(self, formula: Form) -> NDArray[np.bool_]:
        """(images,) in which every category of a formula is annotated."""
        return np.asarray(self._annotated[:, self._cells.category[formula.concepts]].all(1), bool)

    def by_image(self, lit: UnitWords, formula: Form) -> Ints:
        """(3, images) I, A and L of one unit and formula; nothing where not every category of it is annotated."""
        pixels = np.zeros((3, self._cells.images), np.int64)
        _by_image(self.everywhere, lit, np.array(formula), (pixels, self._cells.tiles))
        return pixels * self.domain(formula)
