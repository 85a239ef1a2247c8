"""Runs: what was audited, when, with which stages, and how it ended."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from storage.files import Files


@dataclass(frozen=True)
class RunRecord:
    """One run of an audit.

    Args:
        run_id: sorts by time.
        name: of the audit.
        network: what was audited, for people.
        started: seconds since the epoch.
        seconds: wall time.
        status: `running`, `done`, `gate failed`, `failed`, `stopped`, `killed`.
        stages: stage -> folder, seconds, whether it was cached, digest.
        gates: what was demanded, and what came out.
        about: configuration, digests, versions, device.
    """

    run_id: str
    name: str
    network: str
    started: float
    seconds: float = 0.0
    status: str = "running"
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gates: tuple[Mapping[str, Any], ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, network: str, about: Mapping[str, Any]) -> RunRecord:
        """A run that begins now."""
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        return cls(f"{stamp}-{uuid.uuid4().hex[:6]}", name, network, now, about=about)

    def ended(self, status: str, **changes: Any) -> RunRecord:
        """The same run, ended now."""
        return replace(self, status=status, seconds=round(time.time() - self.started, 3), **changes)


class RunStore:
    """The runs of a workspace, one JSON file each.

    Args:
        files: the workspace.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def save(self, run: RunRecord) -> None:
        """Write or replace a run's record."""
        self._files.write(f"runs/{run.run_id}/run.json", json.dumps(asdict(run), indent=1, default=str).encode())

    def all(self) -> list[RunRecord]:
        """All runs, oldest first."""
        names = [name for name in self._files.names("runs") if name.endswith("/run.json")]
        return sorted(map(self._load, names), key=lambda run: run.started)  # names only tell seconds apart

    def find(self, wanted: str | None = None) -> RunRecord | None:
        """A run by its id, the start of it, or the name of its audit (its latest); the latest of all for None.

        Finished runs go before others. None where there is no such run, or where the start fits several.
        """
        runs = self.all()
        if wanted is not None:
            named = [run for run in runs if run.name == wanted]
            begun = [run for run in runs if run.run_id.startswith(wanted)]
            if not named:
                return begun[0] if len(begun) == 1 else None
            runs = named
        done = [run for run in runs if run.status in ("done", "gate failed")]
        last = done or runs
        return last[-1] if last else None

    def _load(self, name: str) -> RunRecord:
        content = json.loads(self._files.read(name))
        return RunRecord(**{**content, "gates": tuple(content["gates"])})
