"""Stage `stability`: how steadily filters sit on part landmarks, beside baselines that know nothing of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InputError
from microtome.networks.geometry import LayerGeometry
from microtome.quantify import shift
from microtome.quantify import stability as science
from microtome.quantify import stability_summary as summary
from microtome.quantify.partiou import PartFit
from microtome.quantify.significance import LEVEL
from storage import Draft
from storage.tables import stacked
from tasks.activations.result import Maps
from tasks.finetuning.result import Finetuned
from tasks.index.result import AnnotationBlock, Index
from tasks.landmarks.result import CategoryMarks, Landmarks
from tasks.session import Session
from tasks.shifted import shifted_pictures
from tasks.stability import StabilityOptions
from tasks.stability.result import pooled_name

Columns = Mapping[str, Any]
"""Column -> values."""


@dataclass(frozen=True)
class Inputs:
    """Maps and landmarks of the same pictures, and maps of these moved; the fine-tuning whose held-out pictures alone
    count, if any."""

    index: Index
    landmarks: Landmarks
    activations: Maps
    moved: Maps | None = None
    split: Finetuned | None = None


def run(options: StabilityOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Judge every layer."""
    marks = _marks(inputs)
    layers = inputs.activations.layers
    session.begin(len(layers), "layers")
    parts: dict[str, list[Columns]] = {}
    for number in range(len(layers)):
        for name, columns in _StabilityOf(options, inputs, session.seed, number, marks).tables():
            parts.setdefault(name, []).append(columns)
        session.advance(1)
    for name, found in parts.items():
        draft.table(name, stacked(found))


def _marks(inputs: Inputs) -> list[CategoryMarks]:
    """Landmarks by category. Raises InputError where a deviation cannot be taken."""
    held_out = "" if inputs.split is None else "held-out "
    marks = inputs.landmarks.by_category(inputs.split.held_out if inputs.split else None)
    if not marks:
        raise InputError(f"stability.dataset: needs {held_out}pictures with part landmarks, got none")
    few = [item.name for item in marks if item.most < 2]
    if few:
        raise InputError(
            [
                f"stability.dataset: category {name!r} needs a landmark that two {held_out}pictures show, got none; "
                "use more pictures, or `categories:` without it"
                for name in few
            ]
        )
    return marks


