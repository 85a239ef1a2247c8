"""Two dissections of the same pictures beside each other: their counts over the same draws, their units by number."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.quantify import drift as science
from microtome.quantify import held
from microtome.quantify.resampling import ImageCounts, bootstrap_weights, halves, redrawn_halves
from microtome.quantify.significance import LEVEL
from microtome.report.comparison import BestUnit, ComparedLayer, ConceptUnits, Figure, MovedConcept, most_moved
from microtome.report.drift import (
    SHOWN_UNITS,
    DriftedLayer,
    DriftLayerRow,
    DriftUnitRow,
    UnitPicture,
    UnitPictures,
    leading,
)
from storage.tables import Columns, ReadRow
from tasks.comparison import Interval, Key, Side, both_names, matched_rows
from tasks.dissection import STAGE as DISSECTION
from tasks.drift.rows import MatchedLayer

SHOWN_PICTURES = 5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DissectedPair:
    """Both runs' dissections, over the same pictures.

    Args:
        first, second: the runs.
        thumbnail: the picture of an image, by its number; empty where there is none.
    """

    first: Side
    second: Side
    thumbnail: Callable[[int], str]

    @cached_property
    def pairs(self) -> dict[str, _LayerPair]:
        """Every layer that both have, by its name; by two names where they differ."""
        names = [[str(row["layer"]) for row in side.layers] for side in (self.first, self.second)]
        matched = cast(list[tuple[str, str]], [pair for pair in matched_rows(*names) if None not in pair])
        return {
            both_names(one, other): _LayerPair(self, _LayerOf(self.first, one), _LayerOf(self.second, other))
            for one, other in matched
        }

    def layers(self) -> list[ComparedLayer]:
        """What became of each."""
        return [pair.compared() for pair in self.pairs.values()]

    def intervals(self) -> dict[Key, Interval]:
        """Paired intervals of the dissection's headlines."""
        return {
            ("dissection", words, pair.one.name): ends
            for pair in self.pairs.values()
            for words, ends in pair.intervals().items()
        }

    def best(self, layers: Sequence[ComparedLayer]) -> list[BestUnit]:
        """A unit of each of the concepts that were gained most, or lost; none where no report has its pictures."""
        found = (self.pairs[moved.layer].best(moved) for moved in most_moved(layers))
        return [best for best in found if any(seen.thumb for seen in best.pictures)]

    @cached_property
    def resamples(self) -> int:
        """How often the pictures are drawn: as often as both dissections did."""
        return min(side.dissection.options.bootstrap for side in (self.first, self.second))

    @cached_property
    def weights(self) -> NDArray[np.int32]:
        """(resamples, images) how often each picture is drawn."""
        rng = np.random.default_rng([_number(self.first.seed), 1])
        return bootstrap_weights(self.first.index.images, self.resamples, rng)

    @cached_property
    def split(self) -> NDArray[np.int32] | None:
        """(2, images) the halves that both dissections confirmed labels by; None where those of either are others."""
        asked = all(side.dissection.options.permutations for side in (self.first, self.second))
        if not asked or self.first.seed != self.second.seed:
            return None
        return halves(self.first.index.images, np.random.default_rng([_number(self.first.seed), 2]))

    @cached_property
    def redrawn(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(resamples, images) weights of both halves together, and of the second, each half drawn from itself."""
        split = self.split if self.split is not None else np.zeros((2, 0), np.int32)
        drawn = redrawn_halves(split, self.resamples, np.random.default_rng([_number(self.first.seed), 3]))
        both = drawn.reshape(self.resamples, 2, -1)
        return both.sum(1, dtype=np.int32), both[:, 1]


def _number(seed: object) -> int:
    return seed if isinstance(seed, int) else 0


@dataclass(frozen=True)
class _LayerOf:
    """A layer of one of the runs."""

    side: Side
    name: str

    @cached_property
    def number(self) -> int:
        """Its place among the layers."""
        return [row["layer"] for row in self.side.layers].index(self.name)

    @cached_property
    def row(self) -> ReadRow:
        """Of the table `layers`."""
        return self.side.layers[self.number]

    @property
    def units(self) -> int:
        """In the layer."""
        return int(self.row["units"])

    @cached_property
    def table(self) -> pa.Table:
        """Its rows of the table `units`, by number."""
        found = self.side.dissection.table("units")
        return found.filter(pc.equal(found.column("layer"), self.name)).sort_by("unit")

    def column(self, name: str) -> list[object]:
        """A column of it."""
        values: list[object] = self.table.column(name).to_pylist()
        return values

    @cached_property
    def scores(self) -> Floats:
        """(units, concepts) IoU."""
        return self.side.tally.column(self.name, "iou", self.units)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(units,) labels, NONE for none."""
        return science.labels(self.scores)

    @cached_property
    def believed(self) -> NDArray[np.bool_]:
        """(units,) whether chance does not reach it."""
        return np.array([q is not None and float(str(q)) <= LEVEL for q in self.column("q_value")])

    @property
    def deviation(self) -> Floats:
        """(units,) standard deviation of each unit's values."""
        artifact = self.side.read("dissection", "thresholds")
        if artifact is None:
            return np.full(self.units, np.nan)
        rows = artifact.table("thresholds", ["layer", "unit", "std"])
        mine = rows.filter(pc.equal(rows.column("layer"), self.name))
        found = np.full(self.units, np.nan)
        found[mine.column("unit").to_numpy()] = mine.column("std").to_numpy()
        return found

    @property
    def everywhere(self) -> bool:
        """Whether lit pixels count in all pictures."""
        return self.side.dissection.options.denominator == "all-images"

    def blocks(self) -> Iterator[ImageCounts]:
        """Counts, a run of images at a time."""
        return self.side.tally.image_counts(self.side.index, self.number, self.units)

    def drawn(self, wanted: Sequence[held.Wanted]) -> list[Floats]:
        """(resamples, units) IoUs."""
        category = self.side.index.concepts.category_index
        return held.held_scores(self.blocks(), wanted, category, all_images=self.everywhere)

    def half_labels(self, split: NDArray[np.int32]) -> NDArray[np.int64]:
        """(units,) labels by the first half of the pictures."""
        category = self.side.index.concepts.category_index
        return held.half_labels(self.blocks(), split, category, all_images=self.everywhere)

    def sheet(self, unit: int) -> str:
        """What a unit does not light in its pictures, as data for the page; empty where no report has it."""
        report, folder = self.side.stages.get("report"), f"assets/masks/{self.number:03d}"
        name = f"{folder}/{unit}.png"
        if report is None or name not in report.names(folder):
            return ""
        return f"data:image/png;base64,{base64.b64encode(report.read(name)).decode()}"

    def top_images(self, units: Sequence[int]) -> dict[int, list[tuple[int, float]]]:
        """unit -> (image, peak), the highest first."""
        found: dict[int, list[tuple[int, float]]] = defaultdict(list)
        if self.top is None:
            return found
        mine = pc.is_in(self.top.column("unit"), value_set=pa.array(units, pa.int32()))
        for row in self.top.filter(mine).to_pylist():
            found[row["unit"]].append((row["image"], row["peak"]))
        return found

    @cached_property
    def top(self) -> pa.Table | None:
        """The first pictures of each unit's top images; None where they are gone."""
        artifact = self.side.read("dissection", "thresholds")
        if artifact is None:
            return None
        table = artifact.table("top_images")
        return table.filter(
            pc.and_(pc.equal(table.column("layer"), self.name), pc.less(table.column("rank"), SHOWN_PICTURES))
        )


@dataclass(frozen=True)
class _LayerPair:
    """A layer of both runs; of one name, or the ones that stand at the same place."""

    pair: DissectedPair
    one: _LayerOf
    other: _LayerOf

    @property
    def numbered(self) -> bool:
        """Whether its units can be matched by number."""
        return self.one.name == self.other.name and self.one.units == self.other.units

    @cached_property
    def min_iou(self) -> tuple[float, float]:
        """Of a detector, in each run."""
        return self.one.side.dissection.options.min_iou, self.other.side.dissection.options.min_iou

    @cached_property
    def scores(self) -> tuple[list[Floats], list[Floats]]:
        """(resamples, units) IoUs of own labels, and what else is wanted of either layer."""
        weights = self.pair.weights
        first = [held.Wanted(self.one.labels, weights), *self._halved(self.one)]
        second = [held.Wanted(self.other.labels, weights), *self._halved(self.other)]
        kept = [held.Wanted(self.one.labels, weights)] if self.numbered else []
        return self.one.drawn(first), self.other.drawn([*second, *kept])

    def _halved(self, layer: _LayerOf) -> list[held.Wanted]:
        """What tells confirmed detectors: labels on both redrawn halves, and those of the first half on the second."""
        if self.pair.split is None:
            return []
        whole, second = self.pair.redrawn
        only = layer.believed  # no other unit can be confirmed
        halved = held.Wanted(layer.half_labels(self.pair.split), second, only)
        return [held.Wanted(layer.labels, whole, only), halved]

    def intervals(self) -> dict[str, Interval]:
        """Paired intervals of the layer's headlines, second minus first, by what these are called."""
        if not self.pair.resamples:
            return {}
        words = {headline.metric: headline.words for headline in DISSECTION.headlines}
        one, two = (self._counts(side) for side in (0, 1))
        found = {}
        for column, a, b in (
            ("confirmed", one.confirmed, two.confirmed),
            ("detectors", one.detectors, two.detectors),
            ("unique_per_unit", one.unique, two.unique),
            ("mean_iou", one.mean, two.mean),
        ):
            values = self.one.row[column], self.other.row[column]
            if a is not None and b is not None and None not in values:
                found[words[f"layers.{column}"]] = held.difference(values, (a, b), whole=column != "mean_iou")
        return found

    def _counts(self, side: int) -> held.Drawn:
        layer, scores, limit = (self.one, self.other)[side], self.scores[side], self.min_iou[side]
        confirmed = None
        if self.pair.split is not None:
            confirmed = held.drawn_confirmed(scores[1], scores[2], limit)
        return held.drawn_counts(scores[0], layer.labels, limit, confirmed)

    def compared(self) -> ComparedLayer:
        """For the page."""
        name = both_names(self.one.name, self.other.name)
        if self.numbered:
            return ComparedLayer(name, self._concepts(), self._matched())
        why = (
            f"Units cannot be matched by number: {self.one.name} has {self.one.units} of them, {self.other.name} has "
            f"{self.other.units}."
            if self.one.name == self.other.name
            else f"Units of {self.one.name} and {self.other.name} are not matched: numbers of different layers share "
            "no meaning."
        )
        return ComparedLayer(name, self._concepts(), None, why)

    def _concepts(self) -> list[ConceptUnits]:
        """Every concept that a unit detects in either run."""
        found = [_detecting(layer) for layer in (self.one, self.other)]
        sure = [_detecting(layer, "confirmed") for layer in (self.one, self.other)]
        asked = all(layer.row["confirmed"] is not None for layer in (self.one, self.other))
        return [
            ConceptUnits(
                concept,
                category,
                found[0].get((concept, category), []),
                found[1].get((concept, category), []),
                (len(sure[0].get((concept, category), [])), len(sure[1].get((concept, category), [])))
                if asked
                else None,
            )
            for concept, category in dict.fromkeys([*found[0], *found[1]])
        ]

    def best(self, moved: MovedConcept) -> BestUnit:
        """The best unit of a concept in the run that has more of them; if it can be, one that the other has not."""
        concept, gained = moved.concept, moved.change > 0
        layer, mine, others = (
            (self.other, concept.second, concept.first) if gained else (self.one, concept.first, concept.second)
        )
        some = sorted(set(mine) - set(others)) or mine
        columns = [layer.column(name) for name in ("confirmed", "iou", "iou_low", "iou_high")]
        confirmed, iou, low, high = (dict(enumerate(column)) for column in columns)
        unit = max(some, key=lambda unit: (bool(confirmed[unit]), iou[unit]))
        pictures = self._seen(layer.top_images([unit])[unit])
        value = Figure(*(cast("float | None", column[unit]) for column in (iou, low, high)))
        return BestUnit(moved, unit, value, pictures, layer.sheet(unit))

    def _matched(self) -> DriftedLayer:
        found, pair = science.matched(self.one.scores, self.other.scores), self.pair
        drawn = None
        if pair.resamples:
            first, second = self.scores
            drawn = held.held_redrawn((first[0], second[0], second[-1]))
        layer = MatchedLayer(
            self.one.name,
            found,
            drawn,
            tuple(np.array(side.column("threshold"), np.float64) for side in (self.one, self.other)),  # type: ignore[arg-type]
            (self.one.deviation, self.other.deviation),
            self.one.side.index.concepts.name,
            self.one.side.index.images,
            self.min_iou[0],
            pair.resamples,
        )
        steady = [float(str(share)) for share in self.one.column("label_stability") if share is not None]
        row = dict(layer.layer_row()) | {"redrawn_share": 1 - sum(steady) / len(steady) if steady else None}
        units = _rows(layer.unit_rows())
        return DriftedLayer(cast(DriftLayerRow, row), units, self._pictures(units))

    def _pictures(self, units: Sequence[DriftUnitRow]) -> dict[int, UnitPictures]:
        wanted = [unit["unit"] for unit in leading(units, SHOWN_UNITS)]
        before, after = self.one.top_images(wanted), self.other.top_images(wanted)
        return {unit: UnitPictures(self._seen(before[unit]), self._seen(after[unit])) for unit in wanted}

    def _seen(self, top: Sequence[tuple[int, float]]) -> list[UnitPicture]:
        files = self.one.side.index.files
        return [UnitPicture(self.pair.thumbnail(image), files[image], peak) for image, peak in top]


def _detecting(layer: _LayerOf, flag: str = "detector") -> dict[tuple[str, str], list[int]]:
    """(concept, category) -> units that detect it."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    columns = (layer.column(name) for name in ("unit", flag, "concept", "category"))
    for unit, detects, concept, category in zip(*columns, strict=True):
        if detects and concept is not None:
            found[str(concept), str(category)].append(cast(int, unit))
    return found


def _rows(columns: Columns) -> list[DriftUnitRow]:
    """Rows of columns, with values of Python's own."""
    lists = {
        name: values.tolist() if isinstance(values, np.ndarray) else list(values) for name, values in columns.items()
    }
    rows = (dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True))
    return [cast(DriftUnitRow, row) for row in rows]
