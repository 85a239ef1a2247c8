"""Stage `projected`: every picture's maps along the directions of dictionaries, stored as a layer's maps are."""

from __future__ import annotations

from typing import Annotated, Literal

from tasks.options import OUTSIDE, Options
from tasks.stage import Stage


class ProjectedOptions(Options):
    """How the maps are stored."""

    compression: Annotated[Literal["auto", "none", "lz4", "zstd"], OUTSIDE]


STAGE = Stage(
    name="projected",
    about="Reads every picture's maps along the directions of dictionaries, and stores them as a layer's maps.",
    options=ProjectedOptions,
    work="tasks.projected.work:run",
    sharded="images",
    threads="one",
    cost=lambda _, pace: 1e-6 * pace.pictures * pace.values,
)
