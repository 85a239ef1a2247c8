"""Bad data: what is refused, in which words; and that no damage gives anything but an answer or an InputError."""

from __future__ import annotations

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from microtome.datasets import Concept, Dataset, Frame, Record, open_dataset
from microtome.datasets.base import find_pictures, open_mask, open_picture, picture_fault
from microtome.errors import InputError, folded


def colours(file, size=(6, 4), **options):
    """A picture that no format can mistake for another."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, **options)
    return pixels


def refused(call, *arguments):
    """The faults of a call that must be refused."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return caught.value.faults


# The door


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_picture_is_told_by_its_content(tmp_path, kind):
    colours(tmp_path / "p.png", format=kind)
    assert open_picture(tmp_path / "p.png").size == (6, 4)
    assert picture_fault(tmp_path / "p.png", (6, 4)) is None


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touched) (w) file closefile\n",
        b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;",
        b"P6 1 1 255 abc",
        b"",
    ],
)
def test_only_the_formats_that_are_meant_are_decoded(tmp_path, monkeypatch, content):
    """EPS named .png must not reach Ghostscript, nor anything else a decoder that nobody asked for."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was reached"))
    (tmp_path / "p.png").write_bytes(content)
    (fault,) = refused(open_picture, tmp_path / "p.png")
    assert "p.png: cannot be read as a picture: its content must be JPEG, PNG, WEBP, BMP, got" in fault
    assert picture_fault(tmp_path / "p.png") == fault


def test_sixteen_bit_grey_is_scaled(tmp_path):
    stored = np.array([[0, 128, 129, 257], [32768, 65279, 65407, 65535]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "p.png")
    expected = np.array([[round(int(v) / 257) for v in row] for row in stored])
    np.testing.assert_array_equal(np.asarray(open_picture(tmp_path / "p.png"))[..., 1], expected)
    assert expected.tolist() == [[0, 0, 1, 1], [128, 254, 255, 255]]


def test_alpha_is_dropped_and_an_index_becomes_its_colour(tmp_path):
    pixels = colours(tmp_path / "p.png")
    clear = np.dstack([pixels, np.zeros((4, 6), np.uint8)])
    Image.fromarray(clear, "RGBA").save(tmp_path / "clear.png")
    np.testing.assert_array_equal(np.asarray(open_picture(tmp_path / "clear.png")), pixels)
    indexed = Image.fromarray(pixels).quantize(8)
    indexed.save(tmp_path / "indexed.png", transparency=bytes([0] * 8))
    np.testing.assert_array_equal(
        np.asarray(open_picture(tmp_path / "indexed.png")), np.asarray(indexed.convert("RGB"))
    )
    Image.fromarray(pixels[..., :2], "LA").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(np.asarray(open_picture(tmp_path / "grey.png"))[..., 2], pixels[..., 0])


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "p.jpg", quality=100)
    red, green, blue = np.asarray(open_picture(tmp_path / "p.jpg"))[4, 4].tolist()
    assert red < 3
    assert min(green, blue) > 252


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", [2, 3, 6, 8])
def test_a_turned_picture_is_refused(tmp_path, kind, turn):
    exif = Image.Exif()
    exif[0x112] = turn
    colours(tmp_path / "p.png", format=kind, exif=exif)
    (fault,) = refused(open_picture, tmp_path / "p.png")
    assert f"carries the EXIF orientation {turn}" in fault
    assert picture_fault(tmp_path / "p.png") == fault
    exif[0x112] = 1
    colours(tmp_path / "q.png", format=kind, exif=exif)
    assert picture_fault(tmp_path / "q.png") is None


def test_a_turned_mask_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    colours(tmp_path / "m.png", exif=exif)
    assert "carries the EXIF orientation 6" in refused(open_mask, tmp_path / "m.png")[0]


def test_an_orientation_behind_the_pixels_is_seen_too(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    colours(tmp_path / "p.png")
    whole = (tmp_path / "p.png").read_bytes()
    late = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "p.png").write_bytes(whole[:-12] + late + whole[-12:])
    assert "carries the EXIF orientation 6" in refused(open_picture, tmp_path / "p.png")[0]


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("side", [10_000, 60_000])  # PIL warns of the first and refuses the second
def test_a_decompression_bomb_is_named(tmp_path, recwarn, side):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    (tmp_path / "p.png").write_bytes(bomb)
    for fault in (refused(open_picture, tmp_path / "p.png")[0], picture_fault(tmp_path / "p.png")):
        assert "p.png: must have at most 89,478,485 pixels" in fault
        assert f"got {side} x {side}" in fault or f"({side**2} pixels)" in fault


def test_an_animation_is_refused_and_a_camera_s_preview_is_not(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    for kind in ("PNG", "WEBP"):
        frames[0].save(tmp_path / "p.png", format=kind, save_all=True, append_images=frames[1:])
        assert "got an animation of 3 frames" in refused(open_picture, tmp_path / "p.png")[0]
    frames[0].save(tmp_path / "p.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert np.asarray(open_picture(tmp_path / "p.jpg"))[0, 0, 0] > 250
    assert picture_fault(tmp_path / "p.jpg") is None


def test_what_a_camera_appends_does_not_make_a_jpeg_cut_off(tmp_path):
    colours(tmp_path / "p.jpg", (64, 64))
    whole = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "p.jpg").write_bytes(whole + b"film" * 100)
    assert picture_fault(tmp_path / "p.jpg") is None
    (tmp_path / "p.jpg").write_bytes(whole[: len(whole) // 2] + b"film" * 100)
    assert "cut off, its JPEG end marker is missing" in picture_fault(tmp_path / "p.jpg")
    (tmp_path / "p.jpg").write_bytes(whole[: len(whole) // 2])
    assert "cut off, its JPEG end marker is missing" in picture_fault(tmp_path / "p.jpg")


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling", "circle", "device"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    place = tmp_path / "set/p.png"
    place.parent.mkdir()
    makers = {
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
        "dangling": lambda: place.symlink_to("nowhere"),
        "circle": lambda: place.symlink_to("p.png"),
        "device": lambda: place.symlink_to("/dev/zero"),
    }
    makers[kind]()
    words = {
        "pipe": "must be a regular file, got a pipe",
        "folder": "must be a regular file, got a folder",
        "dangling": "the link leads nowhere",
        "circle": "Too many levels of symbolic links",
        "device": "must be a regular file, got a device",
    }
    assert words[kind] in refused(open_picture, place)[0]
    assert words[kind] in refused(open_mask, place)[0]
    assert words[kind] in picture_fault(place)
    if kind != "folder":
        assert words[kind] in refused(open_dataset, "folder", place.parent, {})[0]


@pytest.mark.parametrize(("bits", "words"), [(2, "L;2"), (4, "L;4"), (16, "I;16")])
def test_a_grey_mask_whose_values_decoding_would_scale_is_refused(tmp_path, bits, words):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" + bytes(4 * bits // 8)))
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    assert f"got {words}" in refused(open_mask, tmp_path / "m.png")[0]


def test_a_mask_is_a_png(tmp_path):
    colours(tmp_path / "m.png", format="JPEG")
    assert "cannot be read as a mask: its content must be PNG" in refused(open_mask, tmp_path / "m.png")[0]


# Folders and names

NAMES = [
    "<img src=x onerror=alert(1)>",
    "'; drop table units;--",
    "\u202etxt.exe",
    "two\nlines",
    "n" * 240,
    'quotes " and spaces',
    "..dots..",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_listed_as_they_are(tmp_path, name):
    safe = name.replace("/", "")
    colours(tmp_path / "set/images" / f"{safe}.png")
    (tmp_path / "set/masks").mkdir()
    Image.fromarray(np.full((4, 6), 1, np.uint8)).save(tmp_path / "set/masks" / f"{safe}.png")
    folder = open_dataset("folder", tmp_path / "set/images", {})
    assert [record.file for record in folder.records] == [f"{safe}.png"]
    masks = open_dataset("masks", tmp_path / "set", {"names": ["none", name * 2]})
    assert [concept.name for concept in masks.concepts] == [name * 2]
    assert folder.faults(0) + masks.faults(0) == []
    assert (masks.annotation(0).planes["object"] == 2).all()


def test_a_name_that_is_no_unicode_is_refused(tmp_path):
    colours(tmp_path / "p.png")
    os.rename(tmp_path / "p.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert "a name must be valid Unicode" in refused(find_pictures, tmp_path)[0]


def test_linked_pictures_and_folders_are_followed(tmp_path):
    colours(tmp_path / "store/a.png")
    colours(tmp_path / "store/deep/b.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.png").symlink_to(tmp_path / "store/a.png")
    (tmp_path / "set/deep").symlink_to(tmp_path / "store/deep")
    data = open_dataset("folder", tmp_path / "set", {})
    assert [record.file for record in data.records] == ["a.png", "deep/b.png"]
    assert data.faults(0) + data.faults(1) == []


def test_a_folder_that_is_reached_twice_is_named(tmp_path):
    colours(tmp_path / "set/a.png")
    (tmp_path / "set/again").symlink_to(tmp_path / "set")
    (fault,) = refused(find_pictures, tmp_path / "set")
    assert "set/again: is the folder" in fault


# Masks


@pytest.fixture
def masks(tmp_path):
    """One picture with values 0, 1, 2."""
    colours(tmp_path / "images/p03.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.array([[0, 1, 2, 2, 1, 0]] * 4, np.uint8)).save(tmp_path / "masks/p03.png")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (None, ["none", "red", "blue"]),
        (None, {0: "none", 1: "red", 2: "blue"}),
        ("names.json", ["none", "red", "blue"]),
        ("names.json", {"0": "none", "1": "red", "2": "blue"}),
        ("names.json", {"classes": {"0": "none", "1": "red", "2": "blue"}}),
        ("names.txt", "none\r\nred\r\nblue\r\n\r\n"),
        ("names.txt", "\ufeffnone\nred\nblue"),
    ],
)
def test_values_are_named_by_a_list_or_a_mapping(masks, file, content):
    if file:
        text = content if isinstance(content, str) else json.dumps(content)
        (masks / file).write_bytes(text.encode())
    data = open_dataset("masks", masks, {"names": file or content})
    assert [(concept.number, concept.name) for concept in data.concepts] == [(2, "red"), (3, "blue")]
    assert data.annotation(0).planes["object"][0, 0].tolist() == [0, 2, 3, 3, 2, 0]


def test_names_that_leave_out_value_0_no_longer_shift_the_labels(masks):
    """A list [red, blue] meant for 1 and 2 gave the red pixels to blue, and the blue ones to nobody."""
    data = open_dataset("masks", masks, {"names": ["red", "blue"]})
    (fault,) = refused(data.annotation, 0)
    assert "masks/p03.png: each value must have a name in dataset.names, and 2 has none; name it" in fault


def test_an_empty_line_no_longer_shifts_the_labels(masks):
    (masks / "names.txt").write_text("\nred\nblue\n")
    (fault,) = refused(open_dataset, "masks", masks, {"names": "names.txt"})
    assert "names.txt:1: must be the name of value 0, got an empty line" in fault


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": ["a", "b", 3]}, "what value 2 means must be a name, got 3"),
        ({"names": ["a", "b", "a"]}, "a name must be unique, and 'a' stands in value 0 already"),
        ({"names": {0: "a", "0": "b"}}, "a value must be unique"),
        ({"names": {-1: "a"}}, "a mask's value must be a whole number from 0 to 255, got -1"),
        ({"names": {256: "a"}}, "from 0 to 255, got 256"),
        ({"names": []}, "must be a JSON list of names"),
        ({"names": 7}, "must be a JSON list of names"),
        ({"names": ["a"], "images": ["images"]}, "dataset.images: must be the name of a folder, got list"),
        ({"names": ["a"], "masks": {"a": 1}}, "dataset.masks: must be the name of a folder, got dict"),
        ({"names": {0: "a", 1: "b", 2: "c"}, "unlabelled": "a"}, "dataset.unlabelled: must be a list"),
        ({"names": "absent.json"}, "absent.json: no such file; it must name the mask values"),
        ({"names": "images"}, "must be a regular file, got a folder"),
    ],
)
def test_bad_names_are_named(masks, options, words):
    assert any(words in fault for fault in refused(open_dataset, "masks", masks, options))


def test_two_pictures_cannot_share_a_mask(masks):
    colours(masks / "images/p03.jpg")
    (fault,) = refused(open_dataset, "masks", masks, {"names": ["a", "b", "c"]})
    assert "images/p03.jpg and" in fault
    assert "masks/p03.png: is the mask of both" in fault


# Sizes


@pytest.mark.parametrize("resize", ["squash", "shortest-side-crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_pictures_of_any_shape(tmp_path, size, resize):
    """Resized whole, a picture of 1 x 10,000 would take 2.6 GB."""
    colours(tmp_path / "images/p.png", size)
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.full((3, 5), 1, np.uint8)).save(tmp_path / "masks/p.png")
    data = open_dataset("masks", tmp_path, {"names": ["none", "a"]})
    frame = Frame((224, 224), resize)
    place = frame.place(data.records[0])
    assert place.picture(data.picture(0)).shape == (224, 224, 3)
    assert (place.mask(data.annotation(0).planes["object"], size, frame.masks) == 2).all()


def test_a_long_picture_is_cut_out_as_if_it_had_been_resized_whole(tmp_path, monkeypatch):
    pixels = colours(tmp_path / "p.png", (50, 300))
    place = Frame((224, 224), "shortest-side-crop").place(Record("p.png", "all", 50, 300))
    whole = place.picture(Image.fromarray(pixels)).astype(int)
    monkeypatch.setattr("microtome.datasets.frame.MOST_PIXELS", 1000)
    assert abs(place.picture(Image.fromarray(pixels)).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("box", [(11.5, 3.2, 12.5, 3.4), (0.0, 0.0, 0.2, 0.2), (39.7, 29.9, 40.0, 30.0)])
def test_a_box_that_rounds_to_nothing_keeps_a_pixel(box):
    place = Frame((16, 16), crop="object").place(Record("p", "all", 40, 30, box=box))
    x0, y0, x1, y1 = place.box
    assert 0 <= x0 < x1 <= 40
    assert 0 <= y0 < y1 <= 30
    assert place.picture(Image.new("RGB", (40, 30))).shape == (16, 16, 3)


# The contract


class _Bare(Dataset):
    records = tuple(Record(str(i), "all", 8, 8) for i in range(100))
    concepts = ()

    def __init__(self, marked=None):
        self._marked = marked

    def picture(self, index):
        return Image.new("RGB", (8, 8))

    def annotation(self, index):
        raise NotImplementedError

    def files(self):
        return ()

    def landmarks(self, index):
        return ("mark",) if index == self._marked else ()


def test_has_landmarks_asks_every_record():
    assert _Bare(marked=99).has_landmarks()
    assert not _Bare().has_landmarks()


def test_crop_by_default():
    assert _Bare.default_crop == "none"
    found = {name: FORMATS_OF[name].default_crop for name in FORMATS_OF}
    assert {name for name, crop in found.items() if crop == "object"} == {"AnimalParts", "VocParts", "Cub"}
    assert set(found.values()) == {"none", "object"}


def _formats():
    from microtome.datasets.animal_parts import AnimalParts
    from microtome.datasets.broden import Broden
    from microtome.datasets.coco import Coco
    from microtome.datasets.creatures import Creatures
    from microtome.datasets.cub import Cub
    from microtome.datasets.folder import Folder
    from microtome.datasets.masks import Masks
    from microtome.datasets.voc_parts import VocParts

    return {c.__name__: c for c in (AnimalParts, Broden, Coco, Creatures, Cub, Folder, Masks, VocParts)}


FORMATS_OF = _formats()


@pytest.mark.parametrize("number", [0, -1, 65_536, 2_000_000_000])
def test_a_concept_s_number_is_bounded(number):
    with pytest.raises(InputError, match="its number must be 1 to 65,535"):
        Concept(number, "giant", "object")


# Broden's tables


@pytest.fixture
def tables(tmp_path):
    """Two pictures in Broden's layout; a test replaces a table."""
    for name in ("a", "b"):
        colours(tmp_path / f"images/{name}.jpg", (8, 8))
        Image.fromarray(np.full((4, 4, 3), (1, 0, 0), np.uint8)).save(tmp_path / f"images/{name}.png")
    (tmp_path / "label.csv").write_text("number,name,category\n1,cat,object\n2,sunny,scene\n")
    (tmp_path / "index.csv").write_text(INDEX)
    (tmp_path / "c_object.csv").write_text("number,coverage\n1,2.5\n")
    return tmp_path


