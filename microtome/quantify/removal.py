"""Takes values of a layer's units away, and reads what the network then says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.networks.cut import Below, Cut
from microtome.networks.geometry import LayerGeometry
from microtome.quantify.ablation import Remove

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Said:
    """What a network says of pictures.

    Args:
        score: (..., pictures) log-odds of each picture's class.
        top: (..., pictures) number of the highest class.
    """

    score: Floats
    top: NDArray[np.int64]


def said(answer: torch.Tensor, classes: torch.Tensor) -> Said:
    """Log-odds of a class per picture, z_c - log sum_{j != c} exp z_j, and the highest class.

    Args:
        answer: (pictures, classes) logits, two classes at least.
        classes: (pictures,).
    """
    z, place = answer.double(), classes[:, None]
    others = z.scatter(1, place, -torch.inf).logsumexp(1)
    return Said((z.gather(1, place)[:, 0] - others).cpu().numpy(), answer.argmax(1).cpu().numpy())


@dataclass(frozen=True)
class Removal:
    """A layer whose units can be taken away and kept, for one batch.

    Args:
        cut: the network, cut at the layer.
        layer: its geometry.
        mean: (units,) of each unit's values.
        below: what the layers below made of the batch.
        classes: (pictures,) whose log-odds are the score.
        step: called after each answer.
    """

    cut: Cut
    layer: LayerGeometry
    mean: Floats
    below: Below
    classes: torch.Tensor
    step: Callable[[], None]

    def nothing(self) -> Said:
        """With the layer's own output in its place."""
        return said(self.cut.above(self.below, self.below.output.clone()), self.classes)

    def without(self, groups: Flags, remove: Remove) -> Said:
        """(groups, pictures) without each group of units.

        Args:
            groups: (groups, units).
            remove: what their values become: zero, the unit's mean, or the values of the next picture of the batch.
        """
        output = self.below.output
        if remove == "zero":
            return self._each(groups, output, torch.zeros_like(output))
        return self._each(groups, output, self._means() if remove == "mean" else output.roll(self.layer.parts, 0))

    def kept(self, groups: Flags) -> Said:
        """(groups, pictures) with all but each group of units at their means."""
        return self._each(groups, self._means(), self.below.output)

    def _each(self, groups: Flags, most: torch.Tensor, few: torch.Tensor) -> Said:
        """With the values of each group of units from `few`, all others from `most`."""
        start, axis, found = self.cut.start(self.below, most), self._axis, []
        for group in groups:
            units = torch.from_numpy(np.flatnonzero(group)).to(few.device)
            answer = self.cut.differing(start, axis, units, few.index_select(axis, units))
            found.append(said(answer, self.classes))
            self.step()
        return _stacked(found, len(self.classes))

    def _means(self) -> torch.Tensor:
        output = self.below.output
        shape = [len(self.mean) if dim == self._axis else 1 for dim in range(output.ndim)]
        return torch.from_numpy(self.mean).to(output).reshape(shape).expand_as(output).contiguous()

    @property
    def _axis(self) -> int:
        """Where the layer's output has its units."""
        return self.layer.channel % self.below.output.ndim


def _stacked(found: Sequence[Said], pictures: int) -> Said:
    none = np.zeros((0, pictures))
    score = np.stack([one.score for one in found]) if found else none
    return Said(score, np.stack([one.top for one in found]) if found else none.astype(np.int64))
