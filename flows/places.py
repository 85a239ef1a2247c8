"""Whether the files and folders that an audit names are what they must be, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.auditfile import AuditModel
from microtome.errors import InputError
from microtome.networks.load import SUFFIXES


def check_places(audit: AuditModel, base: Path, workspace: Path) -> None:
    """Look at the weights and at the workspace.

    Args:
        audit: the audit file.
        base: where its relative paths start.
        workspace: where results go.

    Raises:
        InputError: weights that are not there or no file, a workspace that is no folder and cannot become one.
    """
    faults = [*_weights(audit.network.weights, base), *_workspace(workspace)]
    if faults:
        raise InputError(faults)


def _weights(name: str | None, base: Path) -> Iterator[str]:
    if name is None:
        return
    place = base / name
    try:
        if place.is_dir():
            yield f"network.weights: must be a file, got the folder {place}"
        elif name.endswith(SUFFIXES) and not place.exists():
            yield f"network.weights: no such file, got {name!r} (looked for {place})"
        elif name.endswith(SUFFIXES) and not place.is_file():
            yield f"network.weights: must be a file, got a pipe or device, {place}"
    except OSError as error:
        yield f"network.weights: cannot be read: {error.strerror}, got {name!r:.80}"


def _workspace(place: Path) -> Iterator[str]:
    try:
        there = next(path for path in (place, *place.absolute().parents) if path.exists())
    except OSError as error:
        yield f"workspace: cannot be used: {error.strerror}, got {str(place)!r:.80}"
        return
    if not there.is_dir():
        yield f"workspace: must be a folder, got the file {there}"
