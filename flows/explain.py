"""What one picture's decision rests on, or which patterns it shows: from a finished run, in words and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microtome.errors import InputError, suggest
from microtome.report import views
from microtome.report.render import render
from microtome.report.single import with_pictures
from storage import Artifact, Files, RunRecord, StageStore


def explain(files: Files, run: RunRecord, image: str) -> tuple[list[str], Path]:
    """A picture's path through the decision tree.

    Args:
        files: the workspace.
        run: whose tree.
        image: name of the file, or its end, or its number in the data set.

    Returns:
        lines of text, and the page.

    Raises:
        InputError: the run has no tree, or no such picture, or several.
    """
    from tasks.report.tree import Told

    artifact = stage_of(files, run, "tree")
    folder = Path(files.location(f"explained/{artifact.digest}"))
    told = Told(artifact, _writer(folder))
    place = picture_among(told.grown.rows, image)
    row = told.grown.rows[place]
    page = views.Page(
        name=f"why {told.category}?",
        page=f"tree-{place:06d}.html",
        headline=told.words(place)[0],
        figures=views.Figures([]),
        sections=[views.Section("Its path through the tree", told.explanation(place))],
    )
    return told.words(place), single_page(folder, run, page, row["file"])


def stage_of(files: Files, run: RunRecord, stage: str) -> Artifact:
    """A run's stage. Raises InputError if the run does not have it."""
    found = run.stages.get(stage)
    artifact = StageStore(files).load(str(found["folder"])) if found else None
    if artifact is None:
        raise InputError(f"run {run.run_id}: has no finished stage {stage!r}{suggest(stage, list(run.stages))}")
    return artifact


def picture_among(rows: Sequence[Mapping[str, Any]], image: str) -> int:
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
        hint = suggest(image, names) if not fitting else f"; fit: {', '.join(names[n] for n in fitting[:5])}"
        raise InputError(f"image: must mean one picture of the run, got {image!r}, which fits {len(fitting)}{hint}")
    return fitting[0]


def single_page(folder: Path, run: RunRecord, page: views.Page, title: str) -> Path:
    """Write a page as one file, with its pictures in it."""
    report = views.Report(
        title=title,
        network=run.network,
        dataset=run.name,
        gates=(),
        layers=(),
        pages=(page,),
        provenance=(("Run", run.run_id),),
        stages=(),
        configuration="",
        footer=f"From run {run.run_id}",
    )
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / page.page
    place.write_text(with_pictures(render(report, alone=True)[page.page].decode(), folder), encoding="utf-8")
    return place


def _writer(folder: Path) -> Any:
    def write(name: str, content: bytes) -> None:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    return write
