"""What formulas of up to three concepts there are, and on which pixels each holds.

Small letters m are counts of lit pixels, o of others, both over D_F (see `microtome.quantify.formulas`): m_a on concept
a, m_ab on a and b. t = m_abc and u = o_abc. What is below is compiled by numba when it is first called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from microtome.quantify.formulas.words import inner

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
def of_two(form, x_a, x_b, x_ab):  # type: ignore[no-untyped-def]
    """Pixels on which a form of two concepts holds."""
    if form == 1:
        return x_ab
    if form == 2:
        return x_a + x_b - x_ab
    return x_a - x_ab


@inner
def key_of(formula, n):  # type: ignore[no-untyped-def]
    """The order among formulas of equal IoU: the lowest is taken. c or b is -1 where there is none."""
    form, a, b, c = formula
    return ((form * (n + 1) + a + 1) * (n + 1) + b + 1) * (n + 1) + c + 1


@inner
def parts_of(key, n):  # type: ignore[no-untyped-def]
    """Form and concepts of a key."""
    rest, c = divmod(key, n + 1)
    rest, b = divmod(rest, n + 1)
    form, a = divmod(rest, n + 1)
    return form, a - 1, b - 1, c - 1


@inner
def canonical(node, join, c):  # type: ignore[no-untyped-def]
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
def moved(node, move, x):  # type: ignore[no-untyped-def]
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


def held_on(formula: Form, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(pixels,) where a formula holds, from the masks of its concepts in the order in which they are written.

    Args:
        formula: the formula.
        masks: (its concepts, pixels).
    """
    none = np.zeros(masks.shape[1], bool)
    found: NDArray[np.bool_] = holds(formula.form, *[*masks, none, none][:3])  # type: ignore[no-untyped-call]
    return found
