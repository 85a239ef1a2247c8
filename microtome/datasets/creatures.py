"""`creatures`: generated pictures of composed animals, whose truth is known to the pixel.

An animal is put together from parts on one of six body plans; colours, textures, scene, pose and scenery are drawn
independently of the plan, so that only the parts and their arrangement tell the categories apart. Each picture follows
from (seed, index) alone: any count, any order, any subset gives the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from microtome.datasets.base import Annotation, Concept, Dataset, Landmark, Record
from microtome.datasets.tables import whole
from microtome.errors import InputError

Points = NDArray[np.float64]
Pose = Callable[[Points], Points]

ANIMALS = ("bird", "cat", "bear", "deer", "lizard", "dragon")
PARTS = ("torso", "head", "leg", "tail", "wing", "ear", "antler", "beak", "eye")
SCENERY = ("tree", "rock", "sun")
TEXTURES = ("striped", "spotted", "chequered")
SCENES = ("meadow", "desert", "snow", "shore", "night")
PAINTS: dict[str, tuple[int, int, int]] = {
    "red": (196, 48, 44),
    "orange": (228, 136, 42),
    "yellow": (226, 206, 66),
    "green": (62, 142, 68),
    "blue": (58, 96, 186),
    "purple": (132, 70, 156),
    "brown": (126, 84, 52),
    "grey": (134, 134, 138),
}
SKIES = {
    "meadow": ((150, 196, 232), (98, 150, 74)),
    "desert": ((222, 212, 190), (206, 172, 112)),
    "snow": ((196, 206, 216), (236, 240, 244)),
    "shore": ((160, 204, 236), (52, 112, 164)),
    "night": ((24, 28, 58), (40, 46, 52)),
}
FIXED_PAINT = {"beak": (236, 170, 40), "antler": (168, 138, 98), "eye": (12, 12, 12)}
SCENERY_PAINT = {"tree": (34, 92, 46), "rock": (104, 100, 96), "sun": (250, 226, 120)}
SPLITS = (("train", 0.7), ("val", 1.0))


@dataclass(frozen=True)
class BodyPlan:
    """Body plan of a category; lengths in units of half the picture."""

    legs: int
    leg_length: float
    torso: tuple[float, float]
    head: float
    neck: float
    tail: str
    ears: str
    wings: bool = False
    beak: bool = False


PLANS = {
    "bird": BodyPlan(2, 0.22, (0.30, 0.22), 0.15, 0.10, "fan", "none", wings=True, beak=True),
    "cat": BodyPlan(4, 0.24, (0.38, 0.18), 0.17, 0.02, "long", "pointed"),
    "bear": BodyPlan(4, 0.18, (0.42, 0.27), 0.19, 0.00, "none", "round"),
    "deer": BodyPlan(4, 0.40, (0.36, 0.17), 0.13, 0.20, "none", "antlers"),
    "lizard": BodyPlan(4, 0.10, (0.42, 0.11), 0.13, 0.00, "thick", "none"),
    "dragon": BodyPlan(4, 0.22, (0.36, 0.17), 0.15, 0.14, "thick", "none", wings=True),
}


@dataclass(frozen=True)
class _Drawing:
    """One picture and its truth, all (size, size)."""

    picture: NDArray[np.uint8]
    part: NDArray[np.uint8]
    paint: NDArray[np.uint8]
    texture: NDArray[np.uint8]
    scenery: NDArray[np.uint8]
    scene: str
    landmarks: tuple[Landmark, ...]


class Creatures(Dataset):
    """Generated animals with exact masks in five categories of concept: object, part, color, texture, scene.

    Args:
        root: not used; there is no folder.
        count: number of pictures.
        size: side in pixels.
        seed: two sets with different seeds share no picture.

    Raises:
        InputError: a count outside 1 to 1,000,000, a size outside 32 to 4,096, a seed below 0.
    """

    def __init__(self, root: Path | None = None, *, count: int = 400, size: int = 96, seed: int = 0) -> None:
        try:
            count, size = whole(count, "count", 1, 10**6), whole(size, "size", 32, 4096)
            seed = whole(seed, "seed", 0, 2**63 - 1)
        except ValueError as error:
            raise InputError(f"dataset: {error}") from error
        self._size, self._seed = size, seed
        self.animals = [ANIMALS[i] for i in default_rng([seed, 2**32 - 1]).integers(len(ANIMALS), size=count)]
        shares = default_rng([seed, 2**32 - 2]).random(count)
        splits = [next(name for name, limit in SPLITS if share < limit) for share in shares]
        self.records = [
            Record(f"creature-{index:06d}-{animal}", splits[index], size, size, animal)
            for index, animal in enumerate(self.animals)
        ]
        self.concepts = _concepts()
        self._numbers = {(concept.category, concept.name): concept.number for concept in self.concepts}
        self._last: tuple[int, _Drawing] | None = None

    def picture(self, index: int) -> Image.Image:
        """The picture, RGB."""
        return Image.fromarray(self._drawing(index).picture)

    def annotation(self, index: int) -> Annotation:
        """Exact masks: animal and scenery, parts, paint colours, textures; the scene for the whole picture."""
        drawing = self._drawing(index)
        body = drawing.part > 0
        objects = self._lookup("object", SCENERY)[drawing.scenery]
        objects[body] = self._numbers["object", self.animals[index]]
        planes = {
            "object": objects[None],
            "part": self._lookup("part", PARTS)[drawing.part][None],
            "color": self._lookup("color", tuple(PAINTS))[drawing.paint][None],
            "texture": self._lookup("texture", TEXTURES)[drawing.texture][None],
        }
        return Annotation(planes, {"scene": (self._numbers["scene", drawing.scene],)})

    def landmarks(self, index: int) -> tuple[Landmark, ...]:
        """Centres of the animal's head, torso, tail and wings, of those that the plan has."""
        return self._drawing(index).landmarks

    def files(self) -> Iterable[Path]:
        """None: the pictures follow from the parameters."""
        return ()

    def _lookup(self, category: str, names: Sequence[str]) -> NDArray[np.int32]:
        return np.array([0, *(self._numbers[category, name] for name in names)], np.int32)

    def _drawing(self, index: int) -> _Drawing:
        last = self._last
        if last is None or last[0] != index:
            drawing = _draw(self.animals[index], self._size, default_rng([self._seed, index]))
            self._last = last = (index, drawing)
        return last[1]


