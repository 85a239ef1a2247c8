"""Pictures of a category and of what it is told from: labelled, and split into those learned from and those held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.source import Source
from microtome.disentangle.folds import split_by_file
from microtome.errors import InputError
from tasks.finetuning import Folding
from tasks.index.result import Index

BACKGROUND = "background"


@dataclass(frozen=True)
class Origin:
    """Where labelled pictures come from.

    Args:
        index: a data set, of one category or of several.
        negatives: pictures of none of them; None where the categories are told from each other.
    """

    index: Index
    negatives: Index | None = None

    def of(self, dataset: str) -> Index:
        """By the name that tables give it: `dataset` or `negatives`."""
        found = {"dataset": self.index, "negatives": self.negatives}[dataset]
        if found is None:
            raise RuntimeError("pictures of `negatives` must come with their index, got none")
        return found


@dataclass(frozen=True)
class LabelledPictures:
    """Labelled pictures, known by their place in these lists.

    Args:
        origin: where they come from.
        datasets: `dataset` or `negatives`, of each.
        images: number in that data set's index.
        labels: class numbers, into `categories`; of a single category 1, and 0 for the rest.
        splits: `train` or `val`.
        categories: names of the classes.
    """

    origin: Origin
    datasets: Sequence[str]
    images: Sequence[int]
    labels: Sequence[int]
    splits: Sequence[str]
    categories: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def split(self, name: str) -> list[int]:
        """Places of the pictures of a split."""
        return [place for place, split in enumerate(self.splits) if split == name]

    def of(self, places: Sequence[int]) -> LabelledPictures:
        """Some of them, in this order."""
        datasets, images = [self.datasets[n] for n in places], [self.images[n] for n in places]
        labels, splits = [self.labels[n] for n in places], [self.splits[n] for n in places]
        return LabelledPictures(self.origin, datasets, images, labels, splits, self.categories)

    def file(self, place: int) -> str:
        """Name of a picture's file."""
        return self.origin.of(self.datasets[place]).files[self.images[place]]

    def source(self, place: int) -> Source:
        """The data set that a picture is in."""
        return self.origin.of(self.datasets[place]).source

    def normalised(self, place: int) -> NDArray[np.float32]:
        """(3, height, width), as the network takes it."""
        return self.source(place).normalised(self.images[place])

    def landmarks(self, place: int) -> dict[str, tuple[float, float]]:
        """x, y of the landmarks that a picture shows, in the frame."""
        return self.source(place).landmarks(self.images[place])

    def thumbnail(self, place: int, side: int) -> bytes:
        """A small picture as WebP, `side` pixels wide and high."""
        return self.source(place).thumbnail(self.images[place], side)


@dataclass(frozen=True)
class _Named:
    """A picture and the name of its class."""

    dataset: str
    image: int
    file: str
    name: str | None


def labelled(origin: Origin, category: str | None, folding: Folding, seed: int) -> LabelledPictures:
    """The pictures of data sets, split by picture.

    Args:
        origin: the data sets.
        category: that is told from all else; None for every category of the data set.
        folding: which share is held out.
        seed: of the split.

    Raises:
        InputError: no category, or nothing to tell it from.
    """
    rows = list(_named(origin, category))
    categories = _categories(rows, category)
    files, names = [f"{row.dataset}/{row.file}" for row in rows], [str(row.name) for row in rows]
    return LabelledPictures(
        origin,
        [row.dataset for row in rows],
        [row.image for row in rows],
        [categories.index(name) for name in names],
        split_by_file(files, names, folds=folding.folds, fold=folding.fold, seed=seed),
        categories,
    )


def _named(origin: Origin, category: str | None) -> Iterator[_Named]:
    """Beside `negatives`, only the wanted category's own pictures count."""
    alone = origin.negatives is not None and category is not None
    for row in origin.index.table("images", ["image", "file", "label"]).to_pylist():
        if not alone or row["label"] == category:
            name = row["label"] if category in (None, row["label"]) else BACKGROUND
            yield _Named("dataset", row["image"], row["file"], name)
    for image, file in enumerate(origin.negatives.files if origin.negatives else ()):
        yield _Named("negatives", image, file, BACKGROUND)


def _categories(rows: Sequence[_Named], category: str | None) -> list[str]:
    """Names of the classes, in the order of their numbers."""
    names = {row.name for row in rows}
    found = sorted(name for name in names if name not in (None, BACKGROUND))
    if not found or len(names) < 2:
        raise InputError(
            f"finetuning: needs a category and something to tell it from, got {', '.join(found) or 'no category'}"
            f"{'' if category is None else f' for category {category!r}'}; name `negatives:`, or a data set of several"
        )
    if None in names:
        raise InputError("finetuning: every picture must have a class, got some without; name a `category:`")
    if len(found) == 1:
        return [BACKGROUND, *found]
    return [*found, *([BACKGROUND] if BACKGROUND in names else [])]
