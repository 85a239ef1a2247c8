"""What imitates a network's decisions beside a tree, fitted to the same pictures: each says yes or no, some say why."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.rules import Evidence
from microtome.disentangle.tree_metrics import Answers, TreeModel

Floats = NDArray[np.float64]
PENALTIES = 10.0 ** np.arange(-2, 7)


def rivals(grown: Evidence, unseen: Evidence, seed: int) -> list[Answers]:
    """Always yes; a ridge of the logit; a logistic regression and a scikit-learn tree on the sums of the filters.

    Args:
        grown: filters' sums in the pictures that the tree grew from, and the decisions to imitate.
        unseen: the same of held-out pictures.
        seed: of the tree's ties.

    Returns:
        without the last two where the network decided all one way.
    """
    found = [Answers("always yes", None, np.ones(len(unseen.y)), logits=False), ridge(grown, unseen, "ridge")]
    decided = grown.y > 0
    return found if decided.all() or not decided.any() else [*found, *_classifiers(grown, unseen, seed)]


def ridge(grown: Evidence, unseen: Evidence, model: TreeModel) -> Answers:
    """A ridge regression of the logit on standardised features; its penalty by leaving out one picture at a time.

    Args:
        grown: pictures to fit to.
        unseen: pictures to answer for.
        model: its name.
    """
    from sklearn.linear_model import RidgeCV

    mean, spread = grown.x.mean(0), grown.x.std(0)
    scale = np.where(spread > 0, spread, 1)
    fit = RidgeCV(alphas=PENALTIES).fit((grown.x - mean) / scale, grown.y)
    w = fit.coef_ / scale
    score = np.asarray(unseen.x @ w, np.float64) + float(fit.intercept_ - mean @ w)
    return Answers(model, None, score, unseen.by_filter(unseen.x * w))


def _classifiers(grown: Evidence, unseen: Evidence, seed: int) -> list[Answers]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    decided = grown.y > 0
    linear: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(grown.x, decided)
    rho = unseen.x * (linear[-1].coef_[0] / linear[0].scale_)
    tree = DecisionTreeClassifier(random_state=seed).fit(grown.x, decided)
    return [
        Answers("logistic regression", None, linear.decision_function(unseen.x), rho, logits=False),
        Answers("scikit-learn tree", None, tree.predict_proba(unseen.x)[:, 1] - 0.5, logits=False),
    ]


def calibrated(said: Answers, score: Floats, decided: NDArray[np.bool_]) -> Answers:
    """A tree's own score behind one threshold: that with which it decides most of its own pictures as the network.

    Args:
        said: of the held-out pictures.
        score: (pictures,) of those that the tree grew from.
        decided: (pictures,) the network's decisions on them.

    Returns:
        the score minus the threshold; of equally good ones the nearest to zero.
    """
    order = np.unique(score)
    between = np.concatenate([[order[0] - 1], (order[:-1] + order[1:]) / 2, [order[-1] + 1], [0.0]])
    right = ((score > between[:, None]) == decided).mean(1)
    best = between[right >= right.max() - 1e-12]
    threshold = float(best[np.abs(best).argmin()])
    return Answers("tree, calibrated", None, said.score - threshold, logits=False)
