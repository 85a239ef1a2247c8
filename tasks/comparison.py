"""Two finished runs beside each other: whether they can be compared, and what differs, from their stages alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InputError
from microtome.quantify import held
from microtome.report.comparison import ComparedFigure, Figure
from storage import Artifact, Files, RunRecord, StageStore
from storage.runs import FigureRun, finished_stages
from storage.tables import ReadRow
from tasks.dissection.result import Dissection
from tasks.headlines import headlines, recorded
from tasks.index.result import Index
from tasks.stability import STAGE as STABILITY
from tasks.tally.result import Tally

SHOWN_PICTURES = 5
Interval = tuple[float, float]
Key = tuple[str, str, str]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """A run under comparison.

    Args:
        files: the workspace.
        run: its record.
        stages: its finished stages, by the names of their jobs.
        say: told of stages that are damaged.
    """

    files: Files
    run: RunRecord
    stages: Mapping[str, Artifact]
    say: Callable[[str], None]

    @classmethod
    def of(cls, files: Files, run: RunRecord, say: Callable[[str], None]) -> Side:
        """A run of a workspace."""
        return cls(files, run, finished_stages(files, run, say), say)

    def read(self, stage: str, name: str) -> Artifact | None:
        """What a stage read under a name that is a stage's own, such as `index`."""
        digest = self.stages[stage].manifest["inputs"].get(name)
        return StageStore(self.files, self.say).load(f"stages/{name}/{digest}") if digest else None

    @property
    def figures(self) -> Sequence[FigureRun]:
        """Its headlines: as they were recorded, or from its stages."""
        return recorded(self.run) or headlines(self.stages)

    @property
    def seed(self) -> object:
        """Of the audit."""
        return self.run.about.get("audit", {}).get("seed")

    @cached_property
    def index(self) -> Index:
        """Of the pictures that were dissected. Raises InputError where it is gone."""
        return Index(self._needed("index"), {})

    @cached_property
    def dissection(self) -> Dissection:
        """Labels of the units."""
        return Dissection(self.stages["dissection"], {})

    @cached_property
    def tally(self) -> Tally:
        """Counts of the same pictures. Raises InputError where they are gone."""
        return Tally(self._needed("tally"), {})

    @cached_property
    def layers(self) -> list[ReadRow]:
        """Rows of the table `layers`, in the order of the network."""
        return self.dissection.rows("layers")

    def _needed(self, name: str) -> Artifact:
        found = self.read("dissection", name)
        if found is None:
            raise InputError(
                f"compare: the stage {name} of run {self.run.run_id} is gone or damaged; audit what it audited again"
            )
        return found


def check_comparable(first: Side, second: Side) -> None:
    """Whether every stage that both runs have was over the same pictures, annotated in the same way.

    Raises:
        InputError: they were not, and why; or they have nothing in common.
    """
    shared = [name for name in first.stages if name in second.stages]
    if not {(f["stage"], f["figure"]) for f in first.figures} & {(f["stage"], f["figure"]) for f in second.figures}:
        raise InputError(
            f"compare: the runs must have a stage in common that measures something, got {_listed(first)} in "
            f"{first.run.run_id} and {_listed(second)} in {second.run.run_id}"
        )
    for name in shared:
        digests = [side.stages[name].manifest["inputs"].get("index") for side in (first, second)]
        if None in digests or digests[0] == digests[1]:
            continue
        one, other = first.read(name, "index"), second.read(name, "index")
        fault = one and other and _apart(Index(one, {}), Index(other, {}), (first.run.run_id, second.run.run_id))
        if fault:
            raise InputError(f"compare: {fault} (stage {name})")


def _listed(side: Side) -> str:
    return ", ".join(sorted({figure["stage"] for figure in side.figures})) or "none"


def _apart(one: Index, other: Index, runs: tuple[str, str]) -> str:
    """Why two indices are not of the same pictures and concepts; empty where they are."""
    seen = [index.table("images", ["sha256"]).column("sha256").to_pylist() for index in (one, other)]
    if seen[0] != seen[1]:
        common = len(set(seen[0]) & set(seen[1]))
        what = "in another order" if sorted(seen[0]) == sorted(seen[1]) else f"{common:,} of them in both"
        return (
            f"both runs must have seen the same pictures, got {len(seen[0]):,} in {runs[0]} and {len(seen[1]):,} in "
            f"{runs[1]}, {what}: counts over other pictures differ for that alone. Give both audit files one data set, "
            "with the same split and limit, and run the audit that differs again"
        )
    names = [list(zip(index.concepts.category, index.concepts.name, strict=True)) for index in (one, other)]
    if names[0] != names[1]:
        return f"{_other_concepts(names, runs)}. Label both data sets with the same concepts, and run one audit again"
    if one.frame == other.frame and not one.table("label_counts").equals(other.table("label_counts")):
        return (
            "both runs must have seen the same annotations, got the same pictures and concepts with other masks in "
            f"{runs[0]} than in {runs[1]}. Run the older audit again, over the data set as it is now"
        )
    return ""


