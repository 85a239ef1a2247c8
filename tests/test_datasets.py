"""Formats and frames: what is read, and that every fault is found and named."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from microtome.datasets import Frame, Landmark, Record, open_dataset
from microtome.datasets.creatures import ANIMALS, PARTS, Creatures
from microtome.errors import InputError


@pytest.fixture
def copy(broden, tmp_path):
    """A copy of the Broden creatures that a test may damage."""
    shutil.copytree(broden, tmp_path / "broden")
    return tmp_path / "broden"


def replace_in(file, old, new):
    file.write_text(file.read_text().replace(old, new, 1))


def test_broden_gives_back_what_was_written(broden):
    source, read = Creatures(count=70, size=64, seed=5), open_dataset("broden", broden, {})
    assert [(c.number, c.name, c.category) for c in read.concepts] == [
        (c.number, c.name, c.category) for c in source.concepts
    ]
    for index in (0, 33, 69):
        mine, theirs = read.annotation(index), source.annotation(index)
        assert mine.labels == theirs.labels
        for category, plane in theirs.planes.items():
            np.testing.assert_array_equal(mine.planes[category], plane[:, ::2, ::2])


def test_the_stratum_of_a_picture_is_the_folder_that_its_path_begins_with(copy):
    (copy / "images/dtd/fine").mkdir(parents=True)
    (copy / "images/1.jpg").rename(copy / "images/dtd/fine/1.jpg")
    replace_in(copy / "index.csv", "1.jpg", "dtd/fine/1.jpg")
    records = open_dataset("broden", copy, {}).records
    assert [record.stratum for record in records[:3]] == [None, "dtd", None]


def test_the_stratum_of_a_masked_picture_is_its_sub_folder(tmp_path):
    for name in ("a.png", "street/b.png", "street/left/c.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
        Image.new("L", (8, 8)).save(tmp_path / "masks" / name.rpartition("/")[2])
    records = open_dataset("masks", tmp_path, {"names": ["none", "road"]}).records
    assert [(record.file, record.stratum) for record in records] == [
        ("images/a.png", None),
        ("images/street/b.png", "street"),
        ("images/street/left/c.png", "street"),
    ]


def test_numbers_above_255_do_not_overflow(copy):
    replace_in(copy / "label.csv", "1,bird,object", "1,bird,object\n300,giant,object")
    Image.fromarray(np.full((32, 32, 3), (300 - 256, 1, 0), np.uint8)).save(copy / "images/0_object_0.png")
    planes = open_dataset("broden", copy, {}).annotation(0).planes
    assert np.unique(planes["object"]).tolist() == [300]


def test_columns_are_found_by_header(copy):
    lines = [line.split(",") for line in (copy / "index.csv").read_text().splitlines()]
    (copy / "index.csv").write_text("\n".join(",".join(reversed(line)) for line in lines))
    assert open_dataset("broden", copy, {}).records[3].width == 64


def test_a_label_in_two_categories_is_scored_where_it_covers_most(copy):
    replace_in(copy / "label.csv", "10,torso,part", "10,torso,object(3);part(4)")
    for category, coverage in (("object", 1.5), ("part", 2.5)):
        (copy / f"c_{category}.csv").write_text(f"code,number,name,frequency,coverage\n1,10,torso,3,{coverage}\n")
    assert next(c for c in open_dataset("broden", copy, {}).concepts if c.number == 10).category == "part"
    (copy / "c_object.csv").write_text("code,number,name,frequency,coverage\n1,10,torso,3,2.5\n")
    assert next(c for c in open_dataset("broden", copy, {}).concepts if c.number == 10).category == "object"


def test_zero_means_none_and_textures_may_be_two(copy):
    rows = (copy / "index.csv").read_text().splitlines()
    head = rows[0].split(",")
    cells = rows[1].split(",")
    cells[head.index("scene")] = "0;25;26"
    (copy / "index.csv").write_text("\n".join([rows[0], ",".join(cells), *rows[2:]]))
    assert open_dataset("broden", copy, {}).annotation(0).labels["scene"] == (25, 26)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: (root / "images/4_part_0.png").unlink(), "index.csv:6: part: .*4_part_0.png: no such mask"),
        (lambda root: cut(root / "images/4_part_0.png"), "index.csv:6: part: .*cannot be read as a mask"),
        (lambda root: paint(root / "images/4_part_0.png", 200), "index.csv:6: part: label 200 .* not in label.csv"),
        (lambda root: paint(root / "images/4_part_0.png", 1, 16), r"must be 32 x 32 pixels \(sw x sh\), got 16 x 16"),
    ],
)
def test_a_bad_mask_is_named_with_its_row(copy, damage, words):
    damage(copy)
    with pytest.raises(InputError, match=words):
        open_dataset("broden", copy, {}).annotation(4)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.unlink(), "no such picture"),
        (lambda file: cut(file), "cut off"),
        (lambda file: file.write_bytes(b"not a picture"), "cannot be read as a picture"),
        (lambda file: Image.new("RGB", (9, 9)).save(file), "must be 64 x 64 pixels, got 9 x 9"),
    ],
)
def test_a_bad_picture_is_named_with_its_row(copy, damage, words):
    damage(copy / "images/4.jpg")
    (fault,) = open_dataset("broden", copy, {}).faults(4)
    assert "index.csv:6" in fault
    assert words in fault


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def paint(file, number, side=32):
    Image.fromarray(np.full((side, side, 3), (number, 0, 0), np.uint8)).save(file)


def test_broken_tables_are_named(tmp_path, copy):
    with pytest.raises(InputError, match="no such file"):
        open_dataset("broden", tmp_path, {})
    replace_in(copy / "index.csv", "split", "splat")
    with pytest.raises(InputError, match="must have the columns image, split"):
        open_dataset("broden", copy, {})


@pytest.mark.parametrize(
    ("form", "options", "words"),
    [
        ("brodan", {}, "did you mean 'broden'"),
        ("creatures", {"cuont": 3}, "dataset.cuont: the format creatures has no such option, only count"),
        ("creatures", {"count": 0}, "count must be a whole number from 1 to"),
        ("creatures", {"count": 10**12}, "count must be a whole number from 1 to"),
        ("creatures", {"size": [64]}, r"size must be a whole number from 32 to 4,096, got list \[64\]"),
        ("broden", {}, "needs a folder"),
    ],
)
def test_bad_choices_are_named(form, options, words):
    with pytest.raises(InputError, match=words):
        open_dataset(form, None, options)


@pytest.fixture
def camvid(tmp_path):
    """Two pictures with indexed masks; values 0, 1, 2, 255."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (6, 4), (9, 9, 9)).save(tmp_path / f"images/{name}.png")
        plane = np.array([[0, 1, 2, 255, 0, 0]] * 4, np.uint8)
        Image.fromarray(plane).save(tmp_path / f"masks/{name}.png")
    (tmp_path / "classes.json").write_text(json.dumps([{"name": "sky"}, {"name": "road"}, {"name": "void"}]))
    return tmp_path


