"""What runs call their units, one beside another, where others published one of them: its pictures are not known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from microtome.errors import InputError
from microtome.quantify.agreement import agreements, plain
from microtome.quantify.wordnet import WordNet
from microtome.report.comparison import ComparedLayer, ConceptUnits, LabelPair
from storage import Artifact
from storage.runs import FigureRun
from storage.tables import ReadRow
from tasks.comparison import Side, both_names
from tasks.dissection import STAGE as DISSECTION
from tasks.imported import STAGE as IMPORTED

LABELLING = (IMPORTED.name, DISSECTION.name)
SHOWN_LABELS = 25
Words = dict[str, tuple[str, str]]
"""A concept's plain name -> its name and category as a run has them."""


def is_imported(side: Side) -> bool:
    """Whether others published what a run holds."""
    return IMPORTED.name in side.stages


@dataclass(frozen=True)
class LabelledRun:
    """A run that labels units.

    Args:
        side: the run.
    """

    side: Side

    @cached_property
    def artifact(self) -> Artifact:
        """The stage that labelled them. Raises InputError: there is none."""
        found = next((self.side.stages[name] for name in LABELLING if name in self.side.stages), None)
        if found is None:
            raise InputError(
                f"compare: labels that were imported are compared with labels of units, got none in run "
                f"{self.side.run.run_id}; audit it with the stage dissection"
            )
        return found

    @cached_property
    def figures(self) -> list[FigureRun]:
        """Headlines of the labels, by layers alone: they mean the same whoever counted."""
        return [FigureRun(**{**figure, "stage": ""}) for figure in self.side.figures if figure["stage"] in LABELLING]

    @cached_property
    def units(self) -> Mapping[str, list[ReadRow]]:
        """Layer -> rows of its units, each with `unit`, `label` and `score`; of a dissection the whole row."""
        imported = is_imported(self.side)
        rows = self.artifact.table("labels" if imported else "units").to_pylist()
        found: dict[str, list[ReadRow]] = defaultdict(list)
        for row in rows:
            found[row["layer"]].append(row if imported else {**row, "label": row["concept"], "score": row["iou"]})
        return found

    @cached_property
    def whole(self) -> Mapping[str, int]:
        """Layer -> its number of units, where every unit has a row."""
        if not self.artifact.has("layers.parquet"):
            return {}
        table = self.artifact.table("layers", ["layer", "units"])
        return {row["layer"]: row["units"] for row in table.to_pylist()}

    def labels(self, layer: str) -> dict[int, ReadRow]:
        """Unit -> its row, of the units that have a label."""
        return {row["unit"]: row for row in self.units[layer] if row["label"] is not None}

    @property
    def counts_detectors(self) -> bool:
        """Whether it says which units are detectors."""
        return self.artifact.has("units.parquet")

    def detecting(self, layer: str) -> dict[str, list[int]]:
        """Plain name of a concept -> units that detect it."""
        found: dict[str, list[int]] = defaultdict(list)
        for row in self._rows("units", layer):
            if row["detector"] and row["concept"] is not None:
                found[plain(row["concept"])].append(row["unit"])
        return found

    def known(self, layer: str) -> Words:
        """The concepts that a unit of the layer could be called: of a file those that it names somewhere."""
        if not is_imported(self.side):
            concepts = self.side.index.concepts
            return _words(zip(concepts.name, concepts.category, strict=True))
        return _words((row["concept"], row["category"]) for row in self._rows("iou", layer))

    def _rows(self, table: str, layer: str) -> Iterator[ReadRow]:
        yield from (row for row in self.artifact.table(table).to_pylist() if row["layer"] == layer)


def _words(pairs: Iterable[tuple[str, str]]) -> Words:
    return {plain(concept): (concept, category) for concept, category in pairs}


