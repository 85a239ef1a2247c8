"""Stage `landmarks`: part landmarks put into the network's frame, beside the pictures' categories."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from microtome.datasets import Dataset, Frame, Landmark, Record
from microtome.errors import InputError
from tasks.index import chosen_images, shortened
from tasks.stage import Work


def run(work: Work) -> None:
    """Write the table `landmarks`: one row per landmark that a picture shows."""
    dataset: Dataset = work.job.reach["dataset"]()
    frame: Frame = work.job.reach["frame"]
    chosen = chosen_images(dataset, work.inputs["index"].parameters)
    work.begin(len(chosen))
    rows: dict[str, list[Any]] = defaultdict(list)
    faults: list[str] = []
    for image, index in enumerate(chosen):
        record = dataset.records[index]
        place = frame.place(record)
        for mark in dataset.landmarks(index):
            faults += _outside(record, mark)
            moved = place.landmark(mark)
            row = {"image": image, "category": record.label or "all", "landmark": mark.name, "x": moved.x, "y": moved.y}
            for name, value in row.items():
                rows[name].append(value)
        work.advance(1)
    if faults:
        raise InputError(shortened(faults))
    if not rows:
        raise InputError(
            "stability.dataset: the data set has no landmarks; use animal-parts, voc-parts, cub, creatures"
        )
    work.draft.table("landmarks", rows)


def _outside(record: Record, mark: Landmark) -> list[str]:
    if 0 <= mark.x <= record.width and 0 <= mark.y <= record.height:
        return []
    return [
        f"{record.file}: landmark {mark.name} must lie in the picture ({record.width} x {record.height}), "
        f"got ({mark.x:g}, {mark.y:g})"
    ]
