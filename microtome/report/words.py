"""Numbers in words."""

from __future__ import annotations

from collections.abc import Sequence
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
