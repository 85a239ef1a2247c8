"""Rows of the tables of `scores`, from what was scored and tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.label_tests import (
    Ends,
    LabelTest,
    MetricAgreement,
    Pair,
    ScoreChanges,
    ScoredLevel,
    agreement,
    outcome,
    rank_correlations,
    tested,
    worse,
)
from microtome.quantify.scores import METRICS, Floats
from storage.tables import Columns, Row
from tasks.index.result import ConceptTable
from tasks.scores import PlannedScores

Named = tuple[str, str]  # level, metric


@dataclass(frozen=True)
class TestedLevel:
    """A level of a layer.

    Args:
        level: its scores.
        labels: metric -> (units,) the concept that it chooses, -1 for none.
        detected: (units,) what the dissection calls its detectors, -1 of the other units.
        altered: scores of pairs with missing and extra labels.
    """

    __test__ = False  # for pytest, no test of its own

    level: ScoredLevel
    labels: Mapping[str, NDArray[np.int64]]
    detected: NDArray[np.int64]
    altered: Mapping[Pair, Floats]

    def ways(self) -> list[tuple[str, str, NDArray[np.int64]]]:
        """Metric, whose concepts of the units, (units,) these."""
        shared = {"iou": self.labels["iou"], "detectors": self.detected}
        return [
            (metric, whose, labels)
            for metric, own in self.labels.items()
            for whose, labels in {**shared, "own": own}.items()
        ]


@dataclass(frozen=True)
class TestedLayer:
    """A layer.

    Args:
        name: dotted.
        options: of the stage.
        concepts: of the data set.
        images: indexed.
        levels: by name.
    """

    __test__ = False  # for pytest, no test of its own

    name: str
    options: PlannedScores
    concepts: ConceptTable
    images: int
    levels: Mapping[str, TestedLevel]

    @property
    def units(self) -> int:
        """In the layer."""
        return len(self.levels["pictures"].labels["iou"])

    def score_columns(self) -> list[Columns]:
        """The table `scores`, a part per level."""
        return [self._scores(name, tested_level.level) for name, tested_level in self.levels.items()]

    def _scores(self, name: str, level: ScoredLevel) -> Columns:
        units, concepts = self.units, len(self.concepts.name)
        rows = units * concepts
        return {
            "layer": [self.name] * rows,
            "level": [name] * rows,
            "unit": np.repeat(np.arange(units), concepts).tolist(),
            "concept_id": np.tile(self.concepts.number, units).tolist(),
            **{
                metric: _nulled(level.scores[metric].ravel()) if metric in level.scores else [None] * rows
                for metric in METRICS
            },
        }

    @cached_property
    def changed(self) -> Mapping[tuple[str, str, str], ScoreChanges]:
        """(level, metric, whose concepts) -> how the scores change."""
        draws = self.options.draws
        return {
            (name, metric, whose): tested(each.level, metric, labels, each.altered, draws=draws)
            for name, each in self.levels.items()
            for metric, whose, labels in each.ways()
        }

    def label_columns(self) -> list[Columns]:
        """The table `score_labels`, a part per level, metric and way."""
        return [
            self._labels((name, metric, whose), each.level.scores[metric], labels)
            for name, each in self.levels.items()
            for metric, whose, labels in each.ways()
        ]

    def _labels(self, of: tuple[str, str, str], scores: Floats, labels: NDArray[np.int64]) -> Columns:
        level, metric, whose = of
        found, units, known = (
            self.changed[of],
            len(labels),
            [label if label >= 0 else None for label in labels.tolist()],
        )
        return {
            "layer": [self.name] * units,
            "level": [level] * units,
            "metric": [metric] * units,
            "labels": [whose] * units,
            "unit": list(range(units)),
            "concept_id": [None if label is None else int(self.concepts.number[label]) for label in known],
            "concept": [None if label is None else self.concepts.name[label] for label in known],
            "category": [None if label is None else self.concepts.category[label] for label in known],
            "score": _nulled(np.where(labels >= 0, scores[np.arange(units), labels], np.nan)),
            "missing_falls": _nulled(found.falls(found.missing)),
            "missing_change": _nulled(found.change(found.missing)),
            "extra_falls": _nulled(found.falls(found.extra)),
            "extra_change": _nulled(found.change(found.extra)),
        }

    @cached_property
    def outcomes(self) -> Mapping[tuple[str, str, str], tuple[LabelTest, LabelTest]]:
        """(level, metric, whose concepts) -> of missing and of extra labels."""
        return {of: (outcome(found.missing), outcome(found.extra)) for of, found in self.changed.items()}

    def test_rows(self) -> list[Row]:
        """Rows of the table `score_tests`."""
        return [
            {
                "layer": self.name,
                "level": level,
                "metric": metric,
                "labels": whose,
                **_told("missing", missing),
                **_told("extra", extra),
                "verdict": worse(missing.verdict, extra.verdict),
            }
            for (level, metric, whose), (missing, extra) in self.outcomes.items()
        ]

    @cached_property
    def agreements(self) -> Mapping[tuple[Named, Named], MetricAgreement]:
        """Of every two metrics, each of a level."""
        named = {(name, metric): each for name, each in self.levels.items() for metric in each.level.metrics}
        ranks = rank_correlations([each.level.scores[metric] for (_, metric), each in named.items()])
        return {
            (one, other): agreement((named[one].labels[one[1]], named[other].labels[other[1]]), ranks[:, first, second])
            for (first, one), (second, other) in combinations(enumerate(named), 2)
        }

    def agreement_rows(self) -> list[Row]:
        """Rows of the table `score_agreement`."""
        return [
            {
                "layer": self.name,
                "level": one[0],
                "metric": one[1],
                "other_level": other[0],
                "other": other[1],
                "units": found.units,
                **_ends("same", found.same),
                **_ends("correlation", found.correlation),
            }
            for (one, other), found in self.agreements.items()
        ]

    def layer_row(self) -> Row:
        """The row of the table `score_layers`."""
        verdicts = {of: worse(missing.verdict, extra.verdict) for of, (missing, extra) in self.outcomes.items()}
        passing = [verdicts["pictures", metric, "iou"] for metric in METRICS]
        detecting = [verdicts["pictures", metric, "detectors"] for metric in METRICS]
        return {
            "layer": self.name,
            "units": self.units,
            "passed": passing.count("passes"),
            "failed": passing.count("fails"),
            "undecided": len(passing) - passing.count("passes") - passing.count("fails"),
            "pixel_iou": verdicts["pixels", "iou", "iou"],
            "detectors": int((self.levels["pixels"].detected >= 0).sum()),
            "detectors_passed": detecting.count("passes"),
            "detectors_pixel_iou": verdicts["pixels", "iou", "detectors"],
            **_ends("same_label", self.agreements[("pictures", "iou"), ("pixels", "iou")].same),
            "images": self.images,
            "concepts": len(self.concepts.name),
            "pooling": self.options.pooling,
            "alpha": self.options.alpha,
            "draws": self.options.draws,
        }


def _told(test: str, found: LabelTest) -> Row:
    return {
        f"{test}_pairs": found.pairs,
        **_ends(f"{test}_share", found.share, ends=test),
        **_ends(f"{test}_single", found.single),
        f"{test}_change": found.change,
        test: found.verdict,
    }


def _ends(name: str, found: Ends, *, ends: str = "") -> Row:
    return {name: found[0], f"{ends or name}_low": found[1], f"{ends or name}_high": found[2]}


def _nulled(values: Floats) -> list[float | None]:
    """Undefined ones are null in a table."""
    return [None if np.isnan(value) else value for value in values.tolist()]
