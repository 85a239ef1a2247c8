"""The pictures that a tree grows from and is judged by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.sampling import sampled
from microtome.disentangle.examples import BACKGROUND, HELD_OUT, TRAIN, Examples
from microtome.errors import InputError
from tasks.finetuning.sets import Sets
from tasks.index.result import Index

BATCH = 16


@dataclass(frozen=True)
class TreePictures:
    """Pictures of one category and others, known by their place: first those to grow from, then those held out.

    Args:
        sets: the data sets that they come from.
        examples: their labels and splits.
        label: class number of the category.
        device: where their batches go.
    """

    sets: Sets
    examples: Examples
    label: int
    device: str

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def category(self) -> str:
        """Name of the category."""
        return self.examples.categories[self.label]

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(pictures,) whether of the category."""
        mine: NDArray[np.bool_] = np.array(self.examples.labels) == self.label
        return mine

    def places(self, split: str, positive: bool | None = None) -> NDArray[np.int64]:
        """Pictures of a split, of the category or not."""
        there = np.array(self.examples.splits) == split
        return np.flatnonzero(there if positive is None else there & (self.positive == positive))

    def batch(self, places: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        """(pictures, 3, height, width), as the network takes them."""
        found = [self.located(place) for place in places]
        stacked = np.stack([index.source.normalised(image) for index, image in found])
        return torch.from_numpy(stacked).to(self.device)

    def located(self, place: int) -> tuple[Index, int]:
        """The data set that a picture is in, and its number there."""
        return self.sets.indices[self.examples.sides[place]], self.examples.images[place]


def chosen(examples: Examples, category: str | None, most: int, seed: int) -> tuple[Examples, int]:
    """At most so many examples of the category and as many others, of those to grow from and of those held out.

    Args:
        examples: all of them.
        category: None for the only one.
        most: of each.
        seed: of the draw.

    Returns:
        the examples, and the class number of the category.

    Raises:
        InputError: no such category, or several to choose from.
    """
    label = _label(examples.categories, category)
    places: list[int] = []
    for split in (TRAIN, HELD_OUT):
        for positive in (True, False):
            some = [place for place in examples.split(split) if (examples.labels[place] == label) is positive]
            places += [some[number] for number in sampled(len(some), most, seed)]
    return examples.of(places), label


def _label(categories: Sequence[str], wanted: str | None) -> int:
    named = [name for name in categories if name != BACKGROUND]
    if wanted is None and len(named) == 1:
        wanted = named[0]
    if wanted not in named:
        raise InputError(f"tree.category: must be one of {', '.join(named)}, got {wanted!r}")
    return categories.index(wanted)


def said_of(network: torch.nn.Module, pictures: TreePictures, places: Sequence[int] | NDArray[np.int64]) -> int:
    """The class that a network gives most of these pictures."""
    with torch.no_grad():
        said = [network(pictures.batch(places[s : s + BATCH])).argmax(1) for s in range(0, len(places), BATCH)]
    return int(Counter(torch.cat(said).tolist()).most_common(1)[0][0])
