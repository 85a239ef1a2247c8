"""Stage `drift`: the units of two checkpoints, or before and after fine-tuning, matched by layer and number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated

from microtome.disentangle.names import INTERPRETABLE
from microtome.errors import InputError
from microtome.networks.identity import network_digest
from storage.tables import flag, float32, float64, int32, string, table
from tasks.finetuning import networks
from tasks.labelling import DissectionOptions
from tasks.options import OUTSIDE, Options, Word
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage
from tasks.subject import Subject
from tasks.tally import STAGE as TALLY
from tasks.tally import TallyOptions
from tasks.thresholds import seen

BEFORE = "drift-before"


class DriftOptions(Options):
    """The same units of two networks; they are labelled as `dissection` says."""

    before: Annotated[Word | None, OUTSIDE] = None
    """Weights of an earlier checkpoint of the network; where left out, it is compared with its fine-tuned ones."""


class PlannedDrift(TallyOptions):
    """What the audit's dissection says of labels and intervals."""

    min_iou: float
    bootstrap: int


def plan(audit: Planner, options: DriftOptions) -> Iterable[Job]:
    """Maps, thresholds and counts of both networks over the pictures of the audit's dissection."""
    judged = audit.asked(DissectionOptions) or DissectionOptions()
    own = seen(audit, judged.dataset, "stages.dissection.dataset")
    own["tally"] = audit.job(TALLY, judged.narrowed(TallyOptions), own)
    found = False
    for variant, before, after in _pairs(audit, options, own):
        reads = {"index": own["index"]}
        for when, jobs in (("before", before), ("after", after)):
            reads |= {f"{name}_{when}": jobs[name] for name in ("activations", "thresholds", "tally")}
        yield audit.job(STAGE, judged.narrowed(PlannedDrift), reads, variant=variant)
        found = True
    if not found:
        raise InputError(
            "stages.drift: must have a network to compare with, got none; name the weights of an earlier checkpoint "
            "as `before`, or ask for finetuning"
        )


def _pairs(
    audit: Planner, options: DriftOptions, own: Mapping[str, Job]
) -> Iterator[tuple[str, Mapping[str, Job], Mapping[str, Job]]]:
    """Variant of the comparison, and the jobs that look at the network before and at the one after."""
    index, maps = own["index"], own["activations"]
    if options.before is not None:
        earlier = replace(maps, reads={"index": index, "network": _checkpoint(audit, options.before)}, variant=BEFORE)
        yield "", _over(own, earlier), own
        return
    layers = [name if name.startswith("features.") else f"features.{name}" for name in audit.audit.network.layers]
    for phase, job in networks(audit):
        # a fine-tuned network keeps the layers of its backbone as its own `features`
        wanted = maps.options.model_copy(update={"layers": layers})
        tuned = replace(maps, options=wanted, reads={"index": index, "finetuned": job}, variant=f"drift-{phase}")
        yield "" if phase == INTERPRETABLE else phase, own, _over(own, tuned)


def _over(own: Mapping[str, Job], maps: Job) -> dict[str, Job]:
    """The audit's own jobs over the maps of another network."""
    reads: dict[str, Job] = {"index": own["index"], "activations": maps}
    thresholds = replace(own["thresholds"], reads=reads, variant=maps.variant)
    tally = replace(own["tally"], reads={**reads, "thresholds": thresholds}, variant=maps.variant)
    return {**reads, "thresholds": thresholds, "tally": tally}


def _checkpoint(audit: Planner, weights: str) -> Subject:
    """The audit's network with other weights. Raises InputError where they are no file."""
    spec = replace(audit.network.spec, weights=weights)
    if spec.weights_file is not None and not os.path.isfile(spec.weights_file):
        raise InputError(f"stages.drift.before: no such file, got {weights!r} (looked for {spec.weights_file})")
    return replace(audit.network, spec=spec, content=network_digest(spec, audit.noted("network before")))


