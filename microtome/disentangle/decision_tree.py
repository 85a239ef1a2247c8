"""The decision tree of a network's rationales (Zhang, Yang, Wu, Zhu: arXiv 1802.00121).

It begins with one leaf per positive image. Greedily, the pair of second-layer nodes is merged whose union gains most

    E = prod_{i in positives} P_t(x_i) / P_0(x_i) * exp(-beta |V|),   P(x_i) = exp(gamma yh_i) / sum_j exp(gamma yh_j)

per image of the union; j runs over positives AND negatives (over positives alone a single node is best), yh_i =
h_v(x_i) at the second-layer node v whose w is nearest to g_i by cosine, gamma = 1 / mean_{positives} y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.disentangle.decision_nodes import FittedUnions, Members, NodeFit, fit_leaf_pairs, fit_node, fit_unions
from microtome.disentangle.rationales import Rationales
from microtome.disentangle.routes import Routes, rounded
from microtome.errors import InputError

Floats = NDArray[np.float64]
BETA = 1.0
PAIR_BLOCK = 4096
BLOCK = 1 << 22  # pairs times images that are looked at together
CACHE_BYTES = 1.5e9  # of the pairs' directions; beyond, they are put together anew from a bit per filter
COMPACT_BELOW = 0.7  # share of pairs that are still there
LEAST_GAIN = 1e-9
Slots = NDArray[np.int64] | NDArray[np.int32] | slice
TIE = 1e-6  # cosines in float32 that count as equal


@dataclass(frozen=True)
class Merge:
    """One step: which nodes became which, and by how much log E grew."""

    step: int
    left: int
    right: int
    node: int
    gain: float


@dataclass(frozen=True)
class Tree:
    """A decision tree. Nodes: 0 .. N - 1 the leaves, one per positive image; then the merged nodes, in order.

    Args:
        w: (nodes, filters).
        b: (nodes,).
        kept: (nodes, filters) filters that a node uses.
        parent: (nodes,) -1 for the children of the root, the second layer.
        children: (nodes, 2), -1 for leaves.
        members: images of each node.
        merges: the log.
    """

    w: Floats
    b: Floats
    kept: NDArray[np.bool_]
    parent: NDArray[np.int64]
    children: NDArray[np.int64]
    members: Sequence[NDArray[np.int64]]
    merges: Sequence[Merge]

    @property
    def second_layer(self) -> NDArray[np.int64]:
        """The children of the root."""
        return np.flatnonzero(self.parent < 0)

    def depth(self) -> NDArray[np.int64]:
        """(nodes,) 2 for the second layer, one more for each step down; the root is 1."""
        depth = np.full(len(self.b), 2)
        for node in range(len(self.b) - 1, -1, -1):
            if self.parent[node] >= 0:
                depth[node] = depth[self.parent[node]] + 1
        return depth

    @cached_property
    def routes(self) -> Routes:
        """Where pictures go: each node's w points."""
        below = [pair.tolist() if pair[0] >= 0 else [] for pair in self.children]
        return Routes(self.w, below, self.second_layer.tolist())

    def cosine(self, g: Floats, nodes: NDArray[np.int64]) -> Floats:
        """(images, nodes) cosine of rationales and nodes."""
        return self.routes.cosine(g, nodes)

    def paths(self, g: Floats) -> list[list[int]]:
        """The parse tree of each image: from the second layer to a leaf, always the child with the larger cosine.

        Args:
            g: (images, filters) unit vectors.
        """
        return self.routes.paths(g)

    def estimate(self, data: Rationales, nodes: NDArray[np.int64]) -> Floats:
        """(images,) yh in logits, each image at a node of its own."""
        value: Floats = ((self.w[nodes] * data.x).sum(1) + self.b[nodes]) * data.norm
        return value

    def contributions(self, data: Rationales, nodes: NDArray[np.int64]) -> Floats:
        """(images, filters) rho = w * x in logits, each image at a node of its own."""
        return self.w[nodes] * data.x * data.norm[:, None]


