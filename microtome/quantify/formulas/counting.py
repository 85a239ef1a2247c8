"""Exact counts and IoU of a formula, from the counts of its parts where they are enough.

`counts`, here and in the search, are those of the unit, of all other pixels, the category of each concept, concepts
sorted by category and where each category begins and ends, the unit's `ByConcept`, that of all pixels, and a memo.
"""

from __future__ import annotations

from microtome.quantify.formulas import words
from microtome.quantify.formulas.bounds import leaf_bound, shared
from microtome.quantify.formulas.grammar import SIGN, base, of_two
from microtome.quantify.formulas.words import inner


@inner
def iou_one(unit, rest, category, a):  # type: ignore[no-untyped-def]
    """IoU of a concept."""
    k = category[a]
    union = unit[0][k, k, k] + rest[1][k, k, a]
    return unit[1][k, k, a] / union if union else 0.0


@inner
def pixels_of_two(unit, category, node, k):  # type: ignore[no-untyped-def]
    """Pixels on which a form of two concepts holds, over the pictures in which category k is annotated, too."""
    form, a, b = node
    return of_two(form, unit[1][category[b], k, a], unit[1][category[a], k, b], unit[2][k, a, b])


@inner
def iou_two(unit, rest, category, node):  # type: ignore[no-untyped-def]
    """IoU of a form of two concepts."""
    k = category[node[2]]
    lit = unit[0][category[node[1]], k, k]
    return pixels_of_two(unit, category, node, k) / (lit + pixels_of_two(rest, category, node, k)) if lit else 0.0


@inner
def iou_three(counts, formula, floor):  # type: ignore[no-untyped-def]
    """IoU of a form of three concepts; -1 where a bound already says that it lies below the floor.

    Args:
        counts: see `microtome.quantify.formulas.counting`.
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
