"""Weights that torchvision fetches: every way in which that can fail is one sentence, and nothing but tensors loads."""

import hashlib
import io
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.models import Weights, WeightsEnum

from microtome.errors import InputError
from microtome.networks.fetched import fetched
from tests.conftest import change_audit


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


CONTENT = saved({"weight": torch.ones(1000)})


class Answers(BaseHTTPRequestHandler):
    """Gives what it is told to give, as the whole of it."""

    def do_GET(self):
        self.send_response(404 if self.server.content is None else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(self.server.content or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def offered(server: HTTPServer, content: bytes) -> WeightsEnum:
    """Weights of that server's, whose name tells the hash of this content."""
    url = f"http://127.0.0.1:{server.server_port}/net-{hashlib.sha256(content).hexdigest()[:8]}.pth"

    class Offered(WeightsEnum):
        V1 = Weights(url=url, transforms=partial(torch.nn.Identity), meta={})

    return Offered.V1


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """Where torch keeps what it fetched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub/checkpoints"


def test_what_is_fetched_is_kept_and_said_on_stderr(server, kept, capsys):
    server.content = CONTENT
    for _ in range(2):
        assert torch.equal(fetched(offered(server, CONTENT))["weight"], torch.ones(1000))
        server.content = None
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("Downloading") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "HTTPError: HTTP Error 404"),
        (CONTENT[:-100], "what came was cut short or altered"),
        (CONTENT[:-1] + b"?", "what came was cut short or altered"),
        (b"", "what came was cut short or altered"),
    ],
)
def test_a_fetch_that_fails_is_one_sentence_and_leaves_nothing(server, kept, content, words):
    server.content, weights = content, offered(server, CONTENT)
    with pytest.raises(InputError) as caught:
        fetched(weights)
    assert str(caught.value).startswith(
        f"network.weights: V1 must be fetched from {weights.url}, which failed: {words}"
    )
    assert f"put the file at {kept}" in str(caught.value)
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize("damage", [CONTENT[:-100], CONTENT[:-1] + b"?", b""])
def test_a_kept_file_that_is_not_what_it_was_is_not_loaded(server, kept, damage):
    weights = offered(server, CONTENT)
    kept.mkdir(parents=True)
    (kept / weights.url.rpartition("/")[2]).write_bytes(damage)
    with pytest.raises(
        InputError, match=r"^network.weights: V1 lies at .*, which is damaged: its SHA-256 .*; remove it"
    ):
        fetched(weights)


class Malice:
    def __reduce__(self):
        return (pytest.fail, ("code of a weights file was run",))


def test_a_file_of_the_right_hash_that_holds_code_runs_nothing(server, kept):
    content = saved({"weight": Malice()})
    server.content = content
    with pytest.raises(InputError, match="which is damaged: UnpicklingError"):
        fetched(offered(server, content))
    with pytest.raises(pytest.fail.Exception):
        pickle.loads(pickle.dumps(Malice()))


def test_an_audit_without_a_net_ends_with_status_two(audit_file, command, tmp_path):
    network = {"load": "torchvision.models:squeezenet1_1", "weights": "DEFAULT", "layers": ["features.12"]}
    change_audit(audit_file, network=network | {"input": {"size": [64, 64]}})
    nowhere = {"https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path / "torch")}
    done = command("audit", audit_file, env=nowhere)
    assert done.returncode == 2, done.stderr
    assert "error: network.weights: IMAGENET1K_V1 must be fetched from https://" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
