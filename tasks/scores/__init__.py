"""Stage `scores`: metrics of how well a concept explains a unit, and which of them notice wrong labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from storage.tables import float64, int32, string, table
from tasks.labelling import DissectionOptions
from tasks.options import Count, Options, Share
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage
from tasks.tally import STAGE as TALLY
from tasks.tally import TallyOptions
from tasks.thresholds import seen


class ScoresOptions(Options):
    """Metrics of how well a concept explains a unit; pictures, thresholds and counts are those of `dissection`."""

    pooling: Literal["mean", "max"] = "mean"
    """What a unit says of a picture as a whole: the mean, or the highest value, of its map."""
    alpha: Share = 0.05
    """Share of the pictures, those of a unit's highest values, that count as lit."""
    draws: Count = 20
    """How often the labels of a unit's concept are drawn anew, in each of the two tests."""


class PlannedScores(ScoresOptions, TallyOptions):
    """What the audit's dissection says of lighting, and of detectors."""

    min_iou: float


def plan(audit: Planner, options: ScoresOptions) -> Iterable[Job]:
    """The counts of the audit's dissection, and what they were counted from."""
    judged = audit.asked(DissectionOptions) or DissectionOptions()
    reads = seen(audit, judged.dataset, "stages.dissection.dataset")
    counted = judged.narrowed(TallyOptions)
    reads["tally"] = audit.job(TALLY, counted, reads)
    planned = PlannedScores(**options.model_dump(), **counted.model_dump(), min_iou=judged.min_iou)
    yield audit.job(STAGE, planned, reads)


LABELS = (
    "whose concepts: iou, what IoU of this level calls every unit; detectors, what the dissection calls its "
    "detectors; own, what the metric itself calls every unit"
)
ONE_METRIC = ("layer", "level", "metric", "labels")

