"""Stage `dissection`: labels, intervals, null and held-out check of every unit (Network Dissection)."""

from __future__ import annotations

from collections.abc import Iterable

from storage.tables import flag, float32, float64, int32, string, table
from tasks.ablation import AblationOptions, ablation
from tasks.labelling import DissectionOptions
from tasks.null import STAGE as NULL
from tasks.null import NullOptions
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.redrawn import STAGE as REDRAWN
from tasks.redrawn import RedrawnOptions
from tasks.stage import Headline, Job, Metric, PageOf, Stage
from tasks.tally import STAGE as TALLY
from tasks.tally import TallyOptions
from tasks.thresholds import seen


def plan(audit: Planner, options: DissectionOptions) -> Iterable[Job]:
    """Maps to thresholds to counts to chance to labels."""
    looked_at = seen(audit, options.dataset, "stages.dissection.dataset")
    tally = audit.job(TALLY, options.narrowed(TallyOptions), looked_at)
    lit = {"index": looked_at["index"], "activations": looked_at["activations"], "tally": tally}
    null = audit.job(NULL, options.narrowed(NullOptions), lit) if options.permutations else None
    counted = {**looked_at, "tally": tally}
    redrawn = audit.job(REDRAWN, options.narrowed(RedrawnOptions), counted) if options.redrawn else None
    removed = audit.asked(AblationOptions)
    ablated = ablation(audit, removed) if removed else None
    yield audit.job(STAGE, options, {**counted, "null": null, "redrawn": redrawn, "ablation": ablated})


def cost(options: DissectionOptions, pace: Pace) -> float:
    """Counts are read, added up under every weighting, three to a resample, and compared concept by concept."""
    weighed = 1e-9 * pace.pictures * pace.units
    compared = pace.concepts * pace.units * (6e-9 + 5e-13 * pace.pictures)
    return 2 + 3e-4 * pace.pictures + options.bootstrap * (weighed + compared)