INDEX = """image,split,ih,iw,sh,sw,object,scene
a.jpg,train,8,8,4,4,a.png,2
b.jpg,val,8,8,4,4,b.png,0
"""


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.rstrip(),
        lambda text: text.replace("a.png", '"a.png"').replace("train", '"tr\nain"'),
    ],
)
def test_tables_are_read_however_they_were_saved(tables, change):
    for name in ("index.csv", "label.csv", "c_object.csv"):
        (tables / name).write_bytes(change((tables / name).read_text()).encode())
    data = open_dataset("broden", tables, {})
    assert [concept.name for concept in data.concepts] == ["cat", "sunny"]
    assert data.annotation(0).labels == {"scene": (2,)}
    assert (data.annotation(1).planes["object"] == 1).all()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("index.csv", INDEX.replace("b.jpg,", "a.jpg,"), ":3: image must be unique, and 'a.jpg' stands in line 2"),
        ("index.csv", INDEX.replace("b.jpg,", "/etc/passwd,"), ":3: image must be a path below"),
        ("index.csv", INDEX.replace("b.jpg,", "../b.jpg,"), ":3: image must be a path below"),
        ("index.csv", INDEX.replace("b.png", "../../../etc/passwd"), ":3: object must be a path below"),
        ("index.csv", INDEX.replace("b.jpg,", ","), ":3: image must be a name, got ''"),
        ("index.csv", INDEX.replace("val,8", "val,-8"), ":3: ih must be a whole number from 1 to 1,000,000, got '-8'"),
        ("index.csv", INDEX.replace("val,8", "val,nan"), ":3: ih must be a whole number"),
        ("index.csv", INDEX.replace("val,8", "val,8.5"), ":3: ih must be a whole number"),
        ("index.csv", INDEX.replace("val,8", "val," + "9" * 5000), ":3: ih must be a whole number"),
        ("index.csv", INDEX.replace("b.png,0", "b.png,-1"), ":3: scene: a label must be a whole number from 0 to"),
        ("index.csv", INDEX.replace("b.png,0", "b.png,2000000000"), ":3: scene: a label must be a whole number"),
        ("index.csv", INDEX.replace("b.png,0", "b.png,nan"), ":3: scene: a label must be a whole number"),
        ("index.csv", INDEX.replace("b.png,0", "b.png"), ":3: must have 8 cells, got 7"),
        ("index.csv", INDEX.replace("b.png,0", "b.png,0,0"), ":3: must have 8 cells, got 9"),
        ("index.csv", INDEX.replace("a.png", '"a.png'), ":2: is not CSV"),
        ("index.csv", INDEX.replace("scene", "object"), ":1: each column must have a name of its own, got 'object'"),
        ("index.csv", INDEX.replace(",scene", ","), ":1: each column must have a name of its own, got ''"),
        ("index.csv", INDEX.replace("split,", ""), ": must have the columns image, split"),
        ("index.csv", INDEX.splitlines()[0], ": has no pictures"),
        ("index.csv", "", ": must have the columns image, split, ih, iw, sh, sw; got none"),
        ("index.csv", INDEX.encode("utf-16"), ":1: must be UTF-8 text"),
        ("index.csv", INDEX.encode().replace(b"val", b"v\xffl"), ":3: must be UTF-8 text, got the byte 0xff"),
        ("label.csv", "number,name,category\n1,cat,object\n1,dog,object\n", ":3: number must be unique, and 1 stands"),
        ("label.csv", "number,name,category\n1,cat,object\n2,cat,object\n", ":3: name and category must be unique"),
        ("label.csv", "number,name,category\n2000000000,cat,object\n", ":2: number must be a whole number from 0 to"),
        ("label.csv", "number,name,category\n-1,cat,object\n", ":2: number must be a whole number from 0 to"),
        ("label.csv", "number,name,category\none,cat,object\n", ":2: number must be a whole number from 0 to"),
        ("label.csv", "number,name,category\n1,,object\n", ":2: name must be a name, got ''"),
        ("label.csv", "number,name,category\n1,cat,animal\n", ":2: category of 'cat' must be a column of index.csv"),
        ("c_object.csv", "number,coverage\n1,nan\n", ":2: coverage must be a finite number, got 'nan'"),
        ("c_object.csv", "number,coverage\n1,1\n1,2\n", ":3: number must be unique"),
        ("c_object.csv", "number\n1\n", ": must have the columns number, coverage"),
    ],
)
def test_a_broken_table_is_named_with_its_line(tables, name, text, words):
    (tables / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (fault,) = refused(open_dataset, "broden", tables, {})
    assert f"{name}{words}" in fault


def test_every_fault_of_a_table_is_listed_the_first_fifty(tables):
    rows = "".join(f"{i}.jpg,all,x,8,4,4,,\n" for i in range(60))
    (tables / "index.csv").write_text(INDEX + rows)
    faults = refused(open_dataset, "broden", tables, {})
    assert len(faults) == 51
    assert "index.csv:4: ih" in faults[0]
    assert faults[-1] == "... and 10 more faults"


def test_a_table_that_is_a_pipe_does_not_hang(tables):
    (tables / "label.csv").unlink()
    os.mkfifo(tables / "label.csv")
    assert "must be a regular file, got a pipe" in refused(open_dataset, "broden", tables, {})[0]


def test_the_digest_does_not_wait_for_a_pipe(tables):
    (tables / "images/b.jpg").unlink()
    os.mkfifo(tables / "images/b.jpg")
    assert (
        "b.jpg: a file must be a regular file, got a pipe"
        in refused(list, open_dataset("broden", tables, {}).files())[0]
    )


def test_a_missing_picture_is_left_to_the_first_stage(tables):
    (tables / "images/b.jpg").unlink()
    data = open_dataset("broden", tables, {})
    assert tables / "images/b.jpg" in list(data.files())
    assert "index.csv:3" in data.faults(1)[0]


# COCO


@pytest.fixture
def coco():
    """A picture of 8 x 6 with a cat."""
    return {
        "images": [{"id": 5, "file_name": "a.png", "width": 8, "height": 6}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 3, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]], "iscrowd": 0}
        ],
    }


