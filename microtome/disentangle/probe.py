"""A linear probe: logistic regression on a layer's answers, pooled over cells (Alain and Bengio, arXiv 1610.01644).

    z_k = (mean_ij x_k,ij - m_k) / s_k          p(class | z) = softmax_class(W z + b), of one class its logistic
    W, b = argmin mean over pictures of -log p(own class) + (penalty / 2) ||W||^2

m, s: mean and standard deviation over the pictures it is fitted on. It says how well a network's answers, as they are,
tell classes apart: what training on top of them should reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PENALTY = 0.1  # .1 is not below .01 and .001 on cats and dogs of animal-parts, and needs fewer steps
SILENT = 1e-6  # a feature varies if its deviation is above this share of the largest


@dataclass(frozen=True)
class Probe:
    """A fitted probe, in units of the features.

    Args:
        weight: (outputs, features); one output for two classes.
        bias: (outputs,).
    """

    weight: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """(pictures, outputs) of (pictures, features)."""
        answer: Floats = features @ self.weight.T + self.bias
        return answer

    def right(self, features: Floats, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(pictures,) whether it answers a picture's own class."""
        logits = self.logits(features)
        said = (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(1)
        found: NDArray[np.bool_] = said == labels
        return found


def fit_probe(features: Floats, labels: NDArray[np.int64], *, penalty: float = PENALTY) -> Probe:
    """Fit one.

    Args:
        features: (pictures, features), pooled.
        labels: (pictures,) class numbers from 0, each of which occurs.
        penalty: of the weights of standardised features.

    Raises:
        ValueError: a class that no picture has, or one class alone.
    """
    classes = int(labels.max(initial=0)) + 1
    if classes < 2 or len(np.unique(labels)) < classes:
        raise ValueError(f"labels must hold every class from 0 to {classes - 1}, two at least, got {np.unique(labels)}")
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(0), features.std(0)
    varies = deviation > SILENT * deviation.max(initial=0)
    unit = np.where(varies, deviation, 1.0)
    standard = np.where(varies, (features - mean) / unit, 0.0)
    model = LogisticRegression(C=1 / (penalty * len(labels)), max_iter=1000, tol=1e-6).fit(standard, labels)
    weight = np.asarray(model.coef_, np.float64) * varies / unit
    return Probe(weight, np.asarray(model.intercept_, np.float64) - weight @ mean)
