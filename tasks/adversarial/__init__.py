"""Stage `adversarial`: attacks, their controls of the same size, and what moves inside the network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from storage.tables import float64, int32, string, table
from tasks.activations import maps
from tasks.finetuning import FinetuningOptions
from tasks.graph import GraphOptions
from tasks.index import index
from tasks.labelling import DissectionOptions
from tasks.options import Count, DatasetName, Options, Several
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage
from tasks.tree import TreeOptions

Grey = Annotated[float, Field(gt=0, le=255)]


class AdversarialOptions(Options):
    """Attacks, and what moves inside."""

    dataset: DatasetName = "main"
    """Data set of the audit file whose pictures are attacked."""
    images: Several = 64
    """How many pictures, drawn at random."""
    eps: Annotated[tuple[Grey, ...], Field(min_length=1)] = (1.0, 4.0)
    """Radii of the attacks, in grey levels of 255."""
    norms: Annotated[tuple[Literal["linf", "l2"], ...], Field(min_length=1)] = ("linf",)
    """Norms in which the radii are measured."""
    steps: Count = 20
    """Steps of projected gradient descent."""


def plan(audit: Planner, options: AdversarialOptions) -> Iterable[Job]:
    """What the audit knows of this network on the same pictures: an attack is looked at through it."""
    indexed = index(audit, options.dataset, "stages.adversarial.dataset")
    reads: dict[str, Job | None] = {"index": indexed, "activations": maps(audit, indexed)}
    dissection, tree, graph = audit.asked(DissectionOptions), audit.asked(TreeOptions), audit.asked(GraphOptions)
    if dissection and dissection.dataset == options.dataset:
        dissected = audit.jobs["dissection"]
        reads |= {"thresholds": dissected.jobs["thresholds"], "dissection": dissected}
    if tree and not audit.asked(FinetuningOptions) and tree.dataset == options.dataset:
        reads["tree"] = audit.jobs["tree"]
    if graph and graph.dataset == options.dataset:
        reads["graph"] = audit.jobs["graph"]
    yield audit.job(STAGE, options, {**reads, "network": audit.network})


MEASURED = 10  # forward and backward passes that a picture's measures take as long as, beside the attack's


def cost(options: AdversarialOptions, pace: Pace) -> float:
    """An attack of each radius and norm, and what is measured of it and of noise of its size."""
    return pace.gradients(options.images * len(options.eps) * len(options.norms) * (options.steps + MEASURED))


STAGE = Stage(
    name="adversarial",
    about="Attacks pictures, beside noise of the same size, and measures what moves inside the network.",
    options=AdversarialOptions,
    work="tasks.adversarial.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device"}),
    threads="all",
    sharded="attacks",
    network="answer",
    cost=cost,
    page=PageOf("tasks.adversarial.findings:findings", "microtome.report.adversarial:page"),
    starter="  # adversarial: {images: 64, eps: [1, 4]}    # attacks, and what moves inside; eps of 255\n",
    metrics=(Metric("adversarial", "value", "low", "high", keys=("attack", "norm", "eps", "measure")),),
    headlines=(Headline("adversarial.value", "share of predictions flipped", rows={"measure": "prediction flipped"}),),
    tables=(
        table(
            "adversarial",
            "A row per attack, size and measure; an attack called `noise like ...` is the control.",
            attack=string("how the pictures were changed"),
            norm=string("in which the change is bounded: linf or l2"),
            eps=float64("bound of the change, of 255"),
            measure=string("what is measured, and of which layer, tree or graph"),
            value=float64("mean over the pictures; of detectors of their label on these unchanged, the share kept"),
            low=float64("95 % interval over the pictures: of shares by Wilson, else by bootstrap"),
            high=float64("95 % interval over the pictures: of shares by Wilson, else by bootstrap"),
            n=int32("pictures"),
            detectors=int32("that could keep their label: those that detect it on these pictures unchanged; null else"),
        ),
        table(
            "attacked_images",
            "A row per attack and picture that the report shows.",
            attack=string("how the picture was changed"),
            norm=string("in which the change is bounded"),
            eps=float64("bound of the change, of 255"),
            image=int32("number of the picture"),
            before=int32("class predicted before"),
            after=int32("class predicted after"),
            before_name=string("its name, where the network or torchvision says it"),
            after_name=string("the same, of the class after"),
            file=string("of the stage: start of the names of the changed picture and of the difference"),
        ),
    ),
)
