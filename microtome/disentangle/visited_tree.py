"""A decision tree whose nodes are fitted to all pictures that visit them, positives and negatives.

Every picture that the tree grows from brings its rationale g, a unit vector. They are gathered, pair by pair, where
the summed cosine with the node's direction, max_d sum_i cos(g_i, d) = ||sum_i g_i|| (arXiv 1802.00121, equation 5),
loses least. From the top of that order nodes are split while both sides keep enough pictures. Then membership is made
to agree with routing: pictures go where their rationale points, directions follow their visitors, and a node that too
few visit is folded, until nothing moves. The rules are fitted from the root down, each held to the one above (`rules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.routes import Routes, children_of
from microtome.disentangle.rules import Evidence, Rule, first_rule, fit_rule, misfit, parts, typical_of

Floats = NDArray[np.float64]
Images = NDArray[np.int64]
WORTH = 100.0  # pictures that the rule above a node counts as
FEWEST, SHARE = 10, 10  # visitors that a node needs: so many, or one of so many of all where that is less
WAYS = (2, 3, 4, 5, 6)  # nodes of the second layer to choose from
ROUNDS = 50  # of routing, if it does not settle before


@dataclass(frozen=True)
class Gathering:
    """The order in which rationales were gathered: nodes 0 .. N - 1 the pictures, then the unions.

    Args:
        pairs: what each union is made of.
        members: pictures of each node.
    """

    pairs: Sequence[tuple[int, int]]
    members: Sequence[Images]

    def split(self, node: int, fewest: int) -> tuple[int, int, int] | None:
        """The node at or below this one whose two sides both have enough pictures, and the sides.

        Smaller sides on the way are left to the routing.
        """
        pictures = len(self.members) - len(self.pairs)
        while node >= pictures:
            small, large = sorted(self.pairs[node - pictures], key=lambda side: len(self.members[side]))
            if len(self.members[small]) >= fewest:
                return node, small, large
            node = large
        return None


def gathered(g: Floats) -> Gathering:
    """Gather unit rationales: always the two nodes whose union loses least of ||S_a|| + ||S_b|| - ||S_a + S_b||.

    Args:
        g: (pictures, filters).
    """
    count = len(g)
    sums, number, alive = g.copy(), list(range(count)), np.ones(count, bool)
    length = np.linalg.norm(sums, axis=1)
    loss = _losses(length[:, None], length, sums @ sums.T)
    np.fill_diagonal(loss, np.inf)
    members, pairs = [np.array([picture]) for picture in range(count)], []
    for _ in range(count - 1):
        low, high = sorted(divmod(int(loss.argmin()), count))
        pairs.append((number[low], number[high]))
        members.append(np.sort(np.concatenate([members[number[low]], members[number[high]]])))
        number[low], alive[high] = len(members) - 1, False
        sums[low] += sums[high]
        length[low] = np.linalg.norm(sums[low])
        row = _losses(length[low], length, sums @ sums[low])
        row[~alive] = row[low] = np.inf
        loss[low], loss[:, low], loss[high], loss[:, high] = row, row, np.inf, np.inf
    return Gathering(pairs, members)


def _losses(one: Floats | float, other: Floats, product: Floats) -> Floats:
    return np.round(one + other - np.sqrt(np.maximum(np.square(one) + np.square(other) + 2 * product, 0)), 9)


@dataclass
class _Branch:
    """A node while the tree is made: its visitors, and the branches below."""

    visitors: Images
    below: list[_Branch] = field(default_factory=list)


def fewest_of(pictures: int) -> int:
    """Visitors that a node needs."""
    return max(2, min(FEWEST, pictures // SHARE))


def _planted(order: Gathering, ways: int, fewest: int) -> _Branch:
    """The branches that the order gives, before anything is routed."""
    root = len(order.members) - 1
    top = [root]
    while len(top) < ways:
        found = {node: split for node in top if (split := order.split(node, fewest))}
        if not found:
            break
        widest = max(found, key=lambda node: found[node][0])
        top.remove(widest)
        top += found[widest][1:]
    below = [_binary(order, node, fewest) for node in sorted(top)] if len(top) > 1 else []
    return _Branch(order.members[root], below)


def _binary(order: Gathering, node: int, fewest: int) -> _Branch:
    split = order.split(node, fewest)
    below = [_binary(order, side, fewest) for side in sorted(split[1:])] if split else []
    return _Branch(order.members[node], below)


def _settle(branch: _Branch, g: Floats, fewest: int) -> None:
    """Send the visitors on to where their rationales point, until members and visitors are the same, all the way down.

    A branch that too few visit is folded: its visitors go to those beside it, and an only branch gives way to its own.
    """
    for _ in range(ROUNDS):
        if not branch.below:
            return
        routes = Routes(np.stack([g[side.visitors].sum(0) for side in branch.below]), [()] * len(branch.below), ())
        went = routes.cosine(g[branch.visitors], np.arange(len(branch.below))).argmax(1)
        sides = [branch.visitors[went == number] for number in range(len(branch.below))]
        few = min(range(len(sides)), key=lambda number: len(sides[number]))
        if len(sides[few]) < fewest:
            branch.below.pop(few)
            if len(branch.below) == 1:
                branch.below = branch.below[0].below
            continue
        same = all(np.array_equal(side, part.visitors) for side, part in zip(sides, branch.below, strict=True))
        for side, part in zip(sides, branch.below, strict=True):
            part.visitors = side
        if same:
            break
    for part in branch.below:
        _settle(part, g, fewest)


@dataclass(frozen=True)
class VisitedTree:
    """A tree whose rules are fitted to their visitors. Nodes: the leaves, then inner ones, children before parents.

    Args:
        rules: of each node.
        root: the rule of all pictures.
        direction: (nodes, filters) the summed rationales of each node's visitors.
        parent: (nodes,) -1 for the second layer.
        visitors: pictures that it grew from, of each node.
    """

    rules: Sequence[Rule]
    root: Rule
    direction: Floats
    parent: NDArray[np.int64]
    visitors: Sequence[Images]

    @cached_property
    def routes(self) -> Routes:
        """Where pictures go."""
        return Routes(self.direction, children_of(self.parent), np.flatnonzero(self.parent < 0).tolist())


def grow_visited(g: Floats, evidence: Evidence, ways: int) -> VisitedTree:
    """A tree of pictures.

    Args:
        g: (pictures, filters) unit rationales: what routes them.
        evidence: what its rules are fitted to.
        ways: nodes of the second layer, at most.
    """
    return _fitted(_shape(g, gathered(g), ways), g, evidence)


def _shape(g: Floats, order: Gathering, ways: int) -> _Branch:
    fewest = fewest_of(len(g))
    root = _planted(order, ways, fewest)
    _settle(root, g, fewest)
    return root if root.below else _Branch(root.visitors, [_Branch(root.visitors)])


def _fitted(root: _Branch, g: Floats, evidence: Evidence) -> VisitedTree:
    typical = typical_of(evidence)
    first = first_rule(evidence, typical)
    nodes = _numbered(root)
    parent, rules = np.full(len(nodes), -1), dict[int, Rule]()
    number = {id(branch): place for place, branch in enumerate(nodes)}
    for place, branch in enumerate(nodes):
        for part in branch.below:
            parent[number[id(part)]] = place
    for place in range(len(nodes) - 1, -1, -1):
        above = first if parent[place] < 0 else rules[int(parent[place])]
        rules[place] = fit_rule(evidence.of(nodes[place].visitors), above, WORTH, typical)
    direction = np.stack([g[branch.visitors].sum(0) for branch in nodes])
    every = [rules[place] for place in range(len(nodes))]
    return VisitedTree(every, first, direction, parent, [branch.visitors for branch in nodes])


def _numbered(root: _Branch) -> list[_Branch]:
    """The branches below the root: leaves in the order of the tree, then inner ones from the lowest up."""
    levels, level = [], root.below
    while level:
        levels.append(level)
        level = [part for branch in level for part in branch.below]
    deepest_first = [branch for level in reversed(levels) for branch in level]
    leaves = [branch for branch in deepest_first if not branch.below]
    return leaves + [branch for branch in deepest_first if branch.below]


def best_ways(g: Floats, evidence: Evidence, seed: int) -> int:
    """How many nodes the second layer has: what tells most of left-out pictures, by the misfit of its rules.

    Args:
        g: (pictures, filters) unit rationales of the pictures that the tree grows from.
        evidence: of the filters as a whole, whatever the tree's own features are.
        seed: of the folds.
    """
    loss = dict.fromkeys(WAYS, 0.0)
    for inside, outside in parts(len(g), seed):
        order, some, rest = gathered(g[inside]), evidence.of(inside), evidence.of(outside)
        for ways in WAYS:
            top = _fitted(_second_layer(_shape(g[inside], order, ways)), g[inside], some)
            loss[ways] += float(misfit(said_by(top, g[outside], rest), rest, evidence).sum())
    return min(WAYS, key=lambda ways: loss[ways])


def _second_layer(root: _Branch) -> _Branch:
    return _Branch(root.visitors, [_Branch(part.visitors) for part in root.below])


def said_by(tree: VisitedTree, g: Floats, some: Evidence) -> tuple[Floats, Floats]:
    """(pictures,) estimates and (pictures, filters) contributions at the second layer."""
    top = np.array([path[0] for path in tree.routes.paths(g)])
    estimate, rho = np.zeros(len(g)), np.zeros(some.own.shape)
    for node in np.unique(top):
        there = np.flatnonzero(top == node)
        estimate[there] = tree.rules[node].estimate(some.of(there))
        rho[there] = tree.rules[node].contributions(some.of(there))
    return estimate, rho
