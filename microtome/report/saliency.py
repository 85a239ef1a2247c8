"""Page of saliency: a gallery with the verdict beside every method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.report import views
from microtome.visualize.attribution import contrast

INVARIANCE = "input invariance"
JUDGED = (INVARIANCE, "randomisation", "class sensitivity")
EXPLAINED = {
    "gradient": "How the class's score changes with each pixel. Right about the network; noisy, and local: it says "
    "nothing about large changes.",
    "deconvolution": "Passes only positive signals back. Shows edges that any class shares.",
    "guided": "Gradient and deconvolution together. Sharp, and nearly independent of the class.",
    "input x gradient": "Picture times gradient. Changes with the coordinates of the input.",
    "integrated gradients": "Mean gradient on the way from black, times the picture. Depends on that baseline.",
    "smoothgrad": "Mean gradient over noisy copies. Smoother; the noise level decides what is seen.",
    "grad-cam": "Weighted maps of the last layer that the head reads, enlarged. Coarse; follows the class.",
    "rise": "The class's probability under random masks. Asks for answers alone: the control that knows no gradient.",
}
NAMES = {"guided": "guided backprop", "input x gradient": "input × gradient", "smoothgrad": "SmoothGrad",
         "grad-cam": "Grad-CAM", "rise": "RISE"}  # fmt: skip
"""What the field calls the methods whose names it writes otherwise."""
CONTROLS = {"edges": "the picture's edges", "centre": "the picture's centre"}
MEASURES = {
    "deletion": "Deletion, lower is better: the area under the class's probability while the picture's 16 × 16 squares "
    "are blacked out, those that the map marks most first (Petsiuk et al.). Chance: squares in random order.",
    "insertion": "Insertion, higher is better: the same area while they are brought back into a blurred picture.",
    "pointing": "Pointing: the share of pictures whose highest pixel lies in the object's box or mask, or close to it, "
    "where there is one that leaves half of the picture free; whatever class was predicted. Chance: a random pixel.",
}


class ReliabilityRow(TypedDict):
    """What the page reads of a row of the table `reliability`."""

    method: str
    test: str
    shift_or_layer: str
    value: float
    low: float
    high: float
    passed: bool | None


class MethodRow(TypedDict):
    """What the page reads of a row of the tables `saliency_methods` and `reliability_methods`."""

    method: str
    drawn: bool
    note: str


class FaithfulnessRow(TypedDict):
    """What the page reads of a row of the table `faithfulness`."""

    method: str
    measure: str
    value: float
    low: float
    high: float
    chance: float
    apart: float
    apart_low: float
    apart_high: float
    better: bool
    control: str
    beyond: float
    beyond_low: float
    beyond_high: float
    beats: bool
    n: int


@dataclass(frozen=True)
class SaliencyMaps:
    """A picture, and what each method makes of it.

    Args:
        image: its number.
        file: its name.
        thumb: path of its thumbnail.
        size: (height, width) of the frame.
        maps: method -> path of its map in colours.
        predicted: name of the class that the maps are of; empty where nobody says.
    """

    image: int
    file: str
    thumb: str
    size: tuple[int, int]
    maps: Mapping[str, str]
    predicted: str = ""


@dataclass(frozen=True)
class SaliencyFindings:
    """What is known of saliency on a network.

    Args:
        tests: rows of the table `reliability`; none where no test was asked for.
        pictures: with their maps; none where no maps were asked for.
        methods: what is to be known of each, left out or not.
        faithfulness: rows of the table of that name; none where no maps were asked for.
        limits: of each judged test, as the audit file gives them.
    """

    tests: Sequence[ReliabilityRow]
    pictures: Sequence[SaliencyMaps]
    methods: Sequence[MethodRow]
    faithfulness: Sequence[FaithfulnessRow]
    limits: Mapping[str, float] = field(default_factory=dict)


class State(Enum):
    """What came of a test; its value is the mark and the word for it."""

    PASSES = "✓ passes"
    FAILS = "✗ fails"
    UNDECIDED = "? undecided"

    @property
    def mark(self) -> str:
        """Alone."""
        return self.value[0]

    def shown(self, text: str, value: str) -> views.Badge:
        """With a value beside it, in its colour."""
        return views.Badge(text, {"✓": "good", "✗": "bad", "?": "warned"}[self.mark], value)


Verdict = Mapping[str, State]


def page(found: SaliencyFindings) -> views.Page:
    """The page."""
    verdicts = {name: _verdict(found, name) for name in dict.fromkeys(row["method"] for row in found.tests)}
    tested = [_table(found, verdicts)] if verdicts else []
    judged = [_faithfulness(found.faithfulness)] if found.faithfulness else []
    return views.Page(
        name="saliency",
        page="saliency.html",
        headline=" ".join([_headline(verdicts, _untested(found, verdicts)), *_worth(found.faithfulness)]),
        figures=views.Figures(_tiles(verdicts, _untested(found, verdicts))),
        sections=[
            *_gallery("One picture, by every method", found.pictures[:1], verdicts),
            *tested,
            *_gallery("More pictures", found.pictures[1:], verdicts, told=False),
            *judged,
            _made(found.methods),
            *_details(found.tests),
            _reading(),
        ],
        queries=[
            ("Verdicts", "select * from reliability where passed is not null"),
            ("Saliency maps", "select * from saliency"),
            ("Faithfulness", "select * from faithfulness order by measure, apart"),
        ],
    )


def _untested(found: SaliencyFindings, verdicts: Mapping[str, Verdict]) -> list[str]:
    """Methods that have maps, and no verdict; none where no test was asked for."""
    drawn = (method for shown in found.pictures for method in shown.maps)
    return [method for method in dict.fromkeys(drawn) if method not in verdicts] if verdicts else []


def named(method: str) -> str:
    """A method as the field calls it."""
    return NAMES.get(method, method)


def _over_all(verdict: Verdict) -> State:
    """Fails if any test fails; passes if all do."""
    states = set(verdict.values())
    return next((state for state in (State.FAILS, State.UNDECIDED) if state in states), State.PASSES)


def _tiles(verdicts: Mapping[str, Verdict], untested: Sequence[str]) -> list[tuple[str, str, str]]:
    """How many methods came to what."""
    if not verdicts:
        return []
    states = [_over_all(verdict) for verdict in verdicts.values()]
    return [
        ("methods tested", str(len(states)), f"all but {', '.join(map(named, untested))}" if untested else ""),
        ("pass every test", str(states.count(State.PASSES)), "the interval keeps every limit"),
        ("fail a test", str(states.count(State.FAILS)), "the interval lies beyond a limit"),
        ("undecided", str(states.count(State.UNDECIDED)), "the interval reaches across a limit"),
    ]


def _headline(verdicts: Mapping[str, Verdict], untested: Sequence[str]) -> str:
    if not verdicts:
        return "Maps of the predicted class. No test was asked for: add the stage reliability to know what to trust."
    by_state = {state: [name for name, verdict in verdicts.items() if _over_all(verdict) is state] for state in State}
    passed, failed, open_ = (by_state[state] for state in (State.PASSES, State.FAILS, State.UNDECIDED))
    told = [f"{_listed(passed) or 'No method'} {'passes' if len(passed) < 2 else 'pass'} every test."]
    if open_:
        told.append(f"Undecided, since an interval reaches across a limit: {_together(open_)}.")
    if failed:
        fails, those = ("fails", "its maps") if len(failed) == 1 else ("fail", "their maps")
        told.append(f"{_listed(failed)} {fails} at least one: {those} can look convincing all the same.")
    if untested:
        told.append(f"Not tested: {_together(untested)}.")
    return " ".join(told)


def _worth(rows: Sequence[FaithfulnessRow]) -> Iterator[str]:
    """Which methods say more than maps that know no network, and by how many pictures."""
    methods = dict.fromkeys(row["method"] for row in rows if row["method"] not in CONTROLS)
    sure = {row["method"] for row in rows if _stands(row, row["beyond_low"], row["beyond_high"]) is State.PASSES}
    better = [method for method in methods if method in sure]
    if methods:
        measures, pictures = len({row["measure"] for row in rows}), rows[0]["n"]
        where = f"in one of {measures} measures at least" if better else f"in any of {measures} measures"
        yield (
            f"{_listed(better) or 'No method'} surely {'says' if len(better) < 2 else 'say'} more of what the network "
            f"uses than the picture's edges or centre, which know no network, {where} ({pictures} pictures)."
        )


def _together(names: Sequence[str]) -> str:
    *most, last = map(named, names)
    return f"{', '.join(most)} and {last}" if most else last


def _listed(names: Sequence[str]) -> str:
    text = _together(names) if names else ""
    return text[:1].upper() + text[1:]


def _judged(found: SaliencyFindings, method: str, test: str) -> list[ReliabilityRow]:
    """The rows of a test that are judged."""
    return [
        row
        for row in found.tests
        if row["method"] == method and row["test"].startswith(test) and row["passed"] is not None
    ]


def _verdict(found: SaliencyFindings, method: str) -> dict[str, State]:
    """Of each test that is judged: the worst of its rows."""
    verdict = {}
    for test in JUDGED:
        states = [_state(row, found.limits.get(test)) for row in _judged(found, method, test)]
        if states:
            verdict[test] = _over_all({str(place): state for place, state in enumerate(states)})
    return verdict


def _state(row: ReliabilityRow, limit: float | None) -> State:
    """Where the interval lies beside the limit; a test that every picture has to pass knows no interval."""
    if limit is None or row["test"].startswith(INVARIANCE):
        return State.PASSES if row["passed"] else State.FAILS
    return State.PASSES if row["high"] <= limit else State.FAILS if row["low"] > limit else State.UNDECIDED


def _words(verdict: Verdict) -> str:
    return "; ".join(f"{state.value} {test}" for test, state in verdict.items())


def _table(found: SaliencyFindings, verdicts: Mapping[str, Verdict]) -> views.Section:
    columns = [("method", False), *((test, False) for test in JUDGED)]
    lines = [[named(method), *_tested(found, method, verdict)] for method, verdict in verdicts.items()]
    none = views.Badge("– not tested", "unjudged")
    lines += [[named(method), *[none] * len(JUDGED)] for method in _untested(found, verdicts)]
    count = sum(len(verdict) for verdict in verdicts.values())
    note = (
        "In brackets 95 % intervals over the pictures, and over the draws of randomisation; undecided, where one "
        f"reaches across the limit. Each of the {count} verdicts stands for itself: of those whose truth lies at the "
        "limit one in forty would pass by luck, and one in forty fail."
    )
    told = [f"{test[:1].upper()}{test[1:]}{_limit(found.limits.get(test))}: {_TESTS[test]}" for test in JUDGED]
    return views.Section("Verdict", [views.Table(columns, lines, note), views.Listed(told)])


_TESTS = {
    INVARIANCE: "how far the map moves, as a share of its own size, when the same function is computed on shifted "
    "pixels; mean over the pictures of the worst shift, and every single picture has to keep the limit.",
    "randomisation": "how alike (cosine, 1 is equal) the map stays after the network's last layer was drawn anew; mean "
    "over pictures and draws, as one draw alone may leave a map as it was by luck.",
    "class sensitivity": "how alike (cosine) the maps of the two best classes of a picture are. Maps that are nowhere "
    "negative (Grad-CAM) are compared about their means, in both.",
}


def _limit(limit: float | None) -> str:
    return "" if limit is None else f", at most {limit:g}"


def _tested(found: SaliencyFindings, method: str, verdict: Verdict) -> list[views.Cell]:
    """What came of each test."""
    return [
        verdict[test].shown(verdict[test].value, _worst(found, method, test))
        if test in verdict
        else views.Badge("– void", "unjudged", "the twin is not the same function")
        for test in JUDGED
    ]


def _worst(found: SaliencyFindings, method: str, test: str) -> str:
    pick = min if test == INVARIANCE else max
    row = pick(_judged(found, method, test), key=lambda item: item["value"])
    if test == INVARIANCE:
        return _between(*(max(0.0, 1 - row[key]) for key in ("value", "high", "low")))
    return _cell(row)


def _between(value: float, low: float, high: float) -> str:
    """With its interval, to two digits; what rounds to zero has no sign."""
    value, low, high = (round(each, 2) + 0.0 for each in (value, low, high))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _faithfulness(rows: Sequence[FaithfulnessRow]) -> views.Section:
    """A table per measure, a line per method and control."""
    parts: list[views.Part] = []
    for measure, words in MEASURES.items():
        mine = [row for row in rows if row["measure"] == measure]
        if mine:
            heads = (
                "method",
                "share" if measure == "pointing" else "area",
                "against chance",
                f"against {CONTROLS[mine[0]['control']]}",
            )
            columns = [(head, place == 1) for place, head in enumerate(heads)]
            parts.append(views.Text(f"{words} Chance has {mine[0]['chance']:.2f}; {mine[0]['n']} pictures."))
            parts.append(views.Table(columns, [_faithful(row) for row in mine], slim=True))
    note = (
        "Differences are paired, picture by picture, with 95 % intervals over the pictures: ✓, the interval lies on "
        "the good side of 0; ✗, on the bad side; ?, undecided, 0 lies within. The last column compares with the "
        "better of two maps that know no network: edges of the picture, and its centre. Nothing is corrected for how "
        f"many comparisons there are, {2 * len(rows)}: where nothing differed, one in forty would bear a ✓, and one in "
        "forty a ✗."
    )
    return views.Section("Does the network use what is marked?", [views.Text(note, "quiet"), *parts])


def _faithful(row: FaithfulnessRow) -> list[views.Cell]:
    name = row["method"]
    value = f"{row['value']:.2f}"
    apart = _marked(row, row["apart"], row["apart_low"], row["apart_high"])
    beyond = _marked(row, row["beyond"], row["beyond_low"], row["beyond_high"])
    return [CONTROLS.get(name, named(name)), value, apart, "–" if name == row["control"] else beyond]


def _marked(row: FaithfulnessRow, value: float, low: float, high: float) -> views.Badge:
    state = _stands(row, low, high)
    return state.shown(state.mark, f"{value:+.2f} [{low:+.2f}, {high:+.2f}]")


def _stands(row: FaithfulnessRow, low: float, high: float) -> State:
    """On which side of 0 a difference's whole interval lies."""
    lower_is_better = row["measure"] == "deletion"
    good, bad = (high < 0, low > 0) if lower_is_better else (low > 0, high < 0)
    return State.PASSES if good else State.FAILS if bad else State.UNDECIDED


