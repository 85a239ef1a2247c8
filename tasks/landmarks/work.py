"""Stage `landmarks`: part landmarks put into the network's frame, beside the pictures' categories."""

from __future__ import annotations

from dataclasses import dataclass

from microtome.datasets.base import Landmark, Record
from microtome.datasets.source import Source
from microtome.errors import refuse
from storage import Draft
from storage.tables import Row, from_rows
from tasks.index.result import Index
from tasks.landmarks import LandmarksOptions
from tasks.session import Session

COLUMNS = ("image", "category", "landmark", "x", "y")


@dataclass(frozen=True)
class Inputs:
    """The indexed pictures."""

    index: Index


def run(options: LandmarksOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Write the table `landmarks`: one row per landmark that a picture shows."""
    source = inputs.index.source
    session.begin(len(source))
    rows: list[Row] = []
    faults: list[str] = []
    for image in range(len(source)):
        marks = source.dataset.landmarks(source.chosen[image])
        faults += [fault for mark in marks for fault in _outside(source.record(image), mark)]
        rows += _framed(source, image, marks)
        session.advance(1)
    refuse(faults)
    draft.table("landmarks", from_rows(COLUMNS, rows))


def _framed(source: Source, image: int, marks: tuple[Landmark, ...]) -> list[Row]:
    category, place = source.record(image).label or "all", source.placement(image)
    moved = [place.landmark(mark) for mark in marks]
    return [{"image": image, "category": category, "landmark": mark.name, "x": mark.x, "y": mark.y} for mark in moved]


def _outside(record: Record, mark: Landmark) -> list[str]:
    if 0 <= mark.x <= record.width and 0 <= mark.y <= record.height:
        return []
    return [
        f"{record.file}: landmark {mark.name} must lie in the picture ({record.width} x {record.height}), "
        f"got ({mark.x:g}, {mark.y:g})"
    ]
