"""Tables of the contract: a name, a line of meaning, and typed columns each with a line of its own.

Stages declare theirs (`tasks/<stage>`); nothing here knows which there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.files import HashingSink

Row = Mapping[str, object]
"""A row to be written, by column; what its values may be the declaration says, and writing checks it."""

Columns = Mapping[str, Iterable[object]]
"""Columns to be written, as lists or arrays."""

Gathered = dict[str, list[object]]
"""Columns that grow."""

ReadRow = dict[str, Any]
"""A row as it was read: values of the types that the declaration gives its columns."""


@dataclass(frozen=True)
class Column:
    """A column: its Parquet type, and what it means in one line."""

    type: pa.DataType
    meaning: str


@dataclass(frozen=True, eq=False)
class TableSchema:
    """A table that a stage writes.

    Args:
        name: as SQL knows it.
        about: what a row is, in one line.
        columns: name -> type and meaning, in order.
        sharded: written as several files, in a folder of its name.
    """

    name: str
    about: str
    columns: Mapping[str, Column]
    sharded: bool = False

    @cached_property
    def schema(self) -> pa.Schema:
        """What Parquet is told."""
        return pa.schema([(name, column.type) for name, column in self.columns.items()])

    def conform(self, values: Columns | pa.Table) -> pa.Table:
        """A table with these columns, in this order and these types.

        Raises:
            ValueError: other columns than the declaration says.
        """
        given = values.column_names if isinstance(values, pa.Table) else list(values)
        if set(given) != set(self.columns):
            raise ValueError(
                f"table {self.name} must have the columns {', '.join(self.columns)}, got {', '.join(given)}"
            )
        if isinstance(values, pa.Table):
            return values.select(self.schema.names).cast(self.schema)
        arrays = {field.name: pa.array(values[field.name], field.type) for field in self.schema}
        return pa.table(arrays, schema=self.schema)


def table(name: str, about: str, /, *, sharded: bool = False, **columns: Column) -> TableSchema:
    """Declare a table: `table("images", "A row per picture.", image=int32("its number"), ...)`."""
    return TableSchema(name, about, columns, sharded)


def int32(meaning: str) -> Column:
    """A column of numbers that count."""
    return Column(pa.int32(), meaning)


def int64(meaning: str) -> Column:
    """A column of large counts."""
    return Column(pa.int64(), meaning)


def float32(meaning: str) -> Column:
    """A column of values in a network's own precision."""
    return Column(pa.float32(), meaning)


def float64(meaning: str) -> Column:
    """A column of measured values."""
    return Column(pa.float64(), meaning)


def string(meaning: str) -> Column:
    """A column of names."""
    return Column(pa.string(), meaning)


def flag(meaning: str) -> Column:
    """A column of yes and no."""
    return Column(pa.bool_(), meaning)


def floats(meaning: str) -> Column:
    """A column of lists of values in a network's own precision."""
    return Column(pa.list_(pa.float32()), meaning)


def integers(meaning: str) -> Column:
    """A column of lists of large counts."""
    return Column(pa.list_(pa.int64()), meaning)


def write_table(sink: IO[bytes] | HashingSink, content: pa.Table) -> None:
    """A whole table as Parquet; same content, same bytes."""
    pq.write_table(content, sink, compression="zstd", row_group_size=1 << 16)


def from_rows(names: Sequence[str], rows: Sequence[Row]) -> Gathered:
    """Columns of rows, also of none."""
    return {name: [row[name] for row in rows] for name in names}


def stacked(parts: Sequence[Columns]) -> Gathered:
    """Columns of parts, one after the other; each part has the same columns."""
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}
