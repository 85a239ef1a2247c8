"""What `microtome sql` accepts: one SELECT over the workspace's own tables.

Two walls stand behind each other. The connection (storage.catalogue) can open nothing but the tables' files, and those
only for reading. This module looks at the parsed query, because a SELECT can do more than select: DuckDB accepts
`with x as (copy ... to 'file') select ...`, and functions such as read_text, query or enable_logging.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from microtome.errors import InputError, suggest

_RULE = "must be one SELECT over this workspace's tables (or DESCRIBE, SUMMARIZE, SHOW, EXPLAIN of one)"
_REST = "--unsafe permits the rest"
_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree"})
_EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+)?", re.IGNORECASE)


def check_query(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse a query that could do anything but read the connection's tables.

    Args:
        connection: whose parser and tables count.
        query: DuckDB SQL.

    Raises:
        InputError: no SQL, not one statement, not a SELECT, or a SELECT that writes, or reads something else.
    """
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise InputError(f"sql: {_RULE}, got {len(statements)} statements; {_REST}")
    kind = statements[0].type.name
    if kind not in ("SELECT", "EXPLAIN"):
        got = "a PIVOT without IN (...)" if kind == "MULTI" else kind.replace("_", " ")
        raise InputError(f"sql: {_RULE}, got {got}; {_REST}")
    tables = {str(name).lower() for (name,) in connection.execute("select view_name from duckdb_views()").fetchall()}
    tables |= {str(name).lower() for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
    faults = list(_faults(_tree(connection, _EXPLAIN.sub("", query, count=1)), tables))
    if faults:
        raise InputError(f"sql: {faults[0]}; {_REST}")


def _tree(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    """The parsed query as JSON values, without EXPLAIN, which DuckDB does not serialise."""
    ((text,),) = connection.execute("select json_serialize_sql(?::varchar)", [query]).fetchall()
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise InputError("sql: is nested too deeply") from error
    if tree["error"]:
        raise InputError(f"sql: {_RULE}, got something else: {tree['error_message']}; {_REST}")
    return tree


def _faults(tree: object, tables: set[str]) -> Iterator[str]:
    parts = list(_parts(tree))
    named = tables | {str(part["key"]).lower() for part in parts if "key" in part and "value" in part}
    for part in parts:
        kind = str(part.get("type"))
        if kind.endswith("_NODE") and kind not in _QUERIES:
            yield f"{_RULE}, got a SELECT with {kind.removesuffix('_NODE').replace('_', ' ')} inside"
        if kind == "TABLE_FUNCTION":
            name = str(part["function"]["function_name"])
            if name.lower() not in _TABLE_FUNCTIONS:
                yield f"{name}(...) is not a table of this workspace{suggest(name, sorted(_TABLE_FUNCTIONS))}"
        if kind == "BASE_TABLE":
            *schema, name = (str(word).lower() for word in part["qualified_name"]["path"])
            if name not in named and "information_schema" not in schema:
                yield f"no table {name!r} in this workspace{suggest(name, sorted(named))}"


def _parts(tree: object) -> Iterator[dict[str, Any]]:
    """Every object of a JSON tree; a loop, since queries may be nested deeper than Python recurses."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