STAGE = Stage(
    name="dissection",
    about="Labels every unit with the concept that it detects best, with interval, null and held-out check.",
    options=DissectionOptions,
    work="tasks.dissection.work:run",
    sharded="resamples",
    plan=plan,
    determined_by=frozenset({"seed"}),
    cost=cost,
    page=PageOf(
        "tasks.dissection.findings:findings",
        "microtome.report.dissection:pages",
        "microtome.report.dissection:of_units",
    ),
    starter="""\
  dissection:
    tail: 0.005                               # share of a unit's values above its threshold
    min_iou: 0.04                             # a detector lies above it
    bootstrap: 1000                           # resamples of the images, for intervals; 0 for none
    permutations: 200                         # of annotations among images, for the null; 0 for none
""",
    metrics=(
        Metric("layers", "confirmed", "confirmed_low", "confirmed_high", keys=("layer",)),
        Metric("layers", "detectors", "detectors_low", "detectors_high", keys=("layer",)),
        Metric("layers", "unique_per_category", "unique_low", "unique_high", keys=("layer",)),
        Metric("layers", "unique_per_unit", "unique_per_unit_low", "unique_per_unit_high", keys=("layer",)),
        Metric("layers", "significant", keys=("layer",)),
        Metric("layers", "saturated", keys=("layer",)),
        Metric("layers", "dead", keys=("layer",)),
        Metric("layers", "mean_iou", "mean_iou_low", "mean_iou_high", keys=("layer",)),
        Metric("units", "iou", "iou_low", "iou_high", keys=("layer", "unit")),
        Metric("units", "heldout_iou", keys=("layer", "unit")),
    ),
    headlines=(
        Headline("layers.confirmed", "confirmed detectors"),
        Headline("layers.detectors", "detectors, luck included"),
        Headline("layers.unique_per_category", "different concepts, as papers count"),
        Headline("layers.unique_per_unit", "different concepts"),
        Headline("layers.mean_iou", "mean IoU of the labels"),
    ),
    tables=(
        table(
            "units",
            "A row per unit: its label, and how sure that is.",
            layer=string("dotted name"),
            unit=int32("number of the unit, from zero"),
            threshold=float32("value that the unit exceeds in the tail's share of its places"),
            concept=string("label: the concept of the highest IoU; null where it meets none"),
            category=string("of the label"),
            iou=float64("of the label"),
            iou_low=float64("95 % bootstrap interval over pictures, the label held"),
            iou_high=float64("95 % bootstrap interval over pictures, the label held"),
            null_p95=float64("95 % quantile of the best IoU with annotations exchanged within strata"),
            p_value=float64("(1 + permutations at least as good) / (1 + permutations), within strata: the headline"),
            p_value_across=float64("the same, with annotations exchanged among all pictures, across strata"),
            q_value=float64("false discovery rate of p_value over the layer's units (Benjamini-Hochberg)"),
            heldout_iou=float64("IoU on one half of the pictures of the label that wins on the other"),
            label_stability=float64("share of resamples in which the same label wins"),
            detector=flag("whether iou lies above min_iou"),
            confirmed=flag("whether it is a detector, heldout_iou lies above min_iou, and q_value is at most 0.05"),
            concept_id=int32("number of the label"),
            reason=string("why the unit can have no label: saturated, or dead"),
            causal_class=string("class that loses most without the unit; this and the next: null without `ablation`"),
            causal_drop=float64("what the log-odds of that class lose without it, in pictures that did not choose it"),
            causal_low=float64("95 % bootstrap interval over the pictures"),
            causal_high=float64("95 % bootstrap interval over the pictures"),
            causal_random=float64("what they lose without a unit of the same size, in the mean"),
            causal_q=float64("false discovery rate of the difference over the layer's units (Benjamini-Hochberg)"),
        ),
        table(
            "nearest",
            "A row per unit and concept, for up to ten concepts of each unit: those of the highest IoU that it meets.",
            layer=string("dotted name"),
            unit=int32("number of the unit, from zero"),
            rank=int32("from zero, the highest IoU first: the label"),
            concept_id=int32("number of the concept"),
            concept=string("its name"),
            category=string("in which it is scored"),
            iou=float64("of unit and concept"),
            iou_low=float64("95 % bootstrap interval over pictures, of this concept"),
            iou_high=float64("95 % bootstrap interval over pictures, of this concept"),
        ),
        table(
            "layers",
            "A row per layer: its detectors, and how its cells see the picture.",
            layer=string("dotted name"),
            units=int32("in the layer"),
            confirmed=int32("detectors whose heldout_iou lies above min_iou, and q_value at most 0.05: the headline"),
            confirmed_low=float64("95 % interval over pictures of confirmed, each half redrawn, labels chosen anew"),
            confirmed_high=float64("95 % interval over pictures of confirmed, each half redrawn, labels chosen anew"),
            detectors=int32("units whose best IoU lies above min_iou: the raw count, luck included"),
            unique_per_category=int32("concepts that are the label of a detector in their own category"),
            unique_low=float64("95 % interval over pictures of unique_per_category, bias-corrected"),
            unique_high=float64("95 % interval over pictures of unique_per_category, bias-corrected"),
            unique_per_unit=int32("concepts that are the label of a detector"),
            unique_per_unit_low=float64("95 % interval over pictures of unique_per_unit, bias-corrected"),
            unique_per_unit_high=float64("95 % interval over pictures of unique_per_unit, bias-corrected"),
            detectors_low=float64("95 % interval over pictures of detectors, bias-corrected"),
            detectors_high=float64("95 % interval over pictures of detectors, bias-corrected"),
            detectors_redrawn_low=float64("the same interval of detectors, every resample with thresholds of its own"),
            detectors_redrawn_high=float64("the same interval of detectors, every resample with thresholds of its own"),
            unique_redrawn_low=float64("of unique_per_category, every resample with thresholds of its own"),
            unique_redrawn_high=float64("of unique_per_category, every resample with thresholds of its own"),
            unique_per_unit_redrawn_low=float64("of unique_per_unit, every resample with thresholds of its own"),
            unique_per_unit_redrawn_high=float64("of unique_per_unit, every resample with thresholds of its own"),
            significant=int32("units with q_value at most 0.05"),
            significant_across=int32("the same of p_value_across: too easy where a data set is a mixture"),
            strata=int32("sources, scenes or videos that annotations were exchanged within"),
            saturated=int32("units whose threshold is their maximum"),
            dead=int32("units that have one value everywhere"),
            mean_iou=float64("mean of the units' best IoU"),
            mean_iou_low=float64("95 % interval over pictures of mean_iou, the labels held, bias-corrected"),
            mean_iou_high=float64("95 % interval over pictures of mean_iou, the labels held, bias-corrected"),
            min_iou=float64("option"),
            tail=float64("option"),
            images=int32("indexed pictures"),
            permutations=int32("option"),
            permutations_needed=int32("permutations with which a q_value could fall to 0.05"),
            rows=int32("of the layer's map"),
            columns=int32("of the layer's map"),
            start_row=float64("centre of the first cell's field, in pixels"),
            start_column=float64("centre of the first cell's field, in pixels"),
            jump_row=float64("pixels from cell to cell"),
            jump_column=float64("pixels from cell to cell"),
            field_row=float64("theoretical receptive field, in pixels"),
            field_column=float64("theoretical receptive field, in pixels"),
            is_global=flag("whether something before the layer mixes all positions"),
            apart=int32("tokens that lie at no place of the picture (class, registers) and are in no map"),
        ),
    ),
)
