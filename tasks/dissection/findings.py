"""What the report shows of a dissection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.quantify.dissection import iou
from microtome.report.dissection import (
    DissectedLayer,
    Failure,
    HistogramRow,
    LayerRow,
    NearConcept,
    SourceIou,
    TopImage,
    UnitRow,
)
from microtome.report.overlay import dim_path, mask_sheet, outline_path
from microtome.report.words import percent
from storage.tables import ReadRow
from tasks.dissection.result import Dissection
from tasks.dissection.work import Inputs
from tasks.index.result import Index
from tasks.pages.shown import Shown
from tasks.scores.findings import doubt_of_iou
from tasks.tally.lighting import upsampler

Pair = tuple[int, int]
OTHERS = 6  # units that a picture is said to excite, too
FAILURES = 3  # pictures of a unit that show what it misses, and as many that show what else it lights


def findings(shown: Shown) -> list[DissectedLayer]:
    """Each layer's units, with their top images and masks."""
    made, seen = shown.result("dissection", Dissection), shown.inputs("dissection", Inputs)
    return [_layer(shown, made, seen, number) for number in range(len(seen.activations.layers))]


def _layer(shown: Shown, made: Dissection, seen: Inputs, number: int) -> DissectedLayer:
    name, index = seen.activations.layers[number].name, seen.index
    thresholds = seen.thresholds.at(name, made.options.tail)
    top = _TopImages.of(seen.thresholds.rows("top_images", layer=name), shown.top_images, thresholds)
    (summary,), units = made.typed("layers", LayerRow, layer=name), made.typed("units", UnitRow, layer=name)
    labels = {row["unit"]: row["concept_id"] for row in made.rows("units", layer=name)}
    failed, sources = _by_picture(seen, number, labels, top.of_unit)
    wanted = _by_image([*top.peaks, *((item.image, item.unit) for item in failed)])
    overlays = _Overlays(_masks(shown, made, seen, number, wanted=wanted), _annotations(index, wanted, labels))
    shown.thumbnails(index, sorted(wanted))
    return DissectedLayer(
        summary,
        units,
        _top_images(shown, index, top, overlays),
        index.frame.masks,
        _sheets(shown, f"assets/masks/{number:03d}", top, overlays),
        _by_unit(made.rows("nearest", layer=name), index),
        {row["unit"]: cast(HistogramRow, row) for row in seen.thresholds.rows("histograms", layer=name)},
        doubt_of_iou(shown, name),
        _failures(shown, index, failed, overlays),
        _shares(seen, name, labels),
        sources,
    )


def _shares(seen: Inputs, layer: str, labels: Mapping[int, int | None]) -> dict[int, tuple[float, float]]:
    """Unit -> how much of what it lights its label covers, and how much of its label it lights; of units with a label
    that light anything where its category is annotated."""
    counts = [seen.tally.column(layer, name, len(labels)) for name in ("intersection", "activation", "label_pixels")]
    place = {concept: at for at, concept in enumerate(seen.index.concepts.number.tolist())}
    cells = {unit: (unit, place[concept]) for unit, concept in labels.items() if concept is not None}
    met = {unit: [float(count[cell]) for count in counts] for unit, cell in cells.items()}
    return {unit: (both / lit, both / label) for unit, (both, lit, label) in met.items() if lit and label}


def _by_image(pairs: Iterable[Pair]) -> dict[int, list[int]]:
    """Image -> units."""
    found: dict[int, list[int]] = defaultdict(list)
    for image, unit in dict.fromkeys(pairs):
        found[image].append(unit)
    return found


@dataclass(frozen=True)
class _Annotation:
    """What is annotated as a unit's label in a picture: the mask, its outline, and that in words."""

    mask: NDArray[np.bool_] | None
    outline: str
    words: str


@dataclass(frozen=True)
class _Overlays:
    """What lies over pictures: (image, unit) -> what the unit lights, and what is annotated as its label."""

    masks: Mapping[Pair, NDArray[np.bool_]]
    annotations: Mapping[Pair, _Annotation]

    def annotated(self, image: int, unit: int) -> NDArray[np.bool_]:
        """(height, width) the annotation; nothing where there is none."""
        mask = self.annotations[image, unit].mask
        return np.zeros_like(self.masks[image, unit]) if mask is None else mask


def _sheets(shown: Shown, folder: str, top: _TopImages, overlays: _Overlays) -> dict[int, str]:
    found = {}
    for unit, images in top.of_unit.items():
        masks = np.stack([overlays.masks[image, unit] for image in images])
        annotated = np.stack([overlays.annotated(image, unit) for image in images])
        found[unit] = shown.picture(f"{folder}/{unit}.png", mask_sheet(masks, annotated))
    return found


def _top_images(shown: Shown, index: Index, top: _TopImages, overlays: _Overlays) -> dict[int, list[TopImage]]:
    return {
        unit: [
            TopImage(
                shown.thumbnail(index, image),
                index.files[image],
                rank,
                top.peaks[image, unit],
                dim_path(overlays.masks[image, unit]),
                overlays.annotations[image, unit].outline,
                overlays.annotations[image, unit].words,
                top.others(image, unit),
            )
            for rank, image in enumerate(images)
        ]
        for unit, images in top.of_unit.items()
    }


