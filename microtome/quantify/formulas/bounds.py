"""What no formula can exceed, from the counts of its parts: letters as in `microtome.quantify.formulas.grammar`."""

from __future__ import annotations

import numpy as np

from microtome.quantify.formulas.words import inner


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
def reach_of_third(counts, floor):  # type: ignore[no-untyped-def]
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
def reach_of_node(reach, categories, node, k):  # type: ignore[no-untyped-def]
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
def move_bound(form, move, size, reach):  # type: ignore[no-untyped-def]
    """No formula that a move makes of a form of two concepts and any x of a category has an IoU above this.

    -1 where the form has no such move. Moves are, of `a and b`: 0 `and x`, 1 `or x`, 2 `and not x`, 3 `or (x and b)`,
    which is (a or x) and b, 4 `or (x and a)`, which is (b or x) and a. Of `a or b`: 1 `or x`. Of `a and not b`:
    1 `or x`, 2 `and not x`, 3 `or (x and not b)`, which is (a or x) and not b. All forms of three are among these.

    Args:
        form: of two concepts.
        move: as above.
        size: I, O and A of the form, A above 0.
        reach: from `reach_of_node`; for a single x, what x itself adds and takes away.
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
def passing(passed, rows, members, asked):  # type: ignore[no-untyped-def]
    """Which concepts x of a category may make a formula not below the floor, by what x covers alone and in pairs.

    As `move_bound`, and a formula that covers what x adds has no less O than that has.

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
        if move_bound(form, move, (both, least, lit), own) >= floor:
            passed[count] = x
            count += 1
    return count, looked
