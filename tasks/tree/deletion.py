"""What deleting the filters that a node names does to the network's own decisions, beside others as active."""

from __future__ import annotations

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


def deletions(
    pictures: TreePictures,
    tail: LayersAbove,
    seen: PictureRationales,
    read: Readings,
    split: tuple[Images, Images],
    session: Session,
) -> list[TreeMetric]:
    """How far held-out decisions move without what their second-layer node names, by the mean size of a decision.

    Args:
        pictures: all of them.
        tail: the network, from the layer on.
        seen: their rationales.
        read: what the tree says of the kept ones.
        split: places among these: that the tree grew from, and held-out ones.
        session: told of interruptions, and gives the seed.
    """
    inside, unseen = split
    top = np.array([path[0] for path in read.paths])
    named, others = [np.zeros(0)], [np.zeros(0)]
    for node in np.unique(top[unseen]):
        base, there = inside[top[inside] == node], unseen[top[unseen] == node]
        if len(base):
            few, sign = groups_of(read.rho[read.at(2)[base]].mean(0), _activation(seen, base), session.seed)
            groups = np.zeros((len(few), len(seen.scale.size)), bool)
            groups[:, seen.scale.filters] = few
            without = _without(pictures, tail, seen.kept[there], groups, session)
            for kept, value in zip((named, others), moved(read.y[there], without, sign), strict=True):
                kept.append(value)
    size = max(float(np.abs(read.y[unseen]).mean()), 1e-30)
    one, other = np.concatenate(named) / size, np.concatenate(others) / size
    if not len(one):
        return []
    return [
        TreeMetric(2, "deletion", one),
        TreeMetric(2, "deletion", other, "random filters"),
        TreeMetric(2, "deletion", one - other, against="random filters"),
    ]


def _activation(seen: PictureRationales, places: Images) -> Floats:
    mean: Floats = seen.raw.x[seen.kept[places]][:, seen.scale.filters].mean(0)
    return mean


def _without(
    pictures: TreePictures, tail: LayersAbove, places: Images, groups: NDArray[np.bool_], session: Session
) -> Floats:
    """(pictures, groups) decisions without each group of filters."""
    found = []
    for start in range(0, len(places), BATCH):
        found.append(tail.without(pictures.batch(places[start : start + BATCH]), groups))
        session.check()
    return np.concatenate(found)
