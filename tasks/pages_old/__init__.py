"""Stage `report`: from tables to view models, thumbnails and pages; a module per method."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from microtome.report import views
from microtome.report.render import render
from storage import Artifact
from tasks.report import dissection, finetuning, graph, saliency, stability, tree, units
from tasks.stage import Work

_PAGES = (
    ({"stability"}, stability.page),
    ({"finetuning"}, finetuning.page),
    ({"tree"}, tree.page),
    ({"graph"}, graph.page),
    ({"parts"}, graph.parts_page),
    ({"saliency", "reliability"}, saliency.page),
    ({"features"}, units.features),
    ({"occlusion"}, units.occlusion),
    ({"adversarial"}, units.adversarial),
)
_VERSIONS = ("microtome", "torch", "numpy", "pyarrow", "pillow", "python")


def run(work: Work) -> None:
    """Write the report."""
    layers = dissection.pages(work) if "dissection" in work.inputs else []
    pages: list[views.Page] = []
    for needed, page in _PAGES:
        if needed & set(work.inputs):
            pages.append(page(work))
            work.session.check()
    work.begin(1, "report")
    for name, content in render(_report(work, layers, pages)).items():
        work.draft.write(name, content)
    work.advance(1)


def _report(work: Work, layers: Sequence[views.Layer], pages: Sequence[views.Page]) -> views.Report:
    audit = work.parameters["audit"]
    environment = next(iter(work.inputs.values())).manifest["environment"]
    weights = audit["network"].get("weights") or f"random weights (seed {audit['seed']})"
    looked_at = [artifact for name, artifact in work.inputs.items() if name.partition(":")[0] == "activations"]
    network = looked_at[0].manifest["inputs"].get("network", "") if looked_at else ""
    started = min(artifact.manifest["started"] for artifact in work.inputs.values())
    return views.Report(
        title=audit["name"],
        network=f"{audit['network']['load'].partition(':')[2]} with {str(weights).rpartition('/')[2]}",
        dataset=" and ".join(_dataset(name, work.inputs[name], audit) for name in _indices(work)),
        gates=[_gate(row) for row in work.inputs["gates"].json("gates.json")] if "gates" in work.inputs else (),
        layers=layers,
        pages=pages,
        provenance=[
            ("Network", f"{audit['network']['load']}, digest {network}"),
            ("Weights", str(weights)),
            *((f"Data set {name.partition(':')[2]}".strip(), _digest(work.inputs[name])) for name in _indices(work)),
            ("Seed", str(audit["seed"])),
            ("Device", f"{environment['device']}, {environment['threads']} threads, {environment['machine']}"),
            ("Versions", ", ".join(f"{name} {environment[name]}" for name in _VERSIONS)),
        ],
        stages=[_stage(name, artifact) for name, artifact in work.inputs.items()],
        configuration=yaml.safe_dump(audit, sort_keys=False, allow_unicode=True),
        footer=f"Audited {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(started))}, "
        f"microtome {environment['microtome']}",
    )


def _indices(work: Work) -> list[str]:
    return [name for name in work.inputs if name.partition(":")[0] == "index"]


def _dataset(name: str, index: Artifact, audit: Mapping[str, Any]) -> str:
    data = audit.get("dataset") or audit["datasets"][name.partition(":")[2] or "main"]
    images = index.manifest["files"]["images.parquet"]["rows"]
    concepts = index.manifest["files"]["concepts.parquet"]["rows"]
    named = f", {concepts:,} concepts" if concepts else ""
    return f"{Path(data.get('root') or data['format']).name} ({images:,} images{named})"


def _digest(index: Artifact) -> str:
    return f"digest {index.manifest['inputs']['dataset']}"


def _stage(name: str, artifact: Artifact) -> views.StageLine:
    seconds = artifact.manifest["seconds"]
    return views.StageLine(name, f"{seconds:.1f} s", f"{artifact.size / 1e6:.1f} MB", artifact.digest)


def _gate(row: Mapping[str, Any]) -> views.Gate:
    limit = "–" if row["limit"] is None else f"{row['limit']:g}"
    return views.Gate(row["gate"], f"{row['value']:g}", limit, row["passed"], row["note"])
