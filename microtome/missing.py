"""What an installation without the extra `audit` leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from microtome.errors import InputError

EXTRA = ("prefect", "fastapi", "sqlalchemy", "click", "duckdb", "jinja2", "altair", "vl_convert")
"""Packages, by the names that they are imported under, that only `microtome[audit]` brings."""
DASK = ("dask", "distributed", "prefect_dask")
"""The same of `microtome[dask]`."""


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Around what may need the extra.

    Args:
        what: a command or a function, as its user calls it.

    Raises:
        InputError: it does, and the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA + DASK:
            raise
        kind, whose = ("dask", "Dask takes") if package in DASK else ("audit", "audits take")
        raise InputError(
            f"{what} needs the package {package}, which is not installed; install it with all that {whose}: "
            f"pip install 'microtome[{kind}]'"
        ) from error
