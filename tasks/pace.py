"""How long stages take, foreseen for a first `plan`: from how fast this machine is, and how much there is to do."""

from __future__ import annotations

from dataclasses import dataclass

BOTH_WAYS = 3
"""Forward passes that a forward and a backward pass take about as long as."""


@dataclass(frozen=True)
class Pace:
    """What a few pictures took, and how many there are.

    Args:
        pictures: of the stage's data set.
        concepts: of the stage's data set.
        units: of the layers looked at, all together.
        values: of one picture's maps in them, all together.
        size: (height, width) of the network's input.
        fields: side of each layer's receptive field, in pixels; as many as there are layers looked at.
        read: seconds for a picture to become the network's input.
        annotate: seconds for its annotation.
        forward: seconds for its forward pass, in a batch.
    """

    pictures: int
    concepts: int = 0
    units: int = 0
    values: int = 0
    size: tuple[int, int] = (0, 0)
    fields: tuple[float, ...] = ()
    read: float = 0.0
    annotate: float = 0.0
    forward: float = 0.0

    def shown(self, pictures: float) -> float:
        """Seconds for so many pictures to be read and shown to the network."""
        return pictures * (self.read + self.forward)

    def passes(self, pictures: float) -> float:
        """Seconds for so many forward passes of a picture."""
        return pictures * self.forward

    def gradients(self, pictures: float) -> float:
        """Seconds for so many forward and backward passes of a picture."""
        return pictures * BOTH_WAYS * self.forward

    @property
    def layers(self) -> int:
        """That are looked at."""
        return len(self.fields)

    def touching(self, width: int, stride: int) -> float:
        """How many places a square has, moved over the input by so many pixels, at which it touches a unit's field.

        Of one unit of each layer, all together.
        """
        reach = [[min(field + width, side) for side in self.size] for field in self.fields]
        return sum(rows * columns for rows, columns in reach) / stride**2
