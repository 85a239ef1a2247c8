"""What accumulates over images in one pass, and merges exactly, in any order, over any sharding.

Each class keeps the same four verbs: `update` takes a batch, `merge` another's state, `compute` gives the result, and
the constructor only allocates. Sums are exact (not merely accurate), so that no order of additions can show.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

_BIAS = 1152  # a multiple of 32 above the smallest exponent of a float64 times 2**53 (1074 + 53)
_DIGITS = 72


class ExactSum:
    """Exact sums of float64 values, one per column: a wide integer in base 2**32 that never rounds.

    The state is integer, so updates and merges commute exactly; up to 2**30 values per column.

    Args:
        columns: number of independent sums.
    """

    def __init__(self, columns: int) -> None:
        self._digits = np.zeros((columns, _DIGITS), np.int64)

    def update(self, values: NDArray[np.float64]) -> None:
        """Add (rows, columns) finite values."""
        mantissa, exponent = np.frexp(values)
        integer = np.ldexp(mantissa, 53).astype(np.int64)
        digit, shift = np.divmod(exponent.astype(np.int64) - 53 + _BIAS, 32)
        low, high = (integer & 0xFFFFFFFF) << shift, (integer >> 32) << shift
        column = np.broadcast_to(np.arange(values.shape[1]), values.shape)
        np.add.at(self._digits, (column, digit), low & 0xFFFFFFFF)
        np.add.at(self._digits, (column, digit + 1), (low >> 32) + (high & 0xFFFFFFFF))
        np.add.at(self._digits, (column, digit + 2), high >> 32)

    def merge(self, other: ExactSum) -> None:
        """Take in another's sums."""
        self._digits += other._digits

    def compute(self) -> list[Fraction]:
        """The exact sums."""
        return [
            Fraction(sum(int(value) << (32 * place) for place, value in enumerate(row)), 1 << _BIAS)
            for row in self._digits
        ]


class Tail:
    """The largest values of each unit, exactly: a buffer above a rising floor, pruned when it fills.

    Args:
        units: number of units.
        keep: how many of the largest values are kept, at least 1.
        device: where the values live.
    """

    def __init__(self, units: int, keep: int, *, device: torch.device | str = "cpu") -> None:
        self._keep = keep
        self._values = torch.full((units, 2 * keep), -torch.inf, device=device)
        self._filled = torch.zeros(units, dtype=torch.long, device=device)
        self._floor = torch.full((units, 1), -torch.inf, device=device)

    def update(self, maps: torch.Tensor) -> None:
        """Take (images, units, rows, columns) of float32 maps."""
        # Adding zero makes -0.0 into 0.0: they are equal, and must be the same bytes too.
        self._take(maps.float().movedim(1, 0).flatten(1) + 0.0)

    def merge(self, other: Tail) -> None:
        """Take in another's tail."""
        self._take(other._values)

    def compute(self) -> NDArray[np.float32]:
        """(units, keep), falling; -inf where fewer values were seen."""
        return self._values.topk(self._keep, dim=1).values.cpu().numpy()

    def _take(self, values: torch.Tensor) -> None:
        wanted = values > self._floor
        count = wanted.sum(1)
        if int((self._filled + count).max()) > self._values.shape[1]:
            self._prune(values)
            return
        unit, column = wanted.nonzero(as_tuple=True)
        first = count.cumsum(0) - count
        place = self._filled[unit] + torch.arange(len(unit), device=unit.device) - first[unit]
        self._values[unit, place] = values[unit, column]
        self._filled += count

    def _prune(self, values: torch.Tensor) -> None:
        """Keep the largest of the buffer and the values, and raise the floor to the least of them."""
        top = torch.cat([self._values, values], 1).topk(self._keep, dim=1).values
        self._values.fill_(-torch.inf)
        self._values[:, : self._keep] = top
        self._floor = top[:, -1:].clone()
        self._filled = (top > -torch.inf).sum(1)


