"""Stage `dictionary`: units, random rotations and dictionaries side by side, dissected by one rule; and how steady."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from storage.tables import Column, flag, float32, float64, int32, string, table
from tasks.directions import STAGE as DIRECTIONS
from tasks.directions import DirectionsOptions
from tasks.labelling import DissectionOptions
from tasks.null import STAGE as NULL
from tasks.null import NullOptions
from tasks.planning import Planner
from tasks.projected import STAGE as PROJECTED
from tasks.projected import ProjectedOptions
from tasks.stage import Headline, Job, Metric, PageOf, Stage
from tasks.tally import STAGE as TALLY
from tasks.tally import TallyOptions
from tasks.thresholds import seen

VARIANT = "dictionary"
"""Of the jobs that look at maps along directions as others look at the units'."""


class DictionaryOptions(DirectionsOptions):
    """Other bases than the units; pictures, thresholds, resamples and null are those of `dissection`."""


class PlannedDictionary(DissectionOptions, DirectionsOptions):
    """What the audit's dissection says, too."""


def plan(audit: Planner, options: DictionaryOptions) -> Iterable[Job]:
    """The units' counts and null, and the same of maps along directions, by the same stages."""
    judged = audit.asked(DissectionOptions) or DissectionOptions()
    units = seen(audit, judged.dataset, "stages.dissection.dataset")
    fitted = audit.job(DIRECTIONS, options.narrowed(DirectionsOptions), units)
    storage = audit.audit.execution.storage
    stored = ProjectedOptions(compression="auto" if storage == "recompute" else storage)
    shown = {name: units[name] for name in ("index", "activations")} | {"directions": fitted}
    reads = {"index": units["index"], "activations": audit.job(PROJECTED, stored, shown)}
    along = {**reads, "thresholds": replace(units["thresholds"], reads=reads, variant=VARIANT)}
    units, along = _counted(audit, judged, units), _counted(audit, judged, along, variant=VARIANT)
    planned = PlannedDictionary(**{**options.model_dump(), **judged.model_dump()})
    renamed = {f"{name}_along": job for name, job in along.items() if name not in ("index", "activations")}
    yield audit.job(STAGE, planned, {**units, **renamed, "projected": along["activations"], "directions": fitted})


def _counted(
    audit: Planner, judged: DissectionOptions, maps: Mapping[str, Job], *, variant: str = ""
) -> dict[str, Job]:
    """Counts of some maps, and what chance reaches, as the dissection has them."""
    tally = audit.job(TALLY, judged.narrowed(TallyOptions), maps, variant=variant)
    found = {**maps, "tally": tally}
    if judged.permutations:
        lit = {"index": maps["index"], "activations": maps["activations"], "tally": tally}
        found["null"] = audit.job(NULL, judged.narrowed(NullOptions), lit, variant=variant)
    return found


def _ends(name: str, meaning: str, ends: str) -> dict[str, Column]:
    return {name: float64(meaning), f"{name}_low": float64(ends), f"{name}_high": float64(ends)}


_PAIRED = "95 % paired interval over pictures, bias-corrected; the fit held"
_STARTS = "95 % jackknife interval over initialisations; the cells held"
_BASIS = "units, one-hot, rotation 1, rotation 2 and so on, nmf, sae"

