"""Stage `tree`: the decision tree of a network's rationales for one category."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn

from microtome.disentangle.decision_tree import RationaleExamples, grow
from microtome.disentangle.examples import HELD_OUT, TRAIN, examples
from microtome.disentangle.filter_parts import FilterParts, no_parts, parts_by_concept, parts_by_landmark
from microtome.disentangle.fitted_tree import fit_tree, imitators
from microtome.disentangle.rationales import LayersAbove, RawRationales, joined
from microtome.disentangle.readings import read_tree
from microtome.disentangle.rule_features import CELL_BYTES, FeatureChoice
from microtome.disentangle.tree_metrics import Answers, HeldOut, judged, network_itself
from microtome.errors import InputError
from microtome.networks import LayerGeometry, walk
from microtome.quantify.stability import cell_centres
from storage import Draft
from tasks.dissection.result import Dissection
from tasks.finetuning.result import Finetuned
from tasks.finetuning.sets import Sets
from tasks.session import Session
from tasks.subject import Subject, network_of
from tasks.tree import PlannedTree
from tasks.tree.deletion import Deletions
from tasks.tree.nodes import Grown, paper_nodes, visited_nodes
from tasks.tree.pictures import BATCH, TreePictures, chosen, said_of
from tasks.tree.writing import MadeTree, PictureRationales, write, write_metrics

Maps = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Inputs(Sets):
    """Pictures of a category and of others, the network under audit or a fine-tuned one, and the first's dissection."""

    network: Subject | None = None
    finetuned: Finetuned | None = None
    dissection: Dissection | None = None


