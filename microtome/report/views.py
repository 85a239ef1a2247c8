"""What the pages show, as frozen data: everything is chosen, ordered and worded before a template sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """One demand of the audit."""

    text: str
    value: str
    limit: str
    passed: bool
    note: str


@dataclass(frozen=True)
class Picture:
    """A top image of a unit.

    Args:
        thumb: path of the thumbnail, relative to the report.
        alt: what it shows, in words.
        dim: SVG path of everything that the unit does not light, in mask pixels.
        peak: the unit's highest activation in it.
    """

    thumb: str
    alt: str
    dim: str
    peak: str


@dataclass(frozen=True)
class Scale:
    """A unit's IoU on a line from 0 to 100: where the dot, the interval, the null and the threshold lie."""

    value: float
    low: float | None
    high: float | None
    null: float | None
    limit: float


@dataclass(frozen=True)
class Unit:
    """A unit's card. Numbers are worded; `iou_sort` and `q_sort` order the cards."""

    number: int
    anchor: str
    concept: str
    category: str
    detector: bool
    iou: str
    interval: str
    facts: Sequence[tuple[str, str, str]]
    scale: Scale
    pictures: Sequence[Picture]
    reason: str
    iou_sort: float
    q_sort: float


@dataclass(frozen=True)
class Chart:
    """A chart as SVG, and the same in words."""

    title: str
    svg: str
    rows: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Layer:
    """A layer's page."""

    name: str
    page: str
    headline: str
    figures: Sequence[tuple[str, str, str]]
    charts: Sequence[Chart]
    units: Sequence[Unit]
    categories: Sequence[str]
    advice: Sequence[str]
    mask: tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """A stage of the run."""

    name: str
    seconds: str
    size: str
    digest: str


@dataclass(frozen=True)
class Report:
    """The whole report."""

    title: str
    network: str
    dataset: str
    gates: Sequence[Gate]
    layers: Sequence[Layer]
    provenance: Sequence[tuple[str, str]]
    stages: Sequence[Stage]
    configuration: str
    footer: str
