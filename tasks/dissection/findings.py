"""What the report shows of a dissection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.report.dissection import DissectedLayer, HistogramRow, LayerRow, NearestRow, TopImage, UnitRow
from microtome.report.overlay import dim_path, mask_sheet, outline_path
from storage.tables import ReadRow
from tasks.dissection.result import Dissection
from tasks.dissection.work import Inputs
from tasks.index.result import Index
from tasks.pages.shown import Shown
from tasks.scores.findings import doubt_of_iou
from tasks.tally.lighting import upsampler

Pair = tuple[int, int]
OTHERS = 6  # units that a picture is said to excite, too


def findings(shown: Shown) -> list[DissectedLayer]:
    """Each layer's units, with their top images and masks."""
    made, seen = shown.result("dissection", Dissection), shown.inputs("dissection", Inputs)
    return [_layer(shown, made, seen, number) for number in range(len(seen.activations.layers))]


def _layer(shown: Shown, made: Dissection, seen: Inputs, number: int) -> DissectedLayer:
    name, index = seen.activations.layers[number].name, seen.index
    top = _TopImages.of(seen.thresholds.rows("top_images", layer=name), shown.top_images)
    (summary,), units = made.typed("layers", LayerRow, layer=name), made.typed("units", UnitRow, layer=name)
    masks = _masks(shown, made, seen, number, top=top)
    labels = {row["unit"]: row["concept_id"] for row in made.rows("units", layer=name)}
    notes = _annotations(index, top, labels)
    shown.thumbnails(index, sorted(top.units_of))
    sheets = {
        unit: shown.picture(f"{assets}/{unit}.png", mask_sheet(np.stack([masks[image, unit] for image in images])))
        for assets in [f"assets/masks/{number:03d}"]
        for unit, images in top.of_unit.items()
    }
    pictures = {
        unit: [
            TopImage(
                shown.thumbnail(index, image),
                index.files[image],
                rank,
                top.peaks[image, unit],
                dim_path(masks[image, unit]),
                *notes[image, unit],
                top.others(image, unit),
            )
            for rank, image in enumerate(images)
        ]
        for unit, images in top.of_unit.items()
    }
    return DissectedLayer(
        summary,
        units,
        pictures,
        index.frame.masks,
        sheets,
        _by_unit(made.rows("nearest", layer=name)),
        {row["unit"]: cast(HistogramRow, row) for row in seen.thresholds.rows("histograms", layer=name)},
        doubt_of_iou(shown, name),
    )


def _by_unit(rows: list[ReadRow]) -> dict[int, list[NearestRow]]:
    found: dict[int, list[NearestRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["rank"]):
        found[row["unit"]].append(cast(NearestRow, row))
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
    units_of: Mapping[int, list[int]]
    peaks: Mapping[Pair, float]

    @classmethod
    def of(cls, rows: list[ReadRow], count: int) -> _TopImages:
        """The first `count` rows of each unit."""
        wanted = sorted((row for row in rows if row["rank"] < count), key=lambda row: (row["unit"], row["rank"]))
        of_unit: dict[int, list[int]] = defaultdict(list)
        units_of: dict[int, list[int]] = defaultdict(list)
        for row in wanted:
            of_unit[row["unit"]].append(row["image"])
            units_of[row["image"]].append(row["unit"])
        return cls(of_unit, units_of, {(row["image"], row["unit"]): row["peak"] for row in wanted})

    def others(self, image: int, unit: int) -> list[int]:
        """Some other units that a picture is shown with."""
        return [other for other in self.units_of[image] if other != unit][:OTHERS]


def _masks(
    shown: Shown, made: Dissection, seen: Inputs, number: int, *, top: _TopImages
) -> Mapping[Pair, NDArray[np.bool_]]:
    """Where the wanted units, and only they, are lit in the wanted images: (image, unit) -> (height, width)."""
    layer, frame, device = seen.activations.layers[number], seen.index.frame, shown.session.device
    light = upsampler(frame, layer, made.options, device)
    thresholds = torch.from_numpy(seen.thresholds.at(layer.name, made.options.tail)).to(device)
    found = {pair: np.zeros(frame.masks, bool) for pair in top.peaks}
    for block in seen.activations.blocks_with(number, list(top.units_of)):
        for offset in range(len(block.tensors)):
            image = block.first + offset
            if image not in top.units_of:
                continue
            units = top.units_of[image]
            maps = torch.from_numpy(block.tensors[offset, units].astype(np.float32)).to(device)
            lit = light(maps[None], thresholds[units])
            place, pixel = lit.unit.cpu().numpy(), lit.pixel.cpu().numpy()
            for at, unit in enumerate(units):
                found[image, unit].reshape(-1)[pixel[place == at]] = True
    return found


def _annotations(index: Index, top: _TopImages, labels: Mapping[int, int | None]) -> Mapping[Pair, tuple[str, str]]:
    """Outline of what is annotated as each unit's label in its images, and that in words."""
    concepts, found = index.concepts, dict.fromkeys(top.peaks, ("", "no label to look for"))
    place = {number: at for at, number in enumerate(concepts.number.tolist())}
    for block in index.annotations():
        for offset in range(len(block.labels.planes)):
            image = block.first + offset
            wanted = [
                (unit, place[number]) for unit in top.units_of.get(image, ()) if (number := labels[unit]) is not None
            ]
            masks = block.labels.masks(offset, [concept for _, concept in wanted])
            drawn: dict[int, tuple[str, str]] = {}
            for (unit, concept), mask in zip(wanted, masks, strict=True):
                if concept not in drawn:
                    drawn[concept] = _annotated(concepts.name[concept], mask.reshape(index.frame.masks))
                found[image, unit] = drawn[concept]
    return found


def _annotated(name: str, mask: NDArray[np.bool_]) -> tuple[str, str]:
    if not mask.any():
        return "", f"no {name} annotated here"
    return outline_path(
        mask
    ), f"{name} over the whole picture" if mask.all() else f"{name} annotated on {mask.mean():.0%}"
