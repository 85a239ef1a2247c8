"""Many audits in one process: nothing piles up."""

import json
import subprocess
import sys

import pytest

from tests.conftest import change_audit, count, soak

AUDITS = """
import gc, json, sys, threading
from types import SimpleNamespace
import psutil, torch
from flows.plan import Plan, Request
from flows.run import prefect_environment
from pathlib import Path
prefect_environment(Plan(Request(Path("audit.yaml"))))
from flows.audit import audit
me = psutil.Process()
for number in range(int(sys.argv[1])):
    fresh = number // 2  # every other one finds all done
    outcome = audit("audit.yaml", overrides=[f"network.arguments={{seed: {fresh}}}"])
    cached = all(stage["cached"] for stage in outcome.run.stages.values())
    del outcome
    gc.collect()
    modules = [found for found in gc.get_objects() if isinstance(found, torch.nn.Module)]
    hooks = sum(len(getattr(found, name)) for found in modules for name in
                ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"))
    names = sorted(thread.name for thread in threading.enumerate())
    print(json.dumps({"cached": cached, "memory": me.memory_info().rss, "files": me.num_fds(), "modules": len(modules),
                      "hooks": hooks, "threads": len(names), "names": names}), flush=True)
"""


@pytest.mark.soak
def test_nothing_piles_up(audit_file, server):
    """Every other audit is new, the others find all done; levels are compared once the first few are over."""
    change_audit(audit_file, stages={"dissection": {"bootstrap": 0, "permutations": 0}, "report": False})
    audits, settled = soak(8, 100), soak(4, 20)
    call = [sys.executable, "-c", AUDITS, str(audits)]
    process = subprocess.run(
        call, cwd=audit_file.parent, env=server, capture_output=True, text=True, timeout=soak(300, 3600)
    )
    assert process.returncode == 0, process.stderr
    levels = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    count("audits in one process", len(levels))
    assert [level["cached"] for level in levels] == [False, True] * (audits // 2)
    assert {level["hooks"] for level in levels} == {0}
    before, after = levels[settled - 1], levels[-1]
    for what in ("files", "threads", "modules"):
        assert after[what] <= before[what] + 2, (what, before, after)
    grown = (after["memory"] - before["memory"]) / (audits - settled) / 1e6
    assert grown < soak(8, 0.5), f"{grown:.2f} MB an audit"