def opened_coco(root, content):
    colours(root / "images/a.png", (8, 6))
    (root / "annotations.json").write_text(json.dumps(content))
    return open_dataset("coco", root, {})


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("images", {"id": "five"}, "images[0]: id must be a whole number"),
        ("images", {"id": True}, "images[0]: id must be a whole number"),
        ("images", {"width": -8}, "images[0]: width must be a whole number from 1"),
        ("images", {"width": float("nan")}, "images[0]: width must be a whole number"),
        ("images", {"height": 10**30}, "images[0]: height must be a whole number"),
        ("images", {"width": 10**6, "height": 10**6}, "images[0]: must have at most 89,478,485 pixels"),
        ("images", {"file_name": "../../etc/passwd"}, "images[0]: file_name must be a path below"),
        ("images", {"file_name": "/etc/passwd"}, "images[0]: file_name must be a path below"),
        ("images", {"file_name": None}, "images[0]: file_name must be a name, got None"),
        ("images", {"file_name": "\ud800.png"}, "images[0]: file_name: '\\ud800.png': a name must be valid Unicode"),
        ("categories", {"id": 0}, "categories[0]: a category's id must be a whole number from 1 to 65,535, got 0"),
        ("categories", {"id": 2_000_000_000}, "a category's id must be a whole number from 1 to 65,535"),
        ("categories", {"name": ["cat"]}, "categories[0]: name must be a name, got list"),
        ("annotations", {"image_id": 6}, "annotation 1: unknown picture 6"),
        ("annotations", {"category_id": 9}, "annotation 1: unknown category 9"),
        ("annotations", {"category_id": [3]}, "annotation 1: category_id must be a whole number"),
    ],
)
def test_bad_coco_is_named(tmp_path, coco, part, change, words):
    coco[part][0] |= change
    assert any(words in fault for fault in refused(opened_coco, tmp_path, coco))