def run(options: PlannedTree, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Grow the tree on the training pictures, judge it on the others."""
    pictures = _pictures(options, inputs, session)
    network = network_of(inputs).to(session.device)
    tail = LayersAbove(network, options.layer, _output(options, inputs, pictures, network))
    tail.check(pictures.batch(pictures.places(TRAIN, True)[:BATCH]))
    session.begin(2 * len(pictures), "pictures and merges")
    raw, cells = _rationales(pictures, tail, options, session)
    geometry = _geometry(options, inputs, network)
    seen = PictureRationales.of(raw, pictures, geometry, options)
    parts = _parts(inputs, pictures, seen)
    choice = FeatureChoice(raw, seen.scale, seen.kept, cells)
    with threadpool_limits(1):  # sums split over threads round differently
        grown, root = _grown(options, pictures, seen, choice, session=session)
        removed = _removed(pictures, tail, parts.groups(), session)
        held = _held_out(pictures, seen, removed, parts.groups()[:, seen.scale.filters])
        split = _inside(pictures, seen), seen.inside(pictures.places(HELD_OUT))
        weighed = grown.features == "cells"
        others = [network_itself(held), *root, *imitators(grown.read, choice, split, cells=weighed, seed=session.seed)]
        found = judged(grown.read.of(split[1]), held, others)
    deleted = Deletions(pictures, tail, seen, session).metrics(grown.read, split)
    write_metrics(draft, [*found, *deleted])
    write(draft, MadeTree(options, pictures, seen, parts, grown), tail.output)


def _grown(
    options: PlannedTree, pictures: TreePictures, seen: PictureRationales, choice: FeatureChoice, *, session: Session
) -> tuple[Grown, list[Answers]]:
    """The tree, and what the rule at its root says of the held-out pictures, if it has one."""
    if options.rule == "paper":
        tree = grow(_examples(pictures, seen, options.selection), session.advance)
        return Grown(paper_nodes(tree), read_tree(tree, seen.data), options.averaged), []
    inside, data = _inside(pictures, seen), seen.data
    wanted = None if options.positions == "chosen" else options.positions
    made = fit_tree(data.g, choice, inside, features=wanted, seed=session.seed)
    session.advance(len(pictures))
    unseen = seen.inside(pictures.places(HELD_OUT))
    return Grown(visited_nodes(made), made.read, made.features), [made.root(unseen)]


def _inside(pictures: TreePictures, seen: PictureRationales) -> NDArray[np.int64]:
    """Places of the training pictures among the kept ones."""
    inside = seen.inside(pictures.places(TRAIN))
    positive = pictures.positive[seen.kept[inside]]
    if positive.sum() < 2 or positive.all():
        raise InputError(
            f"tree: needs two positives and a negative, got {int(positive.sum())} and {int((~positive).sum())}; with "
            "positives alone there is nothing to decide"
        )
    return inside


def _pictures(options: PlannedTree, inputs: Inputs, session: Session) -> TreePictures:
    """The pictures, split as the network's fine-tuning split them, or by the same rule."""
    if inputs.finetuned:
        every = inputs.finetuned.examples
    else:
        every = examples(inputs.labelled(), options.category, seed=session.seed)
    some, label = chosen(every, options.category, options.images, session.seed)
    return TreePictures(inputs, some, label, session.device)


def _output(options: PlannedTree, inputs: Inputs, pictures: TreePictures, network: nn.Module) -> int:
    """The network's output that stands for the category: as asked for, or what it says of most positives."""
    if options.output is not None:
        return options.output
    if inputs.finetuned:
        alone = len(pictures.examples.categories) == 2
        return 0 if alone else pictures.label
    return said_of(network, pictures, pictures.places(TRAIN, True))


def _rationales(
    pictures: TreePictures, tail: LayersAbove, options: PlannedTree, session: Session
) -> tuple[RawRationales, tuple[Maps, Maps] | None]:
    """Of all pictures; and x and g of every cell, where they are looked at and not too many."""
    parts, x, g = [], [], []
    keep = options.rule == "visitors" and options.positions in ("chosen", "cells")
    for start in range(0, len(pictures), BATCH):
        places = range(start, min(start + BATCH, len(pictures)))
        raw, maps, slope = tail.whole(pictures.batch(places))
        keep = keep and 2 * maps[0].numel() * maps.element_size() * len(pictures) <= CELL_BYTES
        if keep:
            x.append(maps.flatten(2).numpy())
            g.append(slope.flatten(2).numpy())
        parts.append(raw)
        session.advance(len(places))
    if options.positions == "cells" and not keep:
        raise InputError(
            f"tree.positions: the cells of all pictures must fit {CELL_BYTES / 1e9:g} GB, got {len(pictures)} of "
            "them; lower `images`, or take weighted"
        )
    return joined(parts), (np.concatenate(x), np.concatenate(g)) if keep else None


def _geometry(options: PlannedTree, inputs: Inputs, network: nn.Module) -> LayerGeometry:
    """Of the layer, or of the map that a mask was put on: masks keep cells where they are."""
    layer = options.layer.replace("_mask", "_map") if inputs.finetuned else options.layer
    return walk(network, inputs.index.frame.size, [layer])[0]


def _parts(inputs: Inputs, pictures: TreePictures, seen: PictureRationales) -> FilterParts:
    """By landmarks, over the positives; else by dissection."""
    own = pictures.places(TRAIN, True)
    marks = [index.source.landmarks(image) for index, image in map(pictures.located, own.tolist())]
    if any(marks):
        return parts_by_landmark(seen.raw.peak[own], cell_centres(seen.geometry), marks)
    if inputs.dissection:
        rows = inputs.dissection.units(seen.geometry.name)
        said = [row["concept"] if row["detector"] else None for row in rows]
        return parts_by_concept(said, np.array([row["iou"] or 0.0 for row in rows]))
    return no_parts(seen.raw.x.shape[1])


def _examples(pictures: TreePictures, seen: PictureRationales, selection: str) -> RationaleExamples:
    positives, negatives = (seen.inside(pictures.places(TRAIN, side)) for side in (True, False))
    return RationaleExamples(seen.data.of(positives), seen.data.of(negatives), selection)


def _removed(
    pictures: TreePictures, tail: LayersAbove, groups: NDArray[np.bool_], session: Session
) -> NDArray[np.float64]:
    """(held-out pictures, parts) the decision without each part's filters."""
    unseen = pictures.places(HELD_OUT)
    if not len(groups):
        return np.zeros((len(unseen), 0))
    parts = []
    for start in range(0, len(unseen), BATCH):
        parts.append(tail.without(pictures.batch(unseen[start : start + BATCH]), groups))
        session.check()
    return np.concatenate(parts)


def _held_out(
    pictures: TreePictures, seen: PictureRationales, removed: NDArray[np.float64], groups: NDArray[np.bool_]
) -> HeldOut:
    unseen = pictures.places(HELD_OUT)
    inside = seen.inside(unseen)
    positive = pictures.positive[seen.kept[inside]]
    if not positive.any() or positive.all():
        raise InputError(
            f"tree: needs held-out pictures of the category and of others, got {int(positive.sum())} of "
            f"{len(positive)}; use a larger data set"
        )
    return HeldOut(seen.data.of(inside), positive, removed[np.isin(unseen, seen.kept[inside])], groups)
