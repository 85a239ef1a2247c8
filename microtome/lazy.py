"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def lazily(package: str, file: str) -> Callable[[str], Any]:
    """A package's `__getattr__`: it gives what the package imports under `if TYPE_CHECKING:`.

    Type checkers, the readers of the code and `microtome.closure` so see plain imports, and none is made too early.

    Args:
        package: its `__name__`.
        file: its `__file__`.
    """
    homes = cache(lambda: _homes(Path(file)))

    def get(name: str) -> Any:
        if name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes()[name]), name)

    return get


def _homes(file: Path) -> dict[str, str]:
    """Module by name, of the absolute `from` imports under `if TYPE_CHECKING:`."""
    guarded = (
        statement
        for node in ast.parse(file.read_bytes()).body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for statement in node.body
    )
    return {
        alias.name: str(statement.module)
        for statement in guarded
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
