"""Telling of one picture from a finished run: the stage, the picture that is meant, a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.console import warn
from microtome.errors import InputError, suggest
from microtome.report import views
from microtome.report.single import alone, with_pictures
from storage import Artifact, Files, RunRecord, StageStore
from storage.tables import ReadRow

if TYPE_CHECKING:
    from tasks.planning import Planner


def stage_of(files: Files, run: RunRecord, stage: str) -> Artifact:
    """A run's stage. Raises InputError if the run does not have it."""
    found = run.stages.get(stage)
    artifact = StageStore(files, warn).load(found["folder"]) if found else None
    if artifact is None:
        raise InputError(
            f"run {run.run_id}: has no finished stage {stage!r}; ask for it under `stages:` of its audit file"
        )
    return artifact


def audited(files: Files, run: RunRecord) -> Planner:
    """What was audited, from the run's record. Raises InputError where it does not say."""
    from flows.auditfile import AuditModel
    from tasks.planning import Planner
    from tasks.stage import Settings

    try:
        audit = AuditModel.model_validate(run.about["audit"])
        base = Path(run.about["file"]).resolve().parent
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"run {run.run_id}: its record does not say what was audited; audit again") from error
    return Planner(audit, audit.asked, base=base, files=files, settings=Settings(audit.seed, "cpu", 1))


def made_from(files: Files, run: RunRecord, made: Artifact, read: str) -> Artifact:
    """What a stage of a run read under a name. Raises InputError where it is not there any more."""
    digest = made.manifest["inputs"].get(read)
    folders = [stage["folder"] for stage in run.stages.values() if digest and stage.get("digest") == digest]
    found = next((found for found in map(StageStore(files).load, folders) if found), None)
    if found is None:
        raise InputError(f"run {run.run_id}: its stage {read!r} is not there any more; audit again")
    return found


def check_network(run: RunRecord, audit: Planner, made: Artifact) -> None:
    """The audit's network must still be the one that a stage was made from. Raises InputError."""
    if made.manifest["inputs"].get("network") != audit.network.digest:
        raise InputError(f"run {run.run_id}: its network has changed since; audit again, then show it new pictures")


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
