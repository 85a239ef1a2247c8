"""What a graph found, layer by layer, its nodes numbered through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.graph_inference import Seen
from microtome.disentangle.graph_layers import LearnedLayer


@dataclass(frozen=True)
class FoundLayer:
    """A layer of a graph, and its nodes in the pictures.

    Args:
        learned: the layer.
        seen: its nodes there.
        first: number of its first node.
    """

    learned: LearnedLayer
    seen: Seen
    first: int

    @property
    def name(self) -> str:
        """Dotted name."""
        return self.learned.name

    @property
    def nodes(self) -> NDArray[np.int64]:
        """Numbers of its nodes."""
        return np.arange(self.first, self.first + len(self.learned.kept))


def numbered(learned: Sequence[LearnedLayer], seen: Sequence[Seen]) -> list[FoundLayer]:
    """Layers whose nodes are numbered through, from zero, the top layer first."""
    counts = [len(part.kept) for part in learned]
    first = np.cumsum([0, *counts[:-1]]).tolist()
    return [FoundLayer(*part) for part in zip(learned, seen, first, strict=True)]
