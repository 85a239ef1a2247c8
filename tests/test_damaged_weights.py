"""Weights files, damaged at random and made in malice: each loads or is refused in a sentence, and nothing is run.

Short by default; MICROTOME_SOAK=1 loads thousands. Each file is loaded in a process of its own kind, under an audit
hook that sees every process, connection, deletion and writing that Python could begin.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import random
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from microtome.errors import InputError
from microtome.networks import NetworkSpec, load_network
from microtome.networks.small import creature_net
from tests.conftest import count, soak

FACTORY = "microtome.networks.small:creature_net"
WIDTH = {"width": 8}
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.remove", "os.rename", "os.rmdir")
FORBIDDEN += ("subprocess.Popen", "socket.connect", "socket.bind", "shutil.", "pty.spawn", "webbrowser.open")


def state():
    torch.manual_seed(0)
    return dict(creature_net(**WIDTH).state_dict())


# What a process makes of a file


_seen: list[str] = []


def watch_process():
    """In the worker: everything that code from a file could do outside of it is written down."""

    def heed(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event.startswith(FORBIDDEN) or writes:
            _seen.append(f"{event} {arguments[:2]}")

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.addaudithook(heed)


def outcome(file: Path) -> str:
    """`loaded`, `refused: ...`, or what went wrong."""
    _seen.clear()
    try:
        load_network(NetworkSpec(FACTORY, WIDTH, file.name, file.parent))
        said = "loaded"
    except InputError as error:
        text = str(error)
        clear = text.startswith("network.weights: ") and file.name in text and text.isprintable() and len(text) < 1500
        said = f"refused: {text}" if clear else f"unclear: {text}"
    except BaseException as error:
        said = f"raw: {type(error).__name__}: {error}"
    return f"ran: {_seen[0]}" if _seen else said


@pytest.fixture(scope="module")
def judge():
    """What a worker makes of files; one that is ended by a file is named by the pool's failure."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), watch_process) as pool:
        yield lambda file: pool.submit(outcome, file).result(120)


# Damage to bytes


