"""What one picture's decision rests on: from a finished run, in words and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.told import audited, check_network, made_from, picture_among, single_page, stage_of, writer
from microtome.errors import InputError
from storage import Files, RunRecord

if TYPE_CHECKING:
    import torch

    from tasks.planning import Planner
    from tasks.tree.findings import NewPicture
    from tasks.tree.result import GrownTree


def explain(files: Files, run: RunRecord, image: str) -> tuple[list[str], Path]:
    """A picture's path through the decision tree.

    Args:
        files: the workspace.
        run: whose tree.
        image: a picture of the data set, by name, end of it or number; or a file that the tree has never seen.

    Returns:
        lines of text, and the page.

    Raises:
        InputError: the run has no tree, or no such picture, or several; or the network is not the one that was audited.
    """
    from microtome.report.tree import path_page, words
    from tasks.tree.findings import TreeShown
    from tasks.tree.result import GrownTree

    grown = GrownTree(stage_of(files, run, "tree"), {})
    folder = Path(files.location(f"explained/{grown.digest}"))
    shown = TreeShown(grown, writer(folder))
    if Path(image).is_file():
        path = shown.new_path(_new(files, run, grown, Path(image)))
    else:
        path = shown.path(picture_among(grown.pictures, image))
    return words(path), single_page(folder, run, path_page(path), path.spotted.file)


def _new(files: Files, run: RunRecord, grown: GrownTree, file: Path) -> NewPicture:
    """A picture shown to the audited network now, with everything of the tree frozen."""
    import torch

    from microtome.datasets.source import loose
    from microtome.disentangle.rationales import LayersAbove
    from tasks.thumbnails import SIDE
    from tasks.tree.findings import NewPicture

    audit = audited(files, run)
    source = loose(file, audit.input.frame, audit.scale)
    above = LayersAbove(_network(files, run, grown, audit), grown.frozen.layer, grown.frozen.output)
    raw, x, g = above.whole(torch.from_numpy(source.normalised(0))[None])
    if not grown.frozen.scale.apply(raw)[1].size:
        raise InputError(
            f"image: must move the network's decision, got {str(file)!r}, whose gradient is zero everywhere"
        )
    return NewPicture(file, source.thumbnail(0, SIDE), raw, (x.flatten(2).numpy(), g.flatten(2).numpy()))


def _network(files: Files, run: RunRecord, grown: GrownTree, audit: Planner) -> torch.nn.Module:
    """The network whose decisions the tree explains: the audit's, or the one that was fine-tuned from it."""
    from tasks.finetuning.result import Finetuned

    if "finetuned" not in grown.artifact.manifest["inputs"]:
        check_network(run, audit, grown.artifact)
        return audit.network.load()
    tuned = made_from(files, run, grown.artifact, "finetuned")
    check_network(run, audit, tuned)
    return Finetuned(tuned, {"network": audit.network}).load()