class _Failed(NamedTuple):
    """A picture in which a unit misses its label, or is lit elsewhere."""

    unit: int
    image: int
    missed: bool


def _by_picture(
    seen: Inputs, number: int, labels: Mapping[int, int | None], top: Mapping[int, Sequence[int]]
) -> tuple[list[_Failed], dict[int, list[SourceIou]]]:
    """Of each unit with a label the pictures in which it misses most of it, and those in which most else is lit; and
    its IoU with that label in each source that shows it.

    From the counts of pictures alone: missed is the label's pixels without the intersection, elsewhere the unit's. Only
    pictures count in which the label's category is annotated; elsewhere none of those that a page begins with, `top`.
    """
    index, count = seen.index, len(labels)
    place = {concept: at for at, concept in enumerate(index.concepts.number.tolist())}
    label = np.array([place[found] if (found := labels[unit]) is not None else -1 for unit in range(count)])
    known, category = label >= 0, index.concepts.category_index
    missed, elsewhere = _Worst(count), _Worst(count, top)
    sources = _Sources(index, count)
    for block in seen.tally.image_counts(index, number, count):
        met = np.zeros(block.activated.shape, np.int64)
        own = block.concept == label[block.unit]
        met[block.image[own] - block.first, block.unit[own]] = block.intersection[own]
        judged = block.annotated[:, category[label]] & known  # of no label: -1, which `known` rules out
        missed.update(block.first, np.where(judged, block.label_pixels[:, label] - met, 0))
        elsewhere.update(block.first, np.where(judged, block.activated - met, 0))
        sources.update(block.first, (met, block.activated, block.label_pixels[:, label]), judged)
    failed = [
        _Failed(unit, image, worst is missed)
        for unit in range(count)
        for worst in (elsewhere, missed)
        for image in worst.images(unit)
    ]
    return failed, sources.found


class _Sources:
    """Each unit's IoU with its label in each source of a mixture.

    Args:
        index: of the pictures.
        units: how many there are.
    """

    def __init__(self, index: Index, units: int) -> None:
        self._names, self._of = index.strata_names, index.strata
        self._sums = np.zeros((3, len(self._names), units), np.int64)
        self._pictures = np.zeros((len(self._names), units), np.int64)

    def update(self, first: int, counts: Sequence[NDArray[np.int64]], judged: NDArray[np.bool_]) -> None:
        """Take (images, units) intersections, lit pixels and the label's of the pictures from `first` on."""
        own = self._of[first : first + len(judged)]
        for place in np.unique(own):
            some = judged & (own == place)[:, None]
            self._sums[:, place] += [np.where(some, pixels, 0).sum(0) for pixels in counts]
            self._pictures[place] += (some & (counts[2] > 0)).sum(0)

    @property
    def found(self) -> dict[int, list[SourceIou]]:
        """Of each unit the sources that show its label; nothing where there is one source alone."""
        if len(self._names) == 1:
            return {}
        values = iou(*self._sums)
        return {
            unit: [
                SourceIou(self._names[place], int(self._pictures[place, unit]), float(values[place, unit]))
                for place in np.flatnonzero(self._pictures[:, unit])
            ]
            for unit in np.flatnonzero(self._pictures.any(0)).tolist()
        }


class _Worst:
    """Of each unit the pictures of the most pixels, above none; of equal ones the earlier.

    Args:
        units: how many there are.
        but: unit -> pictures that do not count.
    """

    def __init__(self, units: int, but: Mapping[int, Sequence[int]] | None = None) -> None:
        self._but = but or {}
        self._pixels = self._image = np.zeros((0, units), np.int64)

    def update(self, first: int, pixels: NDArray[np.int64]) -> None:
        """Take (images, units) of the pictures from `first` on, all of them later than those before."""
        for unit, images in self._but.items():
            own = [image - first for image in images if first <= image < first + len(pixels)]
            pixels[own, unit] = 0
        rows = _highest(pixels)
        found = np.concatenate([self._pixels, np.take_along_axis(pixels, rows, 0)])
        image = np.concatenate([self._image, rows + first])
        kept = _highest(found)
        self._pixels, self._image = np.take_along_axis(found, kept, 0), np.take_along_axis(image, kept, 0)

    def images(self, unit: int) -> list[int]:
        """Those of a unit, the worst first."""
        found: list[int] = self._image[self._pixels[:, unit] > 0, unit].tolist()
        return found