STAGE = Stage(
    name="drift",
    about="Compares the units of two networks, number by number: label, IoU and threshold, over the same pictures.",
    options=DriftOptions,
    work="tasks.drift.work:run",
    plan=plan,
    determined_by=frozenset({"seed"}),
    cost=lambda options, pace: pace.shown(pace.pictures) + 1e-3 * pace.pictures,
    page=PageOf("tasks.drift.findings:findings", "microtome.report.drift:page", "microtome.report.drift:of_units"),
    starter="  # drift: {before: weights/earlier.safetensors}    # the same units in an earlier checkpoint\n",
    metrics=(
        Metric("drift_layers", "changed_share", "changed_low", "changed_high", keys=("layer",)),
        Metric("drift_layers", "kept_share", "kept_low", "kept_high", keys=("layer",)),
        Metric("drift_layers", "lost_share", "lost_low", "lost_high", keys=("layer",)),
        Metric("drift_layers", "change", "change_low", "change_high", keys=("layer",)),
        Metric("drift_layers", "best_change", "best_change_low", "best_change_high", keys=("layer",)),
    ),
    headlines=(
        Headline("drift_layers.changed_share", "share of units with another label"),
        Headline("drift_layers.kept_share", "share of detectors kept"),
    ),
    tables=(
        table(
            "drift_units",
            "A row per unit that both networks have, matched by layer and number.",
            layer=string("dotted name, in the network before"),
            unit=int32("number of the unit, from zero"),
            concept_before=string("label in the network before; null where it meets none"),
            concept_after=string("label in the network after; null where it meets none"),
            changed=flag("whether the labels differ"),
            apart_share=float64("share of resamples in which the networks label the unit differently, both anew"),
            iou_before=float64("of concept_before, in the network before"),
            iou_after=float64("of concept_after, in the network after"),
            kept_iou=float64("of concept_before, in the network after"),
            earlier_iou=float64("of concept_after, in the network before"),
            change=float64("kept_iou - iou_before; null where there was no label"),
            change_low=float64("95 % paired bootstrap interval over pictures, the label held"),
            change_high=float64("95 % paired bootstrap interval over pictures, the label held"),
            p_value=float64("of change being none: twice the share of resamples on the rarer side of zero"),
            q_value=float64("false discovery rate over the layer's units (Benjamini-Hochberg)"),
            best_change=float64("iou_after - iou_before"),
            best_change_low=float64("95 % paired bootstrap interval over pictures, the labels held"),
            best_change_high=float64("95 % paired bootstrap interval over pictures, the labels held"),
            detector_before=flag("whether iou_before lies above min_iou"),
            detector_after=flag("whether iou_after lies above min_iou"),
            threshold_before=float32("value that the unit exceeds in the tail's share of its places, before"),
            threshold_after=float32("the same, after"),
            threshold_change=float64("after - before, in standard deviations of the unit's values in both"),
        ),
        table(
            "drift_layers",
            "A row per layer that both networks have.",
            layer=string("dotted name, in the network before"),
            units=int32("in the layer"),
            images=int32("indexed pictures"),
            changed_share=float64("share of the units whose label changed"),
            changed_low=float64("95 % paired bootstrap interval over pictures, both networks labelled anew"),
            changed_high=float64("95 % paired bootstrap interval over pictures, both networks labelled anew"),
            random_share=float64("share of the pairs of different units, one of each network, whose labels differ"),
            redrawn_share=float64("share of labels that change in the network before when pictures are redrawn"),
            detectors_before=int32("units whose IoU lies above min_iou, before"),
            detectors_after=int32("the same, after"),
            kept=int32("detectors in both, of one label"),
            lost=int32("detectors before that detect nothing after"),
            gained=int32("detectors after that detected nothing before"),
            kept_share=float64("kept / detectors_before"),
            kept_low=float64("95 % paired bootstrap interval over pictures, the labels held"),
            kept_high=float64("95 % paired bootstrap interval over pictures, the labels held"),
            lost_share=float64("lost / detectors_before"),
            lost_low=float64("95 % paired bootstrap interval over pictures, the labels held"),
            lost_high=float64("95 % paired bootstrap interval over pictures, the labels held"),
            gained_share=float64("gained / detectors_after"),
            gained_low=float64("95 % paired bootstrap interval over pictures, the labels held"),
            gained_high=float64("95 % paired bootstrap interval over pictures, the labels held"),
            change=float64("mean change of the IoU of the labels before"),
            change_low=float64("95 % paired bootstrap interval over pictures, the labels held"),
            change_high=float64("95 % paired bootstrap interval over pictures, the labels held"),
            best_change=float64("mean change of the best IoU"),
            best_change_low=float64("95 % paired bootstrap interval over pictures, the labels held"),
            best_change_high=float64("95 % paired bootstrap interval over pictures, the labels held"),
            risen=int32("units whose label before gained IoU, q_value at most 0.05"),
            fallen=int32("units whose label before lost IoU, q_value at most 0.05"),
            threshold_change=float64("median of the units' |threshold_change|"),
            min_iou=float64("option of the dissection"),
            bootstrap=int32("option of the dissection"),
            bootstrap_needed=int32("resamples with which a q_value could fall to 0.05"),
        ),
    ),
)
