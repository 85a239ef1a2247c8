"""Stage `formulas`: the best logical formula of every unit, from what it lights and what is annotated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.quantify.formulas.best import BestFormulas, FormulaSearch, SearchLimits
from microtome.quantify.formulas.checks import Halves, iou_under
from microtome.quantify.formulas.grammar import Form
from microtome.quantify.formulas.words import ConceptCells, UnitWords, lit_by_unit, memo
from microtome.quantify.resampling import bootstrap_weights, halves, permutation_plan, redrawn_halves
from storage import Draft
from storage.tables import Gathered, Row
from tasks.formulas import PlannedFormulas
from tasks.formulas.rows import Recounted, SearchedLayer
from tasks.null.annotations import Annotations
from tasks.null.work import BLOCK
from tasks.session import Session
from tasks.tally.result import Tally
from tasks.thresholds.result import SeenPictures

SHARD = 10  # permutations that lie in one file
FEW = 16  # units that are searched before anybody is told


@dataclass(frozen=True)
class Inputs(SeenPictures):
    """Pictures, and what the units light of them."""

    tally: Tally


def run(options: PlannedFormulas, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Search formulas for every layer."""
    layers = inputs.activations.layers
    session.begin(sum(2 * layer.units for layer in layers) + options.permutations * len(layers), "searches")
    with Annotations(inputs.index) as annotations:
        category, masks = inputs.index.concepts.category_index, inputs.index.frame.masks
        cells = ConceptCells.of(annotations.all(), category, masks)
    units: Gathered = {}
    curve: list[Row] = []
    rows: list[Row] = []
    for number in range(len(layers)):
        found = _Searching(options, inputs, session, cells, number)(draft)
        for name, values in found.unit_rows().items():
            units.setdefault(name, []).extend(values)
        curve += found.curve_rows()
        rows.append(found.layer_row())
    draft.table("formulas", units)
    draft.rows("formula_curve", curve)
    draft.rows("formula_layers", rows)


