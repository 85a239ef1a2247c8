"""A decision tree as the stage `tree` wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.decision_tree import Merge, Tree, structure
from microtome.disentangle.parse_paths import FrozenTree, ParsedPictures
from microtome.disentangle.rationales import FilterScale, Rationales, RawRationales
from microtome.disentangle.readings import Readings, read_tree, read_visited
from microtome.disentangle.routes import Routes, children_of
from microtome.disentangle.rule_features import FeatureChoice, Features
from microtome.disentangle.rules import Rule
from microtome.networks.geometry import LayerGeometry
from storage.tables import ReadRow
from tasks.activations.result import geometry_from
from tasks.result import StageResult
from tasks.thumbnails import kept_thumbnails
from tasks.tree import TreeOptions

ARRAYS, ABOUT = "arrays.safetensors", "tree-about.json"


@dataclass(frozen=True)
class GrownTree(StageResult):
    """A tree, and the pictures that it grew from or is judged by, in the order of `pictures`."""

    @property
    def options(self) -> TreeOptions:
        """What it was made with."""
        return TreeOptions.model_validate(self.parameters)

    @property
    def category(self) -> str:
        """That the decision is about."""
        return str(self._about["category"])

    @property
    def parts_source(self) -> str:
        """What the parts of filters rest on."""
        return str(self._about["parts"])

    @property
    def rule(self) -> str:
        """How the tree was made: visitors, or paper."""
        return str(self._about["rule"])

    @property
    def features(self) -> Features:
        """What its rules weigh."""
        features: Features = self._about["features"]
        return features

    @property
    def filters(self) -> int:
        """How many of the layer are not silent."""
        return len(self._arrays["filters"])

    @property
    def geometry(self) -> LayerGeometry:
        """Of the filters' layer."""
        return geometry_from(self._about["geometry"])

    @cached_property
    def pictures(self) -> list[ReadRow]:
        """The rows of the table `tree_images`."""
        return self.rows("tree_images")

    @cached_property
    def nodes(self) -> list[ReadRow]:
        """The rows of the table `tree_nodes`, by number; the root is the last."""
        return self.rows("tree_nodes")

    @property
    def peak(self) -> NDArray[np.int32]:
        """(pictures, filters of the layer) cell of each filter's highest activation, -1 where it is silent."""
        peak: NDArray[np.int32] = self._arrays["peak"]
        return peak

    @cached_property
    def thumbnails(self) -> list[bytes]:
        """Each picture, made small, as WebP."""
        return kept_thumbnails(self.artifact)

    @cached_property
    def routes(self) -> Routes:
        """Where pictures go in the tree."""
        root = len(self.nodes) - 1
        parent = [-1 if row["parent"] == root else row["parent"] for row in self.nodes[:-1]]
        top = [node for node, above in enumerate(parent) if above < 0]
        return Routes(self._arrays["direction"], children_of(parent), top)

    @cached_property
    def read(self) -> Readings:
        """What the tree says of all pictures."""
        paths: list[list[int]] = []
        rows = self.rows("tree_paths")
        for row in rows:
            if row["depth"] == 2:
                paths.append([])
            paths[-1].append(row["node"])
        cosine, estimate = (np.array([row[name] for row in rows], np.float64) for name in ("cosine", "estimate"))
        data = self.data
        own, rho = data.g * data.x * data.norm[:, None], self._arrays["rho"].astype(np.float64)
        return Readings(paths, cosine, estimate, rho, data.y * data.norm, own)

    @cached_property
    def data(self) -> Rationales:
        """Of all pictures, over the kept filters."""
        x, g, y, norm = (self._arrays[name] for name in ("x", "g", "y", "norm"))
        return Rationales(x, g, y, y - (g * x).sum(1), norm)

    @cached_property
    def parsed(self) -> ParsedPictures:
        """The pictures in the tree."""
        parts = self.table("tree_filters", ["part"]).column("part").to_pylist()
        return ParsedPictures(self.read, self._arrays["filters"], parts)

    def reading(self, raw: RawRationales, cells: tuple[NDArray[np.float32], NDArray[np.float32]]) -> Readings:
        """What it says of pictures that it has never seen.

        Args:
            raw: their rationales; the decision's gradient must not be zero.
            cells: (pictures, filters of the layer, cells) x and g.
        """
        scale = self.frozen.scale
        data, kept = scale.apply(raw)
        if self.rule == "paper":
            return read_tree(self._merged, data)
        rules = [Rule(w, float(b)) for w, b in zip(self._arrays["w"], self._arrays["b"], strict=True)]
        return read_visited(self.routes, rules, data.g, FeatureChoice(raw, scale, kept, cells).evidence(self.features))

    @property
    def _merged(self) -> Tree:
        """The paper's tree, from its log."""
        w, b, kept = (self._arrays[name] for name in ("w", "b", "kept"))
        merges = [Merge(**row) for row in self.rows("tree_merges")]
        members, parent, children = structure(len(b) - len(merges), merges)
        return Tree(w, b, kept.astype(bool), parent, children, members, merges)

    @property
    def frozen(self) -> FrozenTree:
        """The tree with all that is needed to find its paths in new pictures."""
        about = self._about
        scale = FilterScale(self._arrays["size"], self._arrays["filters"], about["positions"])
        return FrozenTree(self.routes, scale, about["layer"], about["output"], self.category)

    @cached_property
    def _about(self) -> Mapping[str, Any]:
        about: Mapping[str, Any] = self.artifact.json(ABOUT)
        return about

    @cached_property
    def _arrays(self) -> Mapping[str, NDArray[Any]]:
        from safetensors.numpy import load

        arrays: Mapping[str, NDArray[Any]] = load(self.artifact.read(ARRAYS))
        return arrays
