"""Tables while they grow: column -> values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rows = dict[str, list[Any]]


def append(rows: Rows, row: Mapping[str, Any]) -> None:
    """Add one row; `rows` is a defaultdict, or has its columns."""
    for name, value in row.items():
        rows[name].append(value)
