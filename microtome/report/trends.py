"""Trends over runs as SVG that takes its colours from the page: a line, its interval as a band, limits, odd runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from markupsafe import escape

WIDTH, HEIGHT = 420, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 26  # margins, of which the axes' words take two


@dataclass(frozen=True)
class Point:
    """A figure in one run; None where the run did not measure it.

    Args:
        value, low, high: with its 95 % interval.
        limit: of a gate.
        missed: whether the run's gate failed, or warned.
        text: run and value, in words.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    missed: bool = False
    text: str = ""


@dataclass(frozen=True)
class Trend:
    """A figure over the runs, oldest first, and the runs at which the pictures changed."""

    points: Sequence[Point]
    breaks: Sequence[int] = ()

    @cached_property
    def ticks(self) -> list[float]:
        """Round numbers from end to end of the axis, which holds zero and all that is drawn; whole ones for counts."""
        drawn = [
            number
            for point in self.points
            if point.value is not None
            for number in (point.value, point.low, point.high, point.limit)
            if number is not None
        ]
        low, high = min(drawn, default=0.0), max(drawn, default=0.0)
        low, high = min(low, 0.0), max(high, 0.0)
        step = _step(high - low or 1.0, whole=all(float(number).is_integer() for number in drawn))
        first, last = math.floor(low / step), max(math.ceil(high / step), 1 if low == 0 else 0)
        return [place * step for place in range(first, last + 1)]


def _step(span: float, *, whole: bool) -> float:
    """The least of 1, 2, 5, 10, 20, 50, ..., and of their decimal parts where not `whole`, that spans it in 4 steps."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(times * power for times in (1, 2, 5, 10) if times * power * 4 >= span * (1 - 1e-9))
    return max(step, 1.0) if whole else step


def drawn(trend: Trend, ends: tuple[str, str]) -> str:
    """The trend as SVG.

    Args:
        trend: what is drawn.
        ends: what stands below its first and its last run, in words.
    """
    frame = _Frame(trend)
    parts = [*_axes(frame, ends), *_breaks(frame), *_band(frame), *_limits(frame), *_line(frame), *_dots(frame)]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" class="trend">{"".join(parts)}</svg>'


@dataclass(frozen=True)
class _Frame:
    """Where runs and values lie."""

    trend: Trend

    def x(self, run: int) -> float:
        """Of a run."""
        count = len(self.trend.points)
        share = 0.5 if count == 1 else run / (count - 1)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        """Of a value."""
        low, high = self.trend.ticks[0], self.trend.ticks[-1]
        return round(_TOP + (high - value) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)


def _axes(frame: _Frame, ends: tuple[str, str]) -> Iterator[str]:
    ticks = "".join(f"M{_LEFT - 4} {frame.y(value)}h4" for value in frame.trend.ticks)
    yield f'<path class="axis" d="M{_LEFT} {_TOP}V{HEIGHT - _BOTTOM}M{_LEFT} {frame.y(0)}H{WIDTH - _RIGHT}{ticks}"/>'
    for value in frame.trend.ticks:
        text = f"{value:,.6g}".replace("-", "−")
        yield f'<text x="{_LEFT - 7}" y="{frame.y(value) + 4}" text-anchor="end">{text}</text>'
    yield f'<text x="{_LEFT}" y="{HEIGHT - 8}">{escape(ends[0])}</text>'
    if len(frame.trend.points) > 1:
        yield f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(ends[1])}</text>'


def _breaks(frame: _Frame) -> Iterator[str]:
    for run in frame.trend.breaks:
        x = round((frame.x(run) + frame.x(run - 1)) / 2, 1)
        title = "<title>other pictures from here on</title>"
        yield f'<path class="break" d="M{x} {_TOP}V{HEIGHT - _BOTTOM}">{title}</path>'


def _pieces(frame: _Frame) -> Iterator[list[tuple[int, Point]]]:
    """Runs one after the other that measured the figure over the same pictures."""
    part = 0

    def key(item: tuple[int, Point]) -> tuple[int, bool]:
        nonlocal part
        part += item[0] in frame.trend.breaks
        return part, item[1].value is not None

    for (_, known), piece in groupby(enumerate(frame.trend.points), key):
        if known:
            yield list(piece)


def _band(frame: _Frame) -> Iterator[str]:
    for piece in _pieces(frame):
        ends = [(run, point.low, point.high) for run, point in piece]
        known = [(run, low, high) for run, low, high in ends if low is not None and high is not None]
        if len(known) == 1:
            run, low, high = known[0]
            yield f'<path class="whisker" d="M{frame.x(run)} {frame.y(low)}V{frame.y(high)}"/>'
        elif known:
            upper = "L".join(f"{frame.x(run)} {frame.y(high)}" for run, _, high in known)
            lower = "L".join(f"{frame.x(run)} {frame.y(low)}" for run, low, _ in reversed(known))
            yield f'<path class="band" d="M{upper}L{lower}Z"/>'


def _limits(frame: _Frame) -> Iterator[str]:
    """A gate's limit, which may change from run to run: each run's reaches half of the way to its neighbours."""
    count = len(frame.trend.points)
    reach = 20 if count == 1 else (WIDTH - _LEFT - _RIGHT) / (count - 1) / 2
    for limit, runs in groupby(enumerate(frame.trend.points), lambda item: item[1].limit):
        if limit is not None:
            numbers = [run for run, _ in runs]
            start, end = max(frame.x(numbers[0]) - reach, _LEFT), min(frame.x(numbers[-1]) + reach, WIDTH - _RIGHT + 8)
            yield f'<path class="limit" d="M{start:.1f} {frame.y(limit)}H{end:.1f}"/>'


def _line(frame: _Frame) -> Iterator[str]:
    for piece in _pieces(frame):
        places = [f"{frame.x(run)} {frame.y(point.value)}" for run, point in piece if point.value is not None]
        if len(places) > 1:
            yield f'<path class="line" d="M{"L".join(places)}"/>'


def _dots(frame: _Frame) -> Iterator[str]:
    size = 3.2 if len(frame.trend.points) <= 60 else 1.6
    for run, point in enumerate(frame.trend.points):
        if point.value is None:
            continue
        x, y, title = frame.x(run), frame.y(point.value), f"<title>{escape(point.text)}</title>"
        if point.missed:
            yield f'<path class="missed" d="M{x - 4} {y - 4}l8 8m0-8l-8 8">{title}</path>'
        else:
            yield f'<circle class="dot" cx="{x}" cy="{y}" r="{size}">{title}</circle>'
