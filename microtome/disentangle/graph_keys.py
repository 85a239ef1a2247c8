"""What is measured of explanatory graphs and of mined parts, and whose it is: the keys that tables hold."""

from __future__ import annotations

from enum import StrEnum


class Measure(StrEnum):
    """Of a layer of a graph."""

    LOG_LIKELIHOOD = "log-likelihood"
    INSTABILITY = "instability"
    BEATS_CONSTANT = "beats best constant"
    TRACKS = "tracks a landmark"
    EITHER = "either"
    SPREAD = "own spread"
    FROZEN = "instability, frozen at its own mean"
    SLOPE = "slope when moved"
    FOLLOWS = "follows when moved"
    FOLLOWING = "instability of those that follow"


class Of(StrEnum):
    """Whose figure it is."""

    TRAINING = "training"
    NODES = "nodes"
    FILTERS = "filters"
    ALIKE = "filters chosen alike"
    DIFFERENCE = "nodes minus filters"
    ALIKE_DIFFERENCE = "nodes minus filters chosen alike"
    OWN_FROZEN = "nodes minus themselves frozen"
    RANDOM = "random"
    CENTRE = "centre"
    CONSTANT = "best constant"


class Locator(StrEnum):
    """How a part is located: by its boxes' looks and place together, or by a rival."""

    BLEND = "blend"
    EXEMPLAR = "exemplar"
    PATTERNS = "patterns"
    NODES = "graph nodes"
    MEAN_POSITION = "mean position"
    BEST_FILTER = "best filter"
    TOP_FILTERS = "top filters"
