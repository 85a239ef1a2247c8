"""Data sets with landmarks: made miniatures of each format, and what they refuse."""

import json

import numpy as np
import pytest
from PIL import Image

from microtome.datasets import Frame, open_dataset
from microtome.datasets.base import chosen
from microtome.errors import InputError


def picture(file, size=(40, 30)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(file)


@pytest.fixture
def cub(tmp_path):
    """Two birds in CUB's layout."""
    for name in ("001.Albatross/a.jpg", "002.Wren/b.jpg"):
        picture(tmp_path / "images" / name)
    tables = {
        "images.txt": "1 001.Albatross/a.jpg\n2 002.Wren/b.jpg\n",
        "bounding_boxes.txt": "1 4.0 5.0 20.0 10.0\n2 30.0 0.0 20.0 30.0\n",
        "train_test_split.txt": "1 1\n2 0\n",
        "parts/parts.txt": "1 beak\n2 left wing\n",
        "parts/part_locs.txt": "1 1 6.5 7.0 1\n1 2 0.0 0.0 0\n2 1 33.0 4.0 1\n2 2 38.0 9.0 1\n",
    }
    for name, text in tables.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_cub(cub):
    data = open_dataset("cub", cub, {})
    assert [record.label for record in data.records] == ["bird", "bird"]
    assert [record.split for record in data.records] == ["train", "test"]
    assert data.records[0].box == (4, 5, 24, 15)
    assert data.records[1].box == (30, 0, 40, 30)  # clipped to the picture
    assert [(mark.name, mark.x, mark.y) for mark in data.landmarks(0)] == [("beak", 6.5, 7.0)]
    assert [mark.name for mark in data.landmarks(1)] == ["beak", "left_wing"]
    assert open_dataset("cub", cub, {"species": True}).records[1].label == "002.Wren"
    place = Frame((100, 100), crop="object").place(data.records[0])
    moved = place.landmark(data.landmarks(0)[0])
    assert (moved.x, moved.y) == (pytest.approx(12.5), pytest.approx(20))


def test_cub_names_file_and_line(cub):
    (cub / "bounding_boxes.txt").write_text("1 4.0 5.0\n")
    with pytest.raises(InputError, match=r"bounding_boxes\.txt:1: must have 5 words, got 3"):
        open_dataset("cub", cub, {})
    (cub / "bounding_boxes.txt").unlink()
    with pytest.raises(InputError, match=r"bounding_boxes\.txt: no such file"):
        open_dataset("cub", cub, {})


@pytest.fixture
def animals(tmp_path):
    """Two records in the layout of animal-parts."""
    picture(tmp_path / "images/cat/1.jpg")
    record = {
        "file": "cat/1.jpg",
        "category": "cat",
        "width": 40,
        "height": 30,
        "object_box_xyxy": [-3, 2, 20, 22],
        "parts": {"head": {"center_xy": [5.0, 6.5]}},
    }
    (tmp_path / "landmarks.json").write_text(json.dumps({"records": [record, {**record, "category": "dog"}]}))
    return tmp_path


def test_animal_parts(animals):
    data = open_dataset("animal-parts", animals, {})
    assert data.records[0].box == (0, 2, 20, 22)
    assert data.landmarks(0)[0].name == "head"
    assert data.faults(0) == []
    assert chosen(data.records, categories=["dog"]) == [1]
    assert chosen(data.records, limit=1) == [0]
    with pytest.raises(InputError, match=r"dataset\.categories: none is 'horse'; the data set has cat, dog"):
        chosen(data.records, categories=["horse"])


def test_animal_parts_lists_every_fault(animals):
    content = json.loads((animals / "landmarks.json").read_text())
    content["records"][0].pop("width")
    content["records"][1]["object_box_xyxy"] = [50, 0, 60, 10]
    (animals / "landmarks.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        open_dataset("animal-parts", animals, {})
    assert "records[0]: has no key 'width'" in caught.value.faults[0]
    assert "records[1]: object_box_xyxy must span at least a pixel" in caught.value.faults[1]


def test_folder(tmp_path):
    picture(tmp_path / "b.jpg")
    picture(tmp_path / "cats/a.png")
    data = open_dataset("folder", tmp_path, {})
    assert [(record.file, record.label) for record in data.records] == [("b.jpg", None), ("cats/a.png", "cats")]
    assert len(list(data.files())) == 2
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        open_dataset("folder", tmp_path, {})


def test_voc_parts_in_miniature(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    picture(tmp_path / "one.jpg")
    body, wheel, hub = (np.zeros((30, 40), np.uint8) for _ in range(3))
    body[5:25, 4:34], wheel[20:24, 6:10], hub[21:23, 7:9] = 1, 1, 1
    parts = np.zeros(3, dtype=[("part_name", object), ("mask", object)])
    parts[:] = [("wheel_1", wheel), ("wheel_2", np.roll(wheel, 20, 1)), ("hub", hub)]
    objects = np.zeros(1, dtype=[("class", object), ("class_ind", object), ("mask", object), ("parts", object)])
    objects[0] = ("car", 1, body, parts)
    scipy_io.savemat(tmp_path / "one.mat", {"anno": {"imname": "one", "objects": objects}})
    data = open_dataset("voc-parts", tmp_path, {})
    assert data.records[0].box == (4, 5, 34, 25)
    assert [(m.name, m.x, m.y) for m in data.landmarks(0)] == [("wheel", 8, 22), ("wheel", 28, 22), ("hub", 8, 22)]
    planes = data.annotation(0).planes
    assert len(planes["part"]) == 2  # the hub lies within a wheel
    assert (planes["object"] > 0).sum() == body.sum()
    (tmp_path / "two.mat").write_bytes(b"MATLAB")
    with pytest.raises(InputError, match="must be a PASCAL-Part annotation"):
        open_dataset("voc-parts", tmp_path, {})