@dataclass(frozen=True)
class RationaleExamples:
    """What a tree grows from.

    Args:
        positives, negatives: their rationales.
        selection: how a node chooses its filters, see fit_node.
    """

    positives: Rationales
    negatives: Rationales
    selection: str = "projected"

    @property
    def gamma(self) -> float:
        """1 / mean y of the positives.

        Raises:
            InputError: the mean is not positive: the network does not see the category.
        """
        mean = float(self.positives.y.mean())
        if mean <= 0:
            raise InputError(
                f"tree: the network's decision on the positives must be positive on average, got {mean:.3g}: "
                "it was not trained to say yes, or `output` names another category; rule: visitors does without"
            )
        return 1 / mean

    @property
    def every(self) -> Rationales:
        """Positives, then negatives."""
        names = ("x", "g", "y", "b", "norm")
        pairs = ((getattr(self.positives, name), getattr(self.negatives, name)) for name in names)
        return Rationales(*(np.concatenate(pair) for pair in pairs))

    def fit(self, images: NDArray[np.int64]) -> NodeFit:
        """The node of some positives, in float64: what the tree is made of."""
        some = self.positives
        return fit_node(some.x[images], some.g[images], some.y[images], self.selection)


def grow(examples: RationaleExamples, advance: Callable[[int], None] = lambda _: None) -> Tree:
    """Learn a tree.

    Args:
        examples: positives and negatives.
        advance: told after every merge.

    Raises:
        InputError: the positives' mean decision is not positive; fewer than two positives; no negatives.
    """
    count = len(examples.positives.y)
    if count < 2 or not len(examples.negatives.y):
        raise InputError(
            f"tree: needs two positives and a negative, got {count} and {len(examples.negatives.y)}; with positives "
            "alone the best tree is a single node"
        )
    layer = _SecondLayer(examples)
    scores = _PairScores(examples, layer)
    merges: list[Merge] = []
    while (chosen := scores.best()) is not None:
        left, right, gain, fit = chosen
        number = count + len(merges)
        merges.append(Merge(len(merges), int(layer.number[left]), int(layer.number[right]), number, gain))
        scores.merge(left, right, number, fit)
        advance(1)
    return replay(examples, merges)


def replay(examples: RationaleExamples, merges: Sequence[Merge]) -> Tree:
    """The tree that a log of merges gives: the same, bit for bit."""
    members, parent, children = structure(len(examples.positives.y), merges)
    fits = [examples.fit(images) for images in members]
    return Tree(
        np.stack([fit.w for fit in fits]),
        np.array([fit.b for fit in fits]),
        np.stack([fit.kept for fit in fits]),
        parent,
        children,
        members,
        list(merges),
    )


def structure(
    leaves: int, merges: Sequence[Merge]
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64], NDArray[np.int64]]:
    """Members, parents and children of a log's nodes, as `Tree` has them."""
    members = [np.array([image]) for image in range(leaves)]
    parent, children = np.full(leaves + len(merges), -1), np.full((leaves + len(merges), 2), -1)
    for merge in merges:
        members.append(np.sort(np.concatenate([members[merge.left], members[merge.right]])))
        parent[[merge.left, merge.right]] = merge.node
        children[merge.node] = merge.left, merge.right
    return members, parent, children


@dataclass(frozen=True)
class _Nearest:
    """The three nearest nodes of some images; without two that merge, the nearest of the others is among them.

    Args:
        slot: (images, 3) by falling cosine, equal ones by slot.
        cosine, value: (images, 3) of each with the image, and its h(x).
    """

    slot: NDArray[np.int64]
    cosine: Floats
    value: Floats

    def of(self, images: NDArray[np.int64]) -> _Nearest:
        return _Nearest(self.slot[images], self.cosine[images], self.value[images])


