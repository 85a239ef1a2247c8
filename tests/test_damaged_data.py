"""Damage at random: every format, mutated in its tables, its pictures, its masks and its .mat files.

The outcome is an answer that keeps the contract, or an InputError: no other exception, no hang, nothing run, nothing
written. Short by default; MICROTOME_SOAK=1 runs thousands of cases and prints their counts.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from microtome.datasets import Frame, open_dataset
from microtome.errors import InputError

SOAK = os.environ.get("MICROTOME_SOAK") == "1"
CASES = 2500 if SOAK else 40
LIMIT = 10  # seconds a case may take
NASTY = (
    "", "0", "-1", "1.5", "nan", "inf", "1e400", "2000000000", "9" * 5000, "true", "null", "../../etc/passwd",
    "/etc/passwd", "images", "a.png", "b.jpg", "\u202e", "\ud800", "\0", "<img src=x onerror=alert(1)>",
    "'; drop table units;--", "\n", '"', ",", ";", "__import__('os').system('id')", "x" * 300,
)  # fmt: skip
VALUES = (
    None, True, 0, -1, 1, 3, 1.5, float("nan"), float("inf"), 1e300, 2_000_000_000, 10**30, "", "a", "a.png", "\ud800",
    "../../etc/passwd", "/etc/passwd", [], [[]], {}, {"a": 1}, [1, 2], [0, 0, 4, 4], [[0, 0, 4, 0, 4, 4]], "PPP1",
    {"size": [6, 8], "counts": "PPPP"}, {"size": [6, 8], "counts": [40, 8]}, "x" * 300,
)  # fmt: skip


# What is damaged: a small whole data set of each format


def painted_picture(file, size=(8, 6), **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(file.name)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, **options)


def make_folder(root):
    for name in ("a.png", "cats/b.jpg", "cats/c.webp", "d.bmp"):
        painted_picture(root / name)


def make_masks(root):
    for name in ("a.png", "b.jpg"):
        painted_picture(root / "images" / name)
        plane = Image.fromarray(np.array([[0, 1, 2, 2, 1, 0, 0, 1]] * 6, np.uint8))
        (root / "masks").mkdir(exist_ok=True)
        plane.save((root / "masks" / name).with_suffix(".png"))
    (root / "classes.json").write_text(json.dumps({"classes": {"0": "none", "1": "red", "2": "blue"}}))


def make_broden(root):
    rows = ["image,split,ih,iw,sh,sw,object,scene"]
    for name in ("a", "b"):
        painted_picture(root / f"images/{name}.jpg")
        Image.fromarray(np.full((3, 4, 3), (1, 0, 0), np.uint8)).save(root / f"images/{name}.png")
        rows.append(f"{name}.jpg,train,6,8,3,4,{name}.png;3,2")
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    (root / "label.csv").write_text("number,name,category\n1,cat,object(1)\n2,sunny,scene\n3,dog,object;scene\n")
    (root / "c_object.csv").write_text("number,coverage\n1,2.5\n3,1\n")


def make_coco(root):
    shapes = [[[0, 0, 4, 0, 4, 4, 0, 4]], {"size": [6, 8], "counts": [40, 8]}, {"size": [6, 8], "counts": "T1100"}]
    content = {
        "images": [{"id": i, "file_name": f"{'ab'[i]}.png", "width": 8, "height": 6} for i in range(2)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": i % 2, "category_id": (3, 7)[i % 2], "segmentation": shape, "iscrowd": 0}
            for i, shape in enumerate(shapes[:2])
        ],
    }
    for name in ("a", "b"):
        painted_picture(root / f"images/{name}.png")
    (root / "annotations.json").write_text(json.dumps(content))


def make_animals(root):
    rows = []
    for name in ("a.png", "b.jpg"):
        painted_picture(root / "images" / name)
        parts = {"head": {"center_xy": [2.0, 3.5]}, "legs": {"center_xy": [4, 5]}}
        size = {"width": 8, "height": 6, "object_box_xyxy": [1, 1, 7, 6]}
        rows.append({"file": name, "category": "cat", **size, "parts": parts})
    (root / "landmarks.json").write_text(json.dumps({"records": rows}))


def make_cub(root):
    for name in ("001.Albatross/a.jpg", "002.Wren/b.jpg"):
        painted_picture(root / "images" / name)
    tables = {
        "images.txt": "1 001.Albatross/a.jpg\n2 002.Wren/b.jpg\n",
        "bounding_boxes.txt": "1 1.0 1.0 5.0 4.0\n2 0.0 0.0 8.0 6.0\n",
        "train_test_split.txt": "1 1\n2 0\n",
        "parts/parts.txt": "1 beak\n2 left wing\n",
        "parts/part_locs.txt": "1 1 6.5 5.0 1\n1 2 0.0 0.0 0\n2 1 3.0 4.0 1\n",
    }
    (root / "parts").mkdir()
    for name, text in tables.items():
        (root / name).write_text(text)


def make_voc(root):
    from scipy.io import savemat

    for name in ("a", "b"):
        painted_picture(root / f"{name}.jpg")
        body, wheel = (np.zeros((6, 8), np.uint8) for _ in range(2))
        body[1:5, 2:7], wheel[3:5, 3:5] = 1, 1
        parts = np.zeros(1, dtype=[("part_name", object), ("mask", object)])
        parts[:] = [("wheel_1", wheel)]
        objects = np.zeros(2, dtype=[("class", object), ("class_ind", object), ("mask", object), ("parts", object)])
        objects[0], objects[1] = ("car", 1, body, parts), ("cat", 2, body, np.zeros((0, 0)))
        content = {"anno": {"imname": name, "objects": objects}}
        savemat(root / f"{name}.mat", content, do_compression=name == "b")


MAKERS = {
    "folder": make_folder,
    "masks": make_masks,
    "broden": make_broden,
    "coco": make_coco,
    "animal-parts": make_animals,
    "cub": make_cub,
    "voc-parts": make_voc,
}


@pytest.fixture(scope="module")
def whole_sets(tmp_path_factory):
    """A whole data set of each format."""
    root = tmp_path_factory.mktemp("whole")
    for form, make in MAKERS.items():
        (root / form).mkdir()
        make(root / form)
    return root


# How it is damaged


def cut(content, at, other, payload):
    return content[: int(at * len(content))]


def flip(content, at, other, payload):
    changed = bytearray(content)
    if changed:
        changed[min(int(at * len(changed)), len(changed) - 1)] ^= 1 << int(other * 7)
    return bytes(changed)


def overwrite(content, at, other, payload):
    place = int(at * len(content))
    word = payload.encode("utf-8", "surrogatepass")[:8]
    return content[:place] + word + content[place + len(word) :]


def blank(content, at, other, payload):
    low, high = sorted((int(at * len(content)), int(other * len(content))))
    return content[:low] + bytes(high - low) + content[high:]


def insert(content, at, other, payload):
    place = int(at * len(content))
    return content[:place] + payload.encode("utf-8", "surrogatepass") + content[place:]


def repeat(content, at, other, payload):
    low, high = sorted((int(at * len(content)), int(other * len(content))))
    return content[:high] + content[low:]


def field(content, at, other, payload):
    """Replace a word of a table."""
    import re

    words = re.split(rb"([\s,;]+)", content)
    words[2 * int(at * (len(words) // 2))] = payload.encode("utf-8", "surrogatepass")
    return b"".join(words)


def swap(content, at, other, payload):
    """Exchange two words of a table."""
    import re

    words = re.split(rb"([\s,;]+)", content)
    one, two = (2 * int(place * (len(words) // 2)) for place in (at, other))
    words[one], words[two] = words[two], words[one]
    return b"".join(words)


def lines(content, at, other, payload):
    """Exchange two lines, and repeat one of them."""
    rows = content.split(b"\n")
    one, two = (min(int(place * len(rows)), len(rows) - 1) for place in (at, other))
    rows[one], rows[two] = rows[two], rows[one]
    return b"\n".join([*rows, rows[one]])


def value(content, at, other, payload):
    """Replace, remove or repeat a value of a JSON file."""
    try:
        tree = json.loads(content)
    except ValueError:
        return content
    places = list(holders(tree))
    if not places:
        return content
    holder, key = places[min(int(at * len(places)), len(places) - 1)]
    choice = int(other * (len(VALUES) + 2))
    if choice < len(VALUES):
        holder[key] = VALUES[choice]
    elif isinstance(holder, list) and choice == len(VALUES):
        holder.append(holder[key])
    else:
        del holder[key]
    return json.dumps(tree).encode()


def holders(tree):
    keys = range(len(tree)) if isinstance(tree, list) else list(tree) if isinstance(tree, dict) else ()
    for key in keys:
        yield tree, key
        yield from holders(tree[key])


def below_the_crc(content, at, other, payload):
    """Change a byte of a PNG chunk or of a compressed .mat element, and make its checksum right again."""
    if content.startswith(b"\x89PNG"):
        place = 8
        chunks = []
        while place + 12 <= len(content):
            size = int.from_bytes(content[place : place + 4], "big")
            chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
            place += 12 + size
        if not chunks:
            return content
        one = min(int(at * len(chunks)), len(chunks) - 1)
        chunks[one] = (chunks[one][0], flip(chunks[one][1], other, at, payload))
        return content[:8] + b"".join(
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
            for kind, body in chunks
        )
    if content.startswith(b"MATLAB") and content[128:132] == b"\x0f\0\0\0":
        with contextlib.suppress(zlib.error):
            body = zlib.compress(flip(zlib.decompress(content[136:]), at, other, payload))
            return content[:132] + len(body).to_bytes(4, "little") + body
    return content


WAYS = (cut, flip, overwrite, blank, insert, repeat, field, swap, lines, value, below_the_crc)
share = st.floats(0, 1, exclude_max=True)
damages = st.lists(
    st.tuples(share, st.sampled_from(WAYS), share, share, st.sampled_from(NASTY)), min_size=1, max_size=3
)


def damaged(root, damage):
    """Apply some damage to the files below a folder; a file may also be taken away or take another's place."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    for which, way, at, other, payload in damage:
        file = files[int(which * len(files))]
        file.write_bytes(way(file.read_bytes(), at, other, payload))


