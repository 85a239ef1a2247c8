"""From labelled pictures of one or two data sets to the classes that a network is to tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from microtome.disentangle.folds import FOLD, FOLDS, split_by_file
from microtome.errors import InputError

Side = Literal["dataset", "negatives"]
"""Which of the two data sets a picture is of: the one in question, or what it is told from."""

BACKGROUND = "background"
TRAIN, HELD_OUT = "train", "val"


@dataclass(frozen=True)
class Labelled:
    """A picture of a data set, and the class that the data set gives it.

    Args:
        side: which data set.
        image: number in its index.
        file: name of the picture's file.
        label: its class; None where it has none.
    """

    side: Side
    image: int
    file: str
    label: str | None


@dataclass(frozen=True)
class Examples:
    """Pictures with class numbers, split; all lists have one entry per picture.

    Args:
        sides: which data set.
        images: number in that data set's index.
        labels: class numbers, into `categories`; of a single category 1, and 0 for the rest.
        splits: `train` or `val`.
        categories: names of the classes.
    """

    sides: Sequence[Side]
    images: Sequence[int]
    labels: Sequence[int]
    splits: Sequence[str]
    categories: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def split(self, name: str) -> list[int]:
        """Places of the examples of a split."""
        return [place for place, split in enumerate(self.splits) if split == name]

    def of(self, places: Sequence[int]) -> Examples:
        """Some of them, in this order."""
        sides, images = [self.sides[place] for place in places], [self.images[place] for place in places]
        labels, splits = [self.labels[place] for place in places], [self.splits[place] for place in places]
        return Examples(sides, images, labels, splits, self.categories)

    @property
    def background(self) -> int | None:
        """The class number that is no category; None where a single category is told from the rest."""
        several = len(self.categories) > 2 and BACKGROUND in self.categories
        return self.categories.index(BACKGROUND) if several else None


def examples(
    pictures: Sequence[Labelled], category: str | None, *, seed: int, folds: int = FOLDS, fold: int = FOLD
) -> Examples:
    """Pictures as examples of classes, split by picture.

    Negatives are background. With a category alone in question everything else is background, too; the rest of its own
    data set is left out where there are negatives.

    Args:
        pictures: of one data set, or of two.
        category: the only one in question, or None for all classes.
        seed: of the split,
        folds: into so many,
        fold: of which this one is held out.

    Raises:
        InputError: no category, nothing to tell it from, or a picture of no class.
    """
    negatives = any(picture.side == "negatives" for picture in pictures)
    kept = [
        picture
        for picture in pictures
        if not negatives or category is None or picture.side == "negatives" or picture.label == category
    ]
    names = [_class(picture, category) for picture in kept]
    categories = _categories(names, category)
    files = [f"{picture.side}/{picture.file}" for picture in kept]
    return Examples(
        [picture.side for picture in kept],
        [picture.image for picture in kept],
        [categories.index(name) for name in names],
        split_by_file(files, names, folds=folds, fold=fold, seed=seed),
        categories,
    )


def _class(picture: Labelled, category: str | None) -> str:
    if picture.side == "negatives":
        return BACKGROUND
    if category is not None:
        return category if picture.label == category else BACKGROUND
    if picture.label is None:
        raise InputError(
            f"finetuning: needs a category and something to tell it from, got {picture.file} without a class; name "
            "`category:`, or a data set whose pictures all have a class"
        )
    return picture.label


def _categories(names: Sequence[str], category: str | None) -> list[str]:
    """Names of the classes: a single category after its background, several before theirs."""
    found = sorted(set(names) - {BACKGROUND})
    if not found or len(set(names)) < 2:
        raise InputError(
            f"finetuning: needs a category and something to tell it from, got {', '.join(found) or 'no category'}"
            f"{'' if category is None else f' for category {category!r}'}; name `negatives:`, or a data set of several"
        )
    if len(found) == 1:
        return [BACKGROUND, *found]
    return [*found, *([BACKGROUND] if BACKGROUND in names else [])]
