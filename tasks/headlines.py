"""Headline figures of finished stages: what a run's record keeps, so that trends outlive the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from storage import Artifact
from storage.runs import FigureRun, RunRecord
from storage.tables import ReadRow
from tasks.registry import BY_NAME, METRICS
from tasks.stage import Headline, Metric

_RENAMED = {
    "unique detectors, per category": "different concepts, as papers count",
    "unique detectors, per unit": "different concepts",
}
"""Headlines as records of earlier versions call them, and as they are called now."""


def recorded(run: RunRecord) -> list[FigureRun]:
    """The headline figures that a run's record keeps, by the names that they have now.

    Args:
        run: of any version; one that kept none has none.
    """
    return [{**figure, "figure": _RENAMED.get(figure["figure"], figure["figure"])} for figure in run.figures]


def headlines(stages: Mapping[str, Artifact]) -> list[FigureRun]:
    """The headline figures of a run.

    Args:
        stages: its finished stages, by the names of their jobs.
    """
    return [
        figure
        for name, artifact in stages.items()
        for headline in BY_NAME[name.partition(":")[0]].headlines
        for figure in _figures(name, headline, artifact)
    ]


def metric_of(stage: str, words: str) -> str:
    """What a gate calls a headline figure, `table.column`; empty where no stage has one of this name any more.

    Args:
        stage: the name of its job.
        words: the figure's name.
    """
    known = BY_NAME.get(stage.partition(":")[0])
    return next((headline.metric for headline in known.headlines if headline.words == words), "") if known else ""


def _figures(stage: str, headline: Headline, artifact: Artifact) -> list[FigureRun]:
    metric = METRICS[headline.metric]
    if not artifact.has(f"{metric.table}.parquet"):
        return []
    table = artifact.table(metric.table)
    if not set(_columns(metric, headline)) <= set(table.column_names):  # written by another version
        return []
    rows = _wanted(table.to_pylist(), headline)
    values = [row[metric.column] for row in rows if row[metric.column] is not None]
    if headline.median:
        return [_figure(stage, headline, "", (float(median(values)), None, None))] if values else []
    return [
        _figure(
            stage,
            headline,
            _row(metric, headline, row),
            (row[metric.column], row[metric.low] if metric.low else None, row[metric.high] if metric.high else None),
        )
        for row in rows
    ]


def _figure(
    stage: str, headline: Headline, row: str, values: tuple[float | None, float | None, float | None]
) -> FigureRun:
    value, low, high = values
    return {"stage": stage, "figure": headline.words, "row": row, "value": value, "low": low, "high": high}


def _columns(metric: Metric, headline: Headline) -> list[str]:
    named = (metric.column, metric.low, metric.high, headline.latest, *metric.keys, *metric.nullable, *headline.rows)
    return [name for name in named if name]


def _wanted(rows: Sequence[ReadRow], headline: Headline) -> list[ReadRow]:
    found = [row for row in rows if all(_is(row[name], value) for name, value in headline.rows.items())]
    if headline.latest and found:
        last = max(row[headline.latest] for row in found)
        found = [row for row in found if row[headline.latest] == last]
    return found


def _is(value: object, wanted: object) -> bool:
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def _row(metric: Metric, headline: Headline, row: ReadRow) -> str:
    """What tells a row from the others that the headline has, in words."""
    fixed = {name for name, value in headline.rows.items() if not isinstance(value, tuple)} | {headline.latest}
    told = [name for name in (*metric.keys, *metric.nullable) if name not in fixed and row[name] is not None]
    return ", ".join(f"{name} {row[name]}" if isinstance(row[name], int | float) else str(row[name]) for name in told)