def _concepts() -> list[Concept]:
    named = [("object", (*ANIMALS, *SCENERY)), ("part", PARTS), ("color", tuple(PAINTS)), ("texture", TEXTURES)]
    named.append(("scene", SCENES))
    pairs = [(category, name) for category, names in named for name in names]
    return [Concept(number, name, category) for number, (category, name) in enumerate(pairs, 1)]


def _draw(animal: str, size: int, rng: Generator) -> _Drawing:
    scene = SCENES[rng.integers(len(SCENES))]
    picture, scenery = _background(scene, size, rng)
    shapes, marks = _animal(PLANS[animal], rng)
    place = _pose(size, rng)
    part = _rasterise(shapes, place, size)
    paint, texture, colours = _coat(part, size, rng)
    body = part > 0
    picture[body] = colours[body]
    scenery[body] = 0
    picture += rng.standard_normal((size, size, 1), dtype=np.float32) * 6
    landmarks = tuple(Landmark(name, *map(float, place(np.array([point]))[0])) for name, point in marks.items())
    return _Drawing(np.clip(picture, 0, 255).astype(np.uint8), part, paint, texture, scenery, scene, landmarks)


def _animal(plan: BodyPlan, rng: Generator) -> tuple[list[tuple[str, Points]], dict[str, tuple[float, float]]]:
    """Outlines in painting order, in the animal's own coordinates (x forwards, y down), and the part centres."""
    width, height = (value * rng.uniform(0.9, 1.1) for value in plan.torso)
    head = (width + plan.neck * 0.6 + plan.head * 0.6, -plan.neck - height * 0.6)
    shapes = [("leg", leg) for leg in _legs(plan, width, height, rng)]
    marks = {"torso": (0.0, 0.0), "head": head}
    if plan.tail != "none":
        outline, centre = _tail(plan.tail, width, rng)
        shapes.append(("tail", outline))
        marks["tail"] = centre
    if plan.neck:
        shapes.append(("torso", _limb((width * 0.7, -height * 0.3), head, 0.09)))
    shapes.append(("torso", _ellipse((0, 0), width, height)))
    shapes += _ears(plan, head)
    shapes.append(("head", _ellipse(head, plan.head, plan.head * 0.85)))
    if plan.beak:
        x, y = head[0] + plan.head * 0.8, head[1]
        shapes.append(("beak", np.array([(x, y - 0.06), (x + 0.15, y + 0.02), (x, y + 0.07)])))
    shapes.append(("eye", _ellipse((head[0] + plan.head * 0.35, head[1] - plan.head * 0.2), 0.03, 0.03)))
    if plan.wings:
        outline, centre = _wing(height, rng)
        shapes.append(("wing", outline))
        marks["wing"] = centre
    return shapes, marks