def _other_concepts(names: Sequence[Sequence[tuple[str, str]]], runs: tuple[str, str]) -> str:
    alone = [[name for _, name in here if (_, name) not in set(there)] for here, there in (names, names[::-1])]
    examples = "; ".join(
        f"in {run} alone: {', '.join(some[:3])}" for run, some in zip(runs, alone, strict=True) if some
    )
    return (
        f"both runs must be labelled with the same concepts, got {len(names[0])} in {runs[0]} and {len(names[1])} in "
        f"{runs[1]} ({examples or 'in another order'})"
    )


def compared_figures(
    first: Sequence[FigureRun], second: Sequence[FigureRun], paired: Mapping[Key, Interval]
) -> list[ComparedFigure]:
    """The headlines of stages that both runs have, side by side.

    Rows of one figure are matched by name. What is left over on both sides is matched in order if it is as many: the
    only layer of one network with the only layer of another.

    Args:
        first, second: the runs' headlines.
        paired: interval of the difference, by stage, figure and row (of the first run).
    """
    one, two = _by_figure(first), _by_figure(second)
    found = []
    for (stage, name), here in one.items():
        there = two.get((stage, name), {})
        for row, other in matched_rows(list(here), list(there)) if there else ():
            a = _figure(here[row]) if row is not None else Figure(None)
            b = _figure(there[other]) if other is not None else Figure(None)
            low, high = paired.get((stage, name, row or ""), (None, None))
            known = a.value is not None and b.value is not None
            apart = (
                Figure(b.value - a.value, low, high) if known and a.value is not None and b.value is not None else None
            )
            found.append(ComparedFigure(stage, name, both_names(row, other), a, b, apart or Figure(None)))
    return found


def matched_rows(here: Sequence[str], there: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Names of rows side by side: those of one name, then those left over, in order where they are as many."""
    pairs: list[tuple[str | None, str | None]] = [(name, name) for name in here if name in there]
    left, right = [n for n in here if n not in there], [n for n in there if n not in here]
    if len(left) == len(right):
        return [*pairs, *zip(left, right, strict=True)]
    return [*pairs, *((name, None) for name in left), *((None, name) for name in right)]


def both_names(one: str | None, other: str | None) -> str:
    """One name where it is the same; the one that there is; or both."""
    if one is None or other is None or one == other:
        return one or other or ""
    return f"{one} / {other}"


def _by_figure(figures: Sequence[FigureRun]) -> dict[tuple[str, str], dict[str, FigureRun]]:
    found: dict[tuple[str, str], dict[str, FigureRun]] = defaultdict(dict)
    for figure in figures:
        found[figure["stage"], figure["figure"]][figure["row"]] = figure
    return found


def _figure(figure: FigureRun) -> Figure:
    return Figure(figure["value"], figure["low"], figure["high"])


def stability_intervals(first: Side, second: Side) -> dict[Key, Interval]:
    """Paired intervals of location deviations, which both runs drew over the same resamples: one seed, one number."""
    words = next(h.words for h in STABILITY.headlines if h.metric == "stability_layers.deviation")
    found: dict[Key, Interval] = {}
    shared = [n for n in first.stages if n in second.stages and n.partition(":")[0] == STABILITY.name]
    for name in shared if first.seed == second.seed else ():
        one, two = (_deviations(side.stages[name]) for side in (first, second))
        values = [_recorded(side, name, words) for side in (first, second)]
        for key in (key for key in one if key in two and len(one[key]) == len(two[key])):
            row = ", ".join(key)
            a, b = (recorded.get(row) for recorded in values)
            if a is not None and b is not None:
                found[name, words, row] = held.difference((a, b), (one[key], two[key]), whole=False)
    return found


def _recorded(side: Side, stage: str, words: str) -> dict[str, float | None]:
    return {f["row"]: f["value"] for f in side.figures if f["stage"] == stage and f["figure"] == words}


def _deviations(stability: Artifact) -> dict[tuple[str, str], Floats]:
    """(layer, category) -> (resamples,) mean deviation."""
    if not stability.has("stability_resamples.parquet"):
        return {}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in stability.table("stability_resamples").to_pylist():
        found[row["layer"], row["category"]].append(row["deviation"])
    return {key: np.array(values, np.float64) for key, values in found.items() if None not in values}
