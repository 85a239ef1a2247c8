"""What a tree says of pictures, step by step along their parse paths: in logits, whichever rule made the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.decision_tree import Tree
from microtome.disentangle.rationales import Rationales
from microtome.disentangle.routes import Routes
from microtome.disentangle.rules import Evidence, Rule

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Readings:
    """The steps of all paths, one path after the other.

    Args:
        paths: each picture's nodes, from the second layer to a leaf.
        cosine: (steps,) of the picture's rationale and the node.
        estimate: (steps,) what the node estimates.
        rho: (steps, filters) what each filter adds there.
        y: (pictures,) the network's own decision.
        own: (pictures, filters) what each filter adds to it.
    """

    paths: Sequence[Sequence[int]]
    cosine: Floats
    estimate: Floats
    rho: Floats
    y: Floats
    own: Floats

    @cached_property
    def start(self) -> NDArray[np.int64]:
        """(pictures,) number of each path's first step."""
        lengths = np.array([len(path) for path in self.paths], np.int64)
        return np.cumsum(lengths) - lengths

    def of(self, pictures: NDArray[np.int64]) -> Readings:
        """Those of some pictures."""
        steps = [step for picture in pictures.tolist() for step in self.steps(picture)]
        paths = [self.paths[picture] for picture in pictures.tolist()]
        some = (self.cosine[steps], self.estimate[steps], self.rho[steps])
        return Readings(paths, *some, self.y[pictures], self.own[pictures])

    def steps(self, picture: int) -> range:
        """Numbers of a picture's steps."""
        first = int(self.start[picture])
        return range(first, first + len(self.paths[picture]))

    def at(self, depth: int) -> NDArray[np.int64]:
        """(pictures,) the step at a depth (2 is the second layer), or the path's last where it ends before."""
        lengths = np.array([len(path) for path in self.paths], np.int64)
        return self.start + np.minimum(depth - 2, lengths - 1)

    @property
    def deepest(self) -> int:
        """Depth of the longest path's end."""
        return 1 + max(len(path) for path in self.paths)


def read_tree(tree: Tree, data: Rationales) -> Readings:
    """What the paper's tree says."""
    paths = tree.paths(data.g)
    nodes = np.array([node for path in paths for node in path], np.int64)
    pictures = np.repeat(np.arange(len(paths)), [len(path) for path in paths])
    some = data.of(pictures)
    near = tree.cosine(data.g, np.arange(len(tree.b)))[pictures, nodes]
    own = data.g * data.x * data.norm[:, None]
    return Readings(paths, near, tree.estimate(some, nodes), tree.contributions(some, nodes), data.y * data.norm, own)


def read_visited(routes: Routes, rules: Sequence[Rule], g: Floats, some: Evidence) -> Readings:
    """What a tree that is fitted to its visitors says.

    Args:
        routes: where pictures go in it.
        rules: of its nodes.
        g: (pictures, filters) unit rationales.
        some: what its rules weigh in these pictures.
    """
    paths = routes.paths(g)
    nodes = np.array([node for path in paths for node in path], np.int64)
    pictures = np.repeat(np.arange(len(paths)), [len(path) for path in paths])
    near = routes.cosine(g, np.arange(len(rules)))[pictures, nodes]
    estimate, rho = np.zeros(len(nodes)), np.zeros((len(nodes), some.own.shape[1]))
    for node in np.unique(nodes):
        there = np.flatnonzero(nodes == node)
        at = some.of(pictures[there])
        estimate[there], rho[there] = rules[node].estimate(at), rules[node].contributions(at)
    return Readings(paths, near, estimate, rho, some.y, some.own)
