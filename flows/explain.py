"""What one picture's decision rests on: from a finished run, in words and as a page."""

from __future__ import annotations

from pathlib import Path

from flows.told import picture_among, single_page, stage_of, writer
from storage import Files, RunRecord


def explain(files: Files, run: RunRecord, image: str) -> tuple[list[str], Path]:
    """A picture's path through the decision tree.

    Args:
        files: the workspace.
        run: whose tree.
        image: name of the file, or its end, or its number in the data set.

    Returns:
        lines of text, and the page.

    Raises:
        InputError: the run has no tree, or no such picture, or several.
    """
    from microtome.report.tree import path_page, words
    from tasks.tree.findings import TreeShown
    from tasks.tree.result import GrownTree

    grown = GrownTree(stage_of(files, run, "tree"), {})
    folder = Path(files.location(f"explained/{grown.digest}"))
    path = TreeShown(grown, writer(folder)).path(picture_among(grown.pictures, image))
    return words(path), single_page(folder, run, path_page(path), path.spotted.file)
