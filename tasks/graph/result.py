"""A learned explanatory graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from microtome.disentangle.graph_layers import LearnedLayer
from storage.tables import ReadRow
from tasks.graph import GraphOptions
from tasks.graph.files import ABOUT, read_learned
from tasks.result import StageResult


@dataclass(frozen=True)
class Graph(StageResult):
    """The part patterns of some layers."""

    @property
    def options(self) -> GraphOptions:
        """What it was made with."""
        return GraphOptions.model_validate(self.parameters)

    @property
    def category(self) -> str:
        """Whose pictures it is about; `all` where there are no categories."""
        return str(self.artifact.json(ABOUT)["category"])

    @cached_property
    def learned(self) -> list[LearnedLayer]:
        """Its layers, the top one first: what `look_up` takes."""
        return read_learned(self.artifact)

    @cached_property
    def pictures(self) -> list[ReadRow]:
        """Its pictures: image, file, split and category of each."""
        return self.rows("graph_images")

    @property
    def images(self) -> set[int]:
        """Numbers in the index of its pictures."""
        return {row["image"] for row in self.pictures}
