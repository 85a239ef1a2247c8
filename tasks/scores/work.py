"""Stage `scores`: metrics of units and concepts over pictures and over pixels, tested by labels that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from microtome.quantify.dissection import detected
from microtome.quantify.label_tests import Pair, PictureLevel, PixelLevel, ScoredLevel
from microtome.quantify.scores import Floats, chosen, lit_pictures, top_and_random
from storage import Draft
from storage.tables import Columns, Row, stacked
from tasks.scores import PlannedScores
from tasks.scores.rows import TestedLayer, TestedLevel
from tasks.session import Session
from tasks.tally.result import Tally
from tasks.thresholds.result import SeenPictures

FEW = 64  # pairs that are tested before anybody is told
LEVELS = ("pictures", "pixels")


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """Pictures, and what the units light of them."""

    tally: Tally


def run(options: PlannedScores, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Score every layer."""
    layers = inputs.activations.layers
    session.begin(sum(layer.units for layer in layers) * len(LEVELS), "units")
    scores: list[Columns] = []
    labels: list[Columns] = []
    rows: dict[str, list[Row]] = {"score_tests": [], "score_agreement": [], "score_layers": []}
    for number in range(len(layers)):
        with threadpool_limits(1):  # sums split over threads round differently
            found = _Scoring(options, inputs, session, number)()
        scores += found.score_columns()
        labels += found.label_columns()
        rows["score_tests"] += found.test_rows()
        rows["score_agreement"] += found.agreement_rows()
        rows["score_layers"].append(found.layer_row())
    draft.table("scores", stacked(scores))
    draft.table("score_labels", stacked(labels))
    for name, some in rows.items():
        draft.rows(name, some)


@dataclass(frozen=True)
class _Scoring:
    """The scores of one layer."""

    options: PlannedScores
    inputs: Inputs
    session: Session
    number: int

    def __call__(self) -> TestedLayer:
        levels: dict[str, ScoredLevel] = {"pictures": self.pictures(), "pixels": self.pixels()}
        detects = detected(levels["pixels"].scores["iou"], self.options.min_iou)
        return TestedLayer(
            self.inputs.activations.layers[self.number].name,
            self.options,
            self.inputs.index.concepts,
            self.inputs.index.images,
            {name: self.tested(place, levels[name], detects) for place, name in enumerate(LEVELS)},
        )

    @property
    def units(self) -> int:
        """In the layer."""
        return self.inputs.activations.layers[self.number].units

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(images, categories) which pictures count for which category."""
        seen = self.inputs.index.labels.annotated
        return np.ones_like(seen) if self.options.denominator == "all-images" else seen

    def pictures(self) -> PictureLevel:
        """Of pooled maps."""
        index, values = self.inputs.index, self.pooled()
        lit, category = lit_pictures(values, self.options.alpha), index.concepts.category_index
        pixels, _ = index.labels.block(0, index.images)
        sampled = [
            top_and_random(lit[inside], np.random.default_rng([self.session.seed, 4, self.number, place]))
            for place, inside in enumerate(self.inside.T)
        ]
        return PictureLevel(values, lit, pixels > 0, category, self.inside, sampled)

    def pooled(self) -> Floats:
        """(images, units) each map's mean or highest value."""
        pool = np.mean if self.options.pooling == "mean" else np.max
        blocks = self.inputs.activations.blocks(self.number)
        return np.concatenate([pool(block.tensors.astype(np.float64), axis=(2, 3)) for block in blocks])

    def pixels(self) -> PixelLevel:
        """Of the counts of what is lit."""
        index, layer = self.inputs.index, self.inputs.activations.layers[self.number].name
        columns = ("intersection", "activation", "label_pixels")
        both, lit, labelled = (self.inputs.tally.column(layer, name, self.units) for name in columns)
        total = self.inside.sum(0)[index.concepts.category_index] * index.pixels
        return PixelLevel(both, lit, labelled[0], total)

    def tested(self, place: int, level: ScoredLevel, detected: NDArray[np.int64]) -> TestedLevel:
        """A level, with altered labels of all concepts that any metric or the dissection calls a unit by."""
        labels = {metric: chosen(level.scores[metric]) for metric in level.metrics}
        wanted = {pair for some in (*labels.values(), detected) for pair in enumerate(some.tolist())}
        pairs = sorted(pair for pair in wanted if pair[1] >= 0 and level.testable[pair[1]])
        return TestedLevel(level, labels, detected, dict(self.altered(place, level, pairs)))

    def altered(self, place: int, level: ScoredLevel, pairs: list[Pair]) -> Iterator[tuple[Pair, Floats]]:
        """Scores of pairs with missing and extra labels; each pair has draws of its own."""
        done = 0
        with ThreadPoolExecutor(self.session.threads, "scores") as pool:
            for first in range(0, len(pairs), FEW):
                some = pairs[first : first + FEW]
                yield from zip(some, pool.map(partial(self.altered_pair, place, level), some), strict=True)
                share = self.units * (first + len(some)) // len(pairs)
                self.session.advance(share - done)
                done = share
                self.session.check()
        self.session.advance(self.units - done)

    def altered_pair(self, place: int, level: ScoredLevel, pair: Pair) -> Floats:
        """(metrics, 2, draws) scores of one pair."""
        rng = np.random.default_rng([self.session.seed, 5, self.number, place, *pair])
        return level.altered(pair, self.options.draws, rng)
