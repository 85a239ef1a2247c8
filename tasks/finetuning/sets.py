"""The pictures that a network is trained on, or that a tree explains: a data set, and what it is told from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from microtome.datasets.source import Source
from microtome.disentangle.examples import Labelled, Side
from tasks.index.result import Index


@dataclass(frozen=True, kw_only=True)
class Sets:
    """A data set, and what it is told from: to be inherited by the `Inputs` of stages that read both."""

    index: Index
    negatives: Index | None = None

    @property
    def indices(self) -> Mapping[Side, Index]:
        """Those that there are."""
        found: dict[Side, Index] = {"dataset": self.index}
        if self.negatives is not None:
            found["negatives"] = self.negatives
        return found

    @property
    def sources(self) -> Mapping[Side, Source]:
        """Their pictures."""
        return {side: index.source for side, index in self.indices.items()}

    def labelled(self) -> list[Labelled]:
        """Every picture of both, with its class."""
        return [
            Labelled(side, row["image"], row["file"], row["label"])
            for side, index in self.indices.items()
            for row in index.rows("images")
        ]
