"""Charts as SVG that takes its colours from the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from math import log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import altair as alt

from microtome.report.views import Bar, SignedBars, UnitKey

_INK, _BAR = "#010203", "#040506"  # stand-ins, replaced by what the page's style says
_PHASES = ("#2f7fb8", "#c8641e", "#7d8590")  # readable on light and on dark paper
_LINES = (*_PHASES, "#b0418c", "#4b9a5b", "#8a6d1f", "#7a5bd0")
_SPLITS = {"val": "held out", "train": "trained on"}
_WIDE, _HIGH = 640, 160  # of a histogram
_LEFT = 64  # of it, for the numbers of its axis
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def signed_bars(
    title: str, rows: Sequence[tuple[str, float, float | None]], units: Sequence[UnitKey | None] = ()
) -> SignedBars:
    """Bars to both sides of zero.

    Args:
        title: heading.
        rows: name, value, and a value to compare it with.
        units: that each is of; none where they are of no units.
    """
    values = [value for _, *pair in rows for value in pair if value is not None] or [0.0]
    low, high = min(0.0, *values), max(0.0, *values)
    scale = 100 / ((high - low) or 1.0)

    def place(value: float) -> float:
        return round((value - low) * scale, 2)

    bars = [
        Bar(
            name,
            place(min(value, 0.0)),
            round(abs(value) * scale, 2),
            None if other is None else place(other),
            value >= 0,
            f"{value:+.2f}" + ("" if other is None else f" ({other:+.2f})"),
            unit,
        )
        for (name, value, other), unit in zip_longest(rows, units)
    ]
    return SignedBars(title, bars)


def _drawn(name: str) -> str:
    """A name from data for a chart: what XML cannot hold makes the renderer abort the whole process."""
    return _NOT_XML.sub("\ufffd", name)


def _themed(svg: str) -> str:
    return svg.replace(_INK, "currentColor").replace(_BAR, "var(--bar)")


def curves(
    title: str, rows: Sequence[Mapping[str, object]], column: str, *, whole: bool = False
) -> tuple[str, str, str]:
    """Training curves: a line per phase, solid for held-out images, dashed for those trained on.

    Args:
        title: of the chart.
        rows: of the table `training`.
        column: what is drawn.
        whole: it is a share, and its axis reaches from 0 to 1.

    Returns:
        title, SVG, and the last values in words.
    """
    import altair as alt
    import pandas as pd
    import vl_convert

    rows = [{**row, "split": _SPLITS.get(str(row["split"]), row["split"])} for row in rows]
    frame = pd.DataFrame(
        [{"epoch": r["epoch"], "phase": r["phase"], "split": r["split"], "y": r[column]} for r in rows]
    )
    phases = list(dict.fromkeys(frame["phase"]))
    share, percent = alt.Scale(domain=[0, 1]), alt.Axis(format="%") if whole else alt.Axis()
    colour = alt.Scale(domain=phases, range=list(_PHASES[: len(phases)]))
    dash = alt.Scale(domain=list(_SPLITS.values()), range=[[1, 0], [4, 3]])
    chart = (
        alt.Chart(frame)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("y:Q", title=None, scale=share if whole else alt.Scale(zero=False), axis=percent),
            color=alt.Color("phase:N", scale=colour, title=None),
            strokeDash=alt.StrokeDash("split:N", scale=dash, title=None, legend=alt.Legend(symbolStrokeColor=_INK)),
        )
        .properties(width=250, height=160, config=_config())
    )
    svg = vl_convert.vegalite_to_svg(chart.to_json(), vl_version="6.4")
    last = {(row["phase"], row["split"]): row[column] for row in rows}
    words = ", ".join(f"{phase} {split} {value:.4g}" for (phase, split), value in last.items())
    return title, _themed(svg), f"{title} at the end: {words}"


def lines(title: str, rows: Sequence[Mapping[str, object]], along: str, *, lead: str = "") -> tuple[str, str, str]:
    """A line with dots per name.

    Args:
        title: of the chart.
        rows: `x`, `y` and the `line` that a point belongs to.
        along: what x is.
        lead: the line that is compared with the others, which is drawn broader.

    Returns:
        title, SVG, and the last values in words.
    """
    import altair as alt
    import pandas as pd
    import vl_convert

    frame = pd.DataFrame([{**row, "line": _drawn(str(row["line"]))} for row in rows])
    names = list(dict.fromkeys(frame["line"]))
    colour = alt.Scale(domain=names, range=list(_LINES[: len(names)]))
    chart = (
        alt.Chart(frame)
        .mark_line(point=True)
        .encode(
            strokeWidth=alt.condition(alt.datum.line == _drawn(lead), alt.value(4), alt.value(1.8)),
            x=alt.X("x:Q", title=along, axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("y:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color("line:N", scale=colour, title=None, legend=alt.Legend(columns=3)),
        )
        .properties(width=290, height=170, config=_config())
    )
    svg = vl_convert.vegalite_to_svg(chart.to_json(), vl_version="6.4")
    last = {row["line"]: row["y"] for row in rows}
    return title, _themed(svg), f"{title} at the end: " + ", ".join(f"{k} {v:.4g}" for k, v in last.items())


def errors(
    title: str, rows: Sequence[Mapping[str, object]], along: str, *, lead: str, top: float
) -> tuple[str, str, str]:
    """A line per name with 95 % intervals, on an axis from zero.

    Args:
        title: of the chart.
        rows: `x`, `y`, `low`, `high`, and the `line` that a point belongs to.
        along: what x is.
        lead: the line that is compared with the others, which is drawn broader.
        top: where the axis ends.

    Returns:
        title, SVG, and the last values in words.
    """
    import altair as alt
    import pandas as pd
    import vl_convert

    frame = pd.DataFrame([{**row, "line": _drawn(str(row["line"]))} for row in rows])
    names = list(dict.fromkeys(frame["line"]))
    apart = 0.02 * (frame["x"].max() - frame["x"].min())  # so that intervals at one place can be told apart
    frame["x"] += apart * frame["line"].map(names.index)
    places = alt.Axis(values=sorted({float(str(row["x"])) for row in rows}), format="d")
    base = alt.Chart(frame).encode(
        x=alt.X("x:Q", title=along, axis=places, scale=alt.Scale(zero=False, nice=False, padding=8)),
        color=alt.Color("line:N", scale=alt.Scale(domain=names, range=list(_LINES[: len(names)])), title=None),
    )
    value = alt.Y("y:Q", title=None, scale=alt.Scale(domain=[0, top], nice=True))
    wide = alt.condition(alt.datum.line == _drawn(lead), alt.value(4), alt.value(1.8))
    spans = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
    chart = (spans + base.mark_line(point=True).encode(y=value, strokeWidth=wide)).properties(
        width=220, height=170, config=_config()
    )
    svg = vl_convert.vegalite_to_svg(chart.to_json(), vl_version="6.4")
    last = {row["line"]: row["y"] for row in rows}
    return title, _themed(svg), f"{title} at the end: " + ", ".join(f"{k} {v:.4g}" for k, v in last.items())


def shares(title: str, rows: Sequence[Mapping[str, object]], asked: float) -> tuple[str, str, str]:
    """Shares with their intervals, a row per name, beside what is asked of them.

    Args:
        title: of the chart.
        rows: `name`, what is counted (`of`), `value`, `low` and `high`, from 0 to 1; a name's rows are shown together.
        asked: the share that is asked, a line.

    Returns:
        title, SVG, and the values in words.
    """
    import altair as alt
    import pandas as pd
    import vl_convert

    frame = pd.DataFrame([{**row, "name": _drawn(str(row["name"]))} for row in rows]).assign(asked=asked)
    kinds = list(dict.fromkeys(frame["of"]))
    name = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=220, domain=False, ticks=False))
    share = alt.Scale(domain=[0, 1])
    base = alt.Chart(frame).encode(
        y=name,
        yOffset=alt.YOffset("of:N", sort=None),
        color=alt.Color(
            "of:N", scale=alt.Scale(domain=kinds, range=list(_PHASES[: len(kinds)])), title=None,
            legend=alt.Legend(orient="top"),
        ),
    )  # fmt: skip
    axis = alt.Axis(format="%", grid=True, gridColor=_BAR, gridOpacity=0.25)
    spans = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=share, title=None, axis=axis), x2="high:Q")
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(x=alt.X("value:Q", scale=share))
    line = alt.Chart(frame).mark_rule(strokeDash=[4, 3], color=_INK).encode(x="mean(asked):Q")
    chart = (line + spans + dots).properties(width=250, height=alt.Step(11), config=_config())
    svg = vl_convert.vegalite_to_svg(chart.to_json(), vl_version="6.4")
    words = "; ".join(f"{row['name']}, {row['of']}: {row['value']:.0%}" for row in rows)
    return title, _themed(svg), f"{title}, {asked:.0%} is asked. {words}"


def histogram(start: float, width: float, counts: Sequence[int], limit: tuple[float, float]) -> tuple[str, str, str]:
    """How often a unit has which values, on a logarithmic scale, and its threshold. Drawn by hand, for there are many.

    The bin that holds the threshold is not told from those below it: what it counts may all lie on the threshold, as
    the zeros of a unit that is hardly ever active do.

    Args:
        start: where the first bin begins.
        width: of each bin.
        counts: values in each bin.
        limit: the unit's threshold, and the share of its values that may lie above it.

    Returns:
        title, SVG, and the same in words.
    """
    threshold, tail = limit
    end, most = start + width * len(counts), log10(1 + max(counts))
    step = _WIDE / len(counts)
    bars = {True: "", False: ""}
    for place, count in enumerate(counts):
        top = round(_HIGH * (1 - log10(1 + count) / most), 1)
        bars[start + place * width > threshold] += f"M{place * step:.1f} {_HIGH}V{top}h{step:.2f}V{_HIGH}"

    def at(value: float) -> float:
        return max(0.0, min(_WIDE, (value - start) / width * step))

    line, words = at(threshold), f"threshold {threshold:.3g}, ≤ {100 * tail:g} % above"
    late = line > 0.45 * _WIDE
    ticks = [_text(at(value), 180, f"{value:.4g}", _anchor(value, start, end)) for value in _ticks(start, end)]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="values" viewBox="-{_LEFT} -26 {_WIDE + _LEFT} 212" '
        f'font-size="14" fill="currentColor">{_levels(most)}'
        f'<path fill="var(--null)" d="{bars[False]}"/><path fill="var(--bar)" d="{bars[True]}"/>'
        f'<path d="M0 {_HIGH}h{_WIDE}" stroke="currentColor" fill="none"/>'
        f'<path d="M{line:.1f} -14V{_HIGH}" stroke="currentColor" stroke-dasharray="4 3" fill="none"/>'
        f"{_text(line + (-6 if late else 6), -5, words, 'end' if late else 'start')}"
        f"{''.join(ticks)}</svg>"
    )
    told = f"{sum(counts):,} values from {start:.4g} to {end:.4g}; {words}"
    return "", svg, told


def _levels(most: float) -> str:
    """Lines at the powers of ten that lie below the highest bar, each with its number."""
    drawn = {10**power: _HIGH * (1 - log10(1 + 10**power) / most) for power in range(int(most) + 1)}
    levels = {count: level for count, level in drawn.items() if level > 4}
    lines = "".join(f"M0 {level:.1f}h{_WIDE}" for level in levels.values())
    numbers = "".join(_text(-6, round(level + 4, 1), _short(count), "end") for count, level in levels.items())
    return f'<path d="{lines}" stroke="var(--line)" fill="none"/>{numbers}'


def _short(power: int) -> str:
    """A power of ten in a few signs, so that it can be large on a phone: `100`, `10k`, `1M`."""
    thousands = (len(str(power)) - 1) // 3
    return f"{power // 1000**thousands}{['', 'k', 'M', 'G', 'T'][thousands]}"


def _ticks(start: float, end: float) -> list[float]:
    """Both ends, and zero where it lies well between them."""
    inside = 0.1 < -start / (end - start) < 0.9
    return [start, 0.0, end] if inside else [start, end]


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:g}" text-anchor="{anchor}">{words}</text>'


def _anchor(value: float, start: float, end: float) -> str:
    return {start: "start", end: "end"}.get(value, "middle")


def _config() -> alt.Config:
    import altair as alt

    axis = alt.AxisConfig(
        labelColor=_INK,
        titleColor=_INK,
        labelFontSize=11,
        titleFontSize=11,
        domainColor=_INK,
        tickColor=_INK,
        grid=False,
    )
    legend = alt.LegendConfig(labelColor=_INK, labelFontSize=11, orient="bottom")
    return alt.Config(
        background="transparent", axis=axis, legend=legend, view=alt.ViewConfig(stroke=None), font="sans-serif"
    )
