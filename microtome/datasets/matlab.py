"""MATLAB v5 files: numbers, texts, cells and structs, and nothing else. scipy's reader crashes on damaged ones."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MOST_INFLATED = 2**30  # bytes; a picture's annotation takes some ten million
MOST_DEPTH = 32  # of structs within structs
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "utf-8", 2: "utf-8", 16: "utf-8", 4: "utf-16", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR, _NUMERIC = 1, 2, 4, range(6, 16)
_COMPLEX = 0x800

Order = Literal["little", "big"]
Numbers = NDArray[np.integer | np.floating]
Value = Numbers | str | list["Value"] | dict[str, "Value"] | None
"""What `read_variable` gives."""


def read_variable(content: bytes, name: str) -> Value:
    """A variable of a MATLAB v5 file ("MAT-File Level 5 File Format", MathWorks).

    Args:
        content: the file's bytes.
        name: of the variable.

    Returns:
        numbers as an array of the stored type, one line of text as str, a cell array as a list, a struct array as a
        list of dicts, column by column; None for what is of another class (function handles, objects, sparse).

    Raises:
        ValueError: not of this format, no such variable, damaged, or larger than `MOST_INFLATED`.
    """
    orders: dict[bytes, Order] = {b"IM": "little", b"MI": "big"}
    order = orders.get(content[126:128])
    if order is None or int.from_bytes(content[124:126], order) != 0x0100:
        raise ValueError("is no MATLAB v5 file; save others in MATLAB with `-v7`")
    for kind, data in _elements(memoryview(content)[_HEADER:], order):
        for inner, matrix in _elements(_inflated(data), order) if kind == _COMPRESSED else ((kind, data),):
            if inner == _MATRIX and _name(matrix, order) == name:
                return _MatFile(order).value(matrix)
    raise ValueError(f"has no variable {name!r}")


def _inflated(data: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, MOST_INFLATED)
    except zlib.error as error:
        raise ValueError(f"is damaged: {error}") from error
    if stream.unconsumed_tail:
        raise ValueError(f"must inflate to at most {MOST_INFLATED:,} bytes, got more")
    return memoryview(found)


def _elements(data: memoryview, order: Order) -> Iterator[tuple[int, memoryview]]:
    """Data type and content of one element after the other."""
    place = 0
    while place + 8 <= len(data):
        kind = int.from_bytes(data[place : place + 4], order)
        small = kind >> 16  # bytes of an element that is packed into its tag
        start = place + 4 if small else place + 8
        size = small or int.from_bytes(data[place + 4 : place + 8], order)
        if start + size > len(data) or small > 4:
            raise ValueError("is damaged: an element ends behind its end")
        yield kind & 0xFFFF if small else kind, data[start : start + size]
        place = start + size
        if kind != _COMPRESSED:
            place += -place % 8


def _name(matrix: memoryview, order: Order) -> str:
    parts = _elements(matrix, order)
    found = [bytes(data) for _, data in (next(parts, (0, b"")) for _ in range(3))]
    return found[2].decode("latin-1")


class _MatFile:
    """Values of matrix elements."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._depth = 0

    def value(self, matrix: memoryview) -> Value:
        """The value of one matrix element. Raises ValueError: damaged."""
        if not len(matrix):
            return np.zeros((0, 0))
        parts = _elements(matrix, self._order)
        flags = int(self._numbers(parts)[0])
        dims = [int(side) for side in self._numbers(parts)]
        self._next(parts)  # the name
        count = math.prod(dims)
        if len(dims) < 2 or min(dims) < 0:
            raise ValueError(f"is damaged: a matrix of the size {dims}")
        kind = flags & 0xFF
        if kind in _NUMERIC and not flags & _COMPLEX:
            return self._shaped(parts, dims, count)
        if kind == _CHAR:
            return self._text(parts, dims)
        if kind == _CELL:
            return [self._inner(parts) for _ in self._counted(count, matrix)]
        return self._structs(parts, count, matrix) if kind == _STRUCT else None

    def _shaped(self, parts: Iterator[tuple[int, memoryview]], dims: list[int], count: int) -> Numbers:
        found: Numbers = self._numbers(parts) if count else np.zeros(0)
        if len(found) != count:
            raise ValueError(f"is damaged: {len(found)} numbers for a matrix of the size {dims}")
        return found.reshape(dims, order="F")

    def _text(self, parts: Iterator[tuple[int, memoryview]], dims: list[int]) -> str | None:
        if dims[0] > 1:
            return None  # several lines
        kind, data = self._next(parts)
        if kind not in _TEXTS:
            raise ValueError(f"is damaged: a text of the type {kind}")
        wide = {"utf-8": "utf-8", "utf-16": f"utf-16-{self._order[0]}e", "utf-32": f"utf-32-{self._order[0]}e"}
        return bytes(data).decode(wide[_TEXTS[kind]])

    def _structs(self, parts: Iterator[tuple[int, memoryview]], count: int, matrix: memoryview) -> list[Value]:
        length = int(self._numbers(parts)[0])
        joined = bytes(self._next(parts)[1])
        if length < 1 or len(joined) % length:
            raise ValueError("is damaged: the names of a struct's fields")
        raw = [joined[at : at + length] for at in range(0, len(joined), length)]
        names = [name.partition(b"\0")[0].decode("latin-1") for name in raw]
        if not names:
            return []
        return [{name: self._inner(parts) for name in names} for _ in self._counted(count, matrix)]

    def _inner(self, parts: Iterator[tuple[int, memoryview]]) -> Value:
        kind, data = self._next(parts)
        if kind != _MATRIX or self._depth >= MOST_DEPTH:
            raise ValueError(f"is damaged: the type {kind} within a struct, {self._depth} deep")
        self._depth += 1
        found = self.value(data)
        self._depth -= 1
        return found

    def _counted(self, count: int, matrix: memoryview) -> range:
        if count * 8 > len(matrix):  # each is an element, of 8 bytes at least
            raise ValueError(f"is damaged: {count:,} values in {len(matrix):,} bytes")
        return range(count)

    def _numbers(self, parts: Iterator[tuple[int, memoryview]]) -> Numbers:
        kind, data = self._next(parts)
        if kind not in _NUMBERS:
            raise ValueError(f"is damaged: numbers of the type {kind}")
        dtype = np.dtype(("<" if self._order == "little" else ">") + _NUMBERS[kind])
        if len(data) % dtype.itemsize or not len(data):
            raise ValueError(f"is damaged: {len(data)} bytes for numbers of {dtype.itemsize}")
        return np.frombuffer(data, dtype)

    def _next(self, parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
        found = next(parts, None)
        if found is None:
            raise ValueError("is damaged: it ends early")
        return found
