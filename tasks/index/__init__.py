"""Stage `index`: every picture checked, every label known, annotations put into the network's frame."""

from __future__ import annotations

from typing import Literal

from microtome.datasets.base import Record, chosen
from microtome.datasets.frame import Frame
from microtome.errors import InputError
from storage.tables import float64, int32, string, table
from tasks.data import DataSpec
from tasks.options import Options, Size
from tasks.planning import Planner
from tasks.stage import Job, Stage


class IndexOptions(Options):
    """Which pictures, and the frame that they are put into."""

    size: Size
    resize: Literal["squash", "shortest-side-crop"]
    crop_share: float | None = None
    interpolation: str = "bilinear"
    crop: Literal["none", "object"]
    crop_margin: float
    mask_size: Size | None
    split: list[str] | None
    categories: list[str] | None
    limit: int | None


STAGE = Stage(
    name="index",
    about="Checks every picture and mask, and puts annotations into the network's frame.",
    options=IndexOptions,
    work="tasks.index.work:run",
    sharded="images",
    # a picture is looked at and hashed, its annotation is read, put into the frame and written
    cost=lambda _, pace: pace.pictures * (2e-4 + pace.read / 2 + 1.6 * pace.annotate),
    tables=(
        table(
            "images",
            "A row per picture that was indexed.",
            image=int32("number of the picture, from zero, in the data set's order"),
            split=string("split of the data set, for example train"),
            file=string("path below the data set's root, or a name where pictures are generated"),
            width=int32("of the stored picture, in pixels"),
            height=int32("of the stored picture, in pixels"),
            sha256=string("of the picture's file, or of its pixels where it is generated"),
            label=string("class of the whole picture, where the data set has classes"),
            stratum=string("source, scene or video within which chance exchanges annotations; null: none is known"),
        ),
        table(
            "concepts",
            "A row per concept of the data set.",
            concept_id=int32("the data set's own label number"),
            concept=string("name"),
            category=string("in which it is scored, for example part"),
            coverage=float64("labelled pixels over all pictures, in pictures' areas"),
            images=int32("pictures in which it occurs"),
        ),
        table(
            "label_counts",
            "A row per picture and concept that occurs in it.",
            image=int32("number of the picture"),
            concept_id=int32("number of the concept"),
            pixels=int32("labelled pixels, at segmentation resolution"),
        ),
    ),
)


def index(audit: Planner, name: str, key: str) -> Job:
    """The index of a data set: one job, however many stages read it.

    Args:
        audit: the audit.
        name: of the data set.
        key: of the audit file that names it, for the error.
    """
    data = audit.data(name, key)
    model, frame = audit.audit.named_datasets[name], audit.input
    options = IndexOptions(
        size=frame.size,
        resize=frame.resize,  # type: ignore[arg-type]  # one of the two, and so below
        crop_share=frame.crop_share,
        interpolation=frame.interpolation,
        crop=model.crop or data.crop,  # type: ignore[arg-type]  # a data set's default is one of the two
        crop_margin=model.crop_margin,
        mask_size=model.mask_size,
        split=model.split,
        categories=model.categories,
        limit=model.limit,
    )
    return audit.add(audit.job(STAGE, options, {"data": data}, variant="" if name == "main" else name))


def indexing(found: Job) -> tuple[DataSpec, IndexOptions]:
    """The data set of an index, and what it takes of it. Raises TypeError: the job is no index."""
    data, options = found.reads["data"], found.options
    if not isinstance(data, DataSpec) or not isinstance(options, IndexOptions):
        raise TypeError(f"an index must read a data set, got {data!r}")
    return data, options


def taken(found: Job) -> list[Record]:
    """What a data set says of the pictures that an index takes of it; nothing is read for that."""
    data, options = indexing(found)
    numbers = chosen(data.records, split=options.split, categories=options.categories, limit=options.limit)
    return [data.records[number] for number in numbers]


def concepts(found: Job) -> int:
    """How many concepts the data set of an index knows."""
    return indexing(found)[0].concepts


def check_category(found: Job, category: str | None, key: str) -> None:
    """Refuse a category that no picture of a data set is of, before any work.

    Args:
        found: index of the data set.
        category: that is asked for; None for whatever there is.
        key: of the audit file that names it.

    Raises:
        InputError: no picture is of it.
    """
    if category is None:
        return
    classes = sorted({record.label for record in taken(found) if record.label})
    if not classes:
        raise InputError(f"{key}: needs pictures with a class, got none; what masks show are concepts, and no classes")
    if category not in classes:
        raise InputError(f"{key}: must be one of {', '.join(classes)}, got {category!r}")


def frame_of(options: IndexOptions) -> Frame:
    """The frame that an index was made with."""
    taken = {name: getattr(options, name) for name in ("resize", "crop", "mask_size", "crop_share", "interpolation")}
    return Frame(options.size, margin=options.crop_margin, **taken)