class _SecondLayer:
    """The second layer while it shrinks, in slots: a merged node takes the lower slot of its two."""

    def __init__(self, examples: RationaleExamples) -> None:
        data, own = examples.every, examples.positives
        count = len(own.y)
        self.data, self.gamma, self.positives = data, examples.gamma, count
        self.alive = np.ones(count, bool)
        self.number = np.arange(count)
        self.members = [np.array([image]) for image in range(count)]
        self.cosine = rounded(data.g @ own.g.T)
        self.value = data.x @ own.g.T + own.b
        self.nearest = self._nearest(np.arange(len(data.y)))
        self.shift = self.gamma * float(self.nearest.value.max())

    def _nearest(self, images: NDArray[np.int64]) -> _Nearest:
        some, rows, picked = self.cosine[images], np.arange(len(images)), []
        for _ in range(3):
            picked.append(some.argmax(1))
            some[rows, picked[-1]] = -np.inf
        slot = np.stack(picked, 1)
        return _Nearest(slot, self.cosine[images[:, None], slot], self.value[images[:, None], slot])

    def weight(self, value: Floats) -> Floats:
        """exp(gamma yh), scaled by what keeps it finite."""
        return np.exp(np.minimum(self.gamma * value - self.shift, 700))

    def log_evidence(self, value: Floats) -> float:
        """sum_i log P(x_i) over the positives."""
        own = self.gamma * value[: self.positives] - self.shift
        return float(own.sum() - self.positives * np.log(self.weight(value).sum()))

    @property
    def now(self) -> Floats:
        """(images,) yh."""
        return self.nearest.value[:, 0]

    def union(self, left: int, right: int) -> NDArray[np.int64]:
        """Images of two slots together."""
        return np.sort(np.concatenate([self.members[left], self.members[right]]))

    def seen(self, fit: NodeFit) -> tuple[Floats, Floats]:
        """Cosine and h(x) of a node with every image."""
        length = max(float(np.linalg.norm(fit.w)), 1e-30)
        return rounded(self.data.g @ (fit.w / length)), self.data.x @ fit.w + fit.b

    def if_merged(self, left: int, right: int, fit: NodeFit) -> Floats:
        """(images,) yh with two slots replaced by their union."""
        cosine, value = self.seen(fit)
        near, rows = self.nearest, np.arange(len(cosine))
        others = ~np.isin(near.slot, (left, right))
        first = others.argmax(1)
        against = np.where(others.any(1), near.cosine[rows, first], -np.inf)
        wins = (cosine > against) | ((cosine == against) & (min(left, right) < near.slot[rows, first]))
        return np.where(wins, value, near.value[rows, first])

    def merge(self, left: int, right: int, number: int, fit: NodeFit) -> NDArray[np.int64]:
        """Replace two slots by their union in the lower one; gives the images whose nearest nodes may have changed."""
        low, high = min(left, right), max(left, right)
        cosine, value = self.seen(fit)
        touched = np.isin(self.nearest.slot, (left, right)).any(1) | (cosine >= self.nearest.cosine[:, 2])
        self.cosine[:, low], self.value[:, low], self.cosine[:, high] = cosine, value, -np.inf
        images = np.flatnonzero(touched)
        fresh = self._nearest(images)
        for name in ("slot", "cosine", "value"):
            getattr(self.nearest, name)[images] = getattr(fresh, name)
        self.members[low] = self.union(left, right)
        self.number[low] = number
        self.alive[high] = False
        return images