@dataclass(frozen=True)
class _StabilityOf:
    """A layer under judgement."""

    options: StabilityOptions
    inputs: Inputs
    seed: int
    number: int
    marks: Sequence[CategoryMarks]

    def tables(self) -> Iterator[tuple[str, Columns]]:
        """Name and columns of its share of every table."""
        yield from (("stability", columns) for columns in self.filter_rows())
        yield from self.layer_rows()
        yield from (("stability_shift", columns) for columns in self.shift_rows())
        yield "inferences", self.inference_rows()
        yield from (("part_interpretability", columns) for columns in self.part_rows())

    @cached_property
    def geometry(self) -> LayerGeometry:
        """Where its cells look."""
        return self.inputs.activations.layers[self.number]

    @cached_property
    def protocol(self) -> science.Protocol:
        """How deviations are taken."""
        return science.Protocol(self.inputs.index.frame.size, self.options.top_images, self.options.firing_only)

    @cached_property
    def found(self) -> science.Inferences:
        """In all pictures of the index."""
        return _inferred(self.inputs.activations, self.number)

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """Those of all categories."""
        return np.unique(np.concatenate([item.images for item in self.marks]))

    @cached_property
    def categories(self) -> list[science.CategoryStability]:
        """Judged in each category."""
        return [
            science.category_stability(
                item.name,
                self.found.of(item.images),
                self.geometry,
                item.landmarks,
                protocol=self.protocol,
                permutations=self.options.permutations,
                seed=self.seed,
            )
            for item in self.marks
        ]

    @cached_property
    def shifts(self) -> list[shift.CategoryShift]:
        """The shift test in each category; none without moved maps."""
        if self.inputs.moved is None:
            return []
        after, centres = _inferred(self.inputs.moved, self.number), science.cell_centres(self.geometry)
        found = []
        for number, (item, marks) in enumerate(zip(self.categories, self.marks, strict=True)):
            moved = shifted_pictures(self.inputs.index.source, self.options.shift, marks.images)
            found.append(
                shift.category_shift(
                    item,
                    (centres[self.found.of(marks.images).cell], centres[after.of(marks.images).cell]),
                    marks.landmarks,
                    moved,
                    protocol=self.protocol,
                    weights=self.weights(number, len(marks.images)),
                )
            )
        return found

    def weights(self, category: int, images: int) -> NDArray[np.int64]:
        """(resamples, images) how often each picture counts: as in `stability.resampled`."""
        rng = np.random.default_rng([self.seed, category])
        return rng.multinomial(images, np.full(images, 1 / images), size=self.options.bootstrap)

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """(filters,) which filters count."""
        return summary.best_filters(self.categories, self.options.filters)

    @cached_property
    def follow_rates(self) -> NDArray[np.float64]:
        """(categories, filters) false discovery rate of following in the shift test."""
        return shift.false_discovery_of_following(self.shifts)

    @cached_property
    def track_rates(self) -> Sequence[Mapping[str, NDArray[np.float64]]]:
        """Per category, by landmark: (filters,) false discovery rate of tracking it."""
        return summary.false_discovery_of_tracking(self.categories)

    def shift_rows(self) -> Iterator[Columns]:
        """The shift test in each category, and their mean."""
        named = [(item.name, [number]) for number, item in enumerate(self.categories)] if self.shifts else []
        if len(named) > 1:
            named.append((pooled_name("mean"), list(range(len(named)))))
        for name, numbers in named:
            some, believed = [self.shifts[number] for number in numbers], self.follow_rates[numbers] <= LEVEL
            found = shift.shift_summary(some, self.kept, believed)
            row = {"layer": self.geometry.name, "category": name, **asdict(found)}
            yield {column: [value] for column, value in row.items()}

    def of_filters(self, **columns: Any) -> Columns:
        """Columns of a row per filter; values that are no sequence hold for each."""
        units = self.geometry.units
        same = {name: [value] * units for name, value in columns.items() if isinstance(value, str | int)}
        return {"layer": [self.geometry.name] * units, "filter": range(units), **columns, **same}

    def filter_rows(self) -> Iterator[Columns]:
        """Every filter on every landmark."""
        nothing = np.full(self.geometry.units, np.nan)
        without = shift.Following(nothing, nothing, nothing, nothing, nothing[None], nothing)
        for number, item in enumerate(self.categories):
            null = ~np.isfinite(item.deviation)
            follows = self.shifts[number].following if self.shifts else without
            for name, mark in item.landmarks.items():
                yield self.of_filters(
                    category=item.name,
                    landmark=name,
                    images=mark.images,
                    deviation=_or_none(np.where(null, np.nan, mark.deviation)),
                    r2=_or_none(mark.r2),
                    p_value=_or_none(mark.p_value),
                    q_value=_or_none(mark.q_value),
                    localising=item.localising[name],
                    score=mark.score,
                    spread=item.spread.deviation,
                    entropy=item.spread.entropy,
                    frozen=_or_none(np.where(null, np.nan, self.frozen(number, name))),
                    slope=_or_none(follows.slope),
                    slope_low=_or_none(follows.low),
                    slope_high=_or_none(follows.high),
                    slope_r2=_or_none(follows.r2),
                    slope_p=_or_none(np.where(null, np.nan, follows.p_value)),
                    slope_q=_or_none(self.follow_rates[number] if self.shifts else nothing),
                    q_all=_or_none(self.track_rates[number][name]),
                    reason=[reason or None for reason in item.reasons],
                )

    def frozen(self, number: int, landmark: str) -> NDArray[np.float64]:
        """(filters,) instability of each filter's own mean place on a landmark of a category."""
        marks, item = self.marks[number], self.categories[number]
        position = science.cell_centres(self.geometry)[self.found.of(marks.images).cell]
        counts = item.landmarks[landmark].counts
        return shift.frozen_deviation(position, marks.landmarks[landmark], counts, self.protocol.diagonal)

    def layer_rows(self) -> Iterator[tuple[str, Columns]]:
        """The filters together: in each category, and pooled."""
        kept = self.kept
        drawn = science.resampled(self.categories, self.protocol, resamples=self.options.bootstrap, seed=self.seed)
        for number, (item, marks) in enumerate(zip(self.categories, self.marks, strict=True)):
            sure = summary.surely_tracking([self.track_rates[number]])
            row = summary.category_summary(item, drawn[:, number], kept, self.found.of(marks.images), sure=sure)
            yield from self.summary_rows(item.name, row, drawn[:, number][:, kept])
        for rule in summary.RULES if len(self.categories) > 1 else ():
            sure = summary.surely_tracking(self.track_rates)
            row = summary.pooled_summary(self.categories, drawn, kept, self.found.of(self.images), rule=rule, sure=sure)
            together = summary.pooled_resamples(self.categories, drawn, rule)[:, kept]
            yield from self.summary_rows(pooled_name(rule), row, together)

    def summary_rows(
        self, category: str, row: summary.LayerSummary, drawn: NDArray[np.float64]
    ) -> Iterator[tuple[str, Columns]]:
        """A summary, and the layer's mean in each of its resamples."""
        means = summary.layer_means(drawn)
        about = {"layer": self.geometry.name, "category": category}
        yield "stability_layers", {name: [value] for name, value in {**about, **asdict(row)}.items()}
        each = {name: [value] * len(means) for name, value in about.items()}
        yield "stability_resamples", {**each, "resample": range(len(means)), "deviation": means}

    def inference_rows(self) -> Columns:
        """Where each filter is highest, in the pictures of all categories."""
        some, units = self.found.of(self.images), self.geometry.units
        where = science.cell_centres(self.geometry)[some.cell]
        return {
            "layer": [self.geometry.name] * some.cell.size,
            "image": np.repeat(self.images, units),
            "filter": np.tile(np.arange(units), len(self.images)),
            "x": where[..., 0].ravel(),
            "y": where[..., 1].ravel(),
            "score": some.score.ravel(),
        }

    def part_rows(self) -> Iterator[Columns]:
        """Part interpretability, where the data set has part masks."""
        concepts = self.inputs.index.concepts
        wanted = concepts.of_category("part")
        for item in self.marks if wanted else ():
            share, seen = self.fitted(item.images, wanted)
            for place, concept in enumerate(wanted):
                if seen[place]:
                    yield self.of_filters(
                        category=item.name, part=concepts.name[concept], images=int(seen[place]), share=share[:, place]
                    )

    def fitted(self, images: NDArray[np.int64], parts: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(filters, parts) shares, and (parts,) pictures that show each."""
        frame = self.inputs.index.frame
        fit = PartFit(self.geometry, frame.size, frame.masks, len(parts), radius=self.options.part_radius)
        fit.threshold([self.inputs.activations.of_images(self.number, images)])
        for notes, maps in self.annotated():
            inside = np.isin(np.arange(notes.first, notes.first + len(maps)), images)
            for offset in np.flatnonzero(inside):
                fit.update(maps[offset], notes.labels.masks(int(offset), parts))
        return fit.compute()

    def annotated(self) -> Iterator[tuple[AnnotationBlock, NDArray[np.float32]]]:
        """Annotations and maps, block by block."""
        blocks = self.inputs.activations.blocks(self.number)
        for notes, block in zip(self.inputs.index.annotations(), blocks, strict=True):
            yield notes, block.tensors


def _inferred(maps: Maps, layer: int) -> science.Inferences:
    """In all pictures of the index."""
    blocks = maps.blocks(layer)
    return science.joined([science.infer(block.tensors.astype(np.float32, copy=False)) for block in blocks])


def _or_none(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
