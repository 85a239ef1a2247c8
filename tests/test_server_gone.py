"""A Prefect server that dies in the middle of an audit, and comes back, or does not."""

import json
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from flows.server import unanswered
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


def killed(server: subprocess.Popen, *, only_stopped: bool = False) -> None:
    own = psutil.Process(server.pid)
    for process in (*own.children(recursive=True), own):
        process.suspend() if only_stopped else process.kill()
    if not only_stopped:
        server.wait(20)


HASTY = "import flows.server as s; s.SILENT, s.START, s.END = 0.8, 4.0, 8.0; from flows.cli import main; main()"


def audited(folder, environment, when: str, then, *, hasty=True) -> tuple[int, str]:
    """An audit, and something that is done once, as soon as it says so; gives its status and what it said.

    A hasty one waits for a server some seconds, where others wait two minutes.
    """
    call = [sys.executable, *(("-c", HASTY) if hasty else ("-m", "flows.cli")), "audit", "audit.yaml"]
    process = subprocess.Popen(
        call, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    said, due = [], True
    for line in process.stderr:
        said.append(line)
        if due and line.startswith(when):
            then()
            due = False
    return process.wait(300), "".join(said)


def status(folder) -> list[str]:
    return [json.loads(file.read_text())["status"] for file in folder.glob(".microtome/runs/*/run.json")]


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

    ended, said = audited(folder, environment, "activations  70", away, hasty=False)
    try:
        assert ended == 0, said
        assert f"the Prefect server at {environment['PREFECT_API_URL']} does not answer; the " in said
        shown = "warning: not everything is shown in Prefect: "  # what was sent meanwhile is lost
        heard = [line for line in said.splitlines() if not line.startswith(shown)]
        assert heard[-1].endswith("answers again")
        assert "Traceback" not in said
        assert "ERROR" not in said
        assert status(folder) == ["done"]
        assert [run["state_type"] for run in asked(environment, "flow_runs/filter", {})] == ["COMPLETED"]
    finally:
        killed(servers[-1])


@pytest.mark.soak
@pytest.mark.parametrize("port", ["is silent", "refuses"][: soak(1, 2)])
def test_no_server_where_one_should_be_is_one_sentence(folder, tmp_path, port):
    environment = server_environment(tmp_path)
    with socket.socket() as hole:
        if port == "is silent":
            hole.bind(("127.0.0.1", int(environment["PREFECT_SERVER_API_PORT"])))
            hole.listen()
        ended, said = audited(folder, environment, "never", None)
    place, lines = environment["PREFECT_API_URL"], said.splitlines()
    assert ended == 2, said
    assert len(lines) == 2, said
    assert lines[0].startswith(f"the Prefect server at {place} does not answer; waiting for it until ")
    assert lines[1].startswith(f"error: PREFECT_API_URL: no Prefect server answers at {place}, asked for 4 s (")
    assert status(folder) == []


@pytest.mark.soak
@pytest.mark.parametrize("fate", ["frozen", "killed"][: soak(1, 2)])
def test_a_server_that_stays_away_does_not_take_the_result_along(folder, tmp_path_factory, fate):
    """The audit is done and recorded, says what it waits for and until when, and that Prefect does not know."""
    environment = server_environment(tmp_path_factory.mktemp("server"))
    server = begin_server(environment)
    text = (folder / "nets.py").read_text()
    (folder / "nets.py").write_text(text.replace("seconds=0.3", "seconds=1.5"))
    ended, said = audited(folder, environment, "activations  70", lambda: killed(server, only_stopped=fate == "frozen"))
    if fate == "frozen":
        killed(server)
    assert ended == 0, said
    away, lines = f"the Prefect server at {environment['PREFECT_API_URL']} does not answer; ", said.splitlines()
    assert f"{away}the audit goes on, and tells it later" in lines
    assert lines[-2].startswith(f"{away}the run is recorded; trying to tell the server until ")
    assert lines[-1] == "warning: Prefect could not be told how the run ended: TimeoutError: it is asked no more"
    assert "Traceback" not in said
    assert status(folder) == ["done"]


def test_whoever_answers_is_there():
    """Also with an error, as a server that wants a password, or whose certificate nobody knows, does."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # which knows no method: 501
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert unanswered(f"http://127.0.0.1:{server.server_port}/api") == ""
    assert "SSL" not in unanswered(f"https://127.0.0.1:{server.server_port}/api")
    server.shutdown()
    server.server_close()
    assert "refused" in unanswered(f"http://127.0.0.1:{server.server_port}/api/")
    assert unanswered("nonsense") != ""