@dataclass(frozen=True)
class _Searching:
    """The search in one layer."""

    options: PlannedFormulas
    inputs: Inputs
    session: Session
    cells: ConceptCells
    number: int

    def __call__(self, draft: Draft) -> SearchedLayer:
        whole = FormulaSearch(self.cells, self.annotated, least=self.options.pictures)
        first = self.annotated & self.split[0].astype(bool)[:, None]
        half = FormulaSearch(self.cells, first, least=(self.options.pictures + 1) // 2)
        found, chosen = self.searched(whole), self.searched(half)
        self.exchanged([each.iou[-1] for each in found], draft)
        return SearchedLayer(
            name=self.layer,
            options=self.options,
            concepts=self.inputs.index.concepts,
            images=self.inputs.index.images,
            found=found,
            recounted=[self.recounted(whole, *pair) for pair in zip(self.lit, found, strict=True)],
            chosen=chosen,
            halves=self.judged(whole, chosen),
            reached=self.reached(draft),
        )

    @property
    def layer(self) -> str:
        """Its name."""
        return self.inputs.activations.layers[self.number].name

    @cached_property
    def lit(self) -> list[UnitWords]:
        """What each unit lights."""
        index, units = self.inputs.index, self.inputs.activations.layers[self.number].units
        return lit_by_unit(self.inputs.tally.lit(index, self.number), units, self.cells.tiles)

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """(images, categories) whose pictures count for which category."""
        seen = self.inputs.index.labels.annotated
        return np.ones_like(seen) if self.options.denominator == "all-images" else seen

    @cached_property
    def split(self) -> NDArray[np.int32]:
        """(2, images) the halves of the dissection."""
        return halves(self.inputs.index.images, np.random.default_rng([self.session.seed, 2]))

    @property
    def limits(self) -> SearchLimits:
        """How far to search."""
        return SearchLimits(self.options.length, self.options.beam, self.options.effort)

    def searched(self, search: FormulaSearch) -> list[BestFormulas]:
        """The best formulas of every unit; each thread has its own memory of what it counted."""
        found: list[BestFormulas] = []
        threads = self.session.threads
        memos = [memo() for _ in range(threads)]

        def share(thread: int, some: Sequence[UnitWords]) -> list[BestFormulas]:
            return [search.best(lit, self.limits, memos[thread]) for lit in some[thread::threads]]

        with ThreadPoolExecutor(threads, "formulas") as pool:
            for first in range(0, len(self.lit), FEW):
                some = self.lit[first : first + FEW]
                shares = list(pool.map(share, range(threads), [some] * threads))
                found += [shares[place % threads][place // threads] for place in range(len(some))]
                self.session.advance(len(some))
                self.session.check()
        return found

    @cached_property
    def weights(self) -> NDArray[np.int32]:
        """(1 + resamples, images) of all pictures, then of the dissection's resamples."""
        rng, images = np.random.default_rng([self.session.seed, 1]), self.inputs.index.images
        own, count = np.ones((1, images), np.int32), self.options.bootstrap
        return np.concatenate([own, bootstrap_weights(images, count, rng)]) if count else own

    def recounted(self, whole: FormulaSearch, lit: UnitWords, found: BestFormulas) -> Recounted:
        """A unit's best formula, and its best single concept, over all pictures and over resamples."""
        best, inside = found.best[-1], whole.domain(found.best[-1])
        counts = whole.by_image(lit, best)
        alone = [whole.by_image(lit, Form(0, a)) * inside for a in best.concepts]
        return Recounted(
            (int(counts[0].sum()), int(counts[1].sum()), int(counts[2].sum())),
            int(inside.sum()),
            max(float(iou_under(part, self.weights[:1])[0]) for part in alone),
            iou_under(counts, self.weights[1:]),
            iou_under(whole.by_image(lit, found.best[0]), self.weights[1:]),
        )

    def judged(self, whole: FormulaSearch, chosen: Sequence[BestFormulas]) -> Halves:
        """Formulas of one half on the other half."""
        count, second = self.options.bootstrap, self.split[1:]
        rng = np.random.default_rng([self.session.seed, 3])
        redrawn = redrawn_halves(self.split, count, rng)[1::2] if count else second[:0]
        weights = np.concatenate([second, redrawn])
        drawn = np.stack(
            [
                np.stack([iou_under(whole.by_image(lit, formula), weights) for formula in each.best])
                for lit, each in zip(self.lit, chosen, strict=True)
            ]
        )
        lengths = np.array([[len(formula.concepts) for formula in each.best] for each in chosen])
        ious = np.array([each.iou for each in chosen])
        return Halves(ious, lengths, drawn[:, :, 0], drawn[:, :, 1:], int(second.sum()))

    def exchanged(self, floors: Sequence[float], draft: Draft) -> None:
        """Writes which units' IoU any formula reaches with annotations exchanged among the pictures of a stratum."""
        schema = draft.declared("formula_null").schema
        with ThreadPoolExecutor(self.session.threads, "formulas") as pool:
            for first, plan in self.plans():
                name = self.null_file(first)
                if not draft.has(name):
                    reached = np.array(list(pool.map(partial(self.under, floors), plan.swapaxes(0, 1))))
                    count, units = reached.shape
                    columns = {
                        "layer": pa.repeat(pa.scalar(self.layer), reached.size),
                        "unit": np.tile(np.arange(units, dtype=np.int32), count),
                        "permutation": np.repeat(np.arange(first, first + count, dtype=np.int32), units),
                        "reached": reached.ravel(),
                    }
                    with draft.publish(name, rows=reached.size) as sink:
                        pq.write_table(pa.table(columns, schema=schema), sink, compression="zstd")
                self.session.advance(plan.shape[1])
        if not self.options.permutations:  # a table without rows
            with draft.publish(self.null_file(0), rows=0) as sink:
                pq.write_table(schema.empty_table(), sink)

    def null_file(self, first: int) -> str:
        """Where some permutations lie, by the first of them."""
        return f"formula_null/{self.number:03d}-{first:06d}.parquet"

    def plans(self) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """The exchanges of the stage `null`, some at a time: the first one's number, (categories, some, images)."""
        index, total = self.inputs.index, self.options.permutations
        for block in range(0, total, BLOCK):
            rng = np.random.default_rng([self.session.seed, block])
            plan = np.stack(permutation_plan(index.labels.annotated, min(BLOCK, total - block), rng, index.strata))
            for first in range(0, plan.shape[1], SHARD):
                yield block + first, plan[:, first : first + SHARD]

    def under(self, floors: Sequence[float], plan: NDArray[np.int32]) -> list[bool]:
        """Which units' IoU any formula reaches under one exchange: (categories, images)."""
        search, seen = FormulaSearch(self.cells, self.annotated, plan, least=self.options.pictures), memo()
        found = []
        for lit, floor in zip(self.lit, floors, strict=True):
            found.append(search.reaches(lit, floor, self.limits, seen))
            self.session.check()
        return found

    def reached(self, draft: Draft) -> NDArray[np.bool_]:
        """(permutations, units) whether any formula reaches a unit's IoU, as it was written."""
        parts = [np.zeros((0, len(self.lit)), bool)]
        for first in range(0, self.options.permutations, SHARD):
            with draft.read(self.null_file(first)) as source:
                parts.append(pq.read_table(source).column("reached").to_numpy().reshape(-1, len(self.lit)))
        return np.concatenate(parts)