class TopImages:
    """The images in which each unit's peak is highest. Equal peaks: the earlier image.

    Args:
        units: number of units.
        keep: images kept per unit.
    """

    def __init__(self, units: int, keep: int) -> None:
        self._keep = keep
        self._peaks = np.zeros((units, 0), np.float32)
        self._images = np.zeros((units, 0), np.int64)

    def update(self, images: NDArray[np.int64], peaks: NDArray[np.float32]) -> None:
        """Take the peaks (images, units) of the images with these indices."""
        self._take(peaks.T, np.broadcast_to(images, (peaks.shape[1], len(images))))

    def merge(self, other: TopImages) -> None:
        """Take in another's images."""
        self._take(other._peaks, other._images)

    def compute(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(units, keep) image indices and peaks, best first."""
        return self._images, self._peaks

    def _take(self, peaks: NDArray[np.float32], images: NDArray[np.int64]) -> None:
        peaks = np.concatenate([self._peaks, peaks + np.float32(0)], 1)
        images = np.concatenate([self._images, images], 1)
        order = np.lexsort((images, -peaks), axis=1)[:, : self._keep]
        self._peaks = np.take_along_axis(peaks, order, 1)
        self._images = np.take_along_axis(images, order, 1)


@dataclass(frozen=True)
class MomentResult:
    """Per unit: extremes, mean, standard deviation (of the population), share of values that are exactly zero."""

    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    zero_share: NDArray[np.float64]
    samples: int


class Moments:
    """Extremes, mean, deviation and share of zeros of each unit's values.

    Args:
        units: number of units.
    """

    def __init__(self, units: int) -> None:
        self._minimum = np.full(units, np.inf, np.float32)
        self._maximum = np.full(units, -np.inf, np.float32)
        self._sum, self._squares = ExactSum(units), ExactSum(units)
        self._zeros = np.zeros(units, np.int64)
        self._samples = 0

    def update(self, maps: torch.Tensor) -> NDArray[np.float32]:
        """Take (images, units, rows, columns) of finite maps; gives their peaks (images, units)."""
        flat = maps.float().flatten(2)
        low, high = flat.amin(2).cpu().numpy() + np.float32(0), flat.amax(2).cpu().numpy() + np.float32(0)
        self._minimum, self._maximum = np.minimum(self._minimum, low.min(0)), np.maximum(self._maximum, high.max(0))
        for part in flat.split(8):  # small enough to stay in a cache
            wide = part.double()
            self._sum.update(wide.sum(2).cpu().numpy())
            self._zeros += (wide == 0).sum((0, 2)).cpu().numpy()
            self._squares.update(wide.square_().sum(2).cpu().numpy())
        self._samples += flat.shape[0] * flat.shape[2]
        return high

    def merge(self, other: Moments) -> None:
        """Take in another's moments."""
        self._minimum = np.minimum(self._minimum, other._minimum)
        self._maximum = np.maximum(self._maximum, other._maximum)
        self._sum.merge(other._sum)
        self._squares.merge(other._squares)
        self._zeros += other._zeros
        self._samples += other._samples

    def compute(self) -> MomentResult:
        """The moments. Raises ValueError before any value was seen."""
        if not self._samples:
            raise ValueError("moments need at least one value, got none; call update first")
        means = [total / self._samples for total in self._sum.compute()]
        variances = [
            total / self._samples - mean * mean for total, mean in zip(self._squares.compute(), means, strict=True)
        ]
        return MomentResult(
            self._minimum,
            self._maximum,
            np.array([float(mean) for mean in means]),
            np.sqrt([max(0.0, float(variance)) for variance in variances]),
            self._zeros / self._samples,
            self._samples,
        )


def rank(tail: float, samples: int) -> int:
    """How many values may lie strictly above a threshold: floor(tail * samples), in exact arithmetic.

    The threshold is the (rank + 1)-th largest value. `tail` is taken as the decimal that it prints as: 0.005 is
    1/200, not the float next to it.
    """
    share = Fraction(str(tail))
    if not 0 < share < 1:
        raise ValueError(f"tail must lie between 0 and 1, got {tail}")
    return share.numerator * samples // share.denominator
