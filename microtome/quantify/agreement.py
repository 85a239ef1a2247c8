"""How far two methods agree on what the units of a layer are called, beside what shuffled labels give.

Three measures of a unit's two labels: whether they are the same text, whether they have a word in common, and, where a
WordNet is at hand, how near their nouns are in it (`wordnet.py`). Each is averaged over the units that both methods
label: a share has Wilson's interval, a mean that of resampled units. Chance is what the same labels give when those of
one method are shuffled among the units: its mean is exact, over all pairs of units, and p = (1 + b) / (1 + shuffles), b
shuffles with at least as much agreement. Where two lists number the units otherwise, they agree as chance has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import eq
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.intervals import mean_interval, wilson
from microtome.quantify.significance import null_p95, p_values
from microtome.quantify.wordnet import WordNet

Read = TypeVar("Read", bound=Hashable)
SHUFFLES = 1000
ROUNDING = 1e-12  # of a mean, so that equal ones are seen as such
SAME, WORD, NEAR = "same label", "a word in common", "nearness in WordNet"
_SUFFIX = re.compile(r"-[cs]$")  # Broden's, of colours and scenes: purple-c, street-s
_FUNCTION = re.compile(
    r"an?|and|are|as|at|by|for|from|in|is|its?|near|of|on|or|other|that|the|their|things|to|various|with"
)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How far two methods agree on a layer.

    Args:
        measure: SAME, WORD or NEAR.
        units: that both methods label, and of NEAR those with a noun that WordNet knows in both labels.
        agreeing: of them, units that agree; None of NEAR, which is no share.
        value: the share, or the mean of the path similarity.
        low, high: its 95 % interval.
        chance: mean of `value` with the labels of one method shuffled among the units.
        chance_p95: what a shuffle in twenty exceeds.
        p_value: of as much agreement by chance.
    """

    measure: str
    units: int
    agreeing: int | None
    value: float
    low: float
    high: float
    chance: float
    chance_p95: float
    p_value: float


def plain(label: str) -> str:
    """A label in small letters, with single blanks between words, without Broden's suffix of colours and scenes."""
    return " ".join(re.findall(r"\w+", _SUFFIX.sub("", label.strip()).replace("_", " ").casefold()))


def singular(word: str) -> str:
    """A word without the s of its plural, as far as spelling tells."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def content(label: str) -> frozenset[str]:
    """The words of a label that mean something, as singulars."""
    return frozenset(singular(word) for word in plain(label).split() if not _FUNCTION.fullmatch(word))


def nouns(label: str, wordnet: WordNet) -> tuple[int, ...]:
    """Senses of a label in WordNet: of the whole label where it is a noun there, else of its words that are."""
    lemmas = [plain(label)] if wordnet.senses(plain(label)) else sorted(content(label))
    return tuple(sense for lemma in lemmas for sense in wordnet.senses(lemma))


def agreements(first: Sequence[str], second: Sequence[str], wordnet: WordNet | None) -> list[Agreement]:
    """How far two methods agree on a layer, by each measure; none where no unit has both labels.

    Args:
        first, second: (units,) each unit's label by the one and by the other, unit by unit.
        wordnet: None leaves NEAR out.
    """
    if not first:
        return []
    same = _paired([plain(label) for label in first], [plain(label) for label in second], eq)
    common = _paired([content(label) for label in first], [content(label) for label in second], _meet)
    return [_share(SAME, same), _share(WORD, common), *(_nearness(first, second, wordnet) if wordnet else [])]


def _meet(one: frozenset[str], other: frozenset[str]) -> bool:
    return not one.isdisjoint(other)


def _share(measure: str, pairs: _Pairs) -> Agreement:
    agreeing = int(pairs.values.sum())
    return pairs.agreement(measure, agreeing, wilson(agreeing, len(pairs.values)))


def _nearness(first: Sequence[str], second: Sequence[str], wordnet: WordNet) -> list[Agreement]:
    """Of the units both of whose labels have a noun that is known."""
    known = [[nouns(label, wordnet) for label in labels] for labels in (first, second)]
    both = [pair for pair in zip(*known, strict=True) if all(pair)]
    if not both:
        return []
    pairs = _paired([one for one, _ in both], [other for _, other in both], wordnet.similarity)
    return [pairs.agreement(NEAR, None, mean_interval(pairs.values)[1:])]


@dataclass(frozen=True)
class _Pairs:
    """Labels as numbers, and the measure of each pair of different ones.

    Args:
        one, other: (units,) numbers of the labels.
        table: (labels, labels) the measure.
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    table: Floats

    @property
    def values(self) -> Floats:
        """(units,) the measure of each unit's two labels."""
        found: Floats = self.table[self.one, self.other]
        return found

    def agreement(self, measure: str, agreeing: int | None, ends: tuple[float, float]) -> Agreement:
        """Beside what shuffled labels give."""
        value, units = self.values.mean(), len(self.values)
        counts = [
            np.bincount(self.one, minlength=len(self.table)),
            np.bincount(self.other, minlength=self.table.shape[1]),
        ]
        chance = float(counts[0] @ self.table @ counts[1]) / units**2
        rng = np.random.default_rng(0)
        drawn = np.array([[self.table[self.one, rng.permutation(self.other)].mean()] for _ in range(SHUFFLES)])
        p = p_values(np.array([value]), drawn + ROUNDING)
        return Agreement(measure, units, agreeing, float(value), *ends, chance, float(null_p95(drawn)[0]), float(p[0]))


def _paired(first: Sequence[Read], second: Sequence[Read], measure: Callable[[Read, Read], float]) -> _Pairs:
    """Labels as they were read, unit by unit, and how two of them are measured."""
    names = [{label: number for number, label in enumerate(dict.fromkeys(labels))} for labels in (first, second)]
    table = np.array([[measure(one, other) for other in names[1]] for one in names[0]], np.float64)
    numbers = [
        np.array([known[label] for label in labels]) for known, labels in zip(names, (first, second), strict=True)
    ]
    return _Pairs(numbers[0], numbers[1], table)
