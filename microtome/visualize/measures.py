"""What is measured of attacked pictures: typed keys, and the words that tables have for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class MeasureKind(Enum):
    """A kind of figure; its value is the table's word for it, `{}` standing for whom it is about."""

    FLIPPED = "prediction flipped"
    LOGIT_LOST = "logit lost"
    UNITS_CHANGED = "{}: change of units"
    UNITS_KEPT = "{}: strongest units kept"
    SALIENCY = "saliency, spearman"
    TREE_NODE_KEPT = "tree of {}: second-layer node kept"
    TREE_PATH_KEPT = "tree of {}: share of the path kept"
    NODES_SHIFTED = "graph: shift of strongest nodes, by the side"
    NODES_KEPT = "graph: strongest nodes kept"
    LABELS_KEPT = "{}: detectors that keep their label"


# Shares of each picture, 0 to 1: their means are shares, too.
SHARES = frozenset(
    {
        MeasureKind.FLIPPED,
        MeasureKind.UNITS_KEPT,
        MeasureKind.TREE_NODE_KEPT,
        MeasureKind.TREE_PATH_KEPT,
        MeasureKind.NODES_KEPT,
    }
)
# Of the audit's own explanations of the network, rather than of the network itself.
EXPLANATIONS = frozenset(
    {
        MeasureKind.TREE_NODE_KEPT,
        MeasureKind.TREE_PATH_KEPT,
        MeasureKind.NODES_SHIFTED,
        MeasureKind.NODES_KEPT,
        MeasureKind.LABELS_KEPT,
    }
)


@dataclass(frozen=True)
class AttackMeasure:
    """A figure about attacked pictures.

    Args:
        kind: of figure.
        of: the layer, or the tree's category, that it is about; empty where it is about the network.
    """

    kind: MeasureKind
    of: str = ""

    def __str__(self) -> str:
        """The table's word for it."""
        return self.kind.value.replace("{}", self.of)

    @classmethod
    def read(cls, text: str) -> AttackMeasure:
        """The measure that a table's word means. Raises ValueError for any other word."""
        if text in _PLAIN:
            return cls(_PLAIN[text])
        for kind in MeasureKind:
            head, braces, tail = kind.value.partition("{}")
            if braces and text.startswith(head) and text.endswith(tail):
                return cls(kind, text[len(head) : len(text) - len(tail)])
        raise ValueError(f"a measure must be one of {', '.join(k.value for k in MeasureKind)}, got {text!r}")


_PLAIN: Mapping[str, MeasureKind] = {kind.value: kind for kind in MeasureKind if "{}" not in kind.value}