def test_masks_folder(camvid):
    data = open_dataset("masks", camvid, {"unlabelled": ["Void", 255]})
    assert [(c.number, c.name) for c in data.concepts] == [(1, "sky"), (2, "road")]
    assert data.annotation(0).planes["object"][0, 0].tolist() == [1, 2, 0, 0, 1, 1]


def test_masks_folder_names_every_missing_mask(camvid):
    for name in ("a", "b"):
        (camvid / f"masks/{name}.png").unlink()
    with pytest.raises(InputError) as caught:
        open_dataset("masks", camvid, {})
    assert len(caught.value.faults) == 2


def test_coco_overlapping_instances_get_planes_of_their_own(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images/a.png")
    square = [0, 0, 4, 0, 4, 4, 0, 4]
    rows = [(1, 3, square), (2, 3, square), (3, 7, [2, 2, 8, 2, 8, 8, 2, 8])]
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                "id": i,
                "image_id": 5,
                "category_id": c,
                "segmentation": [s],
                "iscrowd": 0,
                "area": 1,
                "bbox": [0, 0, 1, 1],
            }
            for i, c, s in rows
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    data = open_dataset("coco", tmp_path, {})
    planes = data.annotation(0).planes["object"]
    assert planes.shape == (2, 8, 8)
    assert ((planes == 3).sum(), (planes == 7).sum()) == (16, 36)
    assert data.faults(0) == []


def test_creatures_follow_from_seed_and_index_alone():
    few, many = Creatures(count=3, size=48, seed=9), Creatures(count=3, size=48, seed=9)
    last_first = [np.asarray(many.picture(index)) for index in (2, 1, 0)][::-1]
    for index in range(3):
        np.testing.assert_array_equal(np.asarray(few.picture(index)), last_first[index])
    assert not np.array_equal(np.asarray(Creatures(count=1, size=48, seed=10).picture(0)), last_first[0])


def test_creatures_masks_agree_with_one_another():
    data = Creatures(count=40, size=64, seed=1)
    numbers = {(c.category, c.name): c.number for c in data.concepts}
    seen = set()
    for index in range(40):
        planes = data.annotation(index).planes
        body = np.isin(planes["object"][0], [numbers["object", name] for name in ANIMALS])
        np.testing.assert_array_equal(body, planes["part"][0] > 0)
        assert not ((planes["color"][0] > 0) & ~body).any()
        assert not ((planes["texture"][0] > 0) & ~body).any()
        seen |= set(np.unique(planes["part"][0])) - {0}
        for mark in data.landmarks(index):
            assert mark.name in ("head", "torso", "tail", "wing")
    assert seen == {numbers["part", name] for name in PARTS}


def test_a_landmark_moves_with_its_mask():
    """A dot painted at a landmark is under the landmark after crop and resize, in picture and mask alike."""
    record = Record("x", "all", 100, 80, box=(20.0, 10.0, 80.0, 70.0))
    plane = np.zeros((80, 100), np.int32)
    plane[40:46, 60:66] = 5
    picture = Image.fromarray(np.repeat((plane * 51)[..., None], 3, 2).astype(np.uint8))
    for frame in (
        Frame((64, 64), crop="object", mask_size=(64, 64)),
        Frame((64, 64), crop="object", margin=0.1, mask_size=(64, 64)),
        Frame((64, 64), "shortest-side-crop", mask_size=(64, 64)),
        Frame((32, 64), mask_size=(32, 64)),
    ):
        place = frame.place(record)
        mark = place.landmark(Landmark("dot", 63, 43))
        assert place.mask(plane, (100, 80), frame.masks)[int(mark.y), int(mark.x)] == 5
        assert place.picture(picture)[int(mark.y), int(mark.x), 0] > 200


def test_the_usual_centre_crop_is_the_usual_one():
    """Shorter side to 256, centre crop 224."""
    picture = Image.effect_noise((300, 200), 50).convert("RGB")
    place = Frame((224, 224), "shortest-side-crop").place(Record("x", "all", 300, 200))
    expected = picture.resize((384, 256), Image.Resampling.BILINEAR).crop((80, 16, 304, 240))
    np.testing.assert_array_equal(place.picture(picture), np.asarray(expected))


def test_nothing_changes_where_nothing_has_to():
    plane = np.arange(12).reshape(3, 4)
    place = Frame((6, 8), mask_size=(3, 4)).place(Record("x", "all", 8, 6))
    assert place.mask(plane, (8, 6), (3, 4)) is plane
