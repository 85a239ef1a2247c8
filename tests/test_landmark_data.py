"""Data sets with landmarks: made miniatures of each format, and what they refuse."""

import json

import numpy as np
import pytest
from PIL import Image

from microtome.datasets import Frame, open_dataset
from microtome.datasets.base import chosen
from microtome.datasets.matlab import read_variable
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


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("images.txt", "1 a.jpg\n1 b.jpg\n", "2: number must be unique, and 1 stands in line 1 already"),
        ("images.txt", "one a.jpg\n", "1: number must be a whole number"),
        ("images.txt", "1 ../../etc/passwd\n", "1: image must be a path below"),
        ("images.txt", "1\n", "1: must have 2 words, got 1"),
        ("images.txt", "\n\n", " has no pictures"),
        ("bounding_boxes.txt", "1 4 5 20 10\n2 nan 0 20 30\n", "2: a box must be a finite number, got 'nan'"),
        ("bounding_boxes.txt", "1 4 5 -20 10\n", "1: a box must have a width and a height above 0"),
        ("bounding_boxes.txt", "1 4 5 20 10\n2 400 0 20 30\n", "the box of image 2 must meet its picture (40 x 30)"),
        ("bounding_boxes.txt", "7 4 5 20 10\n", "1: image 7 is not in images.txt"),
        ("train_test_split.txt", "1 yes\n", "1: train must be a whole number from 0 to 1"),
        ("parts/part_locs.txt", "1 1 6.5 inf 1\n", "1: y must be a finite number"),
        ("parts/part_locs.txt", "1 9 6.5 7 1\n", "1: image 1 must be in images.txt and part 9 in parts/parts.txt"),
        ("parts/part_locs.txt", "1 1 6 7 1\n1 1 6 7 1\n", "2: image and part must be unique"),
        ("parts/part_locs.txt", "1 1 6 7 2\n", "1: visible must be a whole number from 0 to 1"),
    ],
)
def test_cub_names_every_bad_line(cub, name, text, words):
    (cub / name).write_text(text)
    with pytest.raises(InputError) as caught:
        open_dataset("cub", cub, {})
    assert any(f"{name}:{words}" in fault or words in fault for fault in caught.value.faults)


def test_names_of_cub_may_hold_spaces_and_lines_may_be_blank(cub):
    (cub / "images/001.Albatross/a.jpg").rename(cub / "images/001.Albatross/a  bird.jpg")
    (cub / "images.txt").write_bytes(b"\xef\xbb\xbf1 001.Albatross/a  bird.jpg\r\n\r\n2 002.Wren/b.jpg")
    data = open_dataset("cub", cub, {})
    assert [record.file for record in data.records] == ["001.Albatross/a  bird.jpg", "002.Wren/b.jpg"]
    assert data.has_landmarks()
    (cub / "parts/part_locs.txt").write_text("1 1 6.5 7.0 0\n")
    assert not open_dataset("cub", cub, {}).has_landmarks()


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


def save_mat(file, objects):
    """PASCAL-Part's `anno` of (class, mask, parts as (name, mask))."""
    from scipy.io import savemat

    kinds = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
    stored = np.zeros(len(objects), dtype=kinds)
    for place, (name, mask, named) in enumerate(objects):
        parts = np.zeros(len(named), dtype=[("part_name", object), ("mask", object)])
        parts[:] = named
        stored[place] = (name, 1, mask, parts if named else np.zeros((0, 0)))
    savemat(file, {"anno": {"imname": file.stem, "objects": stored}})


def test_voc_parts_in_miniature(tmp_path):
    picture(tmp_path / "one.jpg")
    body, wheel, hub = (np.zeros((30, 40), np.uint8) for _ in range(3))
    body[5:25, 4:34], wheel[20:24, 6:10], hub[21:23, 7:9] = 1, 1, 1
    save_mat(
        tmp_path / "one.mat", [("car", body, [("wheel_1", wheel), ("wheel_2", np.roll(wheel, 20, 1)), ("hub", hub)])]
    )
    data = open_dataset("voc-parts", tmp_path, {})
    assert data.records[0].box == (4, 5, 34, 25)
    assert [(m.name, m.x, m.y) for m in data.landmarks(0)] == [("wheel", 8, 22), ("wheel", 28, 22), ("hub", 8, 22)]
    planes = data.annotation(0).planes
    assert len(planes["part"]) == 2  # the hub lies within a wheel
    assert (planes["object"] > 0).sum() == body.sum()
    (tmp_path / "two.mat").write_bytes(b"MATLAB")
    with pytest.raises(InputError, match="must be a PASCAL-Part annotation"):
        open_dataset("voc-parts", tmp_path, {})


