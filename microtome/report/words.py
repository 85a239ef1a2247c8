"""Numbers in words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import floor, log10
from statistics import median as middle


def worded(value: float | None, form: str) -> str:
    """A number in words; a dash where there is none."""
    return "–" if value is None else format(value, form)


def percent(share: float | None) -> str:
    """A share in words: neither all nor nothing where it is only nearly so; a dash where there is none."""
    if share is None:
        return "–"
    if 0 < share < 0.005:
        return "under 1 %"
    return f"{min(99.0, 100 * share) if share < 1 else 100:.0f} %"


def median(values: Sequence[float | None]) -> float | None:
    """Of the values that there are; None where there are none."""
    known = [value for value in values if value is not None]
    return float(middle(known)) if known else None


def overlap(value: float | None) -> str:
    """An IoU, or an end of its interval; three digits behind the point, more where these would tell next to nothing."""
    if not value:
        return "–" if value is None else "0"
    return f"{value:.3f}" if value >= 0.005 else f"{value:.4f}" if value >= 0.00005 else f"{value:.5f}"


def decimals(values: Sequence[float], digits: int) -> int:
    """Digits behind the point that show the largest of some values to so many digits; none for whole numbers."""
    if all(float(value).is_integer() for value in values):
        return 0
    return max(0, digits - 1 - floor(log10(max(map(abs, values)))))


def change(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A difference and its interval, `−12 [−20, −4]`, all with as many digits; a dash where there is none."""
    if value is None:
        return "–"
    known = (value,) if low is None or high is None else (value, low, high)
    first, *ends = (_signed(each, decimals(known, 2)) for each in known)
    return f"{first} [{', '.join(ends)}]" if ends else first


def _signed(value: float, places: int) -> str:
    return f"{value:+,.{places}f}".replace("-", "−") if value else "0"


def moment(seconds: float) -> str:
    """When, to the minute: `1 December 2026, 05:08 UTC`.

    Args:
        seconds: since 1970.
    """
    when = time.gmtime(seconds)
    return f"{when.tm_mday} {_MONTHS[when.tm_mon - 1]} {time.strftime('%Y, %H:%M UTC', when)}"


_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
