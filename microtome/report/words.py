"""Numbers in words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import floor, log10
from statistics import median as middle

_MONTHS = (  # whatever the language of the machine
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


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


def figured(value: float) -> str:
    """A number of any size to three digits, the same of neighbours: 91.0 beside 89.7, and 1,638."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}" if value else "0"


def median(values: Sequence[float | None]) -> float | None:
    """Of the values that there are; None where there are none."""
    known = [value for value in values if value is not None]
    return float(middle(known)) if known else None


def overlap(value: float | None) -> str:
    """An IoU; three digits behind the point, more where these would tell next to nothing."""
    if not value:
        return "–" if value is None else "0"
    return f"{value:.{_digits(value)}f}"


def interval(value: float, low: float | None, high: float | None) -> str:
    """The interval of an IoU, with as many digits as the IoU itself has; empty where there is none."""
    if low is None or high is None:
        return ""
    digits = _digits(value or high)
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def _digits(value: float) -> int:
    return 3 if value >= 0.005 or not value else 4 if value >= 0.00005 else 5


def day(seconds: float) -> str:
    """A point in time, given in seconds since the epoch: 1 December 2026, 05:08 UTC."""
    at = time.gmtime(seconds)
    return f"{at.tm_mday} {_MONTHS[at.tm_mon - 1]} {at.tm_year}, {at.tm_hour:02d}:{at.tm_min:02d} UTC"


def stamp(seconds: float) -> tuple[str, str, str]:
    """The same below an axis: its day, its hour (UTC), its year: 1 Dec, 05:08, 2026."""
    at = time.gmtime(seconds)
    return f"{at.tm_mday} {_MONTHS[at.tm_mon - 1][:3]}", f"{at.tm_hour:02d}:{at.tm_min:02d}", str(at.tm_year)


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
