"""Page of attacks: what moves inside the network, and in what the audit says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from microtome.report import views
from microtome.visualize.measures import EXPLANATIONS, SHARES, AttackMeasure, MeasureKind

FLIPPED = AttackMeasure(MeasureKind.FLIPPED)
CONTROL = "noise like "
OF_UNITS = frozenset({MeasureKind.UNITS_CHANGED, MeasureKind.UNITS_KEPT})
WIDEST = 2  # measures beside each other, each with its control
EXPLAINED = {
    MeasureKind.FLIPPED: "prediction flipped: share of pictures of which the network now says another class",
    MeasureKind.LOGIT_LOST: "logit lost: how much the score of the class that it said before fell, before softmax",
    MeasureKind.UNITS_CHANGED: "change of units: how far the layer's values moved, by their own size",
    MeasureKind.UNITS_KEPT: "strongest units kept: share of the picture's strongest units that still are",
    MeasureKind.SALIENCY: "saliency, spearman: rank correlation of the gradient map with the one before, 1 is unmoved",
    MeasureKind.LABELS_KEPT: "detectors that keep their label: of those that detect their own concept on "
    "the same pictures unchanged (so many of them), the share that still do",
    MeasureKind.TREE_NODE_KEPT: "second-layer node kept: share of pictures that the tree decides in the same way",
    MeasureKind.TREE_PATH_KEPT: "share of the path kept: how much of a picture's way through the tree stays",
    MeasureKind.NODES_SHIFTED: "shift of strongest nodes: how far the graph's patterns moved, by the picture's side",
    MeasureKind.NODES_KEPT: "strongest nodes kept: share of the graph's strongest part patterns that still are",
}


class AttackKind(NamedTuple):
    """How pictures were changed, and how much, of 255."""

    name: str
    eps: float


class AttackRow(TypedDict):
    """What the page reads of a row of the table `adversarial`."""

    attack: str
    eps: float
    measure: str
    value: float
    low: float
    high: float
    n: int
    detectors: int | None


class AttackedNumbers(TypedDict):
    """A row of the table `attacked_images`, without names of classes."""

    attack: str
    norm: str
    eps: float
    image: int
    before: int
    after: int
    file: str


class AttackedRow(AttackedNumbers):
    """The row with names, where the network's classes have any."""

    before_name: str | None
    after_name: str | None


@dataclass(frozen=True)
class AttackedPicture:
    """A picture before and after.

    Args:
        row: of the table `attacked_images`.
        file: its name.
        thumb: path of its thumbnail.
        changed, difference: paths.
    """

    row: AttackedRow
    file: str
    thumb: str
    changed: str
    difference: str


@dataclass(frozen=True)
class AttackFindings:
    """What attacks moved.

    Args:
        figures: rows of the table `adversarial`, by attack and measure, in the table's order.
        pictures: that are shown.
        size: (height, width) of the frame.
        steps: of PGD.
    """

    figures: Mapping[tuple[AttackKind, AttackMeasure], AttackRow]
    pictures: Sequence[AttackedPicture]
    size: tuple[int, int]
    steps: int

    @property
    def kinds(self) -> list[AttackKind]:
        """Attacks and controls, each once."""
        return list(dict.fromkeys(kind for kind, _ in self.figures))

    @property
    def measures(self) -> list[AttackMeasure]:
        """Each once."""
        return list(dict.fromkeys(measure for _, measure in self.figures))


def page(found: AttackFindings) -> views.Page:
    """The page."""
    return views.Page(
        name="adversarial",
        subject="the attacks",
        title="Adversarial attacks",
        page="adversarial.html",
        headline=_headline(found),
        figures=views.Figures(
            [(_said(kind), *_flipped(found, kind)) for kind in found.kinds if not kind.name.startswith(CONTROL)]
        ),
        sections=[*_attacked(found), *_groups(found)],
        queries=[("Attacks", "select * from adversarial order by eps, attack")],
    )


def _groups(found: AttackFindings) -> Iterator[views.Section]:
    """What moves: of the network, of its units, of what the audit says of it."""
    groups = {
        "What moves in the network": [m for m in found.measures if m.kind not in EXPLANATIONS | OF_UNITS],
        "What moves in its units": [m for m in found.measures if m.kind in OF_UNITS],
        "What moves in what the audit says of it": [m for m in found.measures if m.kind in EXPLANATIONS],
    }
    asked = {what: measures for what, measures in groups.items() if measures}
    note: list[views.Part] = [_note(found)]
    for what, measures in asked.items():
        tables = [_moved(found, measures[at : at + WIDEST]) for at in range(0, len(measures), WIDEST)]
        yield views.Section(what, [*note, views.Text(_about(measures), "quiet"), *tables])
        note = []


def _said(kind: AttackKind) -> str:
    """An attack as pages name it, for example `noise like PGD, 4/255`."""
    return f"{_short(kind.name)}, {kind.eps:g}/255"


def _short(name: str) -> str:
    """Its name without its size: attacks are known by their initials."""
    return f"{CONTROL}{name.removeprefix(CONTROL).upper()}" if name.startswith(CONTROL) else name.upper()


def _headline(found: AttackFindings) -> str:
    flips = [(kind, found.figures[kind, FLIPPED]) for kind in found.kinds]
    strongest, row = max(flips, key=lambda item: (item[1]["value"], -item[0].eps))
    control = found.figures[_noise(strongest), FLIPPED]
    attacks = [other["value"] for kind, other in flips if not kind.name.startswith(CONTROL)]
    alone = attacks.count(row["value"]) == 1
    strong = f"The strongest of {len(attacks)} attacks" if len(attacks) > 1 else "The attack"
    said = strong if alone else "The weakest of the attacks that flip most"
    return (
        f"{said}, {_short(strongest.name)} that moves no pixel by more than {strongest.eps:g} of 255 "
        f"grey levels, flips {_cell(row, FLIPPED)} of {row['n']} predictions; random noise of the same size flips "
        f"{_cell(control, FLIPPED)}."
    )


