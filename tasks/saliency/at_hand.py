"""The methods that a network can have, found out before any work; what is left out is said by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from microtome.visualize.methods import Method, MethodNote, cam_layer, methods, notes
from microtome.visualize.names import MethodName
from storage.tables import Row
from tasks.session import Session

if TYPE_CHECKING:
    from torch import nn


class WantsMethods(Protocol):
    """Options of a stage that draws or tests methods."""

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """By name."""

    @property
    def cam_layer(self) -> str | None:
        """Of Grad-CAM; found by default."""


@dataclass(frozen=True)
class AtHand:
    """Methods by name, and what is to be known of each wanted one."""

    methods: Mapping[MethodName, Method]
    notes: Sequence[MethodNote]

    @classmethod
    def of(cls, options: WantsMethods, network: nn.Module, size: tuple[int, int], session: Session) -> AtHand:
        """Those that suit the network; the user is told of the others."""
        noted = notes(network, size, options.methods, cam=options.cam_layer)
        for note in noted:
            if not note.drawn:
                session.progress.say(f"{session.name}: {note.method} is left out: {note.note}")
        drawn = [note.method for note in noted if note.drawn]
        cam = cam_layer(network, size, options.cam_layer) if "grad-cam" in drawn else None
        made = methods(cam, seed=session.seed)
        return cls({name: made[name] for name in drawn}, noted)

    @property
    def rows(self) -> list[Row]:
        """Of a table of methods."""
        return [dict(asdict(note)) for note in self.notes]


def preflight(options: WantsMethods, network: nn.Module, size: tuple[int, int]) -> None:
    """Refuse what could only fail later.

    Raises:
        InputError: no method suits the network, or Grad-CAM's layer is none.
    """
    notes(network, size, options.methods, cam=options.cam_layer)
