"""From rationales to a tree that is fitted to its visitors, and to what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.readings import Readings, read_visited
from microtome.disentangle.rivals import calibrated, ridge, rivals
from microtome.disentangle.rule_features import FeatureChoice, Features
from microtome.disentangle.rules import Evidence
from microtome.disentangle.tree_metrics import Answers
from microtome.disentangle.visited_tree import VisitedTree, best_ways, grow_visited

Floats = NDArray[np.float64]
Images = NDArray[np.int64]
NAMING = 0.9  # share of what a rule adds, by which it is told how many filters it rests on


@dataclass(frozen=True)
class FittedTree:
    """A tree, and the pictures that it grew from or is judged by.

    Args:
        tree: its nodes.
        features: that its rules weigh.
        g: (pictures, filters) unit rationales.
        evidence: of all pictures, by these features.
        inside: the pictures that it grew from.
    """

    tree: VisitedTree
    features: Features
    g: Floats
    evidence: Evidence
    inside: Images

    @cached_property
    def read(self) -> Readings:
        """What it says of all pictures."""
        return read_visited(self.tree.routes, self.tree.rules, self.g, self.evidence)

    def root(self, unseen: Images) -> Answers:
        """What the rule at its root says, before any picture is sent anywhere."""
        some = self.evidence.of(unseen)
        return Answers("tree", 1, self.tree.root.estimate(some), self.tree.root.contributions(some))

    def filters_of(self, node: int) -> int:
        """How many filters make up nine tenths of what a node's rule adds in its visitors; -1 is the root."""
        rule = self.tree.rules[node] if node >= 0 else self.tree.root
        some = self.evidence.of(self.inside[self.tree.visitors[node]] if node >= 0 else self.inside)
        share = np.sort(np.abs(rule.contributions(some)).mean(0))[::-1].cumsum()
        return int(np.searchsorted(share, NAMING * share[-1])) + 1


def fit_tree(g: Floats, choice: FeatureChoice, inside: Images, *, features: Features | None, seed: int) -> FittedTree:
    """Choose what is to be chosen by the pictures inside, and grow the tree from them.

    Args:
        g: (pictures, filters) unit rationales.
        choice: of the features.
        inside: pictures to grow from.
        features: None for the best.
        seed: of the folds.
    """
    features = features or choice.best(inside, seed)
    evidence, own = choice.evidence(features), g[inside]
    ways = best_ways(own, choice.evidence("weighted").of(inside), seed)
    return FittedTree(grow_visited(own, evidence.of(inside), ways), features, g, evidence, inside)


def imitators(
    read: Readings, choice: FeatureChoice, split: tuple[Images, Images], *, cells: bool, seed: int
) -> Iterator[Answers]:
    """What a tree is compared with, on its held-out pictures: itself behind a fitted threshold, and its rivals.

    Args:
        read: the tree, of all pictures.
        choice: their features.
        split: pictures that it grew from, and held-out ones.
        cells: whether a ridge on all cells is among them.
        seed: of a rival's ties.
    """
    inside, unseen = split
    top, sums = read.estimate[read.at(2)], choice.evidence("weighted")
    yield calibrated(Answers("tree", 2, top[unseen]), top[inside], read.y[inside] > 0)
    yield from rivals(sums.of(inside), sums.of(unseen), seed)
    if cells:
        every = choice.evidence("cells")
        yield ridge(every.of(inside), every.of(unseen), "ridge per cell")
