"""Stage `stability`: how steadily filters sit on part landmarks, beside baselines that know nothing of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from microtome.disentangle.names import INTERPRETABLE
from microtome.errors import InputError
from storage.tables import flag, float32, float64, int32, string, table
from tasks.activations import maps
from tasks.finetuning import FinetuningOptions, networks
from tasks.index import index
from tasks.landmarks import landmarks
from tasks.options import MANY, Count, DatasetName, Options, Positive, Resamples
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage

BEFORE = "before"


class StabilityOptions(Options):
    """Location stability."""

    dataset: DatasetName = "main"
    """Data set of the audit file that has the landmarks."""
    top_images: Annotated[int, Field(ge=2, le=MANY)] = 100
    """Pictures of each filter: those that excite it most."""
    firing_only: bool = False
    """Whether pictures in which a filter is silent are left out."""
    category: Literal["lowest", "highest-activation"] = "lowest"
    """Category in which a filter is judged: that of its lowest deviation, or of its highest activation."""
    filters: Count | None = None
    """At most so many filters of each layer, those of the highest scores; nothing for all."""
    bootstrap: Resamples = 1000
    """Resamples of the pictures, for intervals; 0 for none."""
    permutations: Resamples = 1000
    """Exchanges of positions among pictures, for p-values; 0 for none."""
    shift: Annotated[float, Field(ge=0, le=0.25)] = 0.15
    """How far what is shown is moved in the shift test, a half of it at least, in sides of the frame; 0 for no test."""
    part_radius: Positive | None = None
    """Radius of the disks of part interpretability, in input pixels; the layer's jump where left out."""


def plan(audit: Planner, options: StabilityOptions) -> Iterable[Job]:
    """Of the audit's network; and before and after fine-tuning, on the pictures that it did not train on."""
    key = "stages.stability.dataset"
    indexed = index(audit, options.dataset, key)
    marks = landmarks(audit, indexed)
    if marks is None:
        raise InputError(
            f"{key}: must have part landmarks, got {options.dataset!r} without any; use animal-parts, voc-parts, cub "
            "or creatures"
        )
    seen = {"index": indexed, "landmarks": marks}
    own = {**seen, **_maps(audit, indexed, options)}
    yield audit.job(STAGE, options, own)
    tuning = audit.asked(FinetuningOptions)
    if tuning and tuning.dataset == options.dataset:
        for phase, job in networks(audit):
            if phase == INTERPRETABLE:
                yield audit.job(STAGE, options, {**own, "split": job}, variant=BEFORE)
            tuned = _maps(audit, indexed, options, finetuned=job, variant=phase)
            yield audit.job(STAGE, options, {**seen, **tuned, "split": job}, variant=phase)


def _maps(
    audit: Planner, indexed: Job, options: StabilityOptions, *, finetuned: Job | None = None, variant: str | None = None
) -> dict[str, Job | None]:
    """Of the pictures, and of the pictures moved."""
    still = maps(audit, indexed, finetuned=finetuned, variant=variant)
    if not options.shift:
        return {"activations": still, "moved": None}
    return {
        "activations": still,
        "moved": maps(audit, indexed, finetuned=finetuned, variant=variant, shift=options.shift),
    }


