"""DuckDB over the Parquet files: a view per table, over all chosen runs, each row with its run and network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import duckdb
import pyarrow as pa

from storage.files import Altered, Files
from storage.runs import RunRecord, finished_stages
from storage.shelf import PROTOCOL, Shelf
from storage.stages import Artifact
from storage.tables import TableSchema

_INTERNAL = ("null",)
_CONFIGURATION = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # else `from files` would find variables of this program
    "threads": "2",
}
_SHUT = (
    "allow_persistent_secrets = false",
    "temp_directory = ''",
    f"allowed_directories = ['{PROTOCOL}://']",
    "enable_external_access = false",
    "lock_configuration = true",
)


def connect(
    files: Files,
    runs: Iterable[RunRecord],
    tables: Sequence[TableSchema],
    *,
    shut: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> duckdb.DuckDBPyConnection:
    """A connection in memory whose views show the runs' tables.

    Nothing is installed or loaded from outside, and no SQL is put together from names that come from data: the views
    read names of our own from a shelf (storage.shelf).

    Args:
        files: the workspace.
        runs: the runs to show.
        tables: that stages declare: a view each, empty where no run has it.
        shut: whether the connection can open nothing but the tables' files, and those only for reading. It spills
            nothing to disk, and its configuration is locked.
        say: told in one sentence of each stage whose rows are missing because it is damaged or gone.
    """
    try:
        return _connected(files, list(runs), tables, shut=shut, say=say)
    except duckdb.Error:  # of a file that is not what its checksum was: it is looked for only now, since it takes time
        return _connected(files, list(runs), tables, shut=shut, say=say, wary=True)


def _connected(
    files: Files,
    runs: list[RunRecord],
    tables: Sequence[TableSchema],
    *,
    shut: bool,
    say: Callable[[str], None],
    wary: bool = False,
) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config=dict(_CONFIGURATION))
    shelf = Shelf(files)
    connection.register_filesystem(shelf)
    connection.execute("create table _artifacts (run_id varchar, network varchar, name varchar, path varchar)")
    rows = list(_artifacts(runs, shelf, {table.name for table in tables}, say, wary=wary))
    if rows:
        connection.executemany("insert into _artifacts values (?, ?, ?, ?)", rows)
    _runs_view(connection, runs)
    for table in tables:
        _view(connection, table, any(row[2] == table.name for row in rows))
    if shut:
        for setting in _SHUT:
            connection.execute(f"set {setting}")
    return connection


def _artifacts(
    runs: list[RunRecord], shelf: Shelf, names: set[str], say: Callable[[str], None], *, wary: bool
) -> Iterator[tuple[str, str, str, str]]:
    """Run, network, table and shelf name of every table file; of those that are whole where one is wary."""
    for run in runs:
        for artifact in finished_stages(shelf.files, run, say, wary=wary).values():
            for file in artifact.names():
                name = file.removesuffix(".parquet").partition("/")[0]
                if name in names and file.endswith(".parquet") and _brought(artifact, file, say):
                    yield run.run_id, run.network, name, shelf.put(name, f"{artifact.folder}/{file}")


def _brought(artifact: Artifact, file: str, say: Callable[[str], None]) -> bool:
    """Whether a file lies on this machine, or could be fetched as it was written."""
    try:
        artifact.bring(file)
    except Altered as error:
        say(f"{error}; its rows are missing here until then")
        return False
    return True


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
