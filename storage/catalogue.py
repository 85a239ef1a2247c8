"""DuckDB over the Parquet files: a view per table, over all chosen runs, each row with its run and network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import duckdb
import pyarrow as pa

from storage.files import Files
from storage.runs import RunRecord
from storage.stages import StageStore
from storage.tables import TableSchema

_INTERNAL = ("null",)


def connect(files: Files, runs: Iterable[RunRecord], tables: Sequence[TableSchema]) -> duckdb.DuckDBPyConnection:
    """A connection in memory whose views show the runs' tables.

    Nothing is installed or loaded from outside, and no SQL is put together from names that come from data: paths go
    into a table as bound parameters, and the views read them from there.

    Args:
        files: the workspace.
        runs: the runs to show.
        tables: that stages declare: a view each, empty where no run has it.
    """
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": "2"}
    )
    chosen = list(runs)
    connection.execute("create table _artifacts (run_id varchar, network varchar, name varchar, path varchar)")
    rows = list(_artifacts(files, chosen, {table.name for table in tables}))
    if rows:
        connection.executemany("insert into _artifacts values (?, ?, ?, ?)", rows)
    _runs_view(connection, chosen)
    for table in tables:
        _view(connection, table, any(row[2] == table.name for row in rows))
    return connection


def _artifacts(files: Files, runs: list[RunRecord], names: set[str]) -> Iterable[tuple[str, str, str, str]]:
    store = StageStore(files)
    for run in runs:
        for stage in run.stages.values():
            artifact = store.load(str(stage["folder"])) if stage.get("folder") else None
            for file in artifact.names() if artifact else ():
                name = file.removesuffix(".parquet").partition("/")[0]
                if name in names and file.endswith(".parquet"):
                    yield run.run_id, run.network, name, files.location(f"{artifact.folder}/{file}")  # type: ignore[union-attr]


def _runs_view(connection: duckdb.DuckDBPyConnection, runs: list[RunRecord]) -> None:
    table = pa.table(
        {
            "run_id": pa.array([run.run_id for run in runs], pa.string()),
            "name": pa.array([run.name for run in runs], pa.string()),
            "network": pa.array([run.network for run in runs], pa.string()),
            "started": pa.array([int(run.started * 1e6) for run in runs], pa.timestamp("us", tz="UTC")),
            "seconds": pa.array([run.seconds for run in runs], pa.float64()),
            "status": pa.array([run.status for run in runs], pa.string()),
        }
    )
    connection.register("_runs", table)
    connection.execute("create table runs as select * from _runs")
    connection.unregister("_runs")


def _view(connection: duckdb.DuckDBPyConnection, table: TableSchema, filled: bool) -> None:
    """`name` is one of the contract's tables, never a name from data."""
    name = table.name
    shown = f"_{name}" if name in _INTERNAL else name
    if not filled:
        empty = table.schema.empty_table()
        connection.register("_empty", empty)
        connection.execute(
            f'create table "{shown}" as select null::varchar as run_id, null::varchar as network, * from _empty'
        )
        connection.unregister("_empty")
        return
    connection.execute(
        f"set variable files_{name} = (select list(distinct path) from _artifacts where name = '{name}')"
    )
    connection.execute(
        f'create view "{shown}" as select a.run_id, a.network, t.* exclude (filename) '
        f"from read_parquet(getvariable('files_{name}'), filename = true, union_by_name = true) t "
        f"join _artifacts a on a.path = t.filename and a.name = '{name}'"
    )