def _made(methods: Sequence[MethodRow]) -> views.Section:
    """How each method is made on this network, and which it cannot have."""
    lines = [
        [
            named(row["method"]),
            row["note"] if row["drawn"] else f"left out: {row['note']}",
            EXPLAINED.get(row["method"], ""),
        ]
        for row in methods
    ]
    note = (
        "Maps and verdicts are of the same maps: by pixels in [0, 1]; where a method needs a picture of nothing, black."
    )
    columns = [("method", False), ("made here", False), ("known for", False)]
    return views.Section("The methods, and how their maps are made", [views.Table(columns, lines, note)], folded=True)


def _details(tests: Sequence[ReliabilityRow]) -> list[views.Section]:
    """A table per test: a row per shift, layer or control, a column per method; nothing without tests."""
    if not tests:
        return []
    names = list(dict.fromkeys(row["method"] for row in tests))
    groups: dict[str, dict[str, dict[str, ReliabilityRow]]] = {}
    for row in tests:
        if not row["test"].endswith(("spearman", "ssim")):
            groups.setdefault(row["test"], {}).setdefault(row["shift_or_layer"], {})[row["method"]] = row
    parts: list[views.Part] = []
    for test, lines in groups.items():
        cells: list[list[str | views.Strip]] = [
            [label, *(_cell(line.get(name)) for name in names)] for label, line in lines.items()
        ]
        parts.append(views.Text(f"{test[:1].upper()}{test[1:]}"))
        parts.append(views.Table([("", False), *((named(name), True) for name in names)], cells))
    note = "Spearman's correlation and SSIM are in the table reliability. Controls: edges of the picture, noise."
    return [views.Section("Every figure", [*parts, views.Text(note, "quiet")], folded=True)]


