"""What a shell may complete: names of runs and of stages."""

from __future__ import annotations

from pathlib import Path

import click


def known_runs(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Names that a RUN may have and that begin so; none where there is no workspace."""
    from storage import RunStore, open_files

    workspace = str(context.params.get("workspace") or ".microtome")
    if not Path(workspace).is_dir():  # nor where it is in an object store, which could keep the shell waiting
        return []
    names = {name for run in RunStore(open_files(workspace)).all() for name in (run.name, run.run_id)}
    return sorted(name for name in names if name.startswith(begun))


def known_stages(_context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Names of stages that begin so."""
    from tasks.registry import BY_NAME

    return [name for name in BY_NAME if name.startswith(begun)]
