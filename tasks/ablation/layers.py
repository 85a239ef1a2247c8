"""A layer's units as they are removed: which detect what, how large they are, which are removed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.networks.geometry import LayerGeometry
from microtome.quantify.ablation import DRAWS, alike, drawn_alike, removed_size
from microtome.quantify.dissection import detected
from tasks.ablation import PlannedAblation
from tasks.tally.result import Tally
from tasks.thresholds.result import SeenPictures

GROUP_SEED = 41  # tells the groups' chance from others
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ConceptGroup:
    """All detectors of one concept.

    Args:
        concept: its place in the concept table.
        members: numbers of the units, two at least.
    """

    concept: int
    members: NDArray[np.int64]


@dataclass(frozen=True)
class RemovedLayer:
    """A layer, as the dissection's tally and thresholds know it.

    Args:
        options: of the stage.
        seen: the dissection's pictures, and the network's maps of them.
        tally: of these.
        number: of the layer.
        seed: of the audit.
    """

    options: PlannedAblation
    seen: SeenPictures
    tally: Tally
    number: int
    seed: int

    @property
    def geometry(self) -> LayerGeometry:
        """Of the layer."""
        return self.seen.activations.layers[self.number]

    @cached_property
    def detects(self) -> NDArray[np.int64]:
        """(units,) place of the concept that each detects in the concept table; -1 for none."""
        scores = self.tally.column(self.geometry.name, "iou", self.geometry.units)
        return detected(scores, self.options.min_iou)

    @cached_property
    def mean(self) -> Floats:
        """(units,) of each unit's values."""
        return self._moment("mean")

    @cached_property
    def size(self) -> Floats:
        """(units,) of what removal takes."""
        return removed_size(self.mean, self._moment("std"), self.options.remove)

    @cached_property
    def control(self) -> Floats:
        """(units, units) weights of each unit's control."""
        return alike(self.size, self.detects)

    @cached_property
    def groups(self) -> Sequence[ConceptGroup]:
        """Concepts of several detectors, which leave enough others to compare with."""
        units, concepts = self.geometry.units, np.unique(self.detects[self.detects >= 0])
        members = {concept: np.flatnonzero(self.detects == concept) for concept in concepts.tolist()}
        return [ConceptGroup(concept, own) for concept, own in members.items() if 2 <= len(own) <= units // 2]

    @cached_property
    def removals(self) -> NDArray[np.bool_]:
        """(removals, units) every unit alone, then each group and the DRAWS groups of its control."""
        units = self.geometry.units
        parts = [np.eye(units, dtype=bool)]
        for group in self.groups:
            own = np.zeros((1, units), bool)
            own[0, group.members] = True
            rng = np.random.default_rng([self.seed, GROUP_SEED, self.number, group.concept])
            parts += [own, drawn_alike(group.members, self.size, DRAWS, rng)]
        return np.concatenate(parts)

    def _moment(self, name: str) -> Floats:
        """(units,) a column of the thresholds."""
        table = self.seen.thresholds.table("thresholds", ["layer", "unit", "tail", name])
        mine = table.filter(pc.equal(table.column("layer"), self.geometry.name))
        found = np.empty(self.geometry.units)
        found[mine.column("unit").to_numpy()] = mine.column(name).to_numpy()
        return found
