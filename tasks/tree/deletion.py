"""What deleting the filters that a node names does to the network's own decisions, beside others as active."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.deletion import groups_of, moved
from microtome.disentangle.rationales import LayersAbove
from microtome.disentangle.readings import Readings
from microtome.disentangle.tree_metrics import TreeMetric
from tasks.session import Session
from tasks.tree.pictures import BATCH, TreePictures
from tasks.tree.writing import PictureRationales

Images = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Deletions:
    """A network whose filters are set to zero, and the pictures that it decides.

    Args:
        pictures: all of them.
        tail: the network, from the layer on.
        seen: the pictures' rationales.
        session: told of interruptions, and gives the seed.
    """

    pictures: TreePictures
    tail: LayersAbove
    seen: PictureRationales
    session: Session

    def metrics(self, read: Readings, split: tuple[Images, Images]) -> list[TreeMetric]:
        """How far held-out decisions move without what their second-layer node names, by a decision's mean size.

        Args:
            read: what the tree says of the kept pictures.
            split: places among these: that the tree grew from, and held-out ones.
        """
        inside, unseen = split
        top = np.array([path[0] for path in read.paths])
        named, others = [np.zeros(0)], [np.zeros(0)]
        for node in np.unique(top[unseen]):
            base, there = inside[top[inside] == node], unseen[top[unseen] == node]
            if len(base):
                groups, sign = self._groups(read.rho[read.at(2)[base]].mean(0), base)
                one, other = moved(read.y[there], self._without(self.seen.kept[there], groups), sign)
                named.append(one)
                others.append(other)
        size = max(float(np.abs(read.y[unseen]).mean()), 1e-30)
        return _metrics(np.concatenate(named) / size, np.concatenate(others) / size)

    def _groups(self, rho: Floats, base: Images) -> tuple[NDArray[np.bool_], float]:
        """Of all filters of the layer; and what the node decides."""
        seen = self.seen
        activation = seen.raw.x[seen.kept[base]][:, seen.scale.filters].mean(0)
        few, sign = groups_of(rho, activation, self.session.seed)
        groups = np.zeros((len(few), len(seen.scale.size)), bool)
        groups[:, seen.scale.filters] = few
        return groups, sign

    def _without(self, places: Images, groups: NDArray[np.bool_]) -> Floats:
        """(pictures, groups) decisions without each group of filters."""
        found = []
        for start in range(0, len(places), BATCH):
            found.append(self.tail.without(self.pictures.batch(places[start : start + BATCH]), groups))
            self.session.check()
        return np.concatenate(found)


def _metrics(one: Floats, other: Floats) -> list[TreeMetric]:
    if not len(one):
        return []
    return [
        TreeMetric(2, "deletion", one),
        TreeMetric(2, "deletion", other, "random filters"),
        TreeMetric(2, "deletion", one - other, against="random filters"),
    ]