@pytest.mark.parametrize("part", ["images", "categories", "annotations"])
def test_ids_of_coco_are_unique(tmp_path, coco, part):
    coco[part] *= 2
    assert f"{part}[1]: id must be unique, and " in refused(opened_coco, tmp_path, coco)[0]
    del coco[part]
    assert f"must be COCO's instance JSON with a list `{part}`" in refused(opened_coco, tmp_path, coco)[0]


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "segmentation must be polygons or run lengths, got None"),
        ([], "segmentation must be polygons or run lengths, got list []"),
        ([[0, 0, 4, 0, 4]], "a polygon must be a list of x, y, x, y"),
        ([[0, 0, 4, 4]], "a polygon must be a list of x, y, x, y"),  # pycocotools took it for a box
        ([[0, 0, 4, 0, 4, float("nan")]], "a polygon must lie within a picture's size"),
        ([[0, 0, 4, 0, 4, 1e300]], "a polygon must lie within a picture's size"),
        ([[0, 0, 4, 0, 4, 10**400]], "a polygon must lie within a picture's size"),
        ([[0, 0, 4, 0, 4, 100]], "a polygon must lie within a picture's size"),
        ([[0, 0, 4, 0, 4, "4"]], "a polygon must be numbers"),
        ([{"counts": 3}], "a polygon must be a list of x, y, x, y"),
        ({"size": [6, 8]}, "has no key 'counts'"),
        ({"size": [8, 6], "counts": [48]}, "the size of run lengths must be [6, 8], got list [8, 6]"),
        ({"size": [6, 8], "counts": [47]}, "run lengths must sum to 6 x 8 = 48, got 47"),
        ({"size": [6, 8], "counts": [10, -2, 40]}, "a run length must be a whole number from 0"),
        ({"size": [6, 8], "counts": 48}, "counts must be a list or a string, got 48"),
        ({"size": [6, 8], "counts": "PPPP"}, "counts must be run lengths as COCO compresses them"),
        ({"size": [6, 8], "counts": "\u4e2d"}, "counts must be run lengths as COCO compresses them"),
        ({"size": [6, 8], "counts": "o" * 50}, "counts must be run lengths as COCO compresses them"),
    ],
)
def test_what_cannot_be_painted_is_named(tmp_path, coco, segmentation, words):
    coco["annotations"][0]["segmentation"] = segmentation
    data = opened_coco(tmp_path, coco)
    (fault,) = refused(data.annotation, 0)
    assert "annotations.json: annotation 1: " in fault
    assert words in fault


