"""Ctrl-C and polite kills at every moment of an audit, with a server and without: ended in order, never a traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.conftest import NETWORK, clean_environment, soak, write_audit

SLOW = """
import time
def slow():
    net = tiny()
    net.register_forward_pre_hook(lambda *_: time.sleep(0.4))
    return net
"""
AT_ONCE = (
    130,
    -signal.SIGINT,
)  # a shell shows both as 130; Python 3.11 takes the second after some interrupted imports


embedded_at_least = pytest.mark.parametrize("environment", ["embedded", "server"][: soak(1, 2)], indirect=True)
"""For a test whose moment has little to do with whose the server is: with a user's, too, in the long form."""


@dataclass(frozen=True)
class Ended:
    """How an audit ended: its exit status, what it said, its run's record (None where it had not begun)."""

    status: int
    said: str
    run: dict | None


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home for Prefect's embedded server, so that only the first one makes its database."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(params=["embedded", "server"])
def environment(request, home) -> dict[str, str]:
    """Without a server of the user's, and with one."""
    if request.param == "server":
        return request.getfixturevalue("server")
    return clean_environment(home) | {"PREFECT_HOME": str(home / "prefect")}


@pytest.fixture
def folder(tmp_path, broden) -> Path:
    """An audit whose activations take some three seconds, in two shards."""
    (tmp_path / "nets.py").write_text(NETWORK + SLOW)
    content = {
        "name": "tiny",
        "network": {"load": "nets:slow", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}},
        "execution": {"shard_images": 48},
    }
    write_audit(tmp_path / "audit.yaml", content)
    return tmp_path


def begun(folder: Path, environment: dict, *, at: str | float) -> subprocess.Popen:
    """An audit in a process group of its own, so many seconds, or until a line, after its start."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.cli", "audit", "audit.yaml"],
        cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, process_group=0,
    )  # fmt: skip
    if isinstance(at, float):
        time.sleep(at)
        return process
    for line in process.stderr:
        if line.startswith(at):
            return process
    raise AssertionError(f"the audit ended before {at!r}")


def ended(process: subprocess.Popen, folder: Path) -> Ended:
    said = process.communicate(timeout=120)[1]
    assert "Traceback" not in said, said
    assert "Error" not in said, said
    records = [json.loads(file.read_text()) for file in (folder / ".microtome/runs").glob("*/run.json")]
    return Ended(process.returncode, said, records[0] if records else None)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT][: soak(1, 2)])
def test_a_signal_in_a_stage_ends_after_the_shard_in_hand_and_keeps_it(folder, environment, number):
    """To the whole process group, as a terminal sends it: whoever else is in it must not get in the way."""
    process = begun(folder, environment, at="activations  70")
    os.killpg(process.pid, number)
    end = ended(process, folder)
    assert end.status == 130, end.said
    assert "after the shard in hand" in end.said
    assert end.run["status"] == "stopped"
    assert list(end.run["stages"]) == ["index"]
    assert len(list((folder / ".microtome/stages/activations").rglob("*.parquet"))) == 1
    assert not list((folder / ".microtome").rglob("*.part"))


@pytest.mark.soak
@embedded_at_least
def test_a_signal_between_stages_stops_before_the_next(folder, environment):
    process = begun(folder, environment, at="activations  done")
    process.send_signal(signal.SIGTERM)
    end = ended(process, folder)
    assert end.status == 130, end.said
    assert end.run["status"] == "stopped"
    assert "activations" in end.run["stages"]
    assert "report" not in end.run["stages"]


def test_a_second_signal_ends_at_once_and_leaves_nobody_behind(folder, environment):
    process = begun(folder, environment, at="activations  70")
    process.send_signal(signal.SIGTERM)
    assert next(process.stderr).startswith("stopping after the shard in hand; once more to stop at once")
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    process.wait(1.5)
    end = ended(process, folder)
    assert end.status == -signal.SIGINT
    assert end.run["status"] == "running"  # until the next audit closes it: test_deaths
    assert not psutil.wait_procs(family, 15)[1]


@pytest.mark.soak
@embedded_at_least
@pytest.mark.parametrize("after", [2.0, 5.0, 0.3][: soak(2, 3)])
def test_a_signal_while_it_starts_leaves_no_run_open(folder, environment, after):
    """While Python, the plan, Prefect or its server start: wherever this machine happens to be after such a time."""
    process = begun(folder, environment, at=after)
    process.send_signal(signal.SIGTERM)
    end = ended(process, folder)
    assert end.status in (*AT_ONCE, -signal.SIGTERM), end.said
    assert end.run is None or end.run["status"] == "stopped"


@pytest.mark.soak
@embedded_at_least
@pytest.mark.parametrize("after", [0.0, 1.0][: soak(1, 2)])
def test_a_signal_at_the_end_is_too_late_and_harmless(folder, environment, after):
    process = begun(folder, environment, at="report       done")
    time.sleep(after)
    process.send_signal(signal.SIGTERM)
    end = ended(process, folder)
    assert end.status in (0, 130, -signal.SIGTERM), end.said
    assert end.run["status"] == "done"


def test_a_killed_audit_takes_its_embedded_server_along(folder, home):
    (folder / "flows").mkdir()  # a folder of the user's, which must not be taken for ours
    (folder / "flows/__init__.py").touch()
    process = begun(folder, clean_environment(home) | {"PREFECT_HOME": str(home / "prefect")}, at="activations  70")
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("embedded.py" in " ".join(child.cmdline()) for child in family)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(family, 20)[1]