class _PairScores:
    """Gains of all pairs, kept up to date: after a merge only the images whose nearest nodes changed count anew.

    For each pair: `rise` = sum over positives of gamma (yh' - yh), `more` = sum over all of exp(gamma yh') -
    exp(gamma yh), so that Delta log E = rise - N log(1 + more / Z) + beta. These come from fits in float32; the pair
    that is to be merged is fitted and scored again in float64 first, and what was wrong is put right in `mended`.
    """

    def __init__(self, examples: RationaleExamples, layer: _SecondLayer) -> None:
        self._examples, self._layer = examples, layer
        low, high = np.triu_indices(layer.positives, 1)
        self.low, self.high = low.astype(np.int32), high.astype(np.int32)
        self.there = np.ones(len(low), bool)
        self.rise, self.more, self.mended = (np.zeros(len(low)) for _ in range(3))
        self.place = np.zeros((layer.positives, layer.positives), np.int32)
        self._locate()
        data = layer.data
        self._x, self._g, self._y = (torch.from_numpy(value.astype(np.float32)) for value in (data.x, data.g, data.y))
        self._fits = _Fits(len(low), self._g[: layer.positives])
        pairs = torch.from_numpy(np.stack([low, high], 1))
        for block in _blocks(len(low), PAIR_BLOCK):
            self._fits.put(block, fit_leaf_pairs(self._x, self._g, self._y, pairs[block]))
            self._add(block, np.arange(len(data.y)), [(1.0, layer.nearest)])

    def best(self) -> tuple[int, int, float, NodeFit] | None:
        """The two slots to merge, by gain per image of the union, the gain and the union; None where no pair gains."""
        layer = self._layer
        sizes = np.array([len(images) for images in layer.members], float)
        size = sizes[self.low] + sizes[self.high]
        before, z = layer.log_evidence(layer.now), float(layer.weight(layer.now).sum())
        gain = self.rise - layer.positives * np.log(np.maximum(1 + self.more / z, 1e-300)) + BETA + self.mended
        gain[~self.there] = -np.inf
        exact: dict[int, tuple[float, NodeFit]] = {}
        while len(gain):
            pair = int(np.where(gain > LEAST_GAIN, gain / size, -np.inf).argmax())
            if gain[pair] <= LEAST_GAIN:
                return None
            left, right = int(self.low[pair]), int(self.high[pair])
            if pair in exact:
                return left, right, *exact[pair]
            fit = self._examples.fit(layer.union(left, right))
            found = layer.log_evidence(layer.if_merged(left, right, fit)) - before + BETA
            self.mended[pair] += found - gain[pair]
            gain[pair] = found
            exact[pair] = found, fit
        return None

    def merge(self, left: int, right: int, number: int, fit: NodeFit) -> None:
        """Take the union of two slots into the layer, and bring the pairs up to date."""
        layer = self._layer
        gone = np.isin(self.low, (left, right)) | np.isin(self.high, (left, right))
        free = np.flatnonzero(gone | ~self.there)
        self.there &= ~gone
        old = _Nearest(*(getattr(layer.nearest, name).copy() for name in ("slot", "cosine", "value")))
        self._change(layer.merge(left, right, number, fit), old)
        self._join(min(left, right), free)
        if self.there.mean() < COMPACT_BELOW:
            self._compact()

    def _change(self, images: NDArray[np.int64], old: _Nearest) -> None:
        """Count images anew whose nearest nodes may have changed.

        Where the nearest of all did, every pair is concerned; where another did, those pairs that hold the nearest.
        """
        before, after = old.of(images), self._layer.nearest.of(images)
        moved = np.any([getattr(before, n)[:, 0] != getattr(after, n)[:, 0] for n in ("slot", "cosine", "value")], 0)
        rows = np.flatnonzero(moved)
        changes = [(-1.0, before.of(rows)), (1.0, after.of(rows))]
        for block in _blocks(len(self.low), max(1, BLOCK // max(1, len(rows)))):
            self._add(block, images[rows], changes)
        alive = np.flatnonzero(self._layer.alive)
        for slot in np.unique(after.slot[~moved, 0]):
            rows = np.flatnonzero(~moved & (after.slot[:, 0] == slot))
            pairs = self.place[slot, alive[alive != slot]]
            pairs = pairs[self.there[pairs]]  # a pair with a node that has just been made comes later
            self._add(pairs, images[rows], [(-1.0, before.of(rows)), (1.0, after.of(rows))])

    def _locate(self) -> None:
        numbers = np.flatnonzero(self.there)
        low, high = self.low[numbers], self.high[numbers]
        self.place[low, high] = self.place[high, low] = numbers

    def _join(self, slot: int, free: NDArray[np.int64]) -> None:
        """Pairs of a merged node with all the others, in places that dead pairs have left."""
        layer = self._layer
        self._fits.sums[slot] = self._g[layer.members[slot]].sum(0)
        others = np.flatnonzero(layer.alive)
        others = others[others != slot]
        if not len(others):
            return
        places = free[: len(others)]
        self.low[places], self.high[places] = np.minimum(others, slot), np.maximum(others, slot)
        self.there[places] = True
        self.place[others, slot] = self.place[slot, others] = places
        for values in (self.rise, self.more, self.mended):
            values[places] = 0
        self._fits.put(places, fit_unions(self._members([slot]), self._members(others.tolist())))
        for block in _blocks(len(places), PAIR_BLOCK):
            self._add(places[block], np.arange(len(self._y)), [(1.0, layer.nearest)])

    def _members(self, slots: Sequence[int]) -> Members:
        inside = [self._layer.members[slot] for slot in slots]
        images = torch.from_numpy(np.concatenate(inside))
        node = torch.from_numpy(np.repeat(np.arange(len(slots)), [len(part) for part in inside]))
        return Members(self._x[images], self._g[images], self._y[images], node, len(slots))

    def _add(self, slots: Slots, images: NDArray[np.int64], states: Sequence[tuple[float, _Nearest]]) -> None:
        """Add (or take away) what the images do in each state to the pairs' scores."""
        if not len(images):
            return
        low, high = self.low[slots], self.high[slots]
        direction = self._fits.directions(slots, low, high)
        length, b = self._fits.length[slots], self._fits.b[slots]
        both = direction @ torch.cat([self._g[images], self._x[images]]).T
        cosine = both[:, : len(images)].numpy()
        value = (both[:, len(images) :] * length[:, None] + b[:, None]).numpy()
        for sign, near in states:
            rise, more = self._effects((low, high), (cosine, value), images, near)
            self.rise[slots] += sign * rise
            self.more[slots] += sign * more

    def _effects(
        self,
        pairs: tuple[NDArray[np.int32], NDArray[np.int32]],
        union: tuple[NDArray[np.float32], NDArray[np.float32]],
        images: NDArray[np.int64],
        near: _Nearest,
    ) -> tuple[Floats, Floats]:
        """(pairs,) rise and more, summed over the images: each goes to the union, or to the nearest of the others."""
        low, high = pairs
        cosine, value = union
        shape = cosine.shape
        against = np.broadcast_to(near.cosine[:, 0].astype(np.float32), shape).copy()
        fallback = np.broadcast_to(near.value[:, 0], shape).copy()
        lower = low[:, None] < near.slot[:, 0]  # of equal cosines the lower slot wins
        first = near.slot[:, 0].astype(np.int32)
        rows, columns = np.nonzero((low[:, None] == first) | (high[:, None] == first))
        other = low[rows] + high[rows] - first[columns]
        pick = np.where(other == near.slot[columns, 1], 2, 1)
        against[rows, columns] = near.cosine[columns, pick]
        fallback[rows, columns] = near.value[columns, pick]
        lower[rows, columns] = low[rows] < near.slot[columns, pick]
        wins = cosine - against > np.where(lower, np.float32(-TIE), np.float32(TIE))
        changed = wins
        changed[rows, columns] = True
        rows, columns = np.nonzero(changed)
        won = cosine[rows, columns] - against[rows, columns] > np.where(lower[rows, columns], -TIE, TIE)
        new, old = np.where(won, value[rows, columns], fallback[rows, columns]), near.value[columns, 0]
        gamma = self._layer.gamma * (images[columns] < self._layer.positives)
        apart = self._layer.weight(new) - self._layer.weight(old)
        rise, more = (np.bincount(rows, values, len(low)) for values in (gamma * (new - old), apart))
        return rise.astype(float), more.astype(float)

    def _compact(self) -> None:
        """Forget the pairs that are gone."""
        kept = np.flatnonzero(self.there)
        for name in ("low", "high", "there", "rise", "more", "mended"):
            setattr(self, name, getattr(self, name)[kept])
        self._fits.keep(kept)
        self._locate()


class _Fits:
    """Fits of pairs: a bit per filter, and their directions in float32 where they fit memory.

    Args:
        pairs: how many.
        g: (slots, filters) the leaves' rationales; sums over the slots' images later.
    """

    def __init__(self, pairs: int, g: torch.Tensor) -> None:
        self.sums, self._filters = g.clone(), g.shape[1]
        self.length, self.b = torch.empty(pairs), torch.empty(pairs)
        self._kept = np.empty((pairs, -(-self._filters // 8)), np.uint8)
        self._cache = torch.empty(pairs, self._filters) if pairs * self._filters * 4 <= CACHE_BYTES else None

    def put(self, slots: Slots, found: FittedUnions) -> None:
        """Keep fits."""
        self.length[slots], self.b[slots] = found.length, found.b
        self._kept[slots] = np.packbits((found.direction != 0).numpy(), axis=1)
        if self._cache is not None:
            self._cache[slots] = found.direction

    def directions(self, slots: Slots, low: NDArray[np.int32], high: NDArray[np.int32]) -> torch.Tensor:
        """(pairs, filters) w / ||w||."""
        if self._cache is not None:
            return self._cache[slots]
        kept = torch.from_numpy(np.unpackbits(self._kept[slots], axis=1, count=self._filters))
        return torch.nn.functional.normalize((self.sums[low] + self.sums[high]) * kept, dim=1, eps=1e-30)

    def keep(self, slots: NDArray[np.int64]) -> None:
        """Forget all others."""
        self.length, self.b, self._kept = self.length[slots], self.b[slots], self._kept[slots]
        if self._cache is not None:
            self._cache = self._cache[slots]


def _blocks(count: int, size: int) -> Iterator[slice]:
    """0 .. count - 1 in slices: rows of a tensor are looked at, not copied."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
