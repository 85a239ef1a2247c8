"""Prefect's embedded server: a process of this audit's own, out of reach of its signals, that ends with it.

Prefect would start one by itself, but in the audit's process group: there a Ctrl-C ends it before the run can be
reported (the audit then waits more than a minute, and fails), and it stays for ever when the audit is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn import Server

STARTUP = 120.0  # s; some 14 on a fresh home, more under load


def start_server(stop: threading.Event) -> None:
    """Start Prefect's server and point this process at it.

    Args:
        stop: set when the user asked to stop.

    Raises:
        Interrupted: while it was starting. RuntimeError: it did not start.
    """
    from flows.migrated import migrated  # here: the server's process imports nothing of ours

    with migrated(Path(os.environ["PREFECT_HOME"])):
        port = _started(stop)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"


def _started(stop: threading.Event) -> int:
    """The port at which a new server answers."""
    from microtome.errors import Interrupted

    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, str(port)],  # -P: a `flows` or `prefect` of the user's own folder is not meant
        env={**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(_end, process)
    deadline = time.monotonic() + STARTUP
    while not _answers(port):
        if stop.is_set():
            raise Interrupted("stopped by the user; everything finished is kept")
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Prefect's embedded server must start within {STARTUP:g} s; what it said is above")
        time.sleep(0.1)
    return port


def serve(port: int) -> None:
    """Be the server, until standard input ends: when the process that started it does, in whatever way."""
    import uvicorn

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    app = "prefect.server.api.server:create_app"
    config = uvicorn.Config(app, factory=True, port=port, log_level="error", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    running = threading.Thread(target=server.run)  # not in the main thread, where uvicorn sets handlers of its own
    running.start()
    threading.Thread(target=_follow, args=(server,), daemon=True).start()
    threading.Thread(target=_hush, args=(server,), daemon=True).start()
    running.join()


def _hush(server: Server) -> None:
    """Once it has started, its client is told what goes wrong, and tells it; here it would be a traceback a request."""
    while not server.started:
        time.sleep(0.1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _follow(server: Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True  # heard when the start is over: a database half made would stop every later audit
    time.sleep(STARTUP)
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        asked.request("GET", "/api/health")
        return asked.getresponse().status == 200
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=20)  # which closes its standard input


if __name__ == "__main__":
    serve(int(sys.argv[1]))
