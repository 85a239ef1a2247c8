"""How well a decision tree speaks for its network, level by level, on images that it did not grow from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from microtome.disentangle.rationales import Rationales
from microtome.disentangle.readings import Readings
from microtome.quantify.intervals import ENDS, RESAMPLES, mean_interval, share_interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Span = tuple[float, float, float]
Share = Literal["accuracy", "fidelity", "fidelity on positives", "fidelity on others"]
LevelMeasure = Share | Literal["auc", "error", "fitness", "part error", "merged"]
TreeMeasure = LevelMeasure | Literal["fitness gained down the path", "deletion", "alike"]
TreeModel = Literal[
    "tree", "network", "always yes", "tree, calibrated", "ridge", "ridge per cell", "logistic regression",
    "scikit-learn tree", "random filters",
]  # fmt: skip
SHARES = get_args(Share)
COMPARED: tuple[TreeMeasure, ...] = ("fidelity", "fidelity on positives", "fidelity on others", "auc", "fitness")


@dataclass(frozen=True)
class TreeMetric:
    """One figure.

    Args:
        depth: of the tree's nodes, 1 is the rule at its root; None for what has no depth.
        name: what is measured.
        values: (images,) whose mean it is; for `auc` none.
        model: of what.
        against: the model that it is compared with: the values are differences; None for none.
        span: value, low and high where they are not those of a mean.
    """

    depth: int | None
    name: TreeMeasure
    values: Floats
    model: TreeModel = "tree"
    against: TreeModel | None = None
    span: Span | None = None

    @property
    def interval(self) -> Span:
        """Value and 95 % interval: Wilson's for a share, else by a bootstrap over the images."""
        if self.span is not None:
            return self.span
        if self.name in (*SHARES, "merged") and self.against is None:
            return share_interval(self.values)
        return mean_interval(self.values)


@dataclass(frozen=True)
class HeldOut:
    """Images that a tree is judged by.

    Args:
        data: their rationales.
        positive: (images,) whether of the category.
        removed: (images, parts) the network's decision with each part's filters set to zero, in logits.
        groups: (parts, filters) which filters each part has; of the tree's filters.
    """

    data: Rationales
    positive: Bools
    removed: Floats
    groups: Bools

    @property
    def y(self) -> Floats:
        """(images,) the network's own decisions, in logits."""
        return self.data.y * self.data.norm

    @property
    def own(self) -> Floats:
        """(images, filters) what each filter adds to them."""
        return contributions(self.data)


@dataclass(frozen=True)
class Answers:
    """What a model says of the held-out images.

    Args:
        model: which.
        depth: of a tree's nodes; None for what has no depth.
        score: (images,) yes where it is positive.
        rho: (images, filters) what each filter adds to it; None where it does not say.
        logits: whether the score is an estimate of the network's own.
    """

    model: TreeModel
    depth: int | None
    score: Floats
    rho: Floats | None = None
    logits: bool = True


def path_kept(before: Sequence[int], after: Sequence[int]) -> float:
    """Share of a parse path that another one goes along with, from the second layer down, by the longer of the two.

    Args:
        before, after: nodes; 0 is returned exactly where they part in the second layer.
    """
    together = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        together += 1
    return together / max(len(before), len(after))


def answers(read: Readings) -> list[Answers]:
    """What a tree says at each depth, from the second layer down."""
    steps = {depth: read.at(depth) for depth in range(2, read.deepest + 1)}
    return [Answers("tree", depth, read.estimate[at], read.rho[at]) for depth, at in steps.items()]


def judged(read: Readings, held: HeldOut, others: Sequence[Answers]) -> list[TreeMetric]:
    """A tree by every measure, beside what imitates the network too, and the differences, image by image.

    Args:
        read: the tree, of the held-out images.
        held: images that it did not grow from.
        others: the network itself and rivals; and the tree's own root, if it has a rule.
    """
    own = answers(read)
    found = [metric for said in (*own, *others) for metric in figures(said, held)]
    found += [metric for depth in range(2, read.deepest + 1) for metric in _structure(read, held, depth)]
    found.append(TreeMetric(None, "fitness gained down the path", specificity(read, held)))
    found.append(TreeMetric(None, "alike", alike(held.data), "network"))
    for said in others:
        if said.model not in ("tree", "network"):
            found += contrasts(own[0], said, held)
    return found


def network_itself(held: HeldOut) -> Answers:
    """The network's own decisions as those of a model: right as often as it is."""
    return Answers("network", None, held.y, logits=False)


