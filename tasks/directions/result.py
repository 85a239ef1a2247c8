"""Fitted dictionaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np

from microtome.quantify.dictionary.directions import Directions, Floats, Method
from tasks.directions import LEARNED, DirectionsOptions
from tasks.result import StageResult

METHODS: tuple[Method, ...] = get_args(Method)


class Fit(NamedTuple):
    """One fit of a dictionary: its method, the number of its start, and whether the cells' channels were shuffled."""

    method: Method
    run: int
    shuffled: bool = False

    @property
    def basis(self) -> str:
        """What tables call it."""
        return f"rotation {self.run + 1}" if self.method == "rotation" else self.method

    def file(self, layer: int) -> str:
        """Where it lies within the stage."""
        return f"fits/{layer:03d}/{self.method}/{'shuffled-' if self.shuffled else ''}{self.run:03d}.safetensors"


def bases(options: DirectionsOptions) -> list[Fit]:
    """The fits that are dissected, in the order of the options."""
    return [
        Fit(method, run)
        for method in options.methods
        for run in range(options.rotations if method == "rotation" else 1)
    ]


def fits(options: DirectionsOptions) -> Iterator[Fit]:
    """Every fit of a layer."""
    yield from bases(options)
    for method in options.methods:
        if method in LEARNED:
            yield from (Fit(method, run) for run in range(1, options.initialisations))
            yield from (Fit(method, run, shuffled=True) for run in range(options.initialisations))


@dataclass(frozen=True)
class Fitted(StageResult):
    """Dictionaries of every layer."""

    @property
    def options(self) -> DirectionsOptions:
        """What it was made with."""
        return DirectionsOptions.model_validate(self.parameters)

    def fitted(self, layer: int, fit: Fit) -> Directions:
        """A dictionary.

        Args:
            layer: its place among the audit's.
            fit: which.
        """
        return unpacked(fit.method, self.artifact.read(fit.file(layer)))

    def starts(self, layer: int, method: Method, *, shuffled: bool = False) -> list[Floats]:
        """(directions, channels) of every start of a method."""
        return [self.fitted(layer, Fit(method, run, shuffled)).vectors for run in range(self.options.initialisations)]


def packed(found: Directions) -> bytes:
    """A dictionary as safetensors: `vectors`, and of an autoencoder `encoder`, `offset` and `active`, too."""
    from safetensors.numpy import save

    arrays = {"vectors": found.vectors, "encoder": found.encoder, "offset": found.offset}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array.size}
    return save({**arrays, "active": np.array([found.active], np.int32)})


def unpacked(method: Method, content: bytes) -> Directions:
    """The dictionary that `packed` made a file of."""
    from safetensors.numpy import load

    arrays = load(content)
    plain = Directions.plain(method, arrays["vectors"])
    encoder = arrays.get("encoder", plain.encoder)
    return Directions(method, plain.vectors, encoder, arrays["offset"], int(arrays["active"][0]))
