"""Stage `formulas`: the best logical formula of up to three concepts for every unit, proven to be the best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from storage.tables import flag, float64, int32, int64, integers, string, table
from tasks.labelling import DissectionOptions
from tasks.options import Count, Options
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage
from tasks.tally import STAGE as TALLY
from tasks.tally import TallyOptions
from tasks.thresholds import seen


class FormulasOptions(Options):
    """The best logical formula of every unit; pictures, thresholds, resamples and null are those of `dissection`."""

    length: Annotated[int, Field(ge=1, le=3)] = 3
    """Concepts of a formula, at most."""
    pictures: Count = 30
    """Pictures in which all categories of a formula of several must be annotated, at least; in a half, half as many."""
    beam: Count = 10
    """Width of the beam search that is set beside the proven search."""
    effort: Count = 100_000_000
    """Formulas that are looked at for one unit, at most; beyond, the row says by how much it may miss the best."""


class PlannedFormulas(FormulasOptions, TallyOptions):
    """What the audit's dissection says of lighting, intervals and null."""

    bootstrap: int
    permutations: int


def plan(audit: Planner, options: FormulasOptions) -> Iterable[Job]:
    """The counts of the audit's dissection, and what they were counted from."""
    judged = audit.asked(DissectionOptions) or DissectionOptions()
    reads = seen(audit, judged.dataset, "stages.dissection.dataset")
    reads["tally"] = audit.job(TALLY, judged.narrowed(TallyOptions), reads)
    planned = PlannedFormulas(
        **options.model_dump(),
        **judged.narrowed(TallyOptions).model_dump(),
        bootstrap=judged.bootstrap,
        permutations=judged.permutations,
    )
    yield audit.job(STAGE, planned, reads)


