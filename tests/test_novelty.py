"""How far a new picture is from those that were looked at: literally, on a toy, and how often it is called unlike."""

import math

import numpy as np
import pytest

from microtome.quantify.novelty import Novelty, novelty
from microtome.report.likeness import likeness


def literal(known, new):
    """The definition, number by number."""
    every = [[float(v) for v in row] for row in [*known, new]]
    size = [sum(abs(row[d]) for row in every) / len(every) for d in range(len(new))]
    scaled = [[v / s if s else 0.0 for v, s in zip(row, size, strict=True)] for row in every]

    def apart(one, other):
        lengths = math.sqrt(sum(v * v for v in one)) * math.sqrt(sum(v * v for v in other))
        return 1 - (sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0)

    nearest = [min(apart(row, other) for m, other in enumerate(scaled) if m != n) for n, row in enumerate(scaled)]
    return sum(value >= nearest[-1] - 1e-9 for value in nearest)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_the_definition_says(seed):
    rng = np.random.default_rng(seed)
    known, new = rng.exponential(size=(12, 5)), rng.exponential(size=5)
    known[:, 3] = new[3] = 0.0  # a silent filter
    known[2] = 0.0  # a picture that moves nothing
    assert novelty(known, new) == Novelty(literal(known, new), 13)


def test_a_toy():
    """Three pictures in one direction, and one across: it alone is as far away. One among them is as near as all."""
    known = np.array([[1.0, 0.0, 1.0], [2.0, 0.0, 2.0], [3.0, 0.0, 3.1]])
    assert novelty(known, np.array([0.0, 1.0, 0.0])) == Novelty(1, 4)
    assert novelty(known, known[0]).p == 1.0


def test_neither_contrast_nor_loud_filters_count():
    rng = np.random.default_rng(1)
    known, new = rng.exponential(size=(40, 6)), rng.exponential(size=6)
    loud = np.array([1, 1000.0, 1, 0.01, 1, 1])
    assert novelty(known * loud, new * loud) == novelty(known, new)
    assert novelty(known, new).lonely != novelty(known, new[::-1]).lonely


def test_a_picture_like_the_others_is_called_unlike_no_more_often_than_said():
    """2,000 worlds of 39 pictures and one more, all drawn alike. Pictures that are nearest to each other are as far as
    each other, and each of such a pair counts both: p is a little too large, never too small.
    """
    rng = np.random.default_rng(0)
    p = np.array([novelty(row[:-1], row[-1]).p for row in rng.exponential(size=(2000, 40, 8))])
    for level in (0.025, 0.05, 0.1, 0.2, 0.5, 0.8):
        share, noise = (p <= level + 1e-9).mean(), 3 * math.sqrt(level * (1 - level) / 2000)
        assert level - 0.08 - noise < share < level + noise
    assert (p <= 0.05).mean() > 0.03


def test_another_kind_of_picture_is_found():
    rng = np.random.default_rng(0)
    known = rng.exponential(size=(200, 100)) * np.r_[np.ones(50), np.full(50, 0.1)]
    other = rng.exponential(size=(50, 100)) * np.r_[np.full(50, 0.1), np.ones(50)]
    assert all(novelty(known, new).unlike for new in other)


def test_what_is_said_of_it():
    assert likeness(None) == ()
    unlike, warned = likeness(Novelty(1, 200))
    assert unlike.startswith("It is unlike the pictures that the audit looked at: 1 of 200 pictures, it among them, ")
    assert unlike.endswith(" (p = 0.005).")
    assert warned == "What is said here may not hold for it."
    assert likeness(Novelty(60, 200))[0].startswith("It is like the pictures")
