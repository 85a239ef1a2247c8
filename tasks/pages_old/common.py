"""What the report's pages share: the work of the stage that a page is about, and thumbnails."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from microtome.datasets import Dataset, Frame
from storage import Artifact
from tasks.index import chosen_images
from tasks.stage import Work

THUMB = 112  # pixels


def about(work: Work, name: str) -> Work:
    """The work of another job, with everything it read, and itself under its stage's name: for reading only.

    Args:
        work: the report's.
        name: of one of the report's inputs.
    """
    job = work.job.inputs[name]
    inputs = {key: work.inputs[needed.name] for key, needed in job.inputs.items()}
    return replace(work, job=job, inputs={**inputs, job.stage.name: work.inputs[name]})


def thumb(work: Work, image: int) -> str:
    """Path of a thumbnail, by the data set's digest, so that several data sets do not mix."""
    return f"assets/{work.inputs['index'].digest}/{image:06d}.webp"


def thumbnails(work: Work, images: Iterable[int]) -> None:
    """Write the thumbnails of images of a work's data set; those that are there stay.

    Args:
        work: from `about`; its job reaches the data set and its frame.
        images: numbers in its index.
    """
    dataset: Dataset = work.job.reach["dataset"]()
    frame: Frame = work.job.reach["frame"]
    chosen = chosen_images(dataset, work.inputs["index"].parameters)
    there = set(work.draft.finished("assets/"))
    for image in sorted(set(images)):
        if thumb(work, image) in there:
            continue
        record = dataset.records[chosen[image]]
        shown = Image.fromarray(np.array(frame.place(record).picture(dataset.picture(chosen[image]))))
        content = io.BytesIO()
        shown.resize((THUMB, THUMB), Image.Resampling.LANCZOS).save(content, "WEBP", quality=72, method=4)
        work.draft.write(thumb(work, image), content.getvalue())
        work.session.check()


def files_of(index: Artifact) -> list[str]:
    """Names of the images."""
    return index.table("images", ["file"]).column("file").to_pylist()


def worded(value: float | None, form: str) -> str:
    """A number in words; a dash where there is none."""
    return "–" if value is None else format(value, form)


def rows_of(artifact: Artifact, table: str, **wanted: Any) -> list[dict[str, Any]]:
    """Rows of a table in which the columns have the wanted values."""
    return [
        row for row in artifact.table(table).to_pylist() if all(row[name] == value for name, value in wanted.items())
    ]