STAGE = Stage(
    name="formulas",
    about="Finds every unit's best logical formula of up to three concepts, and proves that there is no better one.",
    options=FormulasOptions,
    work="tasks.formulas.work:run",
    plan=plan,
    determined_by=frozenset({"seed"}),
    cost=lambda options, pace: 20 + 2e-3 * pace.pictures + pace.units * (0.03 + 7e-3 * options.permutations),
    page=PageOf(
        "tasks.formulas.findings:findings", "microtome.report.formulas:page", "microtome.report.formulas:of_units"
    ),
    starter="  # formulas: {}                           # the best formula of up to 3 concepts of every unit, proven\n",
    metrics=(
        Metric("formula_layers", "proven_share", keys=("layer",)),
        Metric("formula_layers", "beaten_share", "beaten_low", "beaten_high", keys=("layer",)),
        Metric("formula_layers", "mean_iou", keys=("layer",)),
        Metric("formula_layers", "gain", "gain_low", "gain_high", keys=("layer",)),
        Metric("formula_layers", "heldout_gain", "heldout_gain_low", "heldout_gain_high", keys=("layer",)),
        Metric("formula_layers", "significant", keys=("layer",)),
    ),
    headlines=(
        Headline("formula_layers.heldout_gain", "held-out IoU that formulas gain"),
        Headline("formula_layers.beaten_share", "share of units in which a beam search is beaten"),
    ),
    tables=(
        table(
            "formulas",
            "A row per unit: its best formula, how sure that is, and what a single concept and a beam search reach.",
            layer=string("dotted name"),
            unit=int32("number of the unit, from zero"),
            formula=string("the best one; null where the unit meets no concept"),
            form=int32("which form of the grammar it has: docs/formulas.md numbers them"),
            concept_ids=integers("numbers of its concepts, in the order in which they are written"),
            length=int32("how many concepts these are"),
            iou=float64("of the formula, over the pictures in which all of its categories are annotated"),
            iou_low=float64("95 % bootstrap interval over pictures, the formula held"),
            iou_high=float64("95 % bootstrap interval over pictures, the formula held"),
            images=int32("pictures in which all of its categories are annotated"),
            intersection=int64("I: lit pixels on which it holds, in these pictures"),
            activation=int64("A: lit pixels of these pictures"),
            label_pixels=int64("L: pixels on which it holds, in these pictures"),
            proven=flag("whether no formula has a higher IoU"),
            gap=float64("by how much a formula could be better at most; 0 where that is proven"),
            looked=int64("formulas of three concepts that were looked at"),
            counted=int64("of these, those that had to be counted"),
            concept=string("the best single concept: the label of the dissection; null where it meets none"),
            concept_iou=float64("its IoU"),
            gain=float64("iou - concept_iou"),
            gain_low=float64("95 % paired bootstrap interval over pictures, both held"),
            gain_high=float64("95 % paired bootstrap interval over pictures, both held"),
            part_iou=float64("best IoU of one of the formula's own concepts, over the formula's pictures"),
            heldout_formula=string("the best formula of one half of the pictures"),
            chosen_iou=float64("its IoU there"),
            heldout_iou=float64("its IoU on the other half"),
            concept_heldout_iou=float64("the same of the best single concept: heldout_iou of the dissection"),
            heldout_gain=float64("heldout_iou - concept_heldout_iou"),
            p_value=float64("(1 + permutations in which any formula reaches iou) / (1 + permutations), within strata"),
            q_value=float64("false discovery rate of p_value over the layer's units (Benjamini-Hochberg)"),
            beam_formula=string("what the beam search finds"),
            beam_iou=float64("its IoU"),
            beaten=flag("whether iou is above beam_iou"),
        ),
        table(
            "formula_null",
            "A row per unit and permutation.",
            sharded=True,
            layer=string("dotted name"),
            unit=int32("number of the unit"),
            permutation=int32("number of the exchange, from zero"),
            reached=flag(
                "whether any formula reaches the unit's IoU, annotations exchanged among pictures of a stratum"
            ),
        ),
        table(
            "formula_curve",
            "A row per layer and length penalty: formulas chosen on one half of the pictures, judged on the other.",
            layer=string("dotted name"),
            penalty=float64("IoU that each concept after the first must gain for a longer formula to be taken"),
            length=float64("mean number of concepts of the formulas that are taken"),
            chosen_iou=float64("mean of the units' IoU on the half on which formulas are chosen"),
            heldout_iou=float64("mean of the units' IoU on the other half"),
            heldout_low=float64("95 % bootstrap interval over its pictures, the formulas held"),
            heldout_high=float64("95 % bootstrap interval over its pictures, the formulas held"),
            gain=float64("heldout_iou minus that of the best single concepts, chosen on the same half"),
            gain_low=float64("95 % paired bootstrap interval over its pictures, both held"),
            gain_high=float64("95 % paired bootstrap interval over its pictures, both held"),
        ),
        table(
            "formula_layers",
            "A row per layer.",
            layer=string("dotted name"),
            units=int32("in the layer"),
            proven=int32("units whose formula is proven to be the best"),
            proven_share=float64("proven / units"),
            longer=int32("units whose best formula has more than one concept"),
            beaten=int32("units in which the formula is better than that of the beam search"),
            beaten_share=float64("beaten / units"),
            beaten_low=float64("95 % interval of a share of units (Wilson)"),
            beaten_high=float64("95 % interval of a share of units (Wilson)"),
            beaten_by=float64("median of iou / beam_iou - 1 over units in which the beam search is beaten"),
            mean_iou=float64("mean of the units' iou"),
            concept_iou=float64("mean of the units' concept_iou"),
            gain=float64("mean_iou - concept_iou"),
            gain_low=float64("95 % paired bootstrap interval over pictures, formulas and labels held"),
            gain_high=float64("95 % paired bootstrap interval over pictures, formulas and labels held"),
            chosen_gain=float64("mean gain on the half on which formulas and labels are chosen"),
            heldout_gain=float64("mean of the units' heldout_gain"),
            heldout_gain_low=float64(
                "95 % paired bootstrap interval over the half's pictures, formulas and labels held"
            ),
            heldout_gain_high=float64(
                "95 % paired bootstrap interval over the half's pictures, formulas and labels held"
            ),
            heldout_better=int32("units whose formula is better than their single concept on the other half"),
            heldout_worse=int32("units whose formula is worse there"),
            significant=int32("units with q_value at most 0.05"),
            permutations=int32("option of the dissection"),
            bootstrap=int32("option of the dissection"),
            images=int32("indexed pictures"),
            concepts=int32("of the data set"),
            max_length=int32("option length"),
            pictures=int32("option"),
            beam=int32("option"),
            effort=int64("option"),
        ),
    ),
)
