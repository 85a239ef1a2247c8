"""What it costs that finished stages survive a power cut: fsync never, at a stage's end, or after every file.

    python benchmarks/settling.py [--repeats N] [--folder DIR]

Two stages: 40 shards of 16 MB, as activations, and 600 files of 20 kB, as a report's pictures. The three ways take
turns; each line gives the median seconds of one, and what it adds to `never`. DIR is on the disk that is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from storage.files import HashingSink, LocalFiles
from storage.stages import StageKey, StageStore

STAGES = {"40 files of 16 MB": (40, 16_000_000), "600 files of 20 kB": (600, 20_000)}


class Never(LocalFiles):
    """Leaves it to the kernel when anything reaches the disk."""

    def settle(self, names: Iterable[str]) -> None:
        """Nothing."""


class EveryFile(LocalFiles):
    """Settles each file when it is finished, the checksums beside it too."""

    @contextlib.contextmanager
    def publish(self, name: str) -> Iterator[HashingSink]:
        """The file, on the disk."""
        with super().publish(name) as sink:
            yield sink
        super().settle([name])


WAYS = {"never": Never, "at a stage's end": LocalFiles, "every file": EveryFile}


def seconds(files: LocalFiles, number: int, size: int) -> float:
    """To write a stage of so many files and commit it."""
    content = os.urandom(size)
    began = time.perf_counter()
    draft = StageStore(files).draft(StageKey("bench", "code"), ())
    for place in range(number):
        draft.write(f"files/{place:06d}", content)
    draft.commit(environment={})
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    for stage, shape in STAGES.items():
        took: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way, kind in WAYS.items():
                with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                    took[way].append(seconds(kind(Path(folder)), *shape))
                os.sync()  # the next one does not pay for this one
        medians = {way: statistics.median(values) for way, values in took.items()}
        for way, value in medians.items():
            added = round(value - medians["never"], 3)
            line = {"stage": stage, "fsync": way, "s": round(value, 3), "added_s": added, "repeats": options.repeats}
            print(json.dumps(line))


if __name__ == "__main__":
    main()