STAGE = Stage(
    name="dictionary",
    about="Sets units, random rotations and dictionaries side by side, by one rule, and asks how steady they are.",
    options=DictionaryOptions,
    work="tasks.dictionary.work:run",
    plan=plan,
    determined_by=frozenset({"seed"}),
    cost=lambda options, pace: 5 + 1e-6 * pace.pictures * pace.values,
    page=PageOf("tasks.dictionary.findings:findings", "microtome.report.dictionary:page"),
    starter="  # dictionary: {}                          # units beside random rotations, NMF, a sparse autoencoder\n",
    metrics=(
        Metric("dictionary_bases", "confirmed", "confirmed_low", "confirmed_high", keys=("layer", "basis")),
        Metric("dictionary_bases", "share", "share_low", "share_high", keys=("layer", "basis")),
        Metric("dictionary_bases", "apart", "apart_low", "apart_high", keys=("layer", "basis")),
        Metric("dictionary_bases", "unique", "unique_low", "unique_high", keys=("layer", "basis")),
        Metric("dictionary_bases", "explained", "explained_low", "explained_high", keys=("layer", "basis")),
        Metric("dictionary_stability", "cosine", "cosine_low", "cosine_high", keys=("layer", "method")),
    ),
    headlines=(
        Headline("dictionary_bases.share", "share of directions that are confirmed detectors"),
        Headline("dictionary_stability.cosine", "matched cosine of a dictionary's initialisations"),
    ),
    tables=(
        table(
            "dictionary_bases",
            "A row per layer and basis: the units' own, random rotations, and dictionaries, by the rule of `layers`.",
            sharded=False,
            layer=string("dotted name"),
            basis=string(_BASIS),
            method=string("units, one-hot, rotation, nmf or sae"),
            directions=int32("of the basis"),
            confirmed=int32(
                "detectors whose heldout_iou lies above min_iou, and q_value at most 0.05; null without permutations"
            ),
            confirmed_low=float64("95 % interval over pictures, each half redrawn, labels chosen anew; the fit held"),
            confirmed_high=float64("95 % interval over pictures, each half redrawn, labels chosen anew; the fit held"),
            confirmed_unique=int32("concepts that are the label of a confirmed direction"),
            **_ends("share", "confirmed / directions", "confirmed_low and confirmed_high, / directions"),
            **_ends("apart", "share minus that of the units", _PAIRED),
            detectors=int32("directions whose best IoU lies above min_iou: luck included"),
            detectors_low=float64("95 % interval over pictures of detectors, bias-corrected"),
            detectors_high=float64("95 % interval over pictures of detectors, bias-corrected"),
            **_ends("detectors_apart", "detectors / directions minus that of the units", _PAIRED),
            unique=int32("concepts that are the label of a detector: unique_per_unit of `layers`"),
            unique_low=float64("95 % interval over pictures of unique, bias-corrected"),
            unique_high=float64("95 % interval over pictures of unique, bias-corrected"),
            **_ends("unique_apart", "unique minus that of the units", _PAIRED),
            significant=int32("directions with q_value at most 0.05"),
            dead=int32("directions that have one value everywhere"),
            saturated=int32("directions whose threshold is their maximum"),
            near_unit=int32("directions whose cosine with the nearest unit is at least 0.9: all but a unit again"),
            mean_iou=float64("mean of the directions' best IoU"),
            heldout_iou=float64("mean of the directions' heldout_iou"),
            **_ends(
                "explained",
                "1 - squared error of the cells that codes stand for / their variance, in the half that was not fitted",
                "95 % interval over the half's pictures; the fit held",
            ),
            active=float64("effective number of directions of a cell, (sum |z|)^2 / sum z^2, mean over the same cells"),
            min_iou=float64("option of the dissection"),
            images=int32("indexed pictures"),
            judged=int32("of these, pictures of the half that was not fitted, and that judges labels"),
            permutations=int32("option of the dissection"),
            bootstrap=int32("option of the dissection"),
        ),
        table(
            "dictionary_stability",
            "A row per layer and method that starts at random: whether other initialisations find the same directions.",
            sharded=False,
            layer=string("dotted name"),
            method=string("nmf or sae"),
            directions=int32("of a dictionary"),
            initialisations=int32("dictionaries that are compared, of the same cells"),
            **_ends("cosine", "of matched directions, mean over all pairs of initialisations", _STARTS),
            **_ends("shuffled", "the same where each channel's values were shuffled among cells before", _STARTS),
            **_ends("random", "the same of random directions; no entry is negative where the method has none", _STARTS),
            beyond_random=flag("whether cosine_low lies above random_high"),
            beyond_shuffled=flag("whether cosine_low lies above shuffled_high"),
            steady=flag("whether both: only then are the directions steadier than their controls"),
            cells=int32("that they were fitted on, at most"),
        ),
        table(
            "dictionary",
            "A row per direction: its label, by the rule of `units`, and how sure that is.",
            layer=string("dotted name"),
            basis=string(_BASIS),
            direction=int32("number of the direction, from zero; of units, of the unit"),
            threshold=float32("value that the direction exceeds in the tail's share of its places"),
            concept=string("label: the concept of the highest IoU; null where it meets none"),
            category=string("of the label"),
            concept_id=int32("number of the label"),
            iou=float64("of the label"),
            iou_low=float64("95 % bootstrap interval over pictures, label and fit held"),
            iou_high=float64("95 % bootstrap interval over pictures, label and fit held"),
            null_p95=float64("95 % quantile of the best IoU with annotations exchanged within strata"),
            p_value=float64("(1 + permutations at least as good) / (1 + permutations), within strata"),
            p_value_across=float64("the same, with annotations exchanged among all pictures, across strata"),
            q_value=float64("false discovery rate of p_value over the basis (Benjamini-Hochberg)"),
            heldout_iou=float64("IoU, on the half that was not fitted, of the label that wins on the fitted one"),
            label_stability=float64("share of resamples in which the same label wins"),
            detector=flag("whether iou lies above min_iou"),
            confirmed=flag("whether it is a detector, heldout_iou lies above min_iou, and q_value is at most 0.05"),
            reason=string("why the direction can have no label: saturated, or dead"),
            unit=int32("nearest unit of the layer: where the direction has its largest entry, by size"),
            unit_cosine=float64("cosine of direction and nearest unit: that entry"),
            cosine=float64("with its match in another initialisation, mean over these; null where nothing was learned"),
        ),
    ),
)
