"""Branch and bound over formulas, and the beam search that is its first guess and its rival."""

from __future__ import annotations

import numpy as np

from microtome.compiling import compiled
from microtome.quantify.formulas.bounds import move_bound, passing, reach_of_node, reach_of_third
from microtome.quantify.formulas.counting import iou_one, iou_three, iou_two, pixels_of_two
from microtome.quantify.formulas.grammar import LAST, NOT, canonical, key_of, moved, parts_of
from microtome.quantify.formulas.words import inner


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
        _offer(found, 1, iou_one(unit, rest, category, a), key_of((0, a, -1, -1), n))
    best[2], keys[2] = best[1], keys[1]
    if length > 1:
        for a in range(n):
            for b in range(n):
                for form in range(1, 4):
                    if a != b and (form == 3 or a < b):
                        value = iou_two(unit, rest, category, (form, a, b))
                        _offer(found, 2, value, key_of((form, a, b, -1), n))
    best[3], keys[3] = best[2], keys[2]


@inner
def _node_bound(counts, reach, node):  # type: ignore[no-untyped-def]
    """No formula of three concepts that is made from a form of two has an IoU above this."""
    unit, rest, category, (form, a, b) = counts[0], counts[1], counts[2], node
    i, j, most = category[a], category[b], -1.0
    for k in range(unit[0].shape[0]):
        lit = unit[0][i, j, k]
        if lit:
            size = pixels_of_two(unit, category, node, k), pixels_of_two(rest, category, node, k), lit
            own = reach_of_node(reach, (i, j), node, k)
            for move in range(5):
                most = max(most, move_bound(form, move, size, own))
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
                    bounds[count], keys[count] = most, key_of((form, a, b, -1), n)
                    count += 1
    return bounds[:count], keys[:count]


@inner
def _expand(counts, reach, key, found):  # type: ignore[no-untyped-def]
    """Look at all formulas that are made from a node, but for moves and concepts that their bounds rule out.

    Args:
        counts: see `microtome.quantify.formulas.counting`.
        reach: from `reach_of_third`, for a floor no higher than the best.
        key: of a form of two concepts.
        found: best IoU and keys by length, replaced where a formula is better; formulas looked at and formulas counted,
            added to.
    """
    (best, keys, told), unit, rest, category = found, counts[0], counts[1], counts[2]
    n = len(category)
    form, a, b, _ = parts_of(key, n)
    node, i, j = (form, a, b), category[a], category[b]
    passed, (members, ends) = np.empty(n, np.int64), counts[3]
    rows = (unit[1][i, j], unit[2][j, a], unit[2][i, b], rest[1][i, j], rest[2][j, a], rest[2][i, b])
    for k in range(unit[0].shape[0]):
        lit = unit[0][i, j, k]
        if lit == 0:
            continue
        size = pixels_of_two(unit, category, node, k), pixels_of_two(rest, category, node, k), lit
        own = reach_of_node(reach, (i, j), node, k)
        for move in range(5):
            if move_bound(form, move, size, own) < best[3]:
                continue
            some = members[ends[k] : ends[k + 1]]
            count, looked = passing(passed, rows, some, (node, size, move, best[3]))
            told[0] += looked
            for x in passed[:count]:
                formula = moved(node, move, x)
                if formula[0] >= 0:
                    value, counted = iou_three(counts, formula, best[3])
                    told[1] += counted
                    if value >= 0:
                        _offer((best, keys), 3, value, key_of(formula, n))


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
        return iou_two(counts[0], counts[1], counts[2], pair), key_of((join + 1, low, high, -1), n)
    formula = canonical(node, join, c)
    value, _ = iou_three(counts, formula, floor)
    return value, key_of(formula, n)


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
        count = _insert((beam, keys), count, iou_one(unit, rest, category, a), key_of((0, a, -1, -1), n))
    for step in range(2, length + 1):
        before, held = keys.copy(), count
        for place in range(held):
            form, a, b, _ = parts_of(before[place], n)
            if form > 3 or (step == 3 and form == 0):  # extended already
                continue
            for c in range(n):
                if c not in (a, b):
                    for join in range(3):
                        value, key = _joined(counts, (form, a, b), (join, c), beam[width - 1])
                        count = _insert((beam, keys), count, value, key)
    return beam[0], (keys[0] if count else key_of((0, 0, -1, -1), n))


@compiled
def search(counts, length, width, effort):  # type: ignore[no-untyped-def]
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
        reach = reach_of_third(counts, best[3])
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


@compiled
def reached(counts, length, floor, effort):  # type: ignore[no-untyped-def]
    """Whether any formula of up to so many concepts has at least a given IoU, above 0; yes where effort ends it."""
    best, keys, told = np.full(4, -1.0), np.full(4, LAST), np.zeros(2, np.int64)
    _short(counts, (best, keys), length)
    if best[length] >= floor or length < 3:
        return best[length] >= floor
    reach = reach_of_third(counts, floor)
    best[3], keys[3] = floor, LAST
    _, nodes = _nodes(counts, reach, floor)
    for node in nodes:
        _expand(counts, reach, node, (best, keys, told))
        if keys[3] != LAST or told[0] >= effort:
            return True
    return False
