"""Pages that are about several runs: written under the workspace's `reports/`, and found there again."""

from __future__ import annotations

from pathlib import Path

from microtome.report import views
from microtome.report.single import alone
from storage import Files

FOLDER = "reports"


def publish(files: Files, page: views.Page, title: str, footer: str) -> Path | None:
    """Write a page whose pictures are in it; the same page again replaces it. None where the workspace is only read.

    Args:
        files: the workspace.
        page: what it shows.
        title: of its window.
        footer: its last line.
    """
    name = f"{FOLDER}/{page.page}"
    if not files.writable(FOLDER):
        return None
    files.write(name, alone(page, title, run="", footer=footer).encode())
    return Path(files.bring(name))


def find_page(files: Files, wanted: str) -> Path | None:
    """The latest page whose name begins so, such as `compare`, `history-nightly`; None where there is none."""
    found = [name for name in files.names(FOLDER) if name.removeprefix(f"{FOLDER}/").startswith(wanted)]
    stamps = {name: stamp.changed for name in found if (stamp := files.stamp(name))}
    return Path(files.bring(max(stamps, key=lambda name: stamps[name]))) if stamps else None
