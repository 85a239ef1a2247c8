"""Plain text for terminals: tables, and names from data that must not steer them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from storage.runs import FigureRun

WIDEST = 60  # characters of a cell


def text_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of plain text: numbers to the right, words to the left.

    Control characters, and those that turn the direction of writing, are shown as escapes: names from data must not
    steer the terminal.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(head[i]), *(len(row[i]) for row in cells)) if cells else len(head[i]) for i in range(len(head))]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(head))]

    def line(values: Sequence[str]) -> str:
        padded = (v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *(line(row) for row in cells)])


def figure_line(figure: FigureRun) -> str:
    """A headline figure of a run, with its 95 % interval."""
    where = f" of {figure['row']}" if figure["row"] else ""
    low, high = figure["low"], figure["high"]
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    value = "none" if figure["value"] is None else f"{figure['value']:.4g}"
    return printable(f"{figure['figure']}{where}: {value}{interval}")


def flat(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of a configuration, and their values as text."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else str(name))
    elif key not in ("name", "workspace"):
        yield key, _listed(value) if isinstance(value, list) else as_text(value)


def _listed(items: list[object]) -> str:
    """Values of a list; of a mapping in it, such as a gate, what says something."""
    told = [
        ", ".join(f"{name} {as_text(value)}" for name, value in item.items() if value not in (None, False, {}))
        if isinstance(item, Mapping)
        else as_text(item)
        for item in items
    ]
    return "; ".join(told) or "none"


def as_text(value: object) -> str:
    """A value of a configuration."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    text = printable(str(value))
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def printable(text: str) -> str:
    """Text whose control characters, and those that turn the direction of writing, are escapes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
