"""Which patterns of an explanatory graph one picture shows: from a finished run, in words and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.told import audited, check_network, made_from, picture_among, single_page, stage_of, writer
from storage import Files, RunRecord

if TYPE_CHECKING:
    from microtome.report.graph import LookedUp
    from tasks.graph.drawn import DrawnGraph
    from tasks.planning import Planner

THUMB = 320  # pixels, of a picture that the graph has never seen


def lookup(files: Files, run: RunRecord, image: str) -> tuple[list[list[str]], Sequence[str], Path]:
    """Which patterns of the explanatory graph a picture shows.

    Args:
        files: the workspace.
        run: whose graph.
        image: a picture of the data set, by name, end of it or number; or a file that the graph has never seen.

    Returns:
        rows of text: layer, node, filter, x, y, score, concept; of a new picture how like the graph's own it is, in
        sentences; and the page.

    Raises:
        InputError: the run has no graph, or no such picture; or the network is not the one that was audited.
    """
    from microtome.report.graph import lookup_page, lookup_rows
    from microtome.report.likeness import likeness
    from tasks.graph.drawn import DrawnGraph

    graph, audit = DrawnGraph(stage_of(files, run, "graph"), {}), audited(files, run)
    folder = Path(files.location(f"explained/{graph.digest}"))
    if Path(image).is_file():
        check_network(run, audit, made_from(files, run, graph.artifact, "activations"))
        found, content = _new(graph, audit, Path(image))
    else:
        found, content = _known(graph, audit, image)
    writer(folder)(found.picture.path, content)
    return lookup_rows(found), likeness(found.novelty), single_page(folder, run, lookup_page(found), found.picture.file)


def _known(graph: DrawnGraph, audit: Planner, image: str) -> tuple[LookedUp, bytes]:
    """A picture that the graph stage looked up."""
    from microtome.report.graph import LookedUp, OverPicture
    from tasks.thumbnails import kept_thumbnails

    place = picture_among(graph.pictures, image)
    row, name = graph.pictures[place], f"{place:06d}"
    picture = OverPicture(f"assets/{name}.webp", row["file"], graph.seen_in(row["image"]))
    found = LookedUp(graph.patterns, graph.category, name, picture, audit.input.size)
    return found, kept_thumbnails(graph.artifact)[place]


def _new(graph: DrawnGraph, audit: Planner, file: Path) -> tuple[LookedUp, bytes]:
    """A picture looked up now, with the audited network and everything of the graph frozen."""
    import torch

    from microtome.datasets.source import loose
    from microtome.disentangle.graph_layers import look_up, places_in
    from microtome.report.graph import LookedUp, OverPicture

    frame = audit.input.frame
    source = loose(file, frame, audit.scale)
    pictures = torch.from_numpy(source.normalised(0))[None]
    network = audit.network.load()
    seen = look_up(network, graph.learned, pictures, frame.size)
    picture = OverPicture(f"assets/{file.stem}.webp", file.name, places_in(seen, 0))
    unlike = graph.novelty(pictures, network)
    found = LookedUp(graph.patterns, graph.category, file.stem, picture, frame.size, unlike)
    return found, source.thumbnail(0, THUMB)
