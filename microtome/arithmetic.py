"""What a float32 product is: torch may round its factors first, to be quicker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Literal, TypeVar

import torch

Arithmetic = Literal["float32", "tf32", "bf16"]
T = TypeVar("T")
_PLACES = attrgetter("cudnn.conv", "cudnn.rnn", "cuda.matmul", "mkldnn.conv", "mkldnn.rnn", "mkldnn.matmul")
"""Where torch keeps what it may round factors to: on CUDA, then on a CPU."""


@contextlib.contextmanager
def computing(arithmetic: Arithmetic = "float32", device: str = "cpu") -> Iterator[None]:
    """Have torch compute in an arithmetic inside this context; at its end everything is set as it was.

    Left alone torch rounds the factors of convolutions on CUDA to 11 bits (TF32), and calls the result float32.

    Args:
        arithmetic: `float32`: factors are what they are, of 24 bits. `tf32`: they are rounded to 11 bits, on CUDA
            alone. `bf16`: to 8 bits, in whatever torch's autocast holds safe; results, too, but for sums within.
        device: `cpu` or `cuda`.
    """
    before = _settings()
    _set(arithmetic == "tf32")
    try:
        with torch.autocast(device, torch.bfloat16, enabled=arithmetic == "bf16"):
            yield
    finally:
        _set_again(*before)


def _settings() -> tuple[bool | None, str | None, list[str]]:
    """Two older switches, which cannot be read where somebody set the newer ones beside them, and those."""
    switches = _read(lambda: torch.backends.cudnn.allow_tf32), _read(torch.get_float32_matmul_precision)
    return *switches, [place.fp32_precision for place in _PLACES(torch.backends)]


def _read(setting: Callable[[], T]) -> T | None:
    try:
        return setting()
    except RuntimeError:
        return None


def _set(tf32: bool) -> None:
    """Older switches and newer ones alike, or code that reads the older ones would fail; the last follows from them."""
    cuda = "tf32" if tf32 else "ieee"
    _set_again(tf32, "high" if tf32 else "highest", [cuda, cuda, cuda, "ieee", "ieee"])


def _set_again(convolutions: bool | None, products: str | None, newer: list[str]) -> None:
    if convolutions is not None:
        torch.backends.cudnn.allow_tf32 = convolutions
    if products is not None:
        torch.set_float32_matmul_precision(products)
    for place, value in zip(_PLACES(torch.backends), newer, strict=False):
        place.fp32_precision = value