def test_run_lengths_mean_what_pycocotools_means():
    from pycocotools import mask as masks

    from microtome.datasets.coco import painted

    rng = np.random.default_rng(1)
    for height, width in rng.integers(1, 50, (40, 2)).tolist():
        truth = rng.random((height, width)) < rng.random()
        counts = masks.encode(np.asfortranarray(truth.astype(np.uint8)))["counts"].decode()
        np.testing.assert_array_equal(painted({"size": [height, width], "counts": counts}, height, width), truth)


# Landmarks


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": "wide"}, "width must be a whole number"),
        ({"height": 0}, "height must be a whole number from 1"),
        ({"file": "../x.jpg"}, "file must be a path below"),
        ({"file": 3}, "file must be a name, got 3"),
        ({"category": None}, "category must be a name, got None"),
        ({"object_box_xyxy": [0, 0, float("nan"), 9]}, "object_box_xyxy must be a finite number, got nan"),
        ({"object_box_xyxy": [0, 0, 9]}, "object_box_xyxy must be a list of 4 numbers"),
        ({"object_box_xyxy": [9, 9, 3, 3]}, "object_box_xyxy must span at least a pixel"),
        ({"parts": []}, "parts must be an object of parts by name"),
        ({"parts": {"head": 3}}, "must be an object with the key 'center_xy', got 3"),
        ({"parts": {"head": {"center_xy": [1e999, 1]}}}, "center_xy of 'head' must be a finite number, got inf"),
        ({"parts": {"head": {"center_xy": [41, 1]}}}, "landmark 'head' must lie in the picture (40 x 30), got (41, 1)"),
        ({"parts": {"": {"center_xy": [4, 1]}}}, "a part must be a name, got ''"),
    ],
)
def test_bad_landmarks_are_named(tmp_path, change, words):
    record = {"file": "a.jpg", "category": "cat", "width": 40, "height": 30, "object_box_xyxy": [0, 0, 9, 9]}
    record["parts"] = {"head": {"center_xy": [5.0, 6.5]}}
    (tmp_path / "landmarks.json").write_text(json.dumps({"records": [record, record | change]}))
    (fault,) = refused(open_dataset, "animal-parts", tmp_path, {})
    assert f"landmarks.json: records[1]: {words}" in fault


@pytest.mark.parametrize("text", ["[]", "null", "3", '{"records": {}}', '{"records": []}', "{", "", "[" * 100_000])
def test_landmarks_that_are_no_list_of_records(tmp_path, text):
    (tmp_path / "landmarks.json").write_text(text)
    (fault,) = refused(open_dataset, "animal-parts", tmp_path, {})
    assert "landmarks.json: " in fault


def test_many_files_with_one_fault_are_said_as_one():
    alike = [f"masks/{number}.png: has no name" for number in range(5)]
    assert folded([*alike, "a.png: is missing", "b.png: is missing"]) == [
        "masks/0.png: has no name (and the same of 4 more files)", "a.png: is missing", "b.png: is missing",
    ]  # fmt: skip


def test_a_list_that_holds_the_file_of_names_is_refused(tmp_path):
    (tmp_path / "classes.json").write_text('["none", "red"]')
    with pytest.raises(
        InputError, match=r"got a list of one name, 'classes.json', which is a file; write names: class"
    ):
        open_dataset("masks", tmp_path, {"names": ["classes.json"]})
