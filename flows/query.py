"""SQL over the tables, and plain text tables."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from typing import IO, Any

import duckdb

from microtome.errors import InputError
from storage import Files, RunRecord
from storage.catalogue import connect
from tasks.registry import TABLES

WIDEST = 60  # characters of a cell


def answer(files: Files, runs: Sequence[RunRecord], query: str, form: str, out: IO[str]) -> None:
    """Run a query and write its result.

    Args:
        files: the workspace.
        runs: whose tables are seen.
        query: DuckDB SQL.
        form: `table`, `csv`, `json` or `parquet`.
        out: where text goes; Parquet goes to its binary buffer.

    Raises:
        InputError: DuckDB refuses the query.
    """
    connection = connect(files, runs, TABLES)
    try:
        relation = connection.sql(query)
        table = None if relation is None else relation.to_arrow_table()
    except duckdb.Error as error:
        raise InputError(f"sql: {str(error).strip()}") from error
    if table is None:
        return
    if form == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, getattr(out, "buffer", sys.stdout.buffer))
        return
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if form == "json":
        json.dump([dict(zip(table.column_names, row, strict=True)) for row in rows], out, indent=1, default=str)
        out.write("\n")
    elif form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(rows)
    else:
        out.write(text_table(table.column_names, rows) + "\n")


def text_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of plain text: numbers to the right, words to the left."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(head[i]), *(len(row[i]) for row in cells)) if cells else len(head[i]) for i in range(len(head))]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(head))]

    def line(values: Sequence[str]) -> str:
        padded = (v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *(line(row) for row in cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    text = str(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
