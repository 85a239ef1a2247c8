"""The work of a toy."""

from __future__ import annotations

from dataclasses import dataclass

from storage import Draft
from tasks.brightness import BrightnessOptions
from tasks.index.result import Index
from tasks.session import Session


@dataclass(frozen=True)
class Inputs:
    """Pictures."""

    index: Index


def run(options: BrightnessOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Measure every picture."""
    source = inputs.index.source
    session.begin(len(source))
    found = []
    for image in range(len(source)):
        found.append(float((source.pixels(image) ** options.gamma).mean()))
        session.advance(1)
    draft.table("brightness", {"image": range(len(found)), "brightness": found})