STAGE = Stage(
    name="stability",
    about="Measures how steadily filters sit on part landmarks, beside baselines that know nothing of them.",
    options=StabilityOptions,
    work="tasks.stability.work:run",
    plan=plan,
    determined_by=frozenset({"seed"}),
    page=PageOf(
        "tasks.stability.findings:findings", "microtome.report.stability:page", "microtome.report.stability:of_units"
    ),
    starter="  # stability: {}                             # how steadily filters sit on part landmarks\n",
    cost=lambda options, pace: 1 + 5e-3 * pace.units,
    metrics=(
        Metric("stability_layers", "deviation", "low", "high", keys=("layer", "category")),
        Metric("stability_layers", "tracking_share", keys=("layer", "category")),
        Metric("stability_layers", "sure_tracking_share", keys=("layer", "category")),
        Metric("stability_layers", "beating_share", keys=("layer", "category")),
        Metric("stability_shift", "slope", "low", "high", keys=("layer", "category")),
    ),
    headlines=(
        Headline("stability_layers.deviation", "location deviation"),
        Headline("stability_layers.sure_tracking_share", "share of filters that surely follow a landmark"),
        Headline("stability_shift.slope", "slope of the shift test"),
    ),
    tables=(
        table(
            "stability",
            "A row per filter, category and landmark.",
            layer=string("dotted name"),
            filter=int32("number of the filter, from zero"),
            category=string("the pictures' class, or all where the data set has no classes"),
            landmark=string("name of the part"),
            images=int32("pictures that count: the filter's highest among those that show the landmark"),
            deviation=float64(
                "standard deviation of the distance to the landmark, in shares of the picture's diagonal"
            ),
            r2=float64("share of the filter's movement that the landmark's explains"),
            p_value=float64("of r2, under permutation of the landmarks"),
            localising=flag("whether it is steadier than the best constant position, or tracks the landmark"),
            reason=string("why the filter has no deviation in this category"),
            q_value=float64("false discovery rate over the layer's filters (Benjamini-Hochberg)"),
            score=float64("mean of the filter's highest value over the pictures that show the landmark"),
            spread=float64("how much the filter's own position moves, in shares of the diagonal"),
            entropy=float64("of the filter's own positions over the cells, in bits"),
            frozen=float64("deviation of the filter's own mean place, held for every picture"),
            slope=float64(
                "of its displacement on that of what is shown: 1 follows, 0 is frozen; null without the test"
            ),
            slope_low=float64("95 % bootstrap interval of the slope over pictures"),
            slope_high=float64("95 % bootstrap interval of the slope over pictures"),
            slope_r2=float64("share of its displacement that the offset explains"),
            slope_p=float64("of a slope of 0.5 at most, by its score"),
            slope_q=float64("false discovery rate of slope_p, over the layer's filters and over all their categories"),
            q_all=float64(
                "false discovery rate of p_value, over the layer's filters and over all their landmarks and categories"
            ),
        ),
        table(
            "stability_shift",
            "A row per layer and category, and where there are several one for their mean: the shift test.",
            layer=string("dotted name"),
            category=string("class, or all: mean"),
            positions=int32("filters that have a deviation; of all categories, where there are several"),
            follow=int32("those whose slope's interval lies above 0.5"),
            slope=float64("of a filter's displacement on that of what is shown, mean: 1 follows, 0 is frozen"),
            low=float64("95 % bootstrap interval over pictures"),
            high=float64("95 % bootstrap interval over pictures"),
            r2=float64("share of the displacement that the offset explains, mean"),
            slope_inside=float64("slope where the crop window stayed inside the picture"),
            slope_mirrored=float64("slope where it did not, and the picture was mirrored at its border"),
            inside_share=float64("share of pictures in which it stayed inside"),
            frozen=float64("deviation of the filters' own mean places, held for every picture, mean"),
            following_deviation=float64("deviation of the filters that follow, mean"),
            following_frozen=float64("deviation of their own mean places, mean"),
            following_tracking=float64("share of them that follow a landmark"),
            filters=int32("filters that have a deviation in one category at least"),
            sure=int32("those that surely follow: slope_q at most 0.05, of several categories in one at least"),
            sure_deviation=float64("deviation of the filters that surely follow, mean"),
            sure_frozen=float64("deviation of their own mean places, mean"),
            sure_tracking=float64("share of them that track a landmark"),
        ),
        table(
            "stability_layers",
            "A row per layer and category, and where there are several one per pooling rule, named all: rule.",
            layer=string("dotted name"),
            category=string("class, or all: lowest, all: highest-activation, all: mean"),
            deviation=float64("mean over the filters; null where none has one"),
            low=float64("95 % bootstrap interval over pictures"),
            high=float64("95 % bootstrap interval over pictures"),
            random=float64("deviation of uniformly drawn cells"),
            centre=float64("deviation of the constant centre of the picture"),
            best_constant=float64("deviation of the best constant cell"),
            tracking_share=float64(
                "share of filters that follow a landmark, at a false discovery rate of 5 % of each landmark"
            ),
            images=int32("pictures"),
            filters=int32("filters that count"),
            null_filters=int32("those without a deviation"),
            random_sd=float64("standard deviation of random over its seeds"),
            beating_share=float64("share of filters that are steadier than the best constant cell"),
            tied_share=float64("share of (filter, picture) pairs in which another cell is as high"),
            silent_share=float64("share of (filter, picture) pairs in which nothing is above zero"),
            spread=float64("mean of the filters' own spread"),
            entropy=float64("mean of the filters' own entropy, in bits"),
            sure_tracking_share=float64("share of filters that surely follow a landmark: q_all at most 0.05 of one"),
        ),
        table(
            "stability_resamples",
            "A row per layer, category and resample: the same resamples for every network, so differences are paired.",
            layer=string("dotted name"),
            category=string("as in stability_layers"),
            resample=int32("number, from zero"),
            deviation=float64("mean over the filters"),
        ),
        table(
            "inferences",
            "A row per layer, picture and filter: where the filter is highest.",
            layer=string("dotted name"),
            image=int32("number of the picture"),
            filter=int32("number of the filter"),
            x=float32("centre of the cell's receptive field, in pixels of the frame"),
            y=float32("centre of the cell's receptive field, in pixels of the frame"),
            score=float32("value there"),
        ),
        table(
            "part_interpretability",
            "A row per filter, category and part; only where the data set has part masks.",
            layer=string("dotted name"),
            filter=int32("number of the filter"),
            category=string("the pictures' class"),
            part=string("concept of the category part"),
            images=int32("pictures that show the part"),
            share=float64("of these in which the filter's lit fields fit the part's mask (IoU above 0.2)"),
        ),
    ),
)