def flipped(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        edge = rng.randrange(min(2000, len(content)))
        content[rng.choice((rng.randrange(len(content)), edge, -1 - edge))] ^= 1 << rng.randrange(8)
    return bytes(content)


def cut(content, rng):
    size = len(content)
    return content[: rng.choice((rng.randrange(size), rng.randrange(100), size - rng.randrange(1, 100)))]


def swapped(content, rng):
    size = rng.randrange(1, len(content) // 4)
    first, second = sorted(rng.sample(range(len(content) - size), 2))
    second = max(second, first + size)
    middle = content[first + size : second]
    one, other = content[first : first + size], content[second : second + size]
    return content[:first] + other + middle + one + content[second + size :]


def zeroed(content, rng):
    start, size = rng.randrange(len(content)), rng.choice((1, 64, 4096))
    return content[:start] + bytes(min(size, len(content) - start)) + content[start + size :]


def inserted(content, rng):
    start = rng.choice((rng.randrange(len(content)), rng.randrange(200)))
    return content[:start] + rng.randbytes(rng.randrange(1, 50)) + content[start:]


def replaced(content, rng):
    """A word that stands in the file becomes nonsense of its length, once or everywhere."""
    words = b"weight torch FloatStorage _rebuild_tensor_v2 OrderedDict cpu F32 dtype shape".split()
    word = rng.choice([word for word in words if word in content] or [content[:1]])
    return content.replace(word, rng.randbytes(len(word)), rng.choice((1, 1000)))


DAMAGES = (flipped, cut, swapped, zeroed, inserted, replaced)


def legacy(content):
    sink = io.BytesIO()
    torch.save(content, sink, _use_new_zipfile_serialization=False)
    return sink.getvalue()


def zipped(content):
    sink = io.BytesIO()
    torch.save(content, sink)
    return sink.getvalue()


def inside_the_zip(damage):
    """Damage to the pickle within, under a checksum that fits: it reaches the unpickler."""

    def damaged(content, rng):
        old, sink = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
        with zipfile.ZipFile(sink, "w") as new:
            for name in old.namelist():
                inner = old.read(name)
                new.writestr(name, damage(inner, rng) if name.endswith("data.pkl") else inner)
        return sink.getvalue()

    return damaged


def inside_the_header(damage):
    """Damage to a safetensors header whose length still fits."""

    def damaged(content, rng):
        (size,) = struct.unpack("<Q", content[:8])
        header = damage(content[8 : 8 + size], rng)
        return struct.pack("<Q", len(header)) + header + content[8 + size :]

    return damaged


def torn_header(content, rng):
    """A header with another value in one place."""
    header = json.loads(content)
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    values = [-1, 0, 2**31, 2**63, 2**64, 10**30, 1.5, None, "", [], [0, 1], {}]
    values += ["F64", "I8", "U8", "BOOL", "F8_E4M3", "C64"]
    key = rng.choice(list(entry))
    if isinstance(entry[key], list) and entry[key] and rng.random() < 0.5:
        entry[key][rng.randrange(len(entry[key]))] = rng.choice(values)
    else:
        entry[key] = rng.choice(values)
    return json.dumps(header).encode()


def damaged_bytes(number: int) -> tuple[str, bytes]:
    """File name and content of one case."""
    rng, held = random.Random(number), state()
    damage = DAMAGES[number % len(DAMAGES)]
    form = number // len(DAMAGES) % 6
    if form == 0:
        return f"{number}.safetensors", damage(save(held), rng)
    if form == 1:
        return f"{number}.safetensors", inside_the_header(damage)(save(held), rng)
    if form == 2:
        return f"{number}.safetensors", inside_the_header(torn_header)(save(held), rng)
    if form == 3:
        return f"{number}.pth", damage(legacy(held), rng)
    if form == 4:
        return f"{number}.pt", damage(zipped(held), rng)
    return f"{number}.bin", inside_the_zip(damage)(zipped({"state_dict": held}), rng)


@pytest.mark.soak
def test_a_damaged_file_loads_or_is_refused_in_a_sentence(tmp_path, judge):
    said = []
    for number in range(soak(72, 6000)):
        name, content = damaged_bytes(number)
        (tmp_path / name).write_bytes(content)
        said.append((name, judge(tmp_path / name)))
        (tmp_path / name).unlink()
    wrong = [case for case in said if not case[1].startswith(("loaded", "refused"))]
    loaded = sum(text == "loaded" for _, text in said)
    count("damaged weights files", len(said))
    count("of which loaded", loaded)
    assert not wrong
    assert 0 < loaded < len(said) / 2


# Damage to what a file says, each with the words of its refusal


def changed(name, value):
    return lambda held: held | {name: value(held[name]) if callable(value) else value}


FIRST = "features.0.weight"
WRONG = {
    "a renamed key": (lambda h: {f"{n}x" if n == FIRST else n: v for n, v in h.items()}, "missing features.0.weight"),
    "a missing key": (lambda h: {n: v for n, v in h.items() if n != FIRST}, "missing features.0.weight"),
    "a stray key": (changed("stray", torch.zeros(1)), "not in the network: stray"),
    "a hostile key": (changed("\x1b[31m\n\u202e", torch.zeros(1)), r"not in the network: \x1b[31m\n\u202e"),
    "another shape": (changed(FIRST, torch.zeros(2, 2)), "must be (2, 3, 5, 5), got (2, 2)"),
    "int8": (changed(FIRST, lambda t: t.to(torch.int8)), "must hold real numbers, got torch.int8; multiply quantised"),
    "uint8": (changed(FIRST, lambda t: t.to(torch.uint8)), "must hold real numbers, got torch.uint8"),
    "float8": (changed(FIRST, lambda t: t.to(torch.float8_e4m3fn)), "must hold real numbers, got torch.float8_e4m3fn"),
    "bool": (changed(FIRST, lambda t: t > 0), "must hold real numbers, got torch.bool"),
    "complex": (changed(FIRST, lambda t: t.to(torch.complex64)), "must hold real numbers, got torch.complex64"),
    "one NaN": (changed(FIRST, lambda t: t.clone().index_fill_(0, torch.tensor([1]), float("nan"))),
                "NaN or infinity in features.0.weight (75 of 150)"),
    "an infinity": (changed("classifier.bias", torch.tensor([0.0] * 5 + [float("inf")])), "classifier.bias (1 of 6)"),
    "nothing": (lambda _: {}, "missing features.0.weight"),
}  # fmt: skip
ONLY_PICKLED = {
    "a sparse tensor": (changed(FIRST, lambda t: t.to_sparse()), "plain"),
    "a quantised tensor": (changed(FIRST, lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)), "plain"),
    "a tensor on meta": (changed(FIRST, lambda t: t.to("meta")), "plain"),
    "a key that is no text": (changed(3, torch.zeros(1)), "must hold a plain state dict (name -> tensor)"),
    "a number": (changed(FIRST, 3.0), "must hold a plain state dict (name -> tensor)"),
    "a nested dict": (changed(FIRST, lambda t: {"weight": t}), "must hold a plain state dict (name -> tensor)"),
    "a list": (lambda h: list(h.values()), "got list"),
    "a tensor": (lambda h: h[FIRST], "got Tensor"),
    "None": (lambda _: None, "got NoneType"),
    "a whole network": (
        lambda _: creature_net(**WIDTH),
        "it needs torch.nn.modules.container.Sequential, which is code",
    ),
}
RIGHT = {
    "as it is": lambda h: h,
    "float16": lambda h: {n: t.half() for n, t in h.items()},
    "bfloat16": lambda h: {n: t.bfloat16() for n, t in h.items()},
    "float64": lambda h: {n: t.double() for n, t in h.items()},
    "a view of more": changed(FIRST, lambda t: torch.cat([t, t])[: len(t)].clone()),
}


def written(place: Path, held: object) -> Path:
    save_file(held, place) if place.suffix == ".safetensors" else torch.save(held, place)
    return place


CASES = [(what, suffix) for what in WRONG for suffix in (".safetensors", ".pth")] + [(w, ".pt") for w in ONLY_PICKLED]


@pytest.mark.parametrize(("what", "suffix"), CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_does_not_fit_is_told_why(tmp_path, judge, what, suffix):
    change, words = (WRONG | ONLY_PICKLED)[what]
    said = judge(written(tmp_path / f"w{suffix}", change(state())))
    assert said.startswith("refused: ")
    assert words in said


@pytest.mark.parametrize("what", RIGHT)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_in_another_precision_is_read(tmp_path, judge, what, suffix):
    assert judge(written(tmp_path / f"w{suffix}", RIGHT[what](state()))) == "loaded"


# Malice


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def malicious(marker: Path):
    """Objects that would touch a file if anything in them ran."""
    python = f"open({str(marker)!r}, 'w')"
    return {
        "os.system": Calls(os.system, f"touch '{marker}'"),
        "eval": Calls(eval, python),
        "exec": Calls(exec, python),
        "open": Calls(open, str(marker), "w"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "torch.load": Calls(torch.load, str(marker)),
        "torch.hub": Calls(torch.hub.load, "nobody/nothing", "evil"),
        "torch.jit": Calls(torch.jit.load, str(marker)),
        "numpy": Calls(__import__("numpy").load, str(marker)),
        "a state dict with one": {"weight": torch.zeros(1), "evil": Calls(os.system, f"touch '{marker}'")},
        "a key": {Calls(os.system, f"touch '{marker}'"): torch.zeros(1)},
        "behind an OrderedDict": OrderedDict(evil=Calls(eval, python)),
    }


@pytest.mark.parametrize("kind", malicious(Path("marker")))
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 0", "pickle 2", "pickle 5"])
def test_a_malicious_file_runs_nothing(tmp_path, judge, kind, form):
    held = malicious(tmp_path / "marker")[kind]
    if form.startswith("pickle"):
        content = pickle.dumps(held, int(form[-1]))
    else:
        content = zipped(held) if form == "zip" else legacy(held)
    (tmp_path / "evil.pt").write_bytes(content)
    assert judge(tmp_path / "evil.pt").startswith("refused: ")
    assert not (tmp_path / "marker").exists()


def test_the_watch_sees_what_runs(tmp_path, judge):
    """The hook of the worker is no test that cannot fail: the same payload, given to pickle itself, is seen."""
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(malicious(tmp_path / "marker")["eval"]))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), watch_process) as pool:
        assert "open" in pool.submit(unpickled, tmp_path / "evil.pt").result(120)
    assert (tmp_path / "marker").exists()


def unpickled(file: Path) -> str:
    pickle.loads(file.read_bytes())
    return _seen[0]


def test_torchscript_is_no_weights_file(tmp_path, judge):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(creature_net(**WIDTH).eval(), torch.zeros(1, 3, 96, 96)).save(tmp_path / "script.pt")
    assert judge(tmp_path / "script.pt").startswith("refused: ")
