"""What accumulates over images in one pass, and merges exactly, in any order, over any sharding.

Each class keeps the same four verbs: `update` takes a batch, `merge` another's state, `compute` gives the result, and
the constructor only allocates. Sums are exact (not merely accurate), so that no order of additions can show. A `state`
of arrays goes from one process to another, where `of` makes the same of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.compiling import compiled

_BIAS = 1152  # a multiple of 32 above the smallest exponent of a float64 times 2**53 (1074 + 53)
_DIGITS = 72
_BINS_POWER = 6
BINS = 2**_BINS_POWER  # of a histogram, on either side of zero
State = Mapping[str, NDArray[Any]]
"""Arrays by name, from which an accumulator can be made again."""
_SPARE = 4  # times a part's share of the tail that it keeps, for parts that have more of it than others
_JOINED_BYTES = 64_000_000  # of tails that are joined at a time: of some units after the others
_FINEST = -100  # power of two: width of the bins of a unit that is zero everywhere


class ExactSum:
    """Exact sums of float64 values, one per column: a wide integer in base 2**32 that never rounds.

    The state is integer, so updates and merges commute exactly; up to 2**30 values per column.

    Args:
        columns: number of independent sums.
    """

    def __init__(self, columns: int) -> None:
        self.digits = np.zeros((columns, _DIGITS), np.int64)
        """(columns, digits) of each sum: its state."""

    def update(self, values: NDArray[np.float64]) -> None:
        """Add (rows, columns) finite values."""
        _add(self.digits, values)

    def merge(self, other: ExactSum) -> None:
        """Take in another's sums."""
        self.digits += other.digits

    def compute(self) -> list[Fraction]:
        """The exact sums."""
        return [
            Fraction(sum(int(value) << (32 * place) for place, value in enumerate(row)), 1 << _BIAS)
            for row in self.digits
        ]


@compiled
def _add(digits, values):  # type: ignore[no-untyped-def]
    """Add values to wide integers.

    Args:
        digits: (columns, digits), added to.
        values: (rows, columns) finite.
    """
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            mantissa, exponent = math.frexp(values[row, column])
            integer, place = np.int64(math.ldexp(mantissa, 53)), exponent - 53 + _BIAS
            digit, shift = place // 32, place % 32
            low, high = (integer & 0xFFFFFFFF) << shift, (integer >> 32) << shift
            digits[column, digit] += low & 0xFFFFFFFF
            digits[column, digit + 1] += (low >> 32) + (high & 0xFFFFFFFF)
            digits[column, digit + 2] += high >> 32


class Tail:
    """The largest values of each unit, exactly: a buffer above a rising floor, pruned when it fills.

    Args:
        units: number of units.
        keep: how many of the largest values are kept, at least 1.
    """

    def __init__(self, units: int, keep: int) -> None:
        self._keep = keep
        self._values = np.full((units, 2 * keep), -np.inf, np.float32)
        self._filled = np.zeros(units, np.int64)
        self._floor = np.full(units, -np.inf, np.float32)

    def update(self, maps: NDArray[np.float32]) -> None:
        """Take (images, units, rows, columns)."""
        self._take(maps.reshape(*maps.shape[:2], -1))

    def merge(self, other: Tail) -> None:
        """Take in another's tail."""
        self.take(other._values)

    def take(self, values: NDArray[np.float32]) -> None:
        """Take in (units, any number) values, -inf for none."""
        self._take(values[None])

    def compute(self) -> NDArray[np.float32]:
        """(units, keep), falling; -inf where fewer values were seen."""
        # Adding zero makes -0.0 into 0.0: they are equal, and must be the same bytes too.
        return np.sort(self._values, axis=1)[:, : -self._keep - 1 : -1] + np.float32(0)

    def _take(self, values: NDArray[np.float32]) -> None:
        """Take (images, units, any number)."""
        done = 0
        while done < values.size:
            done, full = _take((self._values, self._filled), self._floor, values, done)
            if full >= 0:
                self._prune(full)

    def _prune(self, unit: int) -> None:
        """Keep the larger half of a buffer, and raise the floor to the least of it."""
        values = self._values[unit]
        values[: self._keep] = np.partition(values, self._keep)[self._keep :]
        values[self._keep :] = -np.inf
        self._filled[unit], self._floor[unit] = self._keep, values[: self._keep].min()


