"""A Prefect server that dies in the middle of an audit, and comes back, or does not."""

import json
import subprocess
import sys
import threading
import time

import psutil
import pytest

from tests.conftest import NETWORK, asked, begin_server, count, server_environment, soak, write_audit
from tests.test_deaths import SLOW


@pytest.fixture
def folder(tmp_path, broden):
    (tmp_path / "nets.py").write_text(NETWORK + SLOW)
    content = {
        "name": "tiny",
        "network": {"load": "nets:slow", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}, "report": False},
    }
    write_audit(tmp_path / "audit.yaml", content)
    return tmp_path


def killed(server: subprocess.Popen) -> None:
    for process in (*psutil.Process(server.pid).children(recursive=True), server):
        process.kill()
    server.wait(20)


def audited(folder, environment, when: str, then) -> tuple[int, str]:
    """An audit, and something that is done as soon as it says so; gives its status and what it said."""
    call = [sys.executable, "-m", "flows.cli", "audit", "audit.yaml"]
    process = subprocess.Popen(
        call, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(when):
            then()
    return process.wait(300), "".join(said)


def status(folder) -> list[str]:
    return [json.loads(file.read_text())["status"] for file in folder.glob(".microtome/runs/*/run.json")]


@pytest.mark.slow
@pytest.mark.soak
def test_a_server_that_is_gone_for_a_while_is_no_matter(folder, tmp_path_factory):
    """Killed in mid-stage, started again on the same database: it knows how the run ended."""
    environment = server_environment(tmp_path_factory.mktemp("server"))
    servers = [begin_server(environment)]

    def away():
        killed(servers[0])
        count("servers killed")

        def back():
            time.sleep(soak(3, 60))
            servers.append(begin_server(environment))

        threading.Thread(target=back).start()

    ended, said = audited(folder, environment, "activations  70", away)
    try:
        assert ended == 0, said
        assert "Traceback" not in said
        assert "ERROR" not in said
        assert status(folder) == ["done"]
        assert [run["state_type"] for run in asked(environment, "flow_runs/filter", {})] == ["COMPLETED"]
    finally:
        killed(servers[-1])


@pytest.mark.slow
def test_no_server_where_one_should_be_is_one_sentence(folder, tmp_path):
    environment = server_environment(tmp_path)
    ended, said = audited(folder, environment | {"PREFECT_CLIENT_MAX_RETRIES": "0"}, "never", None)
    assert ended == 2, said
    assert said.startswith(f"error: PREFECT_API_URL: no Prefect server answers at {environment['PREFECT_API_URL']} (")
    assert len(said.splitlines()) == 1
    assert status(folder) == []


@pytest.mark.slow
def test_a_server_that_stays_away_does_not_take_the_result_along(folder, tmp_path_factory):
    """The audit is done and recorded, and says that Prefect does not know."""
    environment = server_environment(tmp_path_factory.mktemp("server")) | {"PREFECT_CLIENT_MAX_RETRIES": "0"}
    server = begin_server(environment)
    ended, said = audited(folder, environment, "activations  70", lambda: killed(server))
    assert ended == 0, said
    assert said.splitlines()[-1].startswith("warning: Prefect could not be told how the run ended: ConnectError")
    assert "Traceback" not in said
    assert status(folder) == ["done"]
