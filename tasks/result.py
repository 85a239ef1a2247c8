"""Readers of finished stages: each stage has one of its own (`tasks/<stage>/result.py`), typed by its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from storage import Artifact, Draft
from storage.tables import ReadRow
from tasks.stage import External

E = TypeVar("E")
AnyResult = TypeVar("AnyResult", bound="StageResult")


class Hand(Protocol):
    """The job that made a stage, in hand (`tasks.execution.InHand`)."""

    @property
    def shard(self) -> Callable[[Draft, str], None]:
        """What carries its shards out; loaded when it is asked for."""


@dataclass(frozen=True)
class StageResult:
    """A finished stage.

    Args:
        artifact: its files.
        outside: the outside things that it, or what it read, was made from: how to reach them again. Empty where a
            finished run is read without its audit file.
    """

    artifact: Artifact
    outside: Mapping[str, External]

    @classmethod
    def of(cls, artifact: Artifact, outside: Mapping[str, External], hand: Hand) -> Self:
        """As a stage of the audit reads it.

        Args:
            artifact, outside: see above.
            hand: for readers of what is not all stored, and made again by what made it.
        """
        return cls(artifact, outside)

    @property
    def digest(self) -> str:
        """Of the stage."""
        return self.artifact.digest

    @property
    def parameters(self) -> Mapping[str, object]:
        """The options that the stage was made with, as JSON values; each reader has them typed, as `options`."""
        stored: Mapping[str, object] = self.artifact.parameters["options"]
        return stored

    def external(self, name: str, kind: type[E]) -> E:
        """An outside thing that the stage was made from.

        Raises:
            RuntimeError: the stage is read without its audit file.
        """
        found = self.outside.get(name)
        if not isinstance(found, kind):
            raise RuntimeError(f"{self.artifact.folder}: needs its {name} ({kind.__name__}), got {found!r}")
        return found

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A table of the stage."""
        return self.artifact.table(name, columns)

    def shards(self, name: str, columns: list[str]) -> pa.Table:
        """A table of the stage that lies in files of its own folder, in the order of their names."""
        tables = []
        for file in self.artifact.names(f"{name}/"):
            with self.artifact.source(file) as source:
                tables.append(pq.read_table(source, columns=columns))
        return pa.concat_tables(tables)

    def rows(self, name: str, **wanted: object) -> list[ReadRow]:
        """Rows of a table in which the columns have the wanted values."""
        rows: list[ReadRow] = self.table(name).to_pylist()
        return [row for row in rows if all(row[column] == value for column, value in wanted.items())]

    def typed(self, name: str, kind: type[E], **wanted: object) -> list[E]:
        """Rows of a table, as the `TypedDict` whose keys are columns of it."""
        return [cast(E, row) for row in self.rows(name, **wanted)]  # that they are, tests/test_rows.py looks up
