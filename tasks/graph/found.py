"""What a graph found, layer by layer, its nodes numbered through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.graph_inference import LayerMaps, Seen
from microtome.disentangle.graph_layers import LearnedLayer


@dataclass(frozen=True)
class FoundLayer:
    """A layer of a graph, and its nodes in the pictures.

    Args:
        learned: the layer.
        maps: that it was looked up in.
        seen: its nodes there.
        first: number of its first node.
    """

    learned: LearnedLayer
    maps: LayerMaps
    seen: Seen
    first: int

    @property
    def name(self) -> str:
        """Dotted name."""
        return self.learned.name

    @property
    def nodes(self) -> NDArray[np.int64]:
        """Numbers of its nodes."""
        return np.arange(self.first, self.first + self.learned.layer.nodes.sigma.numel())


def numbered(learned: Sequence[LearnedLayer], maps: Sequence[LayerMaps], seen: Sequence[Seen]) -> list[FoundLayer]:
    """Layers whose nodes are numbered through, from zero, the top layer first."""
    counts = [part.layer.nodes.sigma.numel() for part in learned]
    first = np.cumsum([0, *counts[:-1]]).tolist()
    return [FoundLayer(*part) for part in zip(learned, maps, seen, first, strict=True)]
