"""Numbers in words."""

from __future__ import annotations


def worded(value: float | None, form: str) -> str:
    """A number in words; a dash where there is none."""
    return "–" if value is None else format(value, form)
