"""Non-negative matrix factorisation (Lee and Seung 1999) by scikit-learn: X ≈ W D, none with negative entries."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.dictionary.directions import Directions, Floats, normalised

ITERATIONS = 400  # of a fit, where it does not settle before
TOLERANCE = 1e-5
READ = 100  # iterations that a map's codes take; always all of them, so that no cell waits for another


@contextmanager
def unsettled() -> Iterator[None]:
    """Without scikit-learn's warning that a fit took all of its iterations: what it leaves unexplained is told.

    To be entered around threads, and not in them: the filters of warnings are the whole process's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Maximum number of iterations")
        yield


def nmf(cells: Floats, directions: int, seed: int) -> Directions:
    """Fit a dictionary from a random start, by multiplicative updates of the squared error.

    Args:
        cells: (cells, channels), none negative.
        directions: how many.
        seed: of the start.
    """
    from sklearn.decomposition import NMF  # here: a second, for who fits none

    if not cells.any():  # scikit-learn has no answer to nothing
        return Directions.plain("nmf", np.zeros((directions, cells.shape[1]), np.float32))
    model = NMF(directions, init="random", solver="mu", max_iter=ITERATIONS, tol=TOLERANCE, random_state=seed)
    model.fit(cells.astype(np.float64))  # in float32 entries that fade divide one by next to nothing
    return Directions.plain("nmf", normalised(model.components_)[0])


def codes(cells: Floats, vectors: Floats) -> Floats:
    """(cells, directions) W >= 0 of least squared error for given D, by multiplicative updates.

    Args:
        cells: (cells, channels), none negative.
        vectors: (directions, channels) D.
    """
    from sklearn.decomposition import non_negative_factorization

    if not (cells.any() and vectors.any()):
        return np.zeros((len(cells), len(vectors)), np.float32)
    found: NDArray[np.float64]
    found, _, _ = non_negative_factorization(
        cells.astype(np.float64),
        H=vectors.astype(np.float64),
        n_components=len(vectors),
        update_H=False,
        solver="mu",
        max_iter=READ,
        tol=0,
    )
    return found.astype(np.float32)