STAGE = Stage(
    name="scores",
    about="Scores units and concepts by 18 metrics, and tests which of these notice labels that are missing or false.",
    options=ScoresOptions,
    work="tasks.scores.work:run",
    plan=plan,
    determined_by=frozenset({"seed"}),
    cost=lambda options, pace: 2 + pace.units * (0.01 + 1e-6 * pace.pictures * (20 + options.draws)),
    page=PageOf("tasks.scores.findings:findings", "microtome.report.scores:page", "microtome.report.scores:of_units"),
    starter="  # scores: {}                             # 18 metrics of units and concepts, and which to believe\n",
    metrics=(
        Metric("score_tests", "missing_share", "missing_low", "missing_high", keys=ONE_METRIC),
        Metric("score_tests", "extra_share", "extra_low", "extra_high", keys=ONE_METRIC),
        Metric("score_layers", "passed", keys=("layer",)),
        Metric("score_layers", "same_label", "same_label_low", "same_label_high", keys=("layer",)),
    ),
    headlines=(
        Headline("score_layers.passed", "metrics over pictures that pass both label tests"),
        Headline("score_layers.same_label", "units to which IoU over pictures and over pixels give one label"),
    ),
    tables=(
        table(
            "scores",
            "A row per level, unit and concept: every metric. Null where it is undefined, or has no such level.",
            layer=string("dotted name"),
            level=string("pictures, or pixels"),
            unit=int32("number of the unit, from zero"),
            concept_id=int32("number of the concept"),
            recall=float64("share of what the unit lights that has the concept"),
            precision=float64("share of what has the concept that the unit lights"),
            f1=float64("2 I / (A + L): I lit and labelled, A lit, L labelled"),
            iou=float64("I / (A + L - I); over pixels that of the dissection"),
            accuracy=float64("share of all on which unit and concept agree"),
            balanced_accuracy=float64("mean of the shares with the concept where lit, and without where not lit"),
            inverse_balanced_accuracy=float64("mean of the shares lit with the concept, and not lit without"),
            auc=float64("area under the ROC curve: the concept predicts what is lit"),
            inverse_auc=float64(
                "area under the ROC curve: the unit's values predict the concept (AUC of INVERT, CoSy)"
            ),
            correlation=float64("Pearson's, of the unit's values and the concept"),
            correlation_top_random=float64("the same over some of the highest pictures and some random ones"),
            spearman=float64("Spearman's correlation of the unit's values and the concept"),
            spearman_top_random=float64("the same over some of the highest pictures and some random ones"),
            cosine=float64("of the unit's values and the concept"),
            wpmi=float64("weighted pointwise mutual information, lambda = 1"),
            mad=float64("mean value with the concept less the mean without"),
            auprc=float64("average precision: the concept predicts what is lit"),
            inverse_auprc=float64("average precision: the unit's values predict the concept"),
        ),
        table(
            "score_labels",
            "A row per level, metric, unit and way to choose its concept, which is null where there is none.",
            layer=string("dotted name"),
            level=string("pictures, or pixels"),
            metric=string("its name"),
            labels=string(LABELS),
            unit=int32("number of the unit"),
            concept_id=int32("number of the concept"),
            concept=string("its name"),
            category=string("of the concept"),
            score=float64("the metric's"),
            missing_falls=float64("share of draws in which half of the labels are missing and the score falls"),
            missing_change=float64("mean change of the score then, as a share of the metric's range"),
            extra_falls=float64("share of draws in which false labels are added and the score falls"),
            extra_change=float64("mean change of the score then, as a share of the metric's range"),
        ),
        table(
            "score_tests",
            "A row per level, metric and way to choose the units' concepts: both tests.",
            layer=string("dotted name"),
            level=string("pictures, or pixels"),
            metric=string("its name"),
            labels=string(LABELS),
            missing_pairs=int32("units with their concepts that could be tested by missing labels"),
            missing_share=float64(
                "share of them whose score falls in the mean over the draws if half of the labels are missing"
            ),
            missing_low=float64("95 % interval of a share over units (Wilson)"),
            missing_high=float64("95 % interval of a share over units (Wilson)"),
            missing_single=float64("share of single draws in which the score falls"),
            missing_single_low=float64("95 % interval of a share over units (Wilson)"),
            missing_single_high=float64("95 % interval of a share over units (Wilson)"),
            missing_change=float64("mean change of the score, as a share of the metric's range"),
            missing=string("passes where the share is surely at least 0.9; fails, undecided, not tested"),
            extra_pairs=int32("units with their concepts that could be tested by extra labels"),
            extra_share=float64("share of them whose score falls if false labels are added, in the mean of the draws"),
            extra_low=float64("95 % interval of a share over units (Wilson)"),
            extra_high=float64("95 % interval of a share over units (Wilson)"),
            extra_single=float64("share of single draws in which the score falls"),
            extra_single_low=float64("95 % interval of a share over units (Wilson)"),
            extra_single_high=float64("95 % interval of a share over units (Wilson)"),
            extra_change=float64("mean change of the score, as a share of the metric's range"),
            extra=string("passes where the share is surely at least 0.9; fails, undecided, not tested"),
            verdict=string("of both tests: the worse one"),
        ),
        table(
            "score_agreement",
            "A row per two metrics, each of a level: how far they agree about the units' labels.",
            layer=string("dotted name"),
            level=string("of the one"),
            metric=string("the one"),
            other_level=string("of the other"),
            other=string("the other"),
            units=int32("for which both choose a concept"),
            same=float64("share of them for which it is the same one"),
            same_low=float64("95 % interval of a share over units (Wilson)"),
            same_high=float64("95 % interval of a share over units (Wilson)"),
            correlation=float64("mean over units of Spearman's correlation of the two over concepts"),
            correlation_low=float64("95 % bootstrap interval over units"),
            correlation_high=float64("95 % bootstrap interval over units"),
        ),
        table(
            "score_layers",
            "A row per layer.",
            layer=string("dotted name"),
            units=int32("in the layer"),
            passed=int32("metrics over pictures that pass both tests, by the labels of IoU over pictures"),
            failed=int32("metrics over pictures that fail one of them"),
            undecided=int32("metrics over pictures of which that is not sure"),
            pixel_iou=string("verdict of IoU over pixels, which the dissection labels units by"),
            detectors=int32("units that the dissection calls detectors"),
            detectors_passed=int32("metrics over pictures that pass both tests, by the labels of the detectors alone"),
            detectors_pixel_iou=string("verdict of IoU over pixels, by the labels of the detectors alone"),
            same_label=float64("share of units to which IoU over pictures and IoU over pixels give one label"),
            same_label_low=float64("95 % interval of a share over units (Wilson)"),
            same_label_high=float64("95 % interval of a share over units (Wilson)"),
            images=int32("indexed pictures"),
            concepts=int32("of the data set"),
            pooling=string("option"),
            alpha=float64("option"),
            draws=int32("option"),
        ),
    ),
)
