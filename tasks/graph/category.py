"""The pictures of one category, as the stages of an explanatory graph choose them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.graph_layers import top_first
from microtome.errors import InputError
from microtome.networks.geometry import LayerGeometry
from tasks.activations.result import Maps
from tasks.graph import CategoryOptions
from tasks.index.result import Index
from tasks.landmarks.result import Landmarks

LEAST = 10  # pictures
LEAST_SHOWN = 3  # pictures that show a landmark


@dataclass(frozen=True)
class Chosen:
    """Pictures of a category: numbers in the index, rising, and names."""

    category: str
    images: NDArray[np.int64]
    files: list[str]


def category_images(index: Index, options: CategoryOptions, stage: str) -> Chosen:
    """The pictures of one category, or all of them.

    Args:
        index: of the data set.
        options: which category, and how many pictures at most.
        stage: that asks, for errors.

    Raises:
        InputError: no such category, or too few pictures.
    """
    rows = index.table("images", ["image", "file", "label"]).to_pylist()
    names = sorted({row["label"] for row in rows if row["label"]})
    wanted = options.category
    if wanted is None and len(names) == 1:
        wanted = names[0]
    if wanted is not None and wanted not in names:
        raise InputError(f"{stage}.category: must be one of {', '.join(names)}, got {wanted!r}")
    mine = [row for row in rows if wanted is None or row["label"] == wanted][: options.images]
    if len(mine) < LEAST:
        raise InputError(f"{stage}: needs ten pictures or more, got {len(mine)} of {wanted or 'any'}")
    return Chosen(wanted or "all", np.array([row["image"] for row in mine]), [row["file"] for row in mine])


def ordered_layers(activations: Maps) -> list[tuple[int, LayerGeometry]]:
    """The layers with their numbers among the activations, in the order of a graph, the top one first."""
    return [(number, activations.layers[number]) for number in top_first(activations.layers)]


def shown_landmarks(landmarks: Landmarks | None, images: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """(images, 2) x, y in input pixels of every landmark that three pictures show; NaN where one does not.

    Args:
        landmarks: of the data set; None where it has none.
        images: rising numbers in the index.
    """
    found = landmarks.places(images) if landmarks else {}
    return {name: marks for name, marks in sorted(found.items()) if np.isfinite(marks).all(1).sum() >= LEAST_SHOWN}
