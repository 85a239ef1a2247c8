"""Stage `finetuning`: an interpretable CNN from the audit's network, and its controls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from microtome.disentangle.folds import FOLD, FOLDS
from microtome.disentangle.names import INTERPRETABLE, PLAIN, TWIN, Phase
from storage.tables import flag, float64, int32, string, table
from tasks.index import index
from tasks.options import OUTSIDE, Count, DatasetName, Number, Options, Positive, Several, Strict
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage


class MaskModel(Strict):
    """Masks of interpretable layers."""

    centre: Literal["argmax", "centroid"] = "argmax"
    """Where a filter's template is put: at its highest value, or at its centre of mass."""
    learned: bool = False
    """Whether each filter's slope follows how widely it fires."""


class FinetuningOptions(Options):
    """Fine-tuning into an interpretable CNN."""

    dataset: DatasetName = "main"
    """Data set of the audit file that the network is trained on."""
    negatives: Annotated[str | None, OUTSIDE] = None
    """Data set that the category is told from; without it the data set's other categories."""
    category: str | None = None
    """Category that is told from the negatives; nothing to tell all categories apart."""
    epochs: Count = 6
    """Passes over the training pictures."""
    batch: Count = 16
    """Pictures of a step."""
    rate: tuple[Positive, Positive] | Literal["auto"] = "auto"
    """Learning rate of the first epoch and of the last, geometric between; `auto` finds it by a range test."""
    strength: Annotated[float, Field(ge=0)] = 1.0
    """Norm of the filter loss's gradient at each interpretable layer, as a share of the task's pull; 0 for none."""
    mask: MaskModel | None = MaskModel()
    """Masks of the interpretable layers; nothing for none."""
    head: Literal["auto", "linear", "small", "paper"] = "auto"
    """Linear on each filter's mean, or two hidden layers of 512 (`small`) or 4,096 (`paper`); `auto` by pictures."""
    freeze_below: str | None = None
    """Layer below which nothing is trained; the top convolution where left out."""
    folds: Several = FOLDS
    """Parts that the picture files are split into; one is held out."""
    fold: Number = FOLD
    """Number of the part that is held out, from zero."""
    controls: Annotated[tuple[Literal["twin", "plain"], ...], OUTSIDE] = ("twin",)
    """Networks trained beside it: the twin without filter loss, and the plain one without masks too."""

    @model_validator(mode="after")
    def _one_fold(self) -> FinetuningOptions:
        if self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds})")
        return self


class TrainingOptions(FinetuningOptions):
    """One of the networks: which, beside what the audit file says."""

    phase: Phase

    @classmethod
    def of(cls, options: FinetuningOptions, phase: Phase) -> TrainingOptions:
        """The network itself as the audit file says; controls without filter loss, the plain one without masks."""
        without = {"strength": 0.0} if phase == TWIN else {"strength": 0.0, "mask": None} if phase == PLAIN else {}
        return cls(**{**dict(options), **without, "phase": phase})


def plan(audit: Planner, options: FinetuningOptions) -> Iterable[Job]:
    """The interpretable network, and its controls: the same without the loss, with and without the mask."""
    reads = {"index": index(audit, options.dataset, "stages.finetuning.dataset"), "negatives": None}
    if options.negatives:
        reads["negatives"] = index(audit, options.negatives, "stages.finetuning.negatives")
    for phase in (INTERPRETABLE, TWIN, PLAIN):
        if phase == INTERPRETABLE or phase in options.controls:
            variant = "" if phase == INTERPRETABLE else phase
            wanted = TrainingOptions.of(options, phase)
            yield audit.job(STAGE, wanted, {**reads, "network": audit.network}, variant=variant)


def networks(audit: Planner) -> Iterator[tuple[Phase, Job]]:
    """The networks that the audit fine-tunes, in the order of their planning."""
    for job in list(audit.jobs.values()):
        if isinstance(job.options, TrainingOptions):
            yield job.options.phase, job


STAGE = Stage(
    name="finetuning",
    about="Fine-tunes the network into an interpretable CNN, beside the same training without filter loss.",
    options=FinetuningOptions,
    work="tasks.finetuning.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device", "threads"}),
    threads="all",
    network="maps",
    page=PageOf("tasks.finetuning.findings:findings", "microtome.report.finetuning:page"),
    starter="  # finetuning: {category: bird}              # an interpretable CNN, beside a twin without filter loss\n",
    cost=lambda options, pace: 2 * pace.shown(pace.pictures) + pace.gradients(options.epochs * pace.pictures),
    metrics=(Metric("training", "accuracy", "low", "high", keys=("epoch", "phase", "split")),),
    headlines=(Headline("training.accuracy", "accuracy on held-out pictures", rows={"split": "val"}, latest="epoch"),),
    tables=(
        table(
            "training",
            "A row per epoch, network and split.",
            epoch=int32("from one"),
            phase=string("interpretable, or a control: twin (no filter loss), plain (no masks either)"),
            split=string("train: mean over the epoch's steps; val: held-out pictures after it"),
            task_loss=float64("cross-entropy"),
            filter_loss=float64("minus mutual information, mean over the filters of both layers"),
            accuracy=float64("share of right answers"),
            low=float64("95 % Wilson interval of accuracy"),
            high=float64("95 % Wilson interval of accuracy"),
            images=int32("pictures that were seen"),
            rate=float64("learning rate of the epoch"),
            halvings=int32("how often training had diverged so far, and went back an epoch at half the rate"),
        ),
        table(
            "finetuning_summary",
            "A row per network: what it learned, beside what could be learned.",
            phase=string("interpretable, or a control"),
            images=int32("held-out pictures"),
            accuracy=float64("share of them that the finished network answers right"),
            low=float64("95 % Wilson interval of accuracy"),
            high=float64("95 % Wilson interval of accuracy"),
            probe=float64("of a linear probe of the backbone's answers, fitted to the training pictures: the ceiling"),
            probe_low=float64("95 % Wilson interval of probe"),
            probe_high=float64("95 % Wilson interval of probe"),
            majority=float64("share of held-out pictures of the class that most training pictures have"),
            learned=flag("whether the whole interval of accuracy lies above majority"),
            rate=float64("learning rate of the first epoch, as asked for or found"),
        ),
        table(
            "finetuning_images",
            "A row per picture of the fine-tuning: what the finished network says of it.",
            dataset=string("dataset or negatives, as the audit file names them"),
            image=int32("number of the picture in that data set's index"),
            label=int32("class number, into the categories of network.json"),
            split=string("train or val"),
            predicted=int32("class number that the network answers"),
            logit=float64("highest output"),
        ),
        table(
            "filter_categories",
            "A row per filter of the two interpretable layers.",
            layer=string("top_map or extra_map"),
            filter=int32("number of the filter, from zero"),
            category=string("class in which it fires most, which it is pressed onto"),
        ),
    ),
)