def _noise(kind: AttackKind) -> AttackKind:
    """The control of an attack."""
    return AttackKind(f"{CONTROL}{kind.name}", kind.eps)


def _flipped(found: AttackFindings, kind: AttackKind) -> tuple[str, str]:
    """Share of predictions that an attack flips, its interval, and the share that noise of its size does."""
    row, noise = found.figures[kind, FLIPPED], found.figures.get((_noise(kind), FLIPPED))
    beside = f"; noise of that size {noise['value']:.0%}" if noise else ""
    return f"{row['value']:.0%}", f"predictions flipped, 95 %: {row['low']:.0%} to {row['high']:.0%}{beside}"


def _note(found: AttackFindings) -> views.Text:
    steps = f"{found.steps} steps of a quarter of the bound" if found.steps > 1 else "one step of the whole bound"
    faint = (
        " An attack of less than one grey level survives no 8-bit file: rounded, what is less than half a level is "
        "gone, and what is more becomes a whole one. It is measured on the exact values."
        if any(kind.eps < 1 for kind in found.kinds)
        else ""
    )
    others = {MeasureKind.TREE_NODE_KEPT, MeasureKind.NODES_KEPT}
    own = " Tree and graph speak of pictures of their own category." if others & set(found.measures) else ""
    return views.Text(
        "An attack moves every pixel by at most so many of 255 grey levels, so that the network's prediction suffers: "
        f"FGSM (fast gradient sign) in one step, PGD (projected gradient descent) in {steps}, from one random start; "
        "from more starts it may do more. “By noise”: every pixel moved as far in a random direction; what does not "
        "exceed it is no effect of the attack. Means over pictures with 95 % intervals (of shares by Wilson, else by "
        f"bootstrap).{own}{faint}",
        "quiet",
    )


def _about(measures: Sequence[AttackMeasure]) -> str:
    """What the measures of a table are, in a sentence each."""
    told = dict.fromkeys(EXPLAINED[measure.kind] for measure in measures)
    return "; ".join(told)[:1].upper() + "; ".join(told)[1:] + "."


def _moved(found: AttackFindings, measures: Sequence[AttackMeasure]) -> views.Table:
    """A row per attack, and for each measure a column, with that of noise of its size beside it."""
    lines = []
    for kind in found.kinds:
        if not kind.name.startswith(CONTROL):
            both = [
                (found.figures.get((one, measure)), measure) for measure in measures for one in (kind, _noise(kind))
            ]
            lines.append([_said(kind), *(_cell(row, measure) for row, measure in both)])
    columns = [(name, True) for measure in measures for name in (str(measure), "by noise")]
    return views.Table([("attack", False), *columns], lines)


def _cell(row: AttackRow | None, measure: AttackMeasure) -> str:
    """Shares in whole percents, as everywhere on the page; other figures with two digits."""
    if row is None:
        return "–"
    form = ".0%" if measure.kind in SHARES or measure.kind is MeasureKind.LABELS_KEPT else ".2f"
    value, low, high = (f"{number:{form}}" for number in (row["value"], row["low"], row["high"]))
    count = f" of {row['detectors']}" if row["detectors"] else ""
    return f"{value} [{low}, {high}]{count}".replace("-0.00", "0.00").replace("-0%", "0%")


def _named(number: int, name: str | None) -> str:
    return name or f"class {number}"


def _held(row: AttackedRow) -> str:
    return "the same" if row["before"] == row["after"] else _named(row["after"], row["after_name"])


def _attacked(found: AttackFindings) -> list[views.Section]:
    """Each picture of which the network says something else, by the weakest attack that makes it do so; then, folded,
    what stronger attacks do to the same, and the pictures of which it says the same."""
    text = (
        "What the network says before and after, each picture by the weakest attack that flips it. The difference is "
        "drawn at full contrast: grey is no change, the extremes are the attack's size. The shown files are "
        "rounded and compressed; what was measured was not."
    )
    if any(shown.row["before_name"] is None for shown in found.pictures):
        text += " Classes have numbers here: nobody says what the network's outputs are called."
    other, same = ([shown for shown in found.pictures if (shown.row["before"] == shown.row["after"]) is kept]
                   for kept in (False, True))  # fmt: skip
    rising = sorted(other, key=lambda shown: shown.row["eps"])
    first = {shown.row["image"]: shown for shown in reversed(rising)}.values()
    sections = [
        ("Predictions that an attack flips", [views.Text(text, "quiet")], [one for one in rising if one in first]),
        ("The same pictures under the other attacks", [], [one for one in rising if one not in first]),
        ("Predictions that an attack does not flip", [], same),
    ]
    return [
        views.Section(
            heading, [*told, views.Gallery([_card(one, found.size) for one in some])], folded=bool(other) and not told
        )
        for heading, told, some in sections
        if some
    ]


def _card(shown: AttackedPicture, size: tuple[int, int]) -> views.Card:
    row = shown.row
    return views.Card(
        _said(AttackKind(row["attack"], row["eps"])),
        f"attacked/{row['attack']}-{row['eps']:g}/{row['image']}".replace(" ", "-"),
        f"{_named(row['before'], row['before_name'])} → {_held(row)}",
        [
            views.Spot(shown.thumb, shown.file, size, (), (), "before"),
            views.Spot(shown.changed, "attacked picture", size, (), (), "after"),
            views.Spot(shown.difference, "difference", size, (), (), "difference"),
        ],
    )