@compiled
def _take(buffers, floor, values, start):  # type: ignore[no-untyped-def]
    """Put values above their unit's floor into its buffer, up to one that fills it.

    Args:
        buffers: (units, places), -inf but in the first ones; (units,) how many of these are filled.
        floor: (units,) no value that is as low is wanted.
        values: (images, units, values).
        start: how many values were taken before.

    Returns:
        how many are taken, and the unit that is full, -1 where none is.
    """
    kept, filled = buffers
    images, units, count = values.shape
    for row in range(start // count, images * units):
        unit = row % units
        own, least = values[row // units, unit], floor[unit]
        for at in range(max(0, start - row * count), count):
            if own[at] > least:
                kept[unit, filled[unit]] = own[at]
                filled[unit] += 1
                if filled[unit] == kept.shape[1]:
                    return row * count + at + 1, unit
    return values.size, -1


@dataclass(frozen=True)
class TailPart:
    """The largest values of some of the images.

    Args:
        values: (units, kept), falling.
        whole: whether these are all values of these images.
    """

    values: NDArray[np.float32]
    whole: bool

    @classmethod
    def kept(cls, tail: float, samples: int) -> int:
        """How many values of each unit a part keeps that is to be joined.

        Args:
            tail: share of all values that is wanted of all parts together.
            samples: values of each unit in the part.
        """
        return min(samples, _SPARE * (rank(tail, samples) + 1))


def joined_tail(
    parts: Sequence[Callable[[], TailPart]], keep: int, again: Callable[[int], Iterable[NDArray[np.float32]]]
) -> NDArray[np.float32]:
    """(units, keep) the largest values of each unit over all parts, falling, exactly.

    What a part left out is at most its least value. Where that lies above the least one that was found, what it left
    out may belong to the tail: then all of the part's values are looked at again, for these units.

    Args:
        parts: each called as often as it is needed, so that one is held at a time.
        keep: how many.
        again: the maps of a part, by its place.
    """
    if not parts:
        raise ValueError("a tail needs at least one part, got none")
    units = len(parts[0]().values)
    step = max(1, _JOINED_BYTES // (4 * 2 * keep))
    return np.concatenate(
        [_joined(parts, keep, again, np.arange(units)[at : at + step]) for at in range(0, units, step)]
    )


def _joined(
    parts: Sequence[Callable[[], TailPart]],
    keep: int,
    again: Callable[[int], Iterable[NDArray[np.float32]]],
    units: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Of some units."""
    tail, least = Tail(len(units), keep), []
    for load in parts:
        part = load()
        own = part.values[units]
        tail.take(own)
        least.append(np.full(len(units), -np.inf, np.float32) if part.whole else own[:, -1])
    found = tail.compute()
    doubtful = np.greater(np.stack(least), found[:, -1])
    places = np.flatnonzero(doubtful.any(0))
    if len(places):
        which = np.asarray(doubtful[:, places].any(1))
        found[places] = _looked_at_again(parts, keep, again, (units[places], which))
    return found


def _looked_at_again(
    parts: Sequence[Callable[[], TailPart]],
    keep: int,
    again: Callable[[int], Iterable[NDArray[np.float32]]],
    doubtful: tuple[NDArray[np.int64], NDArray[np.bool_]],
) -> NDArray[np.float32]:
    units, places = doubtful
    tail = Tail(len(units), keep)
    for place, load in enumerate(parts):
        if places[place]:
            for maps in again(place):
                tail.update(np.ascontiguousarray(maps[:, units]))
        else:
            tail.take(load().values[units])
    return tail.compute()


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

    @property
    def state(self) -> State:
        """See the module."""
        return {"top_peaks": self._peaks, "top_images": self._images}

    @classmethod
    def of(cls, state: State, keep: int) -> TopImages:
        """From a state."""
        found = cls(len(state["top_peaks"]), keep)
        found._peaks, found._images = state["top_peaks"], state["top_images"]
        return found

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

    def update(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take (images, units, rows, columns) of finite maps; gives their peaks (images, units)."""
        flat = maps.reshape(*maps.shape[:2], -1)
        low, high, zeros = _extremes(flat)
        self._minimum, self._maximum = np.minimum(self._minimum, low.min(0)), np.maximum(self._maximum, high.max(0))
        self._sum.update(flat.sum(2, dtype=np.float64))
        self._squares.update(np.einsum("iup,iup->iu", flat, flat, dtype=np.float64))
        self._zeros += zeros.sum(0)
        self._samples += flat.shape[0] * flat.shape[2]
        found: NDArray[np.float32] = high
        return found

    @property
    def state(self) -> State:
        """See the module."""
        extremes: State = {"minimum": self._minimum, "maximum": self._maximum, "zeros": self._zeros}
        sums = {"sum": self._sum.digits, "squares": self._squares.digits}
        return {**extremes, **sums, "samples": np.array(self._samples)}

    @classmethod
    def of(cls, state: State) -> Moments:
        """From a state."""
        found = cls(len(state["minimum"]))
        found._minimum, found._maximum, found._zeros = state["minimum"], state["maximum"], state["zeros"]
        found._sum.digits, found._squares.digits = state["sum"], state["squares"]
        found._samples = int(state["samples"])
        return found

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


@compiled
def _extremes(values):  # type: ignore[no-untyped-def]
    """Of (images, units, values) those units' smallest and largest value in each image, and how many are zero."""
    images, units, _ = values.shape
    low, high = np.empty((images, units), np.float32), np.empty((images, units), np.float32)
    zeros = np.zeros((images, units), np.int64)
    for image in range(images):
        for unit in range(units):
            least = most = values[image, unit, 0]
            none = 0
            for value in values[image, unit]:
                least, most = min(least, value), max(most, value)
                none += value == 0
            # Adding zero makes -0.0 into 0.0: they are equal, and must be the same bytes too.
            low[image, unit], high[image, unit], zeros[image, unit] = least + 0, most + 0, none
    return low, high, zeros


class Histogram:
    """How often each unit has which values: bins between multiples of a power of two, the finest that holds them all.

    Where a value lies beyond the bins, their width doubles and neighbours join. Bins begin at zero and lie within each
    other, so that what comes out depends on the values alone, and not on their order.

    Args:
        units: number of units.
    """

    def __init__(self, units: int) -> None:
        self._counts = np.zeros((units, 2 * BINS), np.int64)
        self._power = np.full(units, _FINEST, np.int64)

    def update(self, maps: NDArray[np.float32]) -> None:
        """Take (images, units, rows, columns) of finite maps."""
        flat = maps.reshape(*maps.shape[:2], -1)
        low, high, _ = _extremes(flat)
        self._widen(np.maximum(self._power, _power(low.min(0), high.max(0))))
        _count(self._counts, np.ldexp(np.float32(1), -self._power).astype(np.float32), flat)

    @property
    def state(self) -> State:
        """See the module."""
        return {"bins": self._counts, "power": self._power}

    @classmethod
    def of(cls, state: State) -> Histogram:
        """From a state."""
        found = cls(len(state["power"]))
        found._counts[:], found._power[:] = state["bins"], state["power"]
        return found

    def merge(self, other: Histogram) -> None:
        """Take in another's counts."""
        power = np.maximum(self._power, other._power)
        self._widen(power)
        again = Histogram.of(other.state)
        again._widen(power)
        self._counts += again._counts

    def compute(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(units,) width of the bins, and (units, 2 BINS) counts; bin `BINS` begins at zero."""
        return np.ldexp(1.0, self._power), self._counts

    def _widen(self, power: NDArray[np.int64]) -> None:
        """Join neighbours until bins are 2**power wide."""
        for unit in np.flatnonzero(power > self._power):
            into = (np.arange(-BINS, BINS) >> min(power[unit] - self._power[unit], BINS)) + BINS
            self._counts[unit] = np.bincount(into, self._counts[unit], 2 * BINS)
            self._power[unit] = power[unit]


@compiled
def _count(counts, scale, values):  # type: ignore[no-untyped-def]
    """Count values in bins.

    Args:
        counts: (units, 2 BINS), added to.
        scale: (units,) one over the bins' width, a power of two.
        values: (images, units, values), all of which lie in bins.
    """
    for image in range(values.shape[0]):
        for unit in range(values.shape[1]):
            own, times = counts[unit], scale[unit]
            for value in values[image, unit]:
                place = value * times
                below = int(place)  # towards zero
                own[BINS + below - (place < below)] += 1


def _power(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.int64]:
    """(units,) smallest p with low >= -BINS * 2**p and high < BINS * 2**p."""
    above = np.frexp(np.maximum(high, 0).astype(np.float64))[1].astype(np.int64)  # high < 2**above
    share, below = np.frexp(np.maximum(-low, 0).astype(np.float64))
    below = below.astype(np.int64) - (share == 0.5)  # -low <= 2**below
    above[high <= 0], below[low >= 0] = _FINEST, _FINEST
    found: NDArray[np.int64] = np.maximum(np.maximum(above, below) - _BINS_POWER, _FINEST)
    return found


def rank(tail: float, samples: int) -> int:
    """How many values may lie strictly above a threshold: floor(tail * samples), in exact arithmetic.

    The threshold is the (rank + 1)-th largest value. `tail` is taken as the decimal that it prints as: 0.005 is
    1/200, not the float next to it.
    """
    share = Fraction(str(tail))
    if not 0 < share < 1:
        raise ValueError(f"tail must lie between 0 and 1, got {tail}")
    return share.numerator * samples // share.denominator