def _cell(row: ReliabilityRow | None) -> str:
    return "–" if row is None else _between(row["value"], row["low"], row["high"])


def _gallery(
    title: str, pictures: Sequence[SaliencyMaps], verdicts: Mapping[str, Verdict], *, told: bool = True
) -> list[views.Section]:
    """Pictures with their maps, and where `told` how to read these; nothing without pictures."""
    if not pictures:
        return []
    cards = []
    for shown in pictures:
        spots = [views.Spot(shown.thumb, shown.file, shown.size, (), (), "picture")]
        for method, path in shown.maps.items():
            verdict = verdicts.get(method, {})
            mark = f" {_over_all(verdict).mark if verdict else '–'}" if verdicts else ""
            words = _words(verdict) or "not tested"
            spots.append(views.Spot(path, f"{named(method)}: {words}", shown.size, (), (), f"{named(method)}{mark}"))
        cards.append(views.Card(shown.file, f"saliency/{shown.image}", "", spots, label=shown.predicted))
    note = "Red raises the score of the class that is predicted, blue lowers it; each map on a scale of its own."
    marks = " ✓: passes every test; ✗: fails one; ?: undecided in one; –: not tested."
    text = views.Text(note + marks * bool(verdicts), "quiet")
    return [views.Section(title, [*([text] if told else []), views.Gallery(cards, True)])]


def colours(values: torch.Tensor) -> NDArray[np.uint8]:
    """A signed (channels, height, width) map as red and blue on white, its sum over channels clipped at p99."""
    signed = values.float().sum(0)
    scale = contrast(signed) or 1.0
    share = (signed / scale).clamp(-1, 1).numpy()
    red, blue = np.array([178, 24, 43]), np.array([33, 102, 172])
    side = np.where(share[..., None] >= 0, red, blue)
    shown: NDArray[np.uint8] = (255 + (side - 255) * np.abs(share)[..., None]).round().astype(np.uint8)
    return shown


def _reading() -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                "A saliency map is a claim about a network. Three tests ask whether it can be one. Input invariance: a "
                "second network undoes a shift of its input and so computes the same function; a map that changes "
                "describes the coordinates. Randomisation: with its last layer drawn anew the network knows nothing of "
                "the class; a map that stays does not show what it knew. Class sensitivity: maps of two classes of one "
                "picture should differ. Passing shows no map to be right; failing shows it to be wrong."
            )
        ],
        folded=True,
    )
