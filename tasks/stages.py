"""The stages: what each is made of. A change in its code gives a stage, and all that read it, a new digest."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.stage import Stage

_SHARED = ("tasks/reading.py", "tasks/rows.py", "storage/tables.py", "storage/tensors.py")

_EXPLANATIONS = (
    "microtome/disentangle/decision_tree.py",
    "microtome/disentangle/graph_inference.py",
    "microtome/disentangle/rationales.py",
    "microtome/disentangle/folds.py",
    "microtome/disentangle/graph_metrics.py",
    "microtome/disentangle/tree_metrics.py",
    "microtome/quantify",
    "tasks/concepts.py",
    "tasks/explained.py",
    "tasks/graph_lookup.py",
    "tasks/graph_reading.py",
    "tasks/tally.py",
    "tasks/tree.py",
)

STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("index", "tasks.index", ("microtome/datasets", "tasks/index.py")),
        Stage(
            "activations",
            "tasks.activations",
            (
                "microtome/networks",
                "microtome/datasets/frame.py",
                "microtome/disentangle/interpretable.py",
                "tasks/activations.py",
                "tasks/networks.py",
                "storage/tensors.py",
            ),
            retries=1,
        ),
        Stage("thresholds", "tasks.thresholds", ("microtome/quantify/accumulate.py", "tasks/thresholds.py", *_SHARED)),
        Stage(
            "tally",
            "tasks.tally",
            ("microtome/quantify/upsample.py", "microtome/quantify/dissection.py", "tasks/tally.py", *_SHARED),
        ),
        Stage(
            "null",
            "tasks.null",
            ("microtome/quantify/null.py", "microtome/quantify/resampling.py", "tasks/null.py", *_SHARED),
        ),
        Stage(
            "dissection",
            "tasks.dissection",
            ("microtome/quantify", "tasks/dissection.py", *_SHARED),
        ),
        Stage(
            "landmarks", "tasks.landmarks", ("microtome/datasets/frame.py", "tasks/landmarks.py", "storage/tables.py")
        ),
        Stage(
            "stability",
            "tasks.stability",
            (
                "microtome/quantify",
                "tasks/stability.py",
                *_SHARED,
            ),
        ),
        Stage(
            "finetuning",
            "tasks.finetuning",
            (
                "microtome/disentangle/filter_loss.py",
                "microtome/disentangle/folds.py",
                "microtome/disentangle/interpretable.py",
                "microtome/disentangle/templates.py",
                "microtome/disentangle/training.py",
                "microtome/networks",
                "microtome/quantify/intervals.py",
                "microtome/datasets/frame.py",
                "tasks/finetuning.py",
                "tasks/networks.py",
                "tasks/pictures.py",
                *_SHARED,
            ),
        ),
        Stage(
            "tree",
            "tasks.tree",
            (
                "microtome/disentangle/decision_nodes.py",
                "microtome/disentangle/decision_tree.py",
                "microtome/disentangle/filter_parts.py",
                "microtome/disentangle/folds.py",
                "microtome/disentangle/rationales.py",
                "microtome/disentangle/tree_metrics.py",
                "microtome/quantify/intervals.py",
                "microtome/networks",
                "microtome/datasets/frame.py",
                "tasks/finetuning.py",
                "tasks/networks.py",
                "tasks/pictures.py",
                "tasks/tree.py",
                *_SHARED,
            ),
        ),
        Stage(
            "graph",
            "tasks.graph",
            (
                "microtome/disentangle/graph.py",
                "microtome/disentangle/graph_inference.py",
                "microtome/disentangle/graph_metrics.py",
                "microtome/disentangle/folds.py",
                "microtome/quantify",
                "microtome/datasets/frame.py",
                "tasks/finetuning.py",
                "tasks/pictures.py",
                "tasks/graph.py",
                "tasks/graph_metrics.py",
                "tasks/graph_reading.py",
                *_SHARED,
            ),
        ),
        Stage(
            "parts",
            "tasks.parts",
            (
                "microtome/disentangle/graph.py",
                "microtome/disentangle/graph_inference.py",
                "microtome/disentangle/parts.py",
                "microtome/disentangle/folds.py",
                "microtome/quantify/intervals.py",
                "microtome/quantify/stability.py",
                "tasks/finetuning.py",
                "tasks/graph_reading.py",
                "tasks/parts.py",
                *_SHARED,
            ),
        ),
        *(
            Stage(
                name,
                f"tasks.{name}",
                (
                    "microtome/visualize",
                    "microtome/networks",
                    "microtome/datasets/frame.py",
                    f"tasks/{name}.py",
                    "microtome/quantify/intervals.py",
                    *(_EXPLANATIONS if name == "adversarial" else ()),
                    "tasks/pictures.py",
                    "tasks/networks.py",
                    *_SHARED,
                ),
            )
            for name in ("saliency", "features", "occlusion", "reliability", "adversarial")
        ),
        Stage("gates", "tasks.gates", ("tasks/gates.py",)),
        Stage(
            "report",
            "tasks.report",
            ("microtome/report", "tasks/report", "tasks/tree.py", "tasks/graph_reading.py", *_SHARED),
        ),
    )
}
