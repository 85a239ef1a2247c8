"""Trends over runs as SVG that takes its colours from the page: a line, its interval as a band, limits, odd runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from markupsafe import escape

WIDTH, HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 22, 10, 48  # margins; below, a line of marks and two of words
_SIGN = 7  # width of a sign of what stands below the axis


@dataclass(frozen=True)
class Point:
    """A figure in one run; None where the run did not measure it.

    Args:
        value, low, high: with its 95 % interval.
        missed: whether the run's gate failed, or warned.
        sure: whether it surely differs from the run before.
        text: run and value, in words.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    missed: bool = False
    sure: bool = False
    text: str = ""


@dataclass(frozen=True)
class Run:
    """What stands below the axis.

    Args:
        day, hour: when it began; the year may stand in place of the hour.
        marks: a letter for each kind of thing that is not as in the run before, and in words.
    """

    day: str
    hour: str
    marks: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Trend:
    """A figure over the runs, oldest first.

    Args:
        points: one for each run.
        runs: the same runs.
        breaks: numbers of those that cannot be compared with the run before.
        limits: of each of its gates, in each run; None where there was none.
    """

    points: Sequence[Point]
    runs: Sequence[Run]
    breaks: Sequence[int] = ()
    limits: Sequence[Sequence[float | None]] = ()

    @cached_property
    def ticks(self) -> list[float]:
        """Round numbers from end to end of an axis that holds all that is drawn, six at most; whole ones for counts.

        It begins at zero, unless what is drawn is far from zero beside what it differs in.
        """
        known = [point for point in self.points if point.value is not None]
        drawn = [end for point in known for end in (point.value, point.low, point.high) if end is not None]
        drawn += [limit for limits in self.limits for limit in limits if limit is not None and known]
        low, high = min(drawn, default=0.0), max(drawn, default=0.0)
        if (low > 0 and high - low >= low / 2) or low == high > 0:
            low = 0.0
        if (high < 0 and high - low >= -high / 2) or low == high < 0:
            high = 0.0
        step = _step(high - low or 1.0, whole=all(float(number).is_integer() for number in drawn))
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return [place * step for place in range(first, max(last, first + 1) + 1)]


def _step(span: float, *, whole: bool) -> float:
    """The least of 1, 2, 5, 10, 20, 50, ..., and of their decimal parts where not `whole`, that spans it in 4 steps."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(times * power for times in (1, 2, 5, 10) if times * power * 4 >= span * (1 - 1e-9))
    return max(step, 1.0) if whole else step


def drawn(trend: Trend) -> str:
    """The trend as SVG."""
    frame = _Frame(trend)
    parts = [*_axes(frame), *_below(frame), *_breaks(frame), *_band(frame), *_limits(frame), *_line(frame)]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" class="trend">{"".join([*parts, *_dots(frame)])}</svg>'


@dataclass(frozen=True)
class _Frame:
    """Where runs and values lie."""

    trend: Trend

    def x(self, run: int) -> float:
        """Of a run."""
        count = len(self.trend.points)
        share = 0.5 if count == 1 else (run + 0.25) / (count - 0.5)  # off the axis, on which whiskers would not show
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        """Of a value."""
        low, high = self.trend.ticks[0], self.trend.ticks[-1]
        return round(_TOP + (high - value) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    @property
    def step(self) -> float:
        """From a run to the next."""
        return self.x(1) - self.x(0) if len(self.trend.points) > 1 else WIDTH


def _axes(frame: _Frame) -> Iterator[str]:
    right, bottom = WIDTH - _RIGHT + 12, HEIGHT - _BOTTOM
    grid = "".join(f"M{_LEFT} {frame.y(value)}H{right}" for value in frame.trend.ticks)
    yield f'<path class="grid" d="{grid}"/><path class="axis" d="M{_LEFT} {bottom}H{right}"/>'
    for value in frame.trend.ticks:
        text = f"{value:,.6g}".replace("-", "−")
        yield f'<text x="{_LEFT - 7}" y="{frame.y(value) + 4}" text-anchor="end">{text}</text>'


def _below(frame: _Frame) -> Iterator[str]:
    """When runs began, as many as there is room for, the last always; and what was not as before, of all."""
    bottom = HEIGHT - _BOTTOM
    runs = frame.trend.runs
    longest = max((len(run.hour if len({run.day for run in runs}) == 1 else run.day) for run in runs), default=0)
    every = max(1, math.ceil(_SIGN * longest / frame.step))
    before = ""
    for number, run in enumerate(runs):
        x = frame.x(number)
        yield f'<path class="axis" d="M{x} {bottom}v3"/>'
        for place, (letter, words) in enumerate(run.marks):
            off = x + 8 * (place - (len(run.marks) - 1) / 2)
            title = f"<title>{escape(words)}</title>"
            yield f'<text class="mark" x="{off:.1f}" y="{bottom + 14}" text-anchor="middle">{letter}{title}</text>'
        if (len(runs) - 1 - number) % every:
            continue
        yield f'<text x="{x}" y="{bottom + 28}" text-anchor="middle">{escape(run.hour)}</text>'
        if run.day != before:
            yield f'<text class="day" x="{x}" y="{bottom + 42}" text-anchor="middle">{escape(run.day)}</text>'
        before = run.day


def _breaks(frame: _Frame) -> Iterator[str]:
    for run in frame.trend.breaks:
        x = round((frame.x(run) + frame.x(run - 1)) / 2, 1)
        title = "<title>other pictures or settings from here on</title>"
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
    """Gates' limits, which may change from run to run: each run's reaches half of the way to its neighbours."""
    for limits in frame.trend.limits:
        for limit, runs in groupby(enumerate(limits), lambda item: item[1]):
            if limit is None:
                continue
            numbers = [run for run, _ in runs]
            start = max(frame.x(numbers[0]) - frame.step / 2, _LEFT)
            end = min(frame.x(numbers[-1]) + frame.step / 2, WIDTH - _RIGHT + 12)
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
        if point.sure:
            yield f'<circle class="moved" cx="{x}" cy="{y}" r="{size + 3.3}"/>'
        if point.missed:
            yield f'<path class="missed" d="M{x - 4} {y - 4}l8 8m0-8l-8 8">{title}</path>'
        else:
            yield f'<circle class="dot" cx="{x}" cy="{y}" r="{size}">{title}</circle>'
