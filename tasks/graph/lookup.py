"""Look pictures up in a finished graph: which of its patterns they show, with everything frozen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from microtome.disentangle.graph import infer
from microtome.disentangle.graph_inference import Seen
from microtome.networks import Capture
from tasks.graph_reading import Learned


def seen_in(
    network: torch.nn.Module, learned: Sequence[Learned], pictures: torch.Tensor, size: tuple[int, int]
) -> list[Seen]:
    """The graph's nodes in pictures that it was not learned from.

    Args:
        network: that the graph explains, in eval mode.
        learned: from `learned_graph`.
        pictures: (pictures, 3, height, width), as the network takes them.
        size: (height, width) of its input.
    """
    geometries = [part.geometry for part in learned]
    with Capture(network, geometries) as capture:
        maps = capture(pictures)
    layers = [part.maps(maps[part.geometry.name].float().cpu().numpy(), size) for part in learned]
    return infer([part.layer for part in learned], layers)


def rows_of(seen: Sequence[Seen], picture: int = 0) -> dict[str, np.ndarray]:
    """node, x, y, score of one picture, nodes in the graph's numbering."""
    position = torch.cat([item.position[picture].flatten(0, 1) for item in seen]).numpy()
    score = torch.cat([item.score[picture].flatten() for item in seen]).numpy()
    return {"node": np.arange(len(score)), "x": position[:, 0], "y": position[:, 1], "score": score}
