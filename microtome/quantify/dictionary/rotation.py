"""Random rotations of the channel space (Bau et al. 2017, section 4.2): another basis than the units'."""

from __future__ import annotations

import numpy as np

from microtome.quantify.dictionary.directions import Directions, Floats


def rotation(channels: int, directions: int, rng: np.random.Generator) -> Directions:
    """Directions of a random orthonormal basis, uniform over all of them (Haar).

    Q of Q R = G, G of normal entries, its columns turned so that R has a positive diagonal (Mezzadri 2007): without
    that Q would not be uniform.

    Args:
        channels: of the space.
        directions: how many of the basis; at most `channels`.
        rng: the source of chance.
    """
    q, r = np.linalg.qr(rng.standard_normal((channels, channels)))
    return Directions.plain("rotation", (q * np.sign(np.diag(r))).T[:directions].astype(np.float32))


def one_hot(channels: int, directions: int) -> Directions:
    """The first units themselves, as directions."""
    return Directions.plain("one-hot", np.eye(channels, dtype=np.float32)[:directions])


def random_vectors(shape: tuple[int, int], rng: np.random.Generator, *, positive: bool) -> Floats:
    """(directions, channels) of norm 1, uniform over the sphere, or over its part without negative entries.

    Args:
        shape: (directions, channels).
        rng: the source of chance.
        positive: whether no entry may be negative.
    """
    drawn = rng.standard_normal(shape)
    drawn = np.abs(drawn) if positive else drawn
    found: Floats = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return found
