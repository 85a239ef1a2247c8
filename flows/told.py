"""Telling of one picture from a finished run: the stage, the picture that is meant, a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from flows.console import warn
from microtome.errors import InputError, suggest
from microtome.report import views
from microtome.report.single import alone, with_pictures
from storage import Artifact, Files, RunRecord, StageStore
from storage.tables import ReadRow


def stage_of(files: Files, run: RunRecord, stage: str) -> Artifact:
    """A run's stage. Raises InputError if the run does not have it."""
    found = run.stages.get(stage)
    artifact = StageStore(files, warn).load(found["folder"]) if found else None
    if artifact is None:
        raise InputError(
            f"run {run.run_id}: has no finished stage {stage!r}; ask for it under `stages:` of its audit file"
        )
    return artifact


def picture_among(rows: Sequence[ReadRow], image: str) -> int:
    """The row that an image's name or number means.

    Args:
        rows: with `file`, `image` and, where several data sets are read, `dataset`.
        image: a number, or the end of a file name.

    Raises:
        InputError: none, or several.
    """
    if image.isdigit():
        fitting = [n for n, row in enumerate(rows) if row["image"] == int(image) and row.get("dataset") != "negatives"]
    else:
        fitting = [n for n, row in enumerate(rows) if row["file"] == image]
        fitting = fitting or [n for n, row in enumerate(rows) if row["file"].endswith(image)]
    if len(fitting) != 1:
        names = [row["file"] for row in rows]
        hint = _accepted(image, rows) if not fitting else f"; fit: {', '.join(names[n] for n in fitting[:5])}"
        raise InputError(f"image: must mean one picture of the run, got {image!r}, which fits {len(fitting)}{hint}")
    return fitting[0]


def _accepted(image: str, rows: Sequence[ReadRow]) -> str:
    """What could have been given, since the stage looked at some of the data set's pictures only."""
    if not rows:
        return "; it looked at none"
    own = [row for row in rows if row.get("dataset") != "negatives"] or rows
    numbers = ", ".join(str(number) for number in sorted(row["image"] for row in own)[:5])
    more = f" ... ({len(own)} in all)" if len(own) > 5 else ""
    near = "" if image.isdigit() else suggest(image, [row["file"] for row in rows])
    return (
        f"{near}; give the number of a picture that it looked at, {numbers}{more}, or a file name, or the end of one, "
        f"such as {own[0]['file']!r}"
    )


def single_page(folder: Path, run: RunRecord, page: views.Page, title: str) -> Path:
    """Write a page as one file, with its pictures in it."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / page.page
    of = {"network": run.network, "audit": run.name, "run": run.run_id}
    place.write_text(with_pictures(alone(page, title, **of), folder), encoding="utf-8")
    return place


def writer(folder: Path) -> Callable[[str, bytes], str]:
    """A function that puts pictures into a folder, and gives their paths in it."""

    def write(name: str, content: bytes) -> str:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return name

    return write
