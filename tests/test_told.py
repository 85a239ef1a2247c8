"""Which run's report, and which picture, is meant; and what is said where none is."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flows.told import picture_among
from microtome.errors import InputError
from microtome.report.single import inline
from storage import RunRecord, RunStore, open_files
from tests.commands import status


@pytest.fixture
def folder(finished_workspace, tmp_path, monkeypatch) -> Path:
    """A workspace with two runs of an audit, both with a report."""
    shutil.copytree(finished_workspace / "whole", tmp_path / ".microtome")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rerun(name: str, *, like: RunRecord) -> RunRecord:
    """The record of a run that made everything but the report."""
    stages = {stage: entry for stage, entry in like.stages.items() if stage != "report"}
    run = replace(RunRecord.start(name, "net", {}), stages=stages)
    RunStore(open_files(".microtome")).save(run.ended("done", stages=stages))
    return run


def test_after_a_rerun_the_latest_report_is_shown_and_that_is_said(folder):
    reported = RunStore(open_files(".microtome")).find("tiny")
    shown = status("open")[1]
    latest = rerun("tiny", like=reported)
    for words in (("open",), ("open", "tiny"), ("report", "--single-file", "one.html")):
        ended, out, said = status(*words)
        assert ended == 0
        assert out in (shown, "one.html\n")
        assert said == (
            f"warning: run {latest.run_id}: has no report, it was done; this is the report of run {reported.run_id}, "
            "the latest that has one\n"
        )
    ended, out, said = status("open", latest.run_id)
    assert (ended, out) == (2, "")
    assert "has no report, it was done; name another" in said


def test_another_audits_report_is_not_shown_for_one_that_has_none(folder):
    rerun("other", like=RunStore(open_files(".microtome")).find("tiny"))
    assert status("open", "other")[0] == 2
    assert status("open")[0] == 0


def test_where_no_report_is_left_it_is_one_sentence(folder):
    shutil.rmtree(".microtome/stages/report")
    for words in (("open",), ("open", "tiny"), ("report", "--single-file", "one.html")):
        ended, out, said = status(*words)
        assert (ended, out) == (2, "")
        assert "its report is not there any more; run the audit again" in said


def test_a_damaged_report_is_one_sentence(folder):
    """Said before it is opened where size or time tell; where nothing tells, by the command that takes it apart."""
    (page,) = Path(".microtome/stages/report").glob("*/index.html")
    content, before = page.read_bytes(), page.stat()
    page.write_bytes(bytes(len(content)))
    os.utime(page, ns=(before.st_atime_ns, before.st_mtime_ns))
    ended, _, said = status("report", "--single-file", "one.html")
    assert (ended, said.count("its report cannot be read: ValueError")) == (2, 1)
    page.write_bytes(content[:-5])
    for words in (("open",), ("report", "--single-file", "one.html")):
        ended, _, said = status(*words)
        assert (ended, said.count("/index.html has ")) == (2, 1)
        assert "its report is damaged: " in said
    assert not Path("one.html").exists()


def test_a_picture_of_the_report_that_is_a_link_to_itself_is_one_sentence(folder):
    """It is taken for what the manifest says until it is looked at: a link is none of the stage's files."""
    (report,) = Path(".microtome/stages/report").iterdir()
    shown = report.joinpath("layer-000.html").read_text()  # pictures of units' pages, and the large ones, stay behind
    picture = next(file for file in sorted(report.glob("assets/*/s/*.webp")) if str(file.relative_to(report)) in shown)
    picture.unlink()
    picture.symlink_to(picture.name)
    ended, _, said = status("report", "--single-file", "one.html")
    assert (ended, said.count("its report is damaged: ")) == (2, 1)
    with pytest.raises(InputError, match="its pictures must lie in"):
        inline(next(Path(".microtome/stages/report").iterdir()))


def test_a_file_that_cannot_be_written_is_one_sentence(folder):
    ended, _, said = status("report", "--single-file", "nowhere/one.html")
    assert ended == 2
    assert said == "--single-file: cannot be written: No such file or directory, got 'nowhere/one.html'"


ROWS = [{"image": 9, "file": "b/9.png"}, {"image": 4, "file": "a/4.png"}, {"image": 3, "file": "no.png"}]
ROWS[2]["dataset"] = "negatives"


@pytest.mark.parametrize(("image", "row"), [("9", 0), ("4", 1), ("b/9.png", 0), ("4.png", 1), ("no.png", 2)])
def test_a_picture_is_meant_by_number_name_or_end_of_name(image, row):
    assert picture_among(ROWS, image) == row


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("3", "got '3', which fits 0; give the number of a picture that it looked at, 4, 9, or a file name, or the end "
              "of one, such as 'b/9.png'"),
        ("b/8.png", "which fits 0; did you mean 'b/9.png'.*; give the number"),
        (".png", "which fits 3; fit: b/9.png, a/4.png, no.png"),
    ],
)  # fmt: skip
def test_what_could_have_been_meant_is_said(image, words):
    with pytest.raises(InputError, match=f"image: must mean one picture of the run, .*{words}"):
        picture_among(ROWS, image)


def test_the_numbers_of_many_pictures_are_cut_short():
    rows = [{"image": 2 * number, "file": f"{number}.png"} for number in range(30)]
    with pytest.raises(InputError, match=r"looked at, 0, 2, 4, 6, 8 ... \(30 in all\), or a file name"):
        picture_among(rows, "3")
    with pytest.raises(InputError, match="; it looked at none"):
        picture_among([], "3")