# What must come of it


RUNS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class")
watched: dict[str, list[str] | None] = {"events": None}


class LateError(BaseException):
    """Not an Exception, which what is tested could take for a decoder's."""


def _watch(event, arguments):
    events = watched["events"]
    if events is not None:
        writes = event == "open" and isinstance(arguments[1], str) and any(sign in arguments[1] for sign in "wa+x")
        if event in RUNS or writes:
            events.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_watch)


@contextlib.contextmanager
def nothing_run_and_no_hang():
    """A case within that runs something, writes something or takes ten seconds fails."""

    def late(*_):
        raise LateError(f"a case took more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    watched["events"] = events = []
    try:
        yield
    finally:
        watched["events"] = None
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert events == []


def looked_through(form, root):
    """`fine`, or `refused`, having checked that what is given keeps the contract."""
    try:
        data = open_dataset(form, root, {})
        keeps_the_contract(data)
        files = list(data.files())
    except InputError as error:
        return said(error)
    assert files
    outcome = "fine"
    for index in range(len(data.records)):
        try:
            faults = data.faults(index)
            one_picture(data, index)
        except InputError as error:
            outcome = said(error)
        else:
            outcome = "refused" if faults else outcome
    return outcome


def said(error):
    assert all(len(fault) > 10 and "Traceback" not in fault for fault in error.faults)
    return "refused"


def keeps_the_contract(data):
    numbers = [concept.number for concept in data.concepts]
    assert numbers == sorted(set(numbers))
    assert len(data.records) > 0
    for name in [concept.name for concept in data.concepts]:
        name.encode("utf-8")
    for record in data.records:
        f"{record.file}{record.label}".encode()
        assert ".." not in Path(record.file).parts
        assert not Path(record.file).is_absolute()
        assert min(record.width, record.height) >= 1
        if record.box:
            x0, y0, x1, y1 = record.box
            assert 0 <= x0 < x1 <= record.width
            assert 0 <= y0 < y1 <= record.height


def one_picture(data, index):
    record = data.records[index]
    known = {category: [c.number for c in data.concepts if c.category == category] for category in
             {c.category for c in data.concepts}}  # fmt: skip
    numbers = {concept.number for concept in data.concepts}
    frame = Frame((16, 16), "shortest-side-crop", crop=data.default_crop)
    place = frame.place(record)
    notes = data.annotation(index)
    for category, planes in notes.planes.items():
        assert category in known
        assert planes.dtype == np.int32
        assert set(np.unique(planes).tolist()) <= numbers | {0}
        assert place.mask(planes, (record.width, record.height), frame.masks).shape[1:] == frame.masks
    for category, labels in notes.labels.items():
        assert category in known
        assert set(labels) <= numbers
    for mark in data.landmarks(index):
        mark.name.encode("utf-8")
        assert math.isfinite(mark.x)
        assert math.isfinite(mark.y)
    if not data.faults(index):
        picture = data.picture(index)
        assert picture.mode == "RGB"
        assert picture.size == (record.width, record.height)
        assert place.picture(picture).shape == (16, 16, 3)


@pytest.mark.parametrize("form", MAKERS)
def test_what_is_whole_is_read(whole_sets, form):
    assert looked_through(form, whole_sets / form) == "fine"


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_refused_or_harmless(whole_sets, tmp_path, capsys, form):
    outcomes = Counter()

    @settings(
        max_examples=CASES, derandomize=not SOAK, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(damages)
    def case(damage):
        place = tmp_path / str(sum(outcomes.values()) % 2) / form
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole_sets / form, place)
        damaged(place, damage)
        with nothing_run_and_no_hang():
            outcome = looked_through(form, place)
        outcomes[outcome] += 1

    case()
    assert outcomes["refused"] > CASES / 10
    if SOAK:
        with capsys.disabled():
            print(f"\n{form}: {sum(outcomes.values())} cases, {dict(outcomes)}")
