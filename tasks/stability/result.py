"""How steadily filters sit on landmarks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.quantify.shift import ShiftSummary
from microtome.quantify.stability_summary import RULES, FilterOnLandmark, Judged, LayerSummary, Rule
from tasks.result import StageResult
from tasks.stability import StabilityOptions


def pooled_name(rule: Rule) -> str:
    """What the tables call the categories together."""
    return f"all: {rule}"


class Sighting(NamedTuple):
    """Where a filter is highest in a picture: value, number of the picture, x and y in the frame."""

    score: float
    image: int
    x: float
    y: float


@dataclass(frozen=True)
class Stability(StageResult):
    """Filters and layers, judged."""

    @property
    def options(self) -> StabilityOptions:
        """What it was made with."""
        return StabilityOptions.model_validate(self.parameters)

    @cached_property
    def judged(self) -> list[Judged]:
        """Every layer in each category, and pooled where there are several."""
        rules = {pooled_name(rule): rule for rule in RULES}
        found = []
        for row in self.rows("stability_layers"):
            layer, category = row.pop("layer"), row.pop("category")
            rule = rules.get(category)
            found.append(Judged(layer, None if rule else category, rule, LayerSummary(**row)))
        return found

    def shift(self, layer: str) -> dict[str, ShiftSummary]:
        """The shift test of a layer by category, the mean over several last; empty where there was none."""
        rows = self.rows("stability_shift", layer=layer) if self.options.shift else []
        wanted = [field.name for field in fields(ShiftSummary)]
        return {row["category"]: ShiftSummary(**{name: row[name] for name in wanted}) for row in rows}

    def filters(self, layer: str) -> list[FilterOnLandmark]:
        """A layer's filters on every landmark."""
        wanted = [field.name for field in fields(FilterOnLandmark)]
        return [FilterOnLandmark(**{name: row[name] for name in wanted}) for row in self.rows("stability", layer=layer)]

    def sightings(self, layer: str, filters: Collection[int]) -> Mapping[int, Sequence[Sighting]]:
        """Filter -> where it is highest, in the pictures' order."""
        table = self.table("inferences")
        mine = pc.and_(
            pc.equal(table.column("layer"), layer),
            pc.is_in(table.column("filter"), value_set=pa.array(sorted(filters), pa.int32())),
        )
        found: dict[int, list[Sighting]] = defaultdict(list)
        for row in table.filter(mine).to_pylist():
            found[row["filter"]].append(Sighting(row["score"], row["image"], row["x"], row["y"]))
        return found

    def resamples(self, of: Judged) -> NDArray[np.float64]:
        """(resamples,) mean deviation of a layer in each; empty where there is none."""
        category = of.category if of.rule is None else pooled_name(of.rule)
        rows = self.rows("stability_resamples", layer=of.layer, category=category)
        return np.array([row["deviation"] for row in rows], np.float64)
