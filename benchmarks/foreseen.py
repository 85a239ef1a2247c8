"""Does a first `plan` foresee what an audit takes? Seconds foreseen and taken, stage by stage, for the examples.

    python benchmarks/foreseen.py [AUDIT.yaml ...]

Every audit is planned and run in a new workspace. One JSON line per audit: stages that took two seconds or more with
seconds foreseen and taken, and the sums over all stages. The probe is short, and other work beside it shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.yaml"))
WORTH = 2.0  # seconds, of stages that are told one by one


def main() -> None:
    """Print a line per audit."""
    for file in [Path(name) for name in sys.argv[1:]] or EXAMPLES:
        with tempfile.TemporaryDirectory() as workspace:
            foreseen = _foreseen(_microtome("plan", file, workspace))
            _microtome("audit", file, workspace)
            taken = _taken(Path(workspace))
        print(json.dumps(_compared(file, foreseen, taken)), flush=True)


def _microtome(command: str, file: Path, workspace: str) -> str:
    asked = [sys.executable, "-m", "flows.cli", command, str(file), "--workspace", workspace]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def _foreseen(table: str) -> dict[str, float]:
    """Seconds by stage, variants together, from what `plan` prints."""
    found: dict[str, float] = {}
    for line in table.splitlines()[2:]:
        stage, _, seconds = line.partition("would run")
        name = stage.strip().partition(":")[0]
        found[name] = found.get(name, 0.0) + float(seconds.split("(")[0].split()[-1])
    return found


def _taken(workspace: Path) -> dict[str, float]:
    """Seconds by stage, from what it recorded."""
    found: dict[str, float] = {}
    for file in workspace.glob("stages/*/*/manifest.json"):
        manifest = json.loads(file.read_text())
        found[manifest["stage"]] = found.get(manifest["stage"], 0.0) + manifest["seconds"]
    return found


def _compared(file: Path, foreseen: dict[str, float], taken: dict[str, float]) -> dict[str, object]:
    stages = {name: [foreseen[name], round(taken[name], 1)] for name in taken if taken[name] >= WORTH}
    sums = [sum(foreseen.values()), round(sum(taken.values()), 1)]
    return {"audit": file.stem, "foreseen and taken, seconds": sums, "stages": stages}


if __name__ == "__main__":
    main()
