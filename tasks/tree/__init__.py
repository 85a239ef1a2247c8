"""Stage `tree`: the decision tree of a network's rationales for one category (arXiv 1802.00121)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from microtome.errors import InputError
from storage.tables import flag, float64, int32, string, table
from tasks.finetuning import FinetuningOptions
from tasks.index import check_category, index
from tasks.options import LAYER, MANY, OUTSIDE, DatasetName, Number, Options
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage


class TreeOptions(Options):
    """The decision tree of the network's rationales, or of the fine-tuned network's where there is one."""

    dataset: DatasetName = "main"
    """Data set of the audit file whose pictures are decided."""
    negatives: Annotated[DatasetName | None, OUTSIDE] = None
    """Data set that the category is told from; without it the data set's other categories."""
    category: str | None = None
    """Category whose decisions are explained; may be left out where there is one."""
    layer: Annotated[str | None, LAYER] = None
    """Layer by whose filters decisions are explained; left out, the audit's only one or the fine-tuned top one."""
    output: Number | None = None
    """Output of the network that stands for the category; the one that most positives get where left out."""
    images: Annotated[int, Field(ge=4, le=MANY)] = 300
    """At most so many positives and as many negatives, of those to grow from and of those held out."""
    rule: Literal["visitors", "paper"] = "visitors"
    """How nodes are made: fitted to all pictures that visit them, or merged from positives as in the paper."""
    positions: Literal["chosen", "cells", "weighted", "uniform"] = "chosen"
    """What a rule weighs: cells of filters, or filters as a whole, gradients averaged by activation or uniformly."""
    selection: Literal["projected", "lasso"] = "projected"
    """How a node of the paper's rule chooses its filters: by projected steps and a threshold, or by the lasso."""


class PlannedTree(TreeOptions):
    """The same, with the layer that the plan found."""

    layer: Annotated[str, LAYER]

    @property
    def averaged(self) -> str:
        """How a filter's gradients are averaged where it is looked at as a whole."""
        return "uniform" if self.rule == "paper" and self.positions == "uniform" else "weighted"


def plan(audit: Planner, options: TreeOptions) -> Iterable[Job]:
    """Of the fine-tuned network on the pictures that it saw and did not see, or of the audit's own."""
    tuning = audit.asked(FinetuningOptions)
    if tuning and (options.dataset, options.negatives) not in (("main", None), (tuning.dataset, tuning.negatives)):
        raise InputError("stages.tree.dataset, negatives: are those of finetuning, got others; leave them out")
    if options.rule == "paper" and options.positions == "cells":
        raise InputError("stages.tree.positions: must be weighted or uniform with the paper's rule, got cells")
    named = tuning or options
    planned = options.model_dump() | {
        "category": options.category or named.category,
        "layer": options.layer or ("extra_mask" if tuning else _only_layer(audit)),
    }
    indexed = index(audit, named.dataset, "stages.tree.dataset")
    check_category(indexed, options.category, "stages.tree.category")
    reads = {
        "index": indexed,
        "negatives": index(audit, named.negatives, "stages.tree.negatives") if named.negatives else None,
        "network": None if tuning else audit.network,
        "finetuned": audit.jobs.get("finetuning") if tuning else None,
        "dissection": None if tuning else audit.jobs.get("dissection"),
    }
    yield audit.job(STAGE, PlannedTree.model_validate(planned), reads)


def _only_layer(audit: Planner) -> str:
    layers = audit.audit.network.layers
    if len(layers) != 1 or any(sign in layers[0] for sign in "*?["):
        raise InputError(f"stages.tree.layer: must name one layer, got {', '.join(layers)} under network.layers")
    return layers[0]