def _legs(plan: BodyPlan, width: float, height: float, rng: Generator) -> list[Points]:
    places = (-0.15, 0.15) if plan.legs == 2 else (-0.75, -0.45, 0.45, 0.75)
    swing = rng.uniform(-0.08, 0.08, len(places))
    foot = height + plan.leg_length
    return [
        _limb((width * place, height * 0.4), (width * place + shift, foot), 0.055)
        for place, shift in zip(places, swing, strict=True)
    ]


def _tail(kind: str, width: float, rng: Generator) -> tuple[Points, tuple[float, float]]:
    root, lift = (-width * 0.85, -0.02), rng.uniform(-0.15, 0.1)
    if kind == "fan":
        tip = (-width - 0.28, -0.08 + lift)
        return np.array([root, (tip[0], tip[1] - 0.16), (tip[0] - 0.05, tip[1]), (tip[0], tip[1] + 0.16)]), tip
    if kind == "long":
        tip = (-width - 0.30, -0.32 + lift)
        return _limb(root, tip, 0.05), ((root[0] + tip[0]) / 2, (root[1] + tip[1]) / 2)
    tip = (-width - 0.42, 0.10 + lift)
    thick = np.array([(root[0], root[1] - 0.10), tip, (root[0], root[1] + 0.10)])
    return thick, ((2 * root[0] + tip[0]) / 3, (2 * root[1] + tip[1]) / 3)


def _wing(height: float, rng: Generator) -> tuple[Points, tuple[float, float]]:
    lift = rng.uniform(0.35, 0.5)
    outline = np.array([(0.12, -height * 0.4), (-0.02, -height - lift), (-0.34, -height - lift * 0.7), (-0.22, 0.0)])
    return outline, (float(outline[:, 0].mean()), float(outline[:, 1].mean()))


def _ears(plan: BodyPlan, head: tuple[float, float]) -> list[tuple[str, Points]]:
    x, y = head
    shapes: list[tuple[str, Points]] = []
    for side in (-1, 1):
        base, top = x + side * plan.head * 0.5, y - plan.head * 0.6
        if plan.ears == "pointed":
            shapes.append(("ear", np.array([(base - 0.07, top), (base + side * 0.03, top - 0.17), (base + 0.07, top)])))
        elif plan.ears == "round":
            shapes.append(("ear", _ellipse((base, top), 0.085, 0.085)))
        elif plan.ears == "antlers":
            fork = (base + side * 0.09, top - 0.2)
            shapes.append(("antler", _limb((base, top + 0.04), fork, 0.028)))
            shapes.append(
                ("antler", _limb(((base + fork[0]) / 2, (top + fork[1]) / 2), (fork[0] + 0.12, top - 0.1), 0.022))
            )
    return shapes


def _pose(size: int, rng: Generator) -> Pose:
    """A similarity from animal coordinates to pixels: mirrored at will, turned a little, anywhere in the picture."""
    scale = size / 2 * rng.uniform(0.62, 0.95)
    turn, side = rng.uniform(-0.2, 0.2), rng.choice((-1.0, 1.0))
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) @ np.diag([side, 1.0])
    slack = size / 2 - scale * 0.55
    centre = size / 2 + rng.uniform(-slack, slack, 2) * (0.8, 0.6) + (0, size * 0.05)

    def place(points: Points) -> Points:
        placed: Points = points @ matrix.T * scale + centre
        return placed

    return place


