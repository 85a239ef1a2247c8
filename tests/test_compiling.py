"""Loops that are compiled once: what other processes find, and when it no longer counts."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from microtome import compiling

CALL = """
import numpy as np
from microtome.quantify import accumulate
sums = accumulate.ExactSum(1)
sums.update(np.array([[0.5], [0.25]]))
print(sums.compute()[0], len(accumulate._add.stats.cache_hits), len(accumulate._add.stats.cache_misses))
"""


def in_a_process(cache: Path) -> list[str]:
    """What CALL prints: the sum, and how many signatures were found and compiled."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "HOME": str(cache.parent)}
    done = subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_another_process_does_not_compile_again(tmp_path: Path):
    assert in_a_process(tmp_path / "cache") == ["3/4", "0", "1"]
    assert in_a_process(tmp_path / "cache") == ["3/4", "1", "0"]


def test_without_a_folder_to_keep_it_in_each_process_compiles(tmp_path: Path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert in_a_process(tmp_path / "cache") == ["3/4", "0", "1"]
    assert in_a_process(tmp_path / "cache") == ["3/4", "0", "1"]


def test_a_change_in_any_loops_file_counts_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Numba alone looks at the file of the function, and not at those of the functions that it calls."""
    monkeypatch.setattr(compiling, "LOOPS", tmp_path)
    (tmp_path / "deep").mkdir()
    stamps = []
    for name, text in (("a.py", "one"), ("deep/b.py", "two"), ("deep/b.py", "three")):
        (tmp_path / name).write_text(text)
        compiling.code.cache_clear()
        stamps.append(compiling.code())
    compiling.code.cache_clear()
    assert len(set(stamps)) == 3


def test_every_loop_is_where_the_digest_looks():
    """A loop elsewhere would be kept under a digest that does not see it."""
    package = Path(compiling.__file__).parent
    using = [file for file in package.rglob("*.py") if "import compiled\n" in file.read_text()]
    assert using
    assert all(file.is_relative_to(compiling.LOOPS) for file in using)


@pytest.mark.parametrize("content", [b"", b"nonsense"])
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_damaged_files_cost_a_compilation(tmp_path: Path, suffix: str, content: bytes):
    in_a_process(tmp_path / "cache")
    damaged = list((tmp_path / "cache").rglob(f"*{suffix}"))
    assert damaged
    for file in damaged:
        file.write_bytes(content)
    assert in_a_process(tmp_path / "cache") == ["3/4", "0", "1"]
    assert in_a_process(tmp_path / "cache") == ["3/4", "1", "0"]


def test_a_disk_that_is_full_costs_what_would_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiling.FunctionCache, "save_overload", full)
    loop = compiling.compiled(_doubled)
    assert loop(2) == 4
    assert not list(tmp_path.rglob("*.nbc"))


def test_what_was_compiled_of_another_signature_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two processes may choose the same name for what they compile of two signatures."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert [compiling.compiled(_doubled)(value) for value in (2, 0.25)] == [4, 0.5]
    first, second = sorted(tmp_path.rglob("*.nbc"))
    second.write_bytes(first.read_bytes())
    loop = compiling.compiled(_doubled)
    assert [loop(2), loop(0.25)] == [4, 0.5]
    assert sum(loop.stats.cache_misses.values()) == 1


def aged(cache: Path, name: str, days: float) -> Path:
    """A folder of other code beside ours, last used so long ago."""
    other = next(cache.rglob("*_doubled*.nbc")).parent.with_name(name)
    other.mkdir()
    (other / "loop.nbc").write_bytes(b"compiled")
    os.utime(other, (time.time() - 86400 * days,) * 2)
    return other


def test_a_new_folder_has_those_removed_that_nobody_used_for_a_month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiling.compiled(_doubled)(2) == 4
    old, late = aged(tmp_path, "a" * 32, 31), aged(tmp_path, "b" * 32, 29)
    strange = aged(tmp_path, "somebody's", 31)
    assert compiling.compiled(_doubled)(2) == 4
    assert old.exists()  # ours was there, so that there is no other code than before
    shutil.rmtree(next(tmp_path.rglob("*_doubled*.nbc")).parent)
    assert compiling.compiled(_doubled)(2) == 4
    assert not old.exists()
    assert late.exists()
    assert strange.exists()
    assert list(tmp_path.rglob("*_doubled*.nbc"))


def test_who_uses_a_folder_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiling.compiled(_doubled)(2) == 4
    folder = next(tmp_path.rglob("*_doubled*.nbc")).parent
    os.utime(folder, (0, 0))
    assert compiling.compiled(_doubled)(2) == 4
    assert folder.stat().st_mtime > time.time() - 60


def test_a_folder_that_cannot_be_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiling.compiled(_doubled)(2) == 4
    old = aged(tmp_path, "a" * 32, 31)
    shutil.rmtree(next(tmp_path.rglob("*_doubled*.nbc")).parent)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rmdir", refused)
    monkeypatch.setattr(os, "unlink", refused)
    loop = compiling.compiled(_doubled)
    monkeypatch.undo()
    assert loop(2) == 4
    assert old.exists()


def _doubled(value):
    return value + value