STAGE = Stage(
    name="tree",
    about="Gathers the reasons of a network's decision for one category into a tree of a few rules, and judges it.",
    options=TreeOptions,
    work="tasks.tree.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device", "threads"}),
    threads="all",
    network="answer",
    cost=lambda options, pace: 5 + pace.gradients(3 * min(pace.pictures, 4 * options.images)),
    page=PageOf("tasks.tree.findings:findings", "microtome.report.tree:page", "microtome.report.tree:of_units"),
    starter="""\
  # tree: {category: bird}                    # the few ways in which the network decides for a category
""",
    metrics=(Metric("tree_metrics", "value", "low", "high", keys=("metric", "model"), nullable=("depth", "against")),),
    headlines=(
        Headline(
            "tree_metrics.value",
            "fidelity of the tree",
            rows={"metric": "fidelity", "model": "tree", "depth": 2, "against": None},
        ),
        Headline(
            "tree_metrics.value",
            "error of the tree",
            rows={"metric": "error", "model": "tree", "depth": 2, "against": None},
        ),
    ),
    tables=(
        table(
            "tree_nodes",
            "A row per node of the tree, and one for its root, which is the last.",
            node=int32("number: the leaves from zero, then the inner nodes, children before parents"),
            parent=int32("number of the node above; null for the root"),
            depth=int32("1 is the root, 2 the second layer"),
            images=int32("pictures that the tree grew from below the node; of the root all of them"),
            filters=int32(
                "filters that make up nine tenths of what the node's rule adds in its visitors; by the paper's rule "
                "those that it uses, null for the root, which has none"
            ),
            bias=float64(
                "b of the node's rule, in logits; by the paper's rule by the size of a rationale, null for the root"
            ),
            visitors=int32("pictures of the category that the tree grew from whose parse path leads through the node"),
            held_out=int32("held-out pictures of the category whose parse path leads through the node"),
            other_visitors=int32("other training pictures whose parse path leads through the node"),
            other_held_out=int32("other held-out pictures whose parse path leads through the node"),
        ),
        table(
            "tree_merges",
            "A row per merge of the paper's rule: the log from which the tree can be made again.",
            step=int32("from zero"),
            left=int32("number of a merged node"),
            right=int32("number of the other"),
            node=int32("number of the node that they became"),
            gain=float64("by how much log E grew"),
        ),
        table(
            "tree_metrics",
            "A row per measure, model and depth, over held-out pictures, with 95 % intervals.",
            depth=int32("of the tree's nodes: 1 is the root's rule, 2 the second layer; null for what has no depth"),
            metric=string("what is measured"),
            value=float64("mean over the pictures; of auc the area; of deletion by the mean size of a decision"),
            low=float64("95 % interval over pictures: Wilson's of a share, else a bootstrap's"),
            high=float64("95 % interval over pictures"),
            images=int32("pictures that it is a mean of"),
            model=string("the tree, the network itself, or what imitates it on the same pictures"),
            against=string("the model that it is compared with: the value is a paired difference; null for none"),
        ),
        table(
            "tree_paths",
            "A row per picture and node of its parse path.",
            image=int32("number of the picture in its data set"),
            depth=int32("2 is the second layer"),
            node=int32("number of the node"),
            cosine=float64("of the node's direction and the picture's own rationale"),
            estimate=float64("what the node's rule says of the picture, in logits"),
            dataset=string("dataset, or negatives"),
        ),
        table(
            "tree_images",
            "A row per picture that the tree grew from or is judged by.",
            dataset=string("dataset, or negatives"),
            image=int32("number of the picture in its data set"),
            file=string("name of the picture"),
            positive=flag("whether it is of the category"),
            split=string("train: the tree grew from it; val: held out"),
            y=float64("the network's decision, in logits"),
            leaf=int32("number of its own leaf, by the paper's rule; null where it has none"),
        ),
        table(
            "tree_filters",
            "A row per filter of the layer.",
            filter=int32("number of the filter"),
            size=float64("s_d, its mean activation over the training pictures; by the paper's rule over the positives"),
            dropped=flag("whether it is silent in them, and so in no rule"),
            part=string("that it stands for; null where nothing is known"),
            share=float64("how sure the part is: share of pictures, or IoU of the concept"),
        ),
    ),
)
