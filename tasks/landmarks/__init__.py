"""Stage `landmarks`: part landmarks put into the network's frame, beside the pictures' categories."""

from __future__ import annotations

from storage.tables import float64, int32, string, table
from tasks.data import DataSpec
from tasks.options import Options
from tasks.planning import Planner
from tasks.stage import Job, Stage


class LandmarksOptions(Options):
    """Nothing to choose: the index says which pictures, and in which frame."""


STAGE = Stage(
    name="landmarks",
    about="Puts the data set's part landmarks into the network's frame.",
    options=LandmarksOptions,
    work="tasks.landmarks.work:run",
    cost=lambda _, pace: 1e-3 * pace.pictures,
    tables=(
        table(
            "landmarks",
            "A row per landmark that a picture shows; none where the data set has landmarks in other pictures only.",
            image=int32("number of the picture"),
            category=string("the picture's class, or all where the data set has no classes"),
            landmark=string("name of the part"),
            x=float64("from the left, in pixels of the network's frame"),
            y=float64("from the top, in pixels of the network's frame"),
        ),
    ),
)


def landmarks(audit: Planner, index: Job) -> Job | None:
    """The landmarks of an indexed data set: one job for all who ask; None where no picture of it has any.

    Args:
        audit: the audit.
        index: of the data set.
    """
    data = index.reads["data"]
    if not (isinstance(data, DataSpec) and data.has_landmarks):
        return None
    return audit.add(audit.job(STAGE, LandmarksOptions(), {"index": index}, variant=index.variant))
