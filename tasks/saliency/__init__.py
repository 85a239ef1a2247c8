"""Stage `saliency`: what each method makes of the predicted class, for a sample of the pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from microtome.visualize.names import METHODS, MethodName
from storage.tables import float64, int32, string, table
from tasks.index import index
from tasks.options import Count, DatasetName, Options
from tasks.planning import Planner
from tasks.stage import Job, PageOf, Stage

# One page shows the maps and the verdicts on them; either stage may be there without the other.
PAGE = PageOf("tasks.saliency.findings:findings", "microtome.report.saliency:page")


class SaliencyOptions(Options):
    """Saliency maps of the predicted class."""

    dataset: DatasetName = "main"
    images: Count = 12
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)] = METHODS


def plan(audit: Planner, options: SaliencyOptions) -> Iterable[Job]:
    """Of the audit's own network."""
    pictures = index(audit, options.dataset, "stages.saliency.dataset")
    yield audit.job(STAGE, options, {"index": pictures, "network": audit.network})


STAGE = Stage(
    name="saliency",
    about="Draws what each attribution method makes of the predicted class.",
    options=SaliencyOptions,
    work="tasks.saliency.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device"}),
    threads="all",
    network=True,
    page=PAGE,
    starter="  # saliency: {images: 12}                    # maps of the predicted class, method by method\n",
    tables=(
        table(
            "saliency",
            "A row per picture and method: a map of the predicted class.",
            image=int32("number of the picture"),
            target=int32("class that the map is of"),
            method=string("that made it"),
            scale=float64("99th percentile of its absolute values, at which pictures of it saturate"),
            file=string("of the stage, that holds the maps of the method"),
        ),
    ),
)
