"""Charts of a table for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from microtome.errors import InputError, suggest

if TYPE_CHECKING:
    import altair
    import pandas


def ranked(frame: pandas.DataFrame, column: str | None, *, most: int, title: str) -> altair.LayerChart:
    """The highest values of a column, as dots with their 95 % intervals.

    Args:
        frame: a table.
        column: of numbers; the first with an interval where None, else the first of fractions.
        most: rows that are drawn.
        title: above.

    Raises:
        InputError: there is no such column, or it holds no numbers.
    """
    import altair as alt

    name = _column(frame, column)
    shown = frame.dropna(subset=[name]).nlargest(most, name)
    shown = shown.assign(row=_names(shown, name))
    base = alt.Chart(shown).encode(y=alt.Y("row:N", sort=None, title=None))
    dots = base.mark_point(filled=True, size=50).encode(x=alt.X(f"{name}:Q"), tooltip=list(map(str, frame.columns)))
    ends = [
        base.mark_rule().encode(x=alt.X(f"{low}:Q", title=f"{name}, 95 % interval"), x2=f"{high}:Q")
        for low, high in _interval(list(frame.columns), name)
    ]
    return alt.LayerChart(layer=[*ends, dots], title=title)


def _interval(columns: Sequence[str], name: str) -> list[tuple[str, str]]:
    """The ends of a column's interval, if it has one: `iou_low` and `iou_high`, or `low` and `high` right behind."""
    if f"{name}_low" in columns:
        return [(f"{name}_low", f"{name}_high")]
    follows = columns[columns.index(name) + 1 :][:2]
    return [("low", "high")] if follows == ["low", "high"] else []


def _column(frame: pandas.DataFrame, wanted: str | None) -> str:
    numbers = list(frame.select_dtypes("number").columns)
    if wanted is None:
        with_interval = [name for name in numbers if _interval(list(frame.columns), name)]
        found = [*with_interval, *frame.select_dtypes("floating").columns, *numbers]
        if not found:
            raise InputError("column: the table must have one of numbers, got none")
        return str(found[0])
    if wanted not in numbers:
        raise InputError(f"column: must be one of numbers, got {wanted!r}{suggest(wanted, numbers)}")
    return wanted


def _names(frame: pandas.DataFrame, column: str) -> list[str]:
    """What each row is about: its leading columns of words and whole numbers, before the one that is drawn."""
    before = list(frame.columns)[: max(1, list(frame.columns).index(column))]
    about = [name for name in before if frame[name].dtype.kind != "f"] or before[:1]
    return [", ".join(str(value) for value in row) for row in frame[about].itertuples(index=False)]
