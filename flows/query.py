"""SQL over the tables."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import duckdb
import pyarrow as pa

from flows.console import warn
from flows.sqlguard import check_query
from flows.text import text_table
from microtome.errors import InputError
from storage import Files, RunRecord
from storage.catalogue import connect
from tasks.registry import TABLES


def answer(
    files: Files, runs: Sequence[RunRecord], query: str, form: str, *, out: IO[str], unsafe: bool = False
) -> None:
    """Run a query and write its result.

    Args:
        files: the workspace.
        runs: whose tables are seen.
        query: DuckDB SQL.
        form: `table`, `csv`, `json` or `parquet`.
        out: where text goes; Parquet goes to its binary buffer.
        unsafe: whether anything that DuckDB can do is permitted, instead of one SELECT over the tables.

    Raises:
        InputError: the query is refused, by us or by DuckDB; Parquet to a terminal.
    """
    if form == "parquet" and out.isatty():
        raise InputError("--format parquet: must go to a file, got a terminal; append: > rows.parquet")
    table = _result(files, runs, query, unsafe=unsafe)
    if table is None:
        return
    if form == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, getattr(out, "buffer", sys.stdout.buffer))
        return
    rows = _rows(table)
    if form == "json":
        json.dump([dict(zip(table.column_names, row, strict=True)) for row in rows], out, indent=1, default=str)
        out.write("\n")
    elif form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(rows)
    elif table.column_names == ["explain_key", "explain_value"]:  # a drawing of many lines
        out.writelines(str(row[1]) + "\n" for row in rows)
    else:
        out.write(text_table(table.column_names, rows) + "\n")


def _result(files: Files, runs: Sequence[RunRecord], query: str, *, unsafe: bool) -> pa.Table | None:
    if any("\ud800" <= letter <= "\udfff" for letter in query):  # bytes of the command line that are not UTF-8
        raise InputError("sql: must be text in UTF-8")
    connection = connect(files, runs, TABLES, shut=not unsafe, say=warn)
    try:
        if not unsafe:
            check_query(connection, query)
        return _run(connection, query)
    except duckdb.Error as error:
        raise InputError(f"sql: {_reason(error)}") from error


def _run(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table | None:
    """The query's rows. In a thread of its own: DuckDB looks for Ctrl-C only between tasks, which may be long."""

    def run() -> pa.Table | None:
        relation = connection.sql(query)
        return None if relation is None else relation.to_arrow_table()

    with ThreadPoolExecutor(1) as worker:
        future = worker.submit(run)
        try:
            return future.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _reason(error: duckdb.Error) -> str:
    """DuckDB's words; of an error in our own file system, which it gives as a traceback, the last line."""
    text = str(error).strip()
    return text.splitlines()[-1] if text.startswith("Traceback") else text


def _rows(table: pa.Table) -> list[tuple[object, ...]]:
    try:
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    except (ValueError, OverflowError) as error:
        raise InputError(f"sql: a value cannot be shown: {error}; cast it to varchar") from error
