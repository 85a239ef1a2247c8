"""Stage `directions`: dictionaries of a layer's channel space, each from several starts, and their controls."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from storage.tables import floats, int32, string, table
from tasks.options import Count, Options
from tasks.pace import Pace
from tasks.stage import Stage

LEARNED = ("nmf", "sae")
"""Methods that start at random, and so are asked how steady they are."""


class DirectionsOptions(Options):
    """Which dictionaries, and how they are fitted."""

    methods: Annotated[list[Literal["one-hot", "rotation", "nmf", "sae"]], Field(min_length=1)] = [
        "rotation",
        "nmf",
        "sae",
    ]
    """Bases beside the units: rotations, NMF, a TopK sparse autoencoder; `one-hot`, the units again, as a check."""
    directions: Annotated[int | None, Field(ge=2, le=65536)] = None
    """Directions of a dictionary; as many as the layer has units where left out."""
    active: Count = 8
    """Directions of the autoencoder that a cell may have at once."""
    initialisations: Annotated[int, Field(ge=5, le=100)] = 5
    """Random starts of each dictionary, which are compared with each other; the first one is dissected."""
    rotations: Annotated[int, Field(ge=1, le=100)] = 3
    """Random rotations; each is dissected."""
    cells: Count = 10_000
    """Cells of the maps of one half of the pictures that dictionaries are fitted on, at most."""
    steps: Count = 1500
    """Steps of the autoencoder's training, of 256 cells each."""

    @field_validator("methods")
    @classmethod
    def _once_each(cls, methods: list[str]) -> list[str]:
        if len(set(methods)) < len(methods):
            raise ValueError(f"must name each method once, got {', '.join(methods)}")
        return methods


def cost(options: DirectionsOptions, pace: Pace) -> float:
    """Each start twice, for its control; NMF by cells, the autoencoder by steps."""
    units = pace.units / max(1, pace.layers)
    entries = units * (options.directions or units)
    one = {"nmf": 1e-7 * options.cells * entries, "sae": options.steps * (2e-3 + 6e-8 * entries)}
    fits = sum(one[method] for method in options.methods if method in one)
    return 1 + 2 * options.initialisations * pace.layers * fits


STAGE = Stage(
    name="directions",
    about="Fits dictionaries of each layer's channel space from several starts, on one half of the pictures.",
    options=DirectionsOptions,
    work="tasks.directions.work:run",
    determined_by=frozenset({"seed", "device"}),
    threads="one",
    cost=cost,
    tables=(
        table(
            "directions",
            "A row per direction that is dissected: where it points in the layer's channel space.",
            layer=string("dotted name"),
            basis=string("one-hot, rotation 1, rotation 2 and so on, nmf, sae"),
            direction=int32("number of the direction, from zero"),
            values=floats("its entries, one for each unit of the layer; of norm 1"),
        ),
    ),
)