def _rasterise(shapes: Sequence[tuple[str, Points]], place: Pose, size: int) -> NDArray[np.uint8]:
    canvas = Image.new("L", (size, size))
    pen = ImageDraw.Draw(canvas)
    for name, outline in shapes:
        pen.polygon([tuple(point) for point in place(outline).tolist()], fill=PARTS.index(name) + 1)
    return np.array(canvas)


def _coat(
    part: NDArray[np.uint8], size: int, rng: Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Paint number, texture number (0 for none) and colour of every body pixel."""
    base, second = rng.choice(len(PAINTS), 2, replace=False)
    accent = {"wing": second, "tail": second, "ear": second}
    chosen = np.array([0, *(accent.get(name, base) + 1 for name in PARTS)], np.uint8)
    chosen[[PARTS.index(name) + 1 for name in FIXED_PAINT]] = 0
    paint = chosen[part]
    table = np.array([(0, 0, 0), *PAINTS.values()], np.float32)
    colours = table[paint]
    for name, colour in FIXED_PAINT.items():
        colours[part == PARTS.index(name) + 1] = colour
    kind = int(rng.integers(len(TEXTURES) + 1))
    texture = np.zeros_like(part)
    if kind:
        coat = (paint > 0) & (part != PARTS.index("head") + 1)
        colours[coat & _pattern(kind, size, rng)] *= 0.45
        texture[coat] = kind
    return paint, texture, colours


def _pattern(kind: int, size: int, rng: Generator) -> NDArray[np.bool_]:
    """Where a texture is dark."""
    period = size / rng.uniform(11, 16)
    y, x = np.mgrid[0:size, 0:size] * (2 * math.pi / period)
    turn = rng.uniform(0, math.pi)
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    if TEXTURES[kind - 1] == "striped":
        dark: NDArray[np.bool_] = np.sin(along) > 0.1
    else:
        dark = np.sin(along) * np.sin(across) > (0.45 if TEXTURES[kind - 1] == "spotted" else 0.0)
    return dark


def _background(scene: str, size: int, rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    sky, ground = (np.array(colour, np.float32) + rng.normal(0, 8, 3).astype(np.float32) for colour in SKIES[scene])
    horizon = int(size * rng.uniform(0.45, 0.75))
    picture = np.empty((size, size, 3), np.float32)
    picture[:horizon] = sky * np.linspace(0.88, 1.06, horizon, dtype=np.float32)[:, None, None]
    picture[horizon:] = ground * np.linspace(0.9, 1.1, size - horizon, dtype=np.float32)[:, None, None]
    canvas = Image.new("L", (size, size))
    pen = ImageDraw.Draw(canvas)
    for number, name in enumerate(SCENERY, 1):
        for _ in range(int(rng.integers(0, 2 if name == "sun" else 3))):
            for outline in _scenery(name, size, horizon, rng):
                pen.polygon([tuple(point) for point in outline.tolist()], fill=number)
    scenery = np.array(canvas)
    for number, name in enumerate(SCENERY, 1):
        picture[scenery == number] = SCENERY_PAINT[name]
    return picture, scenery


def _scenery(name: str, size: int, horizon: int, rng: Generator) -> list[Points]:
    x, scale = rng.uniform(0, size), size * rng.uniform(0.08, 0.16)
    if name == "sun":
        return [_ellipse((x, rng.uniform(0, horizon * 0.4)), scale * 0.7, scale * 0.7)]
    y = rng.uniform(horizon, size)
    if name == "rock":
        return [_ellipse((x, y), scale, scale * 0.6)]
    tiers = [(0.0, 1.0), (0.9, 0.75)]
    return [
        np.array([(x - scale * w, y - scale * up), (x + scale * w, y - scale * up), (x, y - scale * (up + 1.6))])
        for up, w in tiers
    ]


_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * math.pi, 25)[:-1]), np.sin(np.linspace(0, 2 * math.pi, 25)[:-1])], 1)


def _ellipse(centre: tuple[float, float], width: float, height: float) -> Points:
    return _CIRCLE * (width, height) + centre


def _limb(start: tuple[float, float], end: tuple[float, float], width: float) -> Points:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy) or 1.0
    side = np.array([-dy, dx]) / length * width
    return np.array([start + side, end + side * 0.8, end - side * 0.8, start - side])
