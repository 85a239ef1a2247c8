"""Names of the methods that pictures are made with, as audit files and tables have them."""

from __future__ import annotations

from typing import Literal, get_args

MethodName = Literal[
    "gradient", "deconvolution", "guided", "input x gradient", "integrated gradients", "smoothgrad", "grad-cam", "rise"
]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
TESTED: tuple[MethodName, ...] = METHODS[:-1]  # each test of RISE would cost its masks anew