@dataclass(frozen=True)
class LabelledRuns:
    """Two of them, at least one of which others published.

    Args:
        first, second: the runs.
        wordnet: by which labels are near; None where there is none.
    """

    first: LabelledRun
    second: LabelledRun
    wordnet: WordNet | None

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Layers of one name; or the only one of each."""
        here, there = (list(run.units) for run in (self.first, self.second))
        if len(here) == len(there) == 1:
            return [(here[0], there[0])]
        return [(name, name) for name in here if name in there]

    def check(self) -> None:
        """Raise InputError where they have no layer in common."""
        if not self.pairs:
            named = [", ".join(run.units) or "none" for run in (self.first, self.second)]
            raise InputError(
                f"compare: both runs must label units of a layer of one name, got {named[0]} in "
                f"{self.first.side.run.run_id} and {named[1]} in {self.second.side.run.run_id}; a tally's layer is "
                "what `--layer` says when it is imported"
            )

    @property
    def figures(self) -> tuple[list[FigureRun], list[FigureRun]]:
        """Headlines of the layers that are compared."""
        of = [{pair[side] for pair in self.pairs} for side in (0, 1)]
        return (
            [figure for figure in self.first.figures if figure["row"] in of[0]],
            [figure for figure in self.second.figures if figure["row"] in of[1]],
        )

    def layers(self) -> list[ComparedLayer]:
        """Every layer that is compared."""
        return [self._layer(one, other) for one, other in self.pairs]

    def _layer(self, one: str, other: str) -> ComparedLayer:
        name, concepts, left_out = both_names(one, other), None, ""
        if self.first.counts_detectors and self.second.counts_detectors:
            concepts, left_out = self._concepts(one, other)
        why = self._apart(one, other)
        if why:
            return ComparedLayer(name, concepts, None, why, left_out=left_out)
        here, there = self.first.labels(one), self.second.labels(other)
        units = [unit for unit in here if unit in there]
        labels = [[str(run[unit]["label"]) for unit in units] for run in (here, there)]
        pairs = [LabelPair(unit, a, b) for unit, a, b in zip(units, *labels, strict=True)]
        pairs.sort(key=lambda pair: (-(here[pair.unit]["score"] or 0), pair.unit))
        found = agreements(labels[0], labels[1], self.wordnet)
        return ComparedLayer(name, concepts, None, "", found, pairs[:SHOWN_LABELS], left_out)

    def _apart(self, one: str, other: str) -> str:
        """Why numbers of units cannot mean the same units; empty where they may."""
        sizes = [run.whole.get(layer) for run, layer in ((self.first, one), (self.second, other))]
        last = [
            max(row["unit"] for row in run.units[layer]) for run, layer in ((self.first, one), (self.second, other))
        ]
        if None not in sizes and sizes[0] != sizes[1]:
            return (
                f"Units cannot be matched by number: there are {sizes[0]} of them in one run, {sizes[1]} in the other."
            )
        for size, greatest in zip(sizes, reversed(last), strict=True):
            if size is not None and greatest >= size:
                return f"Units cannot be matched by number: one run has {size} of them, the other a unit {greatest}."
        return ""

    def _concepts(self, one: str, other: str) -> tuple[list[ConceptUnits], str]:
        """Concepts that both know, with the units that detect them; and those that are left out, in a sentence."""
        runs = (self.first, one), (self.second, other)
        known = [run.known(layer) for run, layer in runs]
        found = [run.detecting(layer) for run, layer in runs]
        detected = list(dict.fromkeys([*found[0], *found[1]]))
        shared = [name for name in detected if name in known[0] and name in known[1]]
        rows = [
            ConceptUnits(
                both_names(known[0][name][0], known[1][name][0]),
                both_names(known[0][name][1], known[1][name][1]),
                found[0].get(name, []),
                found[1].get(name, []),
                None,
            )
            for name in shared
        ]
        return rows, _left_out(sorted(set(detected) - set(shared)))

    def cautions(self) -> Iterator[str]:
        """What an honest reader has to know."""
        named = [run.side.run.name for run in (self.first, self.second) if is_imported(run.side)]
        names = "Its file names" if len(named) == 1 else "Their files name"
        yield f"Imported: {' and '.join(named)}. {names} neither the network nor the pictures."
        if all(self.figures):
            yield (
                "Counts over other pictures, or measured otherwise, differ for that alone (the denominator of "
                "NetDissect-Lite makes every IoU higher): differences of figures have no interval here, and do not say "
                "which method or which network is better. An imported run's report has the definitions."
            )
        for run, other in ((self.first, self.second), (self.second, self.first)):
            alone = [layer for layer in run.units if layer not in {name for pair in self.pairs for name in pair}]
            if alone:
                yield f"Left out, since {other.side.run.name} has no layer of the name: {', '.join(alone)}."
        if self.wordnet is None:
            yield "Left out, since no WordNet lies on this machine: how near the labels are in it."


def _left_out(names: Sequence[str]) -> str:
    if not names:
        return ""
    some = ", ".join(names[:SHOWN_LABELS]) + (
        f" and {len(names) - SHOWN_LABELS} more" if len(names) > SHOWN_LABELS else ""
    )
    return f"Left out, since only one of the runs knows the word, as far as its file tells: {some}."
