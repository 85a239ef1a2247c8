"""One picture of a report: what stands for the audit where there is room for one, as in Prefect's user interface."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from microtome.datasets.source import webp
from microtome.report import views
from microtome.report.overlay import SHEET

GAP = 4  # pixels between rows
QUALITY = 70  # of WebP


@dataclass(frozen=True)
class Cover:
    """The picture, and what it shows."""

    picture: bytes
    caption: str


def cover(report: views.Report, read: Callable[[str], bytes]) -> Cover | None:
    """The best units of different concepts of the last layer with the pictures that light them most; without a
    dissection the pictures of the first page that has some. None where there are no pictures.

    Args:
        report: the pages.
        read: gives a file of the report.
    """
    for layer in reversed(report.layers):
        if units := layer.cover:
            rows = [_lit(unit, read) for unit in units]
            told = ", ".join(f"{unit.number} ({unit.concept or 'no label'})" for unit in units)
            return Cover(_stacked(rows), f"Units of {layer.name}, a row each, from the top: {told}.")
    for page in report.pages:
        thumbs = [spot.thumb for spot in page.cover[:SHEET]]
        if thumbs:
            return Cover(_stacked([_strip(thumbs, read)]), f"From the page about {page.subject or page.name}.")
    return None


def _lit(unit: views.Unit, read: Callable[[str], bytes]) -> Image.Image:
    """A row of pictures, dimmed where the unit does not light, its label outlined."""
    row = _strip([picture.thumb for picture in unit.pictures[:SHEET]], read)
    if not unit.masks:
        return row
    sheet = Image.open(io.BytesIO(read(unit.masks))).convert("RGBA")
    rows = -(-len(unit.pictures) // SHEET)
    first = sheet.crop((0, 0, sheet.width * len(unit.pictures[:SHEET]) // SHEET, sheet.height // rows))
    return Image.alpha_composite(row.convert("RGBA"), first.resize(row.size)).convert("RGB")


def _strip(thumbs: Sequence[str], read: Callable[[str], bytes]) -> Image.Image:
    """Pictures side by side, each as high as the first."""
    pictures = [Image.open(io.BytesIO(read(thumb))).convert("RGB") for thumb in thumbs]
    height = pictures[0].height
    scaled = [picture.resize((max(1, picture.width * height // picture.height), height)) for picture in pictures]
    return Image.fromarray(np.concatenate([np.asarray(picture) for picture in scaled], axis=1))


def _stacked(rows: Sequence[Image.Image]) -> bytes:
    """Rows below each other, on white."""
    height = sum(row.height for row in rows) + GAP * (len(rows) - 1)
    whole = Image.new("RGB", (max(row.width for row in rows), height), "white")
    top = 0
    for row in rows:
        whole.paste(row, (0, top))
        top += row.height + GAP
    return webp(np.asarray(whole), quality=QUALITY)
