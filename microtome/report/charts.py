"""Charts as SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.report.views import Chart

_INK, _BAR = "#010203", "#040506"  # stand-ins, replaced by what the page's style says
MOST_BARS = 25


def concept_bars(category: str, counted: Sequence[tuple[str, int]], most: int) -> Chart:
    """Units per concept of one category, as horizontal bars.

    Args:
        category: its name.
        counted: concept and number of units, in the order in which they are shown.
        most: units that fill the width; one scale for all categories.
    """
    import altair as alt
    import pandas as pd
    import vl_convert

    shown = list(counted[:MOST_BARS])
    frame = pd.DataFrame({"concept": [name for name, _ in shown], "units": [count for _, count in shown]})
    length = alt.X("units:Q", axis=None, scale=alt.Scale(domain=[0, most]))
    base = alt.Chart(frame).encode(x=length, y=alt.Y("concept:N", sort=None, title=None))
    bars = base.mark_bar(color=_BAR)
    numbers = base.mark_text(align="left", dx=4, color=_INK, fontSize=12).encode(text="units:Q")
    axis = alt.AxisConfig(labelColor=_INK, labelFontSize=12, labelLimit=130, domain=False, ticks=False, grid=False)
    config = alt.Config(background="transparent", axis=axis, view=alt.ViewConfig(stroke=None), font="sans-serif")
    chart = (bars + numbers).properties(width=150, height=alt.Step(21), config=config)
    svg = vl_convert.vegalite_to_svg(chart.to_json(), vl_version="6.4")
    rest = f" (the first {MOST_BARS} of {len(counted)})" if len(counted) > MOST_BARS else ""
    return Chart(f"{category}{rest}", _themed(svg), list(counted))


def _themed(svg: str) -> str:
    return svg.replace(_INK, "currentColor").replace(_BAR, "var(--bar)")