def figures(said: Answers, held: HeldOut) -> list[TreeMetric]:
    """A model's measures, in logits.

    `accuracy`: its sign against the truth; `fidelity`: against the network's own decision, over all images, over those
    of the category and over the others; `auc`: how its score ranks the network's decisions; `error`: |yh - y| by the
    range of y; `fitness`: Jaccard of the filters' contributions, over those of the category.
    """
    yes, decided, positive = said.score > 0, held.y > 0, held.positive
    same = (yes == decided).astype(float)
    values: dict[TreeMeasure, Floats] = {
        "accuracy": (yes == positive).astype(float), "fidelity": same,
        "fidelity on positives": same[positive], "fidelity on others": same[~positive],
    }  # fmt: skip
    if said.logits:
        values["error"] = np.abs(said.score - held.y) / max(float(np.ptp(held.y)), 1e-30)
    if said.rho is not None:
        values["fitness"] = fitness(said.rho, held.own)[positive]
    found = [TreeMetric(said.depth, name, each, said.model) for name, each in values.items() if len(each)]
    if decided.any() and not decided.all():
        value, drawn = _auc(said.score, decided)
        found.append(TreeMetric(said.depth, "auc", said.score, said.model, span=_span(value, drawn)))
    return found


def contrasts(one: Answers, other: Answers, held: HeldOut) -> Iterator[TreeMetric]:
    """One model minus another, in pairs.

    Args:
        one, other: what they say.
        held: of these images.
    """
    first, second = ({metric.name: metric for metric in figures(said, held)} for said in (one, other))
    for name in COMPARED:
        if name in first and name in second:
            apart = first[name].values - second[name].values
            metric = replace(first[name], values=apart, against=other.model)
            if name == "auc":
                decided = held.y > 0
                (value, drawn), (less, fewer) = _auc(one.score, decided), _auc(other.score, decided)
                metric = replace(metric, span=_span(value - less, drawn - fewer))
            yield metric


def _structure(read: Readings, held: HeldOut, depth: int) -> Iterator[TreeMetric]:
    """`merged`: whether the path is at an inner node; `part error`: |rho_k - rho_k*| by the mean of y; of positives."""
    positive, y = held.positive, held.y
    ended = np.array([len(path) <= depth - 1 for path in read.paths])
    yield TreeMetric(depth, "merged", (~ended).astype(float)[positive])
    if len(held.groups) and y[positive].mean() > 0:
        rho = read.rho[read.at(depth)]
        apart = np.abs(rho @ held.groups.T - (y[:, None] - held.removed)) / y[positive].mean()
        yield TreeMetric(depth, "part error", apart.mean(1)[positive])


def auc(score: Floats, decided: Bools) -> float:
    """How often the score of a yes is above that of a no; ties count half.

    Args:
        score: (images,).
        decided: (images,) with both answers.
    """
    return _auc(score, decided)[0]


def _auc(score: Floats, decided: Bools) -> tuple[float, Floats]:
    """The area, and that of each resample of the images; NaN where one has a single answer."""
    drawn = np.random.default_rng(0).integers(len(score), size=(RESAMPLES, len(score)))
    rows = np.concatenate([np.arange(len(score))[None], drawn])
    yes, rank = decided[rows], rankdata(score[rows], axis=1)
    many = yes.sum(1)
    pairs = many * (len(score) - many)
    above = (rank * yes).sum(1) - many * (many + 1) / 2
    area = np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)
    return float(area[0]), area[1:]


def _span(value: float, drawn: Floats) -> Span:
    low, high = np.nanquantile(drawn, ENDS)
    return value, float(low), float(high)


def alike(data: Rationales) -> Floats:
    """(images,) cosine of each image's rationale and the mean of all of them.

    1 everywhere where what follows the layer is linear: then g is the same in every image, and no tree tells it apart.
    """
    mean = data.g.mean(0)
    cosine: Floats = data.g @ mean / max(float(np.linalg.norm(mean)), 1e-30)
    return cosine


def contributions(data: Rationales) -> Floats:
    """(images, filters) t = g * x, the network's own, in logits."""
    return data.g * data.x * data.norm[:, None]


def fitness(rho: Floats, own: Floats) -> Floats:
    """(images,) Jaccard of contributions: sum_d min(rh_d, |t_d|) / sum_d max(rh_d, |t_d|), rh = max(rho sign(t), 0).

    Args:
        rho: (images, filters) of the nodes.
        own: (images, filters) t, of the network.
    """
    agreeing, size = np.maximum(rho * np.sign(own), 0), np.abs(own)
    whole = np.maximum(agreeing, size).sum(1)
    return np.where(whole > 0, np.minimum(agreeing, size).sum(1) / np.where(whole > 0, whole, 1), 1.0)


def specificity(read: Readings, held: HeldOut) -> Floats:
    """(positives,) how much fitness grows down each parse path: the leaf's minus the second layer's."""
    ends = [fitness(read.rho[read.at(depth)], held.own)[held.positive] for depth in (10**6, 2)]
    return ends[0] - ends[1]
