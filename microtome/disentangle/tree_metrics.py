"""How well a decision tree speaks for its network, level by level, on images that it did not grow from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.decision_tree import RationaleExamples, Tree
from microtome.disentangle.rationales import Rationales

Floats = NDArray[np.float64]
LevelMeasure = Literal["accuracy", "fidelity", "error", "fitness", "part error", "merged"]
TreeMeasure = LevelMeasure | Literal["fitness gained down the path"]
TreeModel = Literal["tree", "network", "scikit-learn tree", "logistic regression"]


@dataclass(frozen=True)
class TreeMetric:
    """One figure as a value per image, whose mean is the figure.

    Args:
        depth: of the tree's nodes; None for what has no depth.
        name: what is measured.
        values: (images,).
        model: of what.
    """

    depth: int | None
    name: TreeMeasure
    values: Floats
    model: TreeModel = "tree"


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
    positive: NDArray[np.bool_]
    removed: Floats
    groups: NDArray[np.bool_]


def at_depth(paths: Sequence[Sequence[int]], depth: int) -> NDArray[np.int64]:
    """(images,) each path's node at a depth (2 is the second layer), or its leaf where it ends before."""
    return np.array([path[min(depth - 2, len(path) - 1)] for path in paths])


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


def judged(tree: Tree, held: HeldOut, examples: RationaleExamples, seed: int) -> list[TreeMetric]:
    """A tree by every measure, and beside it the network itself and what imitates it on the same x^(d).

    Args:
        tree: grown from the examples.
        held: images that it did not grow from.
        examples: that it grew from.
        seed: of the ties of a scikit-learn tree.
    """
    decided, every = held.data.y > 0, examples.every
    said: dict[TreeModel, NDArray[np.bool_]] = {"network": decided}
    said |= baselines(every.x, every.y > 0, held.data.x, seed)
    found = [*metrics(tree, held), TreeMetric(None, "fitness gained down the path", specificity(tree, held))]
    for model, answers in said.items():
        found.append(TreeMetric(None, "accuracy", (answers == held.positive).astype(float), model))
        found.append(TreeMetric(None, "fidelity", (answers == decided).astype(float), model))
    return found


def metrics(tree: Tree, held: HeldOut) -> list[TreeMetric]:
    """All metrics at every depth, in logits.

    `accuracy`: sign of yh against the truth; `fidelity`: against the network's own decision; `error`: |yh - y| by the
    range of y; over all images. `part error`: |rho_k - rho_k*| by the mean of y, and `fitness`: Jaccard of the filters'
    contributions, over the positives. `merged`: whether the parse path is at a merged node, over the positives.
    """
    paths = tree.paths(held.data.g)
    y, positive = held.data.y * held.data.norm, held.positive
    spread = max(float(y.max() - y.min()), 1e-30)
    found = []
    for depth in range(2, 2 + max(len(path) for path in paths)):
        nodes = at_depth(paths, depth)
        yh = tree.estimate(held.data, nodes)
        rho = tree.contributions(held.data, nodes)
        found += [
            TreeMetric(depth, "accuracy", ((yh > 0) == positive).astype(float)),
            TreeMetric(depth, "fidelity", ((yh > 0) == (y > 0)).astype(float)),
            TreeMetric(depth, "error", np.abs(yh - y) / spread),
            TreeMetric(depth, "fitness", fitness(rho, contributions(held.data))[positive]),
            TreeMetric(depth, "merged", (tree.children[nodes, 0] >= 0).astype(float)[positive]),
        ]
        if len(held.groups) and y[positive].mean() > 0:
            apart = np.abs(rho @ held.groups.T - (y[:, None] - held.removed)) / y[positive].mean()
            found.append(TreeMetric(depth, "part error", apart.mean(1)[positive]))
    return found


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


def specificity(tree: Tree, held: HeldOut) -> Floats:
    """(positives,) how much fitness grows down each parse path: the leaf's minus the second layer's."""
    paths = tree.paths(held.data.g)
    own = contributions(held.data)
    ends = [fitness(tree.contributions(held.data, at_depth(paths, depth)), own)[held.positive] for depth in (10**6, 2)]
    return ends[0] - ends[1]


def baselines(x: Floats, decided: NDArray[np.bool_], unseen: Floats, seed: int) -> dict[TreeModel, NDArray[np.bool_]]:
    """What a scikit-learn tree and a logistic regression on the same x^(d) say of unseen images.

    Args:
        x: (images, filters) of the images that the tree grew from.
        decided: (images,) the network's own decisions on them: what is imitated.
        unseen: (images, filters).
        seed: of the tree's ties.

    Returns:
        decisions on the unseen images, by model; nothing where the network decided all one way.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    if decided.all() or not decided.any():
        return {}
    models: dict[TreeModel, Any] = {
        "scikit-learn tree": DecisionTreeClassifier(random_state=seed),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
    }
    return {name: model.fit(x, decided).predict(unseen).astype(bool) for name, model in models.items()}
