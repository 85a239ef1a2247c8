"""Where results are: a folder, an address in an object store, or a block of Prefect that says one."""

from __future__ import annotations

from pathlib import Path

from flows.console import warn
from microtome.errors import InputError
from storage import Files, open_files

BLOCK = "block://"


def open_workspace(workspace: str, base: Path = Path()) -> Files:
    """The files of a workspace. Raises InputError where it is not there, or does not answer.

    Args:
        workspace: a folder, relative to `base` unless absolute; `s3://bucket/prefix`; `block://s3-bucket/NAME`.
        base: usually the audit file's folder.
    """
    settings: dict[str, str] = {}
    if workspace.startswith(BLOCK):
        from flows.blocks import place_of_block  # here: it asks Prefect's server

        workspace, settings = place_of_block(workspace.removeprefix(BLOCK))
    try:
        return open_files(workspace, base, warn, settings)
    except ValueError as error:
        raise InputError(str(error)) from error