def _highest(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """(FAILURES, columns) rows of the highest values of each column, the first of equals first."""
    rows: NDArray[np.int64] = np.argsort(-values, axis=0, kind="stable")[:FAILURES]
    return rows


def _failures(shown: Shown, index: Index, failed: Sequence[_Failed], overlays: _Overlays) -> dict[int, list[Failure]]:
    found: dict[int, list[Failure]] = defaultdict(list)
    for item in failed:
        note, mask = overlays.annotations[item.image, item.unit], overlays.masks[item.image, item.unit]
        label = overlays.annotated(item.image, item.unit)
        share = (~mask)[label].mean() if item.missed else (~label)[mask].mean()
        found[item.unit].append(
            Failure(
                shown.thumbnail(index, item.image),
                index.files[item.image],
                item.missed,
                float(share),
                dim_path(mask),
                note.outline,
                note.words,
            )
        )
    return found


def _by_unit(rows: list[ReadRow], index: Index) -> dict[int, list[NearConcept]]:
    concepts = index.table("concepts").select(["concept_id", "images"]).to_pylist()
    pictures = {row["concept_id"]: row["images"] for row in concepts}
    found: dict[int, list[NearConcept]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["rank"]):
        found[row["unit"]].append(cast(NearConcept, {**row, "pictures": pictures[row["concept_id"]]}))
    return found


@dataclass(frozen=True)
class _TopImages:
    """The pictures in which units are highest, that are shown.

    Args:
        of_unit: unit -> its images, the highest first.
        units_of: image -> units that it is shown with.
        peaks: (image, unit) -> the unit's highest value in it.
    """

    of_unit: Mapping[int, list[int]]
    units_of: Mapping[int, list[int]]  # those first in whose list it stands first
    peaks: Mapping[Pair, float]

    @classmethod
    def of(cls, rows: list[ReadRow], count: int, thresholds: NDArray[np.float32]) -> _TopImages:
        """The first `count` rows of each unit, of pictures in which it lights anything: others show nothing of it."""
        lit = [row for row in rows if row["rank"] < count and row["peak"] > thresholds[row["unit"]]]
        wanted = sorted(lit, key=lambda row: (row["unit"], row["rank"]))
        of_unit: dict[int, list[int]] = defaultdict(list)
        units_of: dict[int, list[int]] = defaultdict(list)
        for row in wanted:
            of_unit[row["unit"]].append(row["image"])
        for row in sorted(wanted, key=lambda row: (row["rank"], row["unit"])):
            units_of[row["image"]].append(row["unit"])
        return cls(of_unit, units_of, {(row["image"], row["unit"]): row["peak"] for row in wanted})

    def others(self, image: int, unit: int) -> list[int]:
        """Some other units that a picture is shown with."""
        return [other for other in self.units_of[image] if other != unit][:OTHERS]


def _masks(
    shown: Shown, made: Dissection, seen: Inputs, number: int, *, wanted: Mapping[int, list[int]]
) -> Mapping[Pair, NDArray[np.bool_]]:
    """Where the wanted units, and only they, are lit in the wanted images: (image, unit) -> (height, width)."""
    layer, frame, device = seen.activations.layers[number], seen.index.frame, shown.session.device
    light = upsampler(frame, layer, made.options, device)
    thresholds = torch.from_numpy(seen.thresholds.at(layer.name, made.options.tail)).to(device)
    found = {(image, unit): np.zeros(frame.masks, bool) for image, units in wanted.items() for unit in units}
    for block in seen.activations.blocks_with(number, list(wanted)):
        for offset in range(len(block.tensors)):
            image = block.first + offset
            if image not in wanted:
                continue
            units = wanted[image]
            maps = torch.from_numpy(block.tensors[offset, units].astype(np.float32)).to(device)
            lit = light(maps[None], thresholds[units])
            place, pixel = lit.unit.cpu().numpy(), lit.pixel.cpu().numpy()
            for at, unit in enumerate(units):
                found[image, unit].reshape(-1)[pixel[place == at]] = True
    return found


def _annotations(
    index: Index, shown: Mapping[int, list[int]], labels: Mapping[int, int | None]
) -> Mapping[Pair, _Annotation]:
    """What is annotated as each unit's label in its images."""
    concepts, none = index.concepts, _Annotation(None, "", "no label to look for")
    found = {(image, unit): none for image, units in shown.items() for unit in units}
    place = {number: at for at, number in enumerate(concepts.number.tolist())}
    for block in index.annotations():
        for offset in range(len(block.labels.planes)):
            image = block.first + offset
            wanted = [(unit, place[number]) for unit in shown.get(image, ()) if (number := labels[unit]) is not None]
            masks = block.labels.masks(offset, [concept for _, concept in wanted])
            drawn: dict[int, _Annotation] = {}
            for (unit, concept), mask in zip(wanted, masks, strict=True):
                if concept not in drawn:
                    drawn[concept] = _annotated(concepts.name[concept], mask.reshape(index.frame.masks))
                found[image, unit] = drawn[concept]
    return found


def _annotated(name: str, mask: NDArray[np.bool_]) -> _Annotation:
    if not mask.any():
        return _Annotation(None, "", f"no {name} annotated here")
    words = f"{name} covers {'all' if mask.all() else percent(mask.mean())} of the picture"
    return _Annotation(mask, outline_path(mask), words)
