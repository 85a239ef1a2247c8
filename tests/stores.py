"""Object stores of the tests' own, on the loopback: `rclone serve s3` over a folder, moto's in memory, Azurite."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path

import pytest

from storage.bucket import Bucket

KEY, SECRET = "AKIATESTSTESTSTESTS7", "wJalrTESTsecretTESTsecretTESTsecretTEST7"
BUCKET = "kept"
ACCOUNT, AZURE_SECRET = "testaccount", base64.b64encode(SECRET.encode()).decode()
SAID_BY = ("AWS_", "AZURE_", "GOOGLE_", "GCE_METADATA")
"""How the variables begin that say where a store is and who may come in."""


@dataclass(frozen=True)
class Store:
    """A server.

    Args:
        scheme: of addresses there.
        environment: what its users set.
        process: of the server.
        wrong: a change of the environment with which nobody may come in; none where everybody may.
    """

    scheme: str
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]
    wrong: Mapping[str, str]

    @property
    def address(self) -> str:
        """Of the bucket."""
        return f"{self.scheme}://{BUCKET}"

    @property
    def endpoint(self) -> str:
        """The variable that says where the server is."""
        return next(name for name, value in self.environment.items() if "127.0.0.1" in value)

    @property
    def secrets(self) -> list[str]:
        """What nobody may say or write."""
        return [value for value in self.environment.values() if value in (KEY, SECRET, AZURE_SECRET)]


def use(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Set the environment of a store's users, and nothing of other stores."""
    for name in [name for name in os.environ if name.startswith(SAID_BY)]:
        monkeypatch.delenv(name)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)


def lying(place: str) -> dict[str, bytes]:
    """What of stages lies in a store, but for their manifests, which say when."""
    bucket = Bucket(place)
    return {name: bucket.get(name) for name in bucket.list("stages") if not name.endswith("/manifest.json")}


@contextlib.contextmanager
def _serving(command: list[str], port: int, environment: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[bytes]]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, **environment}, **quiet)
    try:
        _await(port)
        yield process
    finally:
        process.kill()
        process.wait()


def _await(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not start")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _of_amazons_kind(port: int, process: subprocess.Popen[bytes]) -> Store:
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
    return Store("s3", environment, process, {"AWS_SECRET_ACCESS_KEY": "wrong"})


def rclone_store(folder: Path) -> Iterator[Store]:
    """A server over a folder that knows one pair of keys, with an empty bucket."""
    (folder / BUCKET).mkdir(parents=True)
    port, place = free_port(), Path(sys.executable).with_name("rclone")
    serve = [str(place), "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}"]
    with _serving([*serve, "--auth-key", f"{KEY},{SECRET}", str(folder)], port) as process:
        yield _of_amazons_kind(port, process)


def moto_store(folder: Path) -> Iterator[Store]:
    """A server with conditional puts and an empty bucket; it takes every key."""
    port = free_port()
    with _serving([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port) as process:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        request.add_header("Authorization", f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request")
        urllib.request.urlopen(request, timeout=30).close()
        yield replace(_of_amazons_kind(port, process), wrong={})


def azure_store(folder: Path) -> Iterator[Store]:
    """Azurite, Microsoft's own emulator of its store, which knows one account, with an empty container."""
    place = shutil.which("azurite-blob")
    if place is None:
        pytest.skip("Azurite is not on this machine: `npm install --global azurite`")
    port = free_port()
    serve = [place, "--silent", "--skipApiVersionCheck", "--location", str(folder), "--blobPort", str(port)]
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    environment = {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": AZURE_SECRET,
        "AZURE_STORAGE_ENDPOINT": endpoint,
    }
    with _serving(serve, port, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{AZURE_SECRET}"}) as process:
        _make_container(endpoint)
        yield Store("az", environment, process, {"AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"wrong").decode()})


def _make_container(endpoint: str) -> None:
    """By a request signed with the account's key (Azure's "Shared Key")."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    lines = "\n".join(f"{name}:{value}" for name, value in headers.items())
    asked = f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    signed = hmac.new(base64.b64decode(AZURE_SECRET), f"PUT{chr(10) * 12}{lines}\n{asked}".encode(), hashlib.sha256)
    request = urllib.request.Request(f"{endpoint}/{BUCKET}?restype=container", method="PUT", headers=headers)
    request.add_header("Authorization", f"SharedKey {ACCOUNT}:{base64.b64encode(signed.digest()).decode()}")
    urllib.request.urlopen(request, timeout=30).close()