BODY, WHEEL = np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8)
BODY[5:25, 4:34], WHEEL[20:24, 6:10] = 1, 1


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([(3, BODY, [])], "`class` must be a name, got ndarray"),
        ([("car", np.zeros((30, 40)), [])], "an object's mask must not be empty"),
        ([("car", "mask", [])], "a mask must be a matrix of numbers"),
        ([("car", np.zeros((2, 3, 4)), [])], "a mask must be a matrix of numbers"),
        ([("car", BODY, [("wheel", WHEEL[:9])])], r"a part's mask must be as large as its object's \(30, 40\)"),
        ([("car", BODY, [(np.zeros(2), WHEEL)])], "`part_name` must be a name"),
    ],
)
def test_voc_parts_names_what_is_no_annotation(tmp_path, objects, words):
    picture(tmp_path / "one.jpg")
    save_mat(tmp_path / "one.mat", objects)
    with pytest.raises(InputError, match=rf"one\.mat: must be a PASCAL-Part annotation .*{words}"):
        open_dataset("voc-parts", tmp_path, {})


@pytest.mark.parametrize("content", [{"other": 1}, {"anno": 3}, {"anno": {"imname": "x"}}, {"anno": {"objects": 3}}])
def test_voc_parts_refuses_other_variables(tmp_path, content):
    from scipy.io import savemat

    picture(tmp_path / "one.jpg")
    savemat(tmp_path / "one.mat", content)
    with pytest.raises(InputError, match=r"one\.mat: must be a PASCAL-Part annotation"):
        open_dataset("voc-parts", tmp_path, {})


def test_a_mat_file_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
    from scipy.io import savemat

    monkeypatch.setattr("microtome.datasets.matlab.MOST_INFLATED", 10**6)
    picture(tmp_path / "one.jpg")
    savemat(tmp_path / "one.mat", {"anno": np.zeros((2000, 2000))}, do_compression=True)
    assert (tmp_path / "one.mat").stat().st_size < 10**5
    with pytest.raises(InputError, match="must inflate to at most 1,000,000 bytes"):
        open_dataset("voc-parts", tmp_path, {})


def test_a_mat_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    from microtome.datasets import voc_parts

    read = []

    def counted(content, name):
        read.append(name)
        return read_variable(content, name)

    monkeypatch.setattr(voc_parts, "read_variable", counted)
    picture(tmp_path / "one.jpg")
    save_mat(tmp_path / "one.mat", [("car", BODY, [("wheel", WHEEL)])])
    for _ in range(3):
        data = open_dataset("voc-parts", tmp_path, {})
    assert len(read) == 1
    assert data.has_landmarks()
    save_mat(tmp_path / "one.mat", [("cat", BODY, []), ("dog", WHEEL, [])])
    data = open_dataset("voc-parts", tmp_path, {})
    assert [record.label for record in data.records] == ["cat", "dog"]
    assert not data.has_landmarks()
    assert len(read) == 2


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, compressed):
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    kinds = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?")
    numbers = {f"n{kind}".replace("?", "b"): (rng.random((3, 5)) * 100).astype(kind) for kind in kinds}
    content = {
        "s": {**numbers, "text": "caf\u00e9 \u4e2d", "none": np.zeros((0, 0)), "cell": np.array([1, "b"], object)}
    }
    savemat(tmp_path / "one.mat", {"other": 1, **content}, do_compression=compressed)
    (found,) = read_variable((tmp_path / "one.mat").read_bytes(), "s")
    for name, values in numbers.items():
        np.testing.assert_array_equal(found[name], values)
    assert found["text"] == "caf\u00e9 \u4e2d"
    assert found["none"].shape == (0, 0)
    assert (found["cell"][0].item(), found["cell"][1]) == (1, "b")
    with pytest.raises(ValueError, match="has no variable 'absent'"):
        read_variable((tmp_path / "one.mat").read_bytes(), "absent")


@pytest.mark.real
def test_real_matlab_files_are_read_as_scipy_reads_them(real_data):
    from scipy.io import loadmat

    for file in sorted((real_data / "pascal-part").glob("*.mat")):
        theirs = loadmat(file)["anno"]["objects"][0, 0].reshape(-1)
        (mine,) = read_variable(file.read_bytes(), "anno")
        assert len(mine["objects"]) == len(theirs)
        for found, expected in zip(mine["objects"], theirs, strict=True):
            assert found["class"] == str(expected["class"][0])
            np.testing.assert_array_equal(found["mask"], expected["mask"])
            for part, other in zip(found["parts"], expected["parts"].reshape(-1), strict=True):
                assert part["part_name"] == str(other["part_name"][0])
                np.testing.assert_array_equal(part["mask"], other["mask"])


def test_no_flipped_bit_of_a_matlab_file_crashes_or_hangs(tmp_path):
    """scipy 1.17's reader ends the process (segmentation fault) or never at several of these bits."""
    save_mat(tmp_path / "one.mat", [("car", BODY[:6, :8], [("wheel", WHEEL[:6, :8])])])
    whole = (tmp_path / "one.mat").read_bytes()
    refusals = 0
    for bit in range(128 * 8, len(whole) * 8):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        try:
            read_variable(bytes(content), "anno")
        except ValueError:
            refusals += 1
    assert refusals > 1000
