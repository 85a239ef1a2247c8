"""Object stores of the tests' own, on the loopback: `rclone serve s3` over a folder, and moto's server in memory."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET = "AKIATESTSTESTSTESTS7", "wJalrTESTsecretTESTsecretTESTsecretTEST7"
BUCKET = "kept"


@dataclass(frozen=True)
class Store:
    """A server. `folder` is where rclone's has its objects: to look at them, and to damage them."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What its users set."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }


def _started(command: list[str], port: int, folder: Path) -> Store:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return Store(port, folder, process)
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{command[0]} did not start")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def rclone_store(folder: Path) -> Iterator[Store]:
    """A server over a folder that knows one pair of keys, with an empty bucket."""
    (folder / BUCKET).mkdir(parents=True)
    port, place = free_port(), Path(sys.executable).with_name("rclone")
    serve = [str(place), "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}"]
    store = _started([*serve, "--auth-key", f"{KEY},{SECRET}", str(folder)], port, folder)
    yield store
    store.process.kill()
    store.process.wait()


def moto_store(folder: Path) -> Iterator[Store]:
    """A server with conditional puts and an empty bucket; it takes every key."""
    port = free_port()
    store = _started([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, folder)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
    request.add_header("Authorization", f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request")
    urllib.request.urlopen(request, timeout=30).close()
    yield store
    store.process.kill()
    store.process.wait()
