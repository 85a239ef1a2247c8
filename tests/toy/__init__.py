"""Stage `brightness`: how bright each picture is. A toy that shows what a new stage takes: this folder and one line."""

from __future__ import annotations

from collections.abc import Iterable

from storage.tables import float64, int32, table
from tasks.index import index
from tasks.options import DatasetName, Options, Positive
from tasks.planning import Planner
from tasks.stage import Job, Metric, PageOf, Stage


class BrightnessOptions(Options):
    """Brightness of pictures."""

    dataset: DatasetName = "main"
    gamma: Positive = 1.0


def plan(audit: Planner, options: BrightnessOptions) -> Iterable[Job]:
    """Reads the pictures."""
    yield audit.job(STAGE, options, {"index": index(audit, options.dataset, "stages.brightness.dataset")})


STAGE = Stage(
    name="brightness",
    about="Measures how bright each picture is.",
    options=BrightnessOptions,
    work="tasks.brightness.work:run",
    plan=plan,
    cost=lambda _, pace: 1e-3 * pace.pictures,
    metrics=(Metric("brightness", "brightness", keys=("image",)),),
    page=PageOf("tasks.brightness.findings:findings", "tasks.brightness.findings:page"),
    starter="  # brightness: {gamma: 2.2}                # how bright each picture is\n",
    tables=(
        table(
            "brightness",
            "A row per picture.",
            image=int32("number of the picture"),
            brightness=float64("mean of its pixels to the power of gamma, 0 to 1"),
        ),
    ),
)
