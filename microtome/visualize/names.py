"""Names of the methods that pictures are made with, as audit files and tables have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

MethodName = Literal[
    "gradient", "deconvolution", "guided", "input x gradient", "integrated gradients", "smoothgrad", "grad-cam", "rise"
]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
MORE_THAN_ONCE: Mapping[MethodName, tuple[int, int]] = {
    "integrated gradients": (0, 32),
    "smoothgrad": (0, 16),
    "rise": (500, 0),
}
"""How often the network sees a picture for one map, forward alone, and forward and backward: others, once both ways."""
REDRAWN = 8  # times that the last layer is, for a verdict: the mean likeness to one draw strays by a tenth
REMOVALS = 64  # draws in which segments go at random, beside a minimal image
TESTED: tuple[MethodName, ...] = METHODS[:-1]  # each test of RISE would cost its masks anew
