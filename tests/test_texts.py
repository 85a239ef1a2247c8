"""What is known of very many files is held in few bytes, and is given back as it was."""

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from microtome.datasets import open_dataset
from microtome.texts import Texts
from tasks.noted import NotedFiles

MANY = 5_000


@contextmanager
def held() -> Iterator[Callable[[], int]]:
    """Tells the bytes that were taken since it began and are still held."""

    def told() -> int:
        gc.collect()  # what nobody holds waits for it
        return tracemalloc.get_traced_memory()[0]

    gc.collect()
    tracemalloc.start()
    try:
        yield told
    finally:
        tracemalloc.stop()


def test_texts_are_given_back_as_they_were():
    texts, given = Texts(), ["", "Zürich/1.png", "\n", "\U0001f98a", ""]
    for text in given:
        texts.append(text)
    assert (len(texts), list(texts)) == (len(given), given)
    with pytest.raises(IndexError):
        texts[len(given)]


def test_noted_files_are_those_of_a_dict_in_its_order():
    noted, expected = NotedFiles(), {}
    files = ["/data/a.png", "/data/b/é.png", "/top", "/data/a.png", "/data/b/c.png", "no slash"]
    for place, file in enumerate(files):
        digest = "missing" if place == 2 else f"{place:064x}"
        noted.note(file, digest)
        expected[file] = digest
    assert list(dict(noted).items()) == list(expected.items())


def test_noted_files_take_few_bytes_each():
    with held() as bytes_held:
        noted = NotedFiles()
        for number in range(MANY):
            noted.note(f"/a/folder/with/a/long/name/images/{number:06d}_material_0.png", f"{number:064x}")
        assert bytes_held() < 90 * MANY


def test_a_row_of_broden_takes_few_bytes_and_its_masks_are_all_named(tmp_path):
    names = [f"pascal/{number}" for number in range(MANY)]
    masks = ",".join(f"{{0}}_{category}.png" for category in ("color", "material", "object", "part"))
    rows = [f"{name}.jpg,train,300,400,150,200,{masks.format(name)},7" for name in names]
    (tmp_path / "index.csv").write_text("\n".join(["image,split,ih,iw,sh,sw,color,material,object,part,scene", *rows]))
    (tmp_path / "label.csv").write_text("number,name,category\n1,red,color\n7,street,scene")
    open_dataset("broden", tmp_path, {})  # so that what is imported counts nothing
    taken = []
    for _ in range(2):  # Python's table of names may grow in one of them, by a megabyte where much is imported
        with held() as bytes_held:
            found = open_dataset("broden", tmp_path, {})
            taken.append(bytes_held())
    assert min(taken) < 1_000 * MANY
    assert {record.stratum for record in found.records} == {"pascal"}
    of_last = [file.name for file in found.files()][-5:]
    assert of_last == [
        f"{MANY - 1}{end}" for end in (".jpg", "_color.png", "_material.png", "_object.png", "_part.png")
    ]


def test_a_files_name_need_not_be_valid_unicode():
    """Linux names files by bytes; those that are no UTF-8 come as lone surrogates."""
    name = os.fsdecode(b"/a/caf\xe9/\xff.png")
    noted = NotedFiles()
    noted.note(name, "0" * 63 + "1")
    assert dict(noted) == {name: "0" * 63 + "1"}
