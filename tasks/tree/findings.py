"""What the report shows of a decision tree, and `explain` of one picture in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.examples import TRAIN
from microtome.disentangle.parse_paths import FilterShare, ParsedPictures
from microtome.disentangle.rationales import RawRationales
from microtome.quantify.novelty import novelty
from microtome.quantify.stability import cell_centres
from microtome.report.tree import (
    FilterRole,
    ParsePath,
    ShownNode,
    SpottedPicture,
    TreeFindings,
    TreeMetricRow,
    TreeNode,
)
from microtome.report.views import UnitKey
from tasks.pages.shown import Shown
from tasks.tree.result import GrownTree

SHOWN_NODES, SHOWN_PICTURES, SHOWN_PATHS = 12, 5, 4
MARKED_FILTERS = 3
STRONGEST = 8  # filters of a node that say that it is theirs
Picture = Callable[[str, bytes], str]


def findings(shown: Shown) -> TreeFindings:
    """The tree, the ways to decide, the other nodes that most pictures visit, and some parse paths."""
    told = TreeShown(shown.result("tree", GrownTree), shown.picture)
    own = shown.jobs["tree"].reads.get("network") is not None  # and not a fine-tuned one, whose filters are others
    return replace(told.findings(), roles=told.roles() if own else {})


@dataclass(frozen=True)
class NewPicture:
    """A picture that a tree has never seen.

    Args:
        file: it.
        thumbnail: the picture made small, as WebP.
        raw: its rationale.
        cells: (1, filters of the layer, cells) x and g.
    """

    file: Path
    thumbnail: bytes
    raw: RawRationales
    cells: tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class TreeShown:
    """A grown tree as pages show it.

    Args:
        grown: the tree.
        picture: takes a picture's path and content; gives the path.
    """

    grown: GrownTree
    picture: Picture

    def findings(self) -> TreeFindings:
        """All that the report shows."""
        grown = self.grown
        visited = [node for node in self.nodes if node.visited and (node.below or grown.rule == "visitors")]
        first = sorted(visited, key=lambda node: (node.number not in grown.routes.top, *_by_visits(node)))
        return TreeFindings(
            category=grown.category,
            parts_source=grown.parts_source,
            nodes=self.nodes,
            top=list(grown.routes.top),
            filters=grown.filters,
            fitted=grown.rule == "visitors",
            features=grown.features,
            metrics=grown.typed("tree_metrics", TreeMetricRow),
            shown=[self._node(node.number) for node in first[:SHOWN_NODES]],
            paths=[self.path(place) for place in self._typical()],
        )

    @cached_property
    def nodes(self) -> list[TreeNode]:
        """All, by number."""
        files = {row["leaf"]: row["file"] for row in self.grown.pictures if row["leaf"] is not None}
        return [
            TreeNode(
                number=row["node"],
                pictures=row["images"],
                filters=row["filters"],
                visits=row["held_out"],
                below=below,
                file=files.get(row["node"]),
                others=row["other_held_out"],
            )
            for row, below in zip(self.grown.nodes[:-1], self.grown.routes.below, strict=True)
        ]

    def path(self, place: int) -> ParsePath:
        """A picture's parse path.

        Args:
            place: of the picture among those of the tree.
        """
        parsed, row = self.grown.parsed, self.grown.pictures[place]
        first = parsed.paths[place][0]
        belongs, how = (
            "" if row["positive"] else "not ",
            "held out" if row["split"] != TRAIN else "the tree grew from it",
        )
        standing = f"the picture is {belongs}of the category, {how}"
        return self._path(parsed, place, f"{place:06d}", self._spotted(place, first), standing=standing)

    def new_path(self, new: NewPicture) -> ParsePath:
        """The parse path of a picture that the tree has never seen."""
        grown = self.grown
        parsed = replace(grown.parsed, read=grown.reading(new.raw, new.cells))
        strongest = parsed.filter_shares(0, parsed.paths[0][0])
        thumb = self.picture(f"assets/tree/{new.file.stem}.webp", new.thumbnail)
        spotted = self._circled(thumb, new.file.name, new.raw.peak[0], strongest)
        path = self._path(parsed, 0, new.file.stem, spotted, standing="the tree has never seen the picture")
        return replace(path, novelty=novelty(grown.data.x, grown.frozen.scale.sums(new.raw)[0][0]))

    def _path(
        self, parsed: ParsedPictures, place: int, name: str, spotted: SpottedPicture, *, standing: str
    ) -> ParsePath:
        steps = parsed.steps(place)
        return ParsePath(
            name=name,
            spotted=spotted,
            category=self.grown.category,
            standing=standing,
            decision=parsed.decision(place),
            steps=[(step, parsed.filter_shares(place, step.node)) for step in steps],
            nodes=[self.nodes[step.node] for step in steps],
            parts=parsed.part_shares(place, steps[0].node),
        )

    def roles(self) -> dict[UnitKey, FilterRole]:
        """What each filter does in decisions for the category."""
        grown, held = self.grown, [row["positive"] and row["split"] != TRAIN for row in self.grown.pictures]
        adds = grown.read.own[np.array(held, bool)].mean(0) if any(held) else np.zeros(grown.filters)
        ranks = np.argsort(np.argsort(-np.abs(adds), kind="stable")) + 1
        strong: dict[int, list[int]] = {}
        positive = np.array([row["positive"] for row in grown.pictures], bool)
        for node in self.findings().shown:
            for share in self._strongest(node.number, positive):
                strong.setdefault(share.number, []).append(node.number)
        return {
            UnitKey(grown.frozen.layer, number): FilterRole(
                grown.parsed.parts[place], float(adds[place]), int(ranks[place]), grown.filters, strong.get(number, [])
            )
            for place, number in enumerate(grown.parsed.filters.tolist())
        }

    def _strongest(self, node: int, among: NDArray[np.bool_]) -> list[FilterShare]:
        """The filters that add most in the nearest of these pictures that comes to a node; none where none does."""
        near = self.grown.parsed.nearest(node, among)[:1]
        return [share for place in near for share in self.grown.parsed.filter_shares(place, node)[:STRONGEST]]

    def _typical(self) -> list[int]:
        """Held-out pictures of the category: some of the way that most of them take, and one of the next."""
        by_node: dict[int, list[int]] = {}
        for place, row in enumerate(self.grown.pictures):
            if row["positive"] and row["split"] != TRAIN:
                by_node.setdefault(self.grown.parsed.paths[place][0], []).append(place)
        ways = sorted(by_node, key=lambda number: _by_visits(self.nodes[number]))
        other = [by_node[number][0] for number in ways[1:2]]
        return [*(place for number in ways[:1] for place in by_node[number][: SHOWN_PATHS - len(other)]), *other]

    def _node(self, number: int) -> ShownNode:
        node = self.nodes[number]
        wanted = np.array([row["positive"] for row in self.grown.pictures], bool) == (node.visits >= node.others)
        near = self.grown.parsed.nearest(number, wanted)[:SHOWN_PICTURES]
        parts = self.grown.parsed.part_shares(near[0], number)
        return ShownNode(number, parts, [self._spotted(place, number) for place in near])

    def _spotted(self, place: int, node: int) -> SpottedPicture:
        """A picture, and where the filters that add most at a node are highest."""
        shares = self.grown.parsed.filter_shares(place, node)
        return self._circled(self._thumb(place), self.grown.pictures[place]["file"], self.grown.peak[place], shares)

    def _circled(
        self, thumb: str, file: str, peak: NDArray[np.int32], strongest: Sequence[FilterShare]
    ) -> SpottedPicture:
        geometry = self.grown.geometry
        size = (round(geometry.jump[0] * geometry.grid[0]), round(geometry.jump[1] * geometry.grid[1]))
        radius = round(min(min(geometry.field) / 2, size[0] / 7), 1)
        cells = [int(peak[share.number]) for share in strongest[:MARKED_FILTERS]]
        places = cell_centres(geometry)[[cell for cell in cells if cell >= 0]].tolist()
        return SpottedPicture(thumb, file, size, [(round(x, 1), round(y, 1), radius) for x, y in places])

    def _thumb(self, place: int) -> str:
        return self.picture(f"assets/tree/{place:06d}.webp", self.grown.thumbnails[place])


def _by_visits(node: TreeNode) -> tuple[int, int, int]:
    return -node.visits, -node.others, node.number
