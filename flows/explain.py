"""What one picture's decision rests on, or which patterns it shows: from a finished run, in words and as a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from microtome.errors import InputError, suggest
from microtome.report import views
from microtome.report.single import alone, with_pictures
from storage import Artifact, Files, RunRecord, StageStore

SHOWN = 8  # nodes of each layer
THUMB = 320


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
    path = TreeShown(grown, _writer(folder)).path(picture_among(grown.pictures, image))
    return words(path), single_page(folder, run, path_page(path), path.spotted.file)


def lookup(files: Files, run: RunRecord, image: str) -> tuple[list[list[str]], Path]:
    """Which patterns of the explanatory graph a picture shows.

    Args:
        files: the workspace.
        run: whose graph.
        image: a picture of the data set, by name, end of it or number; or a file that the graph has never seen.

    Returns:
        rows of text: layer, node, filter, x, y, score, concept; and the page.

    Raises:
        InputError: the run has no graph, or no such picture; or the network is not the one that was audited.
    """
    import pandas as pd

    from tasks.pictures import read_thumbnails
    from tasks.report.graph import Over

    artifact = stage_of(files, run, "graph")
    folder = Path(files.location(f"explained/{artifact.digest}"))
    if Path(image).is_file():
        here, content, size = _look_up(files, run, artifact, Path(image))
        name, file = Path(image).stem, Path(image).name
    else:
        rows = artifact.table("graph_images").to_pylist()
        place = picture_among(rows, image)
        found = artifact.table("graph_inferences").to_pandas()
        here = found[found["image"] == rows[place]["image"]]
        content, file = read_thumbnails(artifact)[place], rows[place]["file"]
        size, name = tuple(run.about["audit"]["network"]["input"]["size"]), f"{place:06d}"
    over = Over(artifact, size)
    _writer(folder)(f"assets/{name}.webp", content)
    page = views.Page(
        name="patterns",
        page=f"graph-{name}.html",
        headline=f"What {file} shows of the graph of {artifact.json('graph-about.json')['category']}.",
        figures=views.Figures([]),
        sections=[views.Section(file, over.parts(pd.DataFrame(here), f"assets/{name}.webp", file))],
    )
    shown = over.strongest(pd.DataFrame(here), SHOWN)
    lines = [
        [r.layer, str(r.node), str(r.filter), f"{r.x:.3f}", f"{r.y:.3f}", f"{r.score:.3g}", _concept(r)]
        for r in shown.itertuples()
    ]
    return lines, single_page(folder, run, page, file)


def _concept(row: Any) -> str:
    return f"{row.concept} ({row.purity:.0%})" if isinstance(row.concept, str) and row.purity > 0 else ""


def _look_up(files: Files, run: RunRecord, artifact: Artifact, image: Path) -> tuple[Any, bytes, tuple[int, int]]:
    """Inference in a new picture, with the audited network and everything of the graph frozen."""
    import numpy as np
    import torch
    from PIL import Image

    from flows.auditfile import AuditModel
    from microtome.datasets import Frame, Record
    from microtome.datasets.base import open_picture
    from microtome.networks.load import NetworkSpec, load_network
    from microtome.networks.normalisation import Normalisation
    from storage.digests import FileDigests
    from tasks.graph_lookup import rows_of, seen_in
    from tasks.graph_reading import learned_graph
    from tasks.pictures import file_of

    audit = AuditModel.model_validate(run.about["audit"])
    model, base = audit.network, Path(run.about["file"]).parent
    spec = NetworkSpec(model.load, model.arguments, model.weights, base, audit.seed)
    known = stage_of(files, run, "activations").manifest["inputs"]["network"]
    if spec.digest(FileDigests(files).of) != known:
        raise InputError(f"run {run.run_id}: its network has changed since; audit again, then look pictures up")
    picture = open_picture(image)
    frame = Frame(model.input.size, model.input.resize)
    pixels = frame.place(Record(image.name, "", picture.width, picture.height)).picture(picture)
    scaled = Normalisation(model.input.mean, model.input.std)(pixels)
    seen = seen_in(load_network(spec).eval(), learned_graph(artifact), torch.from_numpy(scaled)[None], frame.size)
    small = np.array(Image.fromarray(np.array(pixels)).resize((THUMB, THUMB), Image.Resampling.LANCZOS))
    return rows_of(seen), file_of(small), frame.size


def stage_of(files: Files, run: RunRecord, stage: str) -> Artifact:
    """A run's stage. Raises InputError if the run does not have it."""
    found = run.stages.get(stage)
    artifact = StageStore(files).load(str(found["folder"])) if found else None
    if artifact is None:
        raise InputError(f"run {run.run_id}: has no finished stage {stage!r}{suggest(stage, list(run.stages))}")
    return artifact


def picture_among(rows: Sequence[Mapping[str, Any]], image: str) -> int:
    """The row that an image's name or number means.

    Args:
        rows: with `file`, `image` and, where several data sets are read, `dataset`.
        image: a number, or the end of a file name.

    Raises:
        InputError: none, or several.
    """
    if image.isdigit():
        fitting = [n for n, row in enumerate(rows) if row["image"] == int(image) and row.get("dataset") != "negatives"]
    else:
        fitting = [n for n, row in enumerate(rows) if row["file"] == image]
        fitting = fitting or [n for n, row in enumerate(rows) if row["file"].endswith(image)]
    if len(fitting) != 1:
        names = [row["file"] for row in rows]
        hint = suggest(image, names) if not fitting else f"; fit: {', '.join(names[n] for n in fitting[:5])}"
        raise InputError(f"image: must mean one picture of the run, got {image!r}, which fits {len(fitting)}{hint}")
    return fitting[0]


def single_page(folder: Path, run: RunRecord, page: views.Page, title: str) -> Path:
    """Write a page as one file, with its pictures in it."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / page.page
    of = {"network": run.network, "audit": run.name, "run": run.run_id}
    place.write_text(with_pictures(alone(page, title, **of), folder), encoding="utf-8")
    return place


def _writer(folder: Path) -> Callable[[str, bytes], str]:
    def write(name: str, content: bytes) -> str:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return name

    return write
