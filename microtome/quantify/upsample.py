"""Which pixels of the segmentation a unit lights: S_k > T_k, without ever building S_k whole.

A map is upsampled bilinearly at the pixels' grid positions; a pixel's value is a mix of the four cells around it and
cannot exceed the largest. So only the patches between cells of which at least one exceeds the threshold are
interpolated: exact, and some twenty times less work than whole maps at a tail of 0.5 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from microtome.compiling import compiled
from microtome.networks.geometry import LayerGeometry

ALIGNMENTS = ("receptive-field", "half-pixel")


@dataclass(frozen=True)
class Lit:
    """Pixels above threshold, one entry each, those of a map together, maps in their order.

    Args:
        map: which map of the batch: image * units + unit.
        place: which pixel of the batch's segmentations: image * pixels + row-major pixel.
        units: per image.
        pixels: of a segmentation.
        value: S_k of each entry, float64; None where nobody asked for it.
    """

    map: torch.Tensor
    place: torch.Tensor
    units: int
    pixels: int
    value: torch.Tensor | None = None

    @property
    def image(self) -> torch.Tensor:
        """Image in the batch."""
        return self.map // self.units

    @property
    def unit(self) -> torch.Tensor:
        """Unit of the layer."""
        return self.map % self.units

    @property
    def pixel(self) -> torch.Tensor:
        """Row-major pixel of the image's segmentation."""
        return self.place % self.pixels


class _AxisTable:
    """The pixels along an axis, by the patch that they lie in.

    Patch 0 lies before the first cell's centre, patch r between cells r - 1 and r, the last behind the last cell; the
    outer two mix a cell with itself. Pixels of a patch are padded to one length.
    """

    def __init__(self, positions: np.ndarray, cells: int, device: torch.device | str) -> None:
        patch = np.clip(np.floor(positions).astype(np.int64) + 1, 0, cells)
        edges = np.arange(cells + 1)
        first = np.searchsorted(patch, edges)
        count = np.searchsorted(patch, edges, side="right") - first
        step = np.arange(max(1, count.max()))[:, None]
        low, high = np.maximum(edges - 1, 0), np.minimum(edges, cells - 1)
        position = positions[np.minimum(first + step, len(positions) - 1)]
        weight = np.where(low < high, position - low, 0.0)
        weight[step >= count] = np.nan  # what is padded is above no threshold
        self.low, self.high = torch.from_numpy(low).to(device), torch.from_numpy(high).to(device)
        self.first = torch.from_numpy(first).to(device)
        self.weight = torch.from_numpy(weight).to(device)  # (pixels of a patch, patches)
        self.table = low, high, first, np.ascontiguousarray(weight.T)
        """The same for compiled loops, the weights the other way round."""


def grid_positions(
    layer: LayerGeometry, axis: int, size: tuple[int, int], masks: tuple[int, int], *, align: str = "receptive-field"
) -> np.ndarray:
    """Position of each segmentation pixel along one axis of a layer's grid; outside it before clamping.

    Args:
        layer: the layer.
        axis: 0 for rows, 1 for columns.
        size: (height, width) of the network's input.
        masks: (height, width) of the segmentation.
        align: `receptive-field`: (pixel centre in input coordinates - start) / jump; `half-pixel`: the usual
            (i + 0.5) cells / pixels - 0.5.

    Returns:
        float64, one per pixel, rising; cell i is at position i. Interpolation clamps to [0, cells - 1].
    """
    if align not in ALIGNMENTS:
        raise ValueError(f"align must be one of {', '.join(ALIGNMENTS)}, got {align!r}")
    cells, pixels = layer.grid[axis], masks[axis]
    centres = np.arange(pixels) + 0.5
    if align == "half-pixel":
        return centres * cells / pixels - 0.5
    return (centres * size[axis] / pixels - layer.start[axis]) / layer.jump[axis]


class Upsampler:
    """Lights the pixels of one layer's units.

    Args:
        layer: geometry of the layer.
        size: (height, width) of the network's input.
        masks: (height, width) of the segmentation.
        align: see `grid_positions`.
        inclusive: light S_k >= T_k, eq. 3 to the letter; strictly above by default, as in the authors' code.
        device: of the maps.
    """

    def __init__(
        self,
        layer: LayerGeometry,
        size: tuple[int, int],
        masks: tuple[int, int],
        *,
        align: str = "receptive-field",
        inclusive: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self._rows, self._columns = (
            _AxisTable(grid_positions(layer, axis, size, masks, align=align), layer.grid[axis], device)
            for axis in (0, 1)
        )
        self._height, self._width = masks
        self._inclusive = inclusive

    def __call__(self, maps: torch.Tensor, thresholds: torch.Tensor, *, values: bool = False) -> Lit:
        """Pixels that a batch of maps lights.

        Interpolates along columns, then rows, each as v0 + a (v1 - v0) in float64. The product and the sum are two
        operations on purpose: a fused one would round differently on different machines.

        Args:
            maps: (images, units, rows, columns) float32.
            thresholds: (units,) float32.
            values: whether what S_k is there is wanted, too.
        """
        if maps.device.type == "cpu":
            return self._walked(maps, thresholds, values=values)
        map_, row, column = self._hot_patches(maps, thresholds)
        units, height, width = maps.shape[1:]
        flat, base = maps.reshape(-1), map_ * (height * width)
        left, right = self._columns.low[column], self._columns.high[column]
        across, down = self._columns.weight[:, column], self._rows.weight[:, row]
        top = _mix(flat, base + self._rows.low[row] * width, left, right, weight=across)
        bottom = _mix(flat, base + self._rows.high[row] * width, left, right, weight=across)
        # (rows of a patch, columns of a patch, patches): the long dimension last, where loops are fast
        value = down[:, None] * (bottom - top)
        value += top
        limit = thresholds[map_ % units].double()
        found = _places(value >= limit if self._inclusive else value > limit)
        step = _divided(found, len(map_))
        patch = found - step * len(map_)
        pixels = self._height * self._width
        corner = map_ // units * pixels + self._rows.first[row] * self._width + self._columns.first[column]
        across_ = torch.arange(value.shape[1], device=step.device)
        offset = (torch.arange(value.shape[0], device=step.device)[:, None] * self._width + across_).flatten()
        place = corner.index_select(0, patch).add_(offset.index_select(0, step))
        map_, order = map_.index_select(0, patch).sort(stable=True)
        value = value.reshape(-1).index_select(0, found)[order] if values else None
        return Lit(map_, place[order], units, pixels, value)

    def _walked(self, maps: torch.Tensor, thresholds: torch.Tensor, *, values: bool) -> Lit:
        """The same, patch by patch in compiled loops."""
        bounds = thresholds.double().numpy()
        bounds = np.nextafter(bounds, -np.inf) if self._inclusive else bounds  # above that is as high as the limit
        grid = self._rows.table, self._columns.table, (self._height, self._width)
        stacked = np.ascontiguousarray(maps.flatten(0, 1))
        found = _light(stacked, _touched(stacked, bounds), grid, bounds)
        map_, place, value = map(torch.from_numpy, found)
        return Lit(map_, place, maps.shape[1], self._height * self._width, value if values else None)

    def _hot_patches(self, maps: torch.Tensor, thresholds: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map, row and column of the patches that touch a cell above its threshold, in that order."""
        limit = thresholds[None, :, None, None]
        found = _places(maps >= limit if self._inclusive else maps > limit)
        cells, columns = maps.shape[2] * maps.shape[3], maps.shape[3]
        height, width = maps.shape[2] + 1, maps.shape[3] + 1
        map_, cell = found // cells, found % cells
        corner = (map_ * height + cell // columns) * width + cell % columns
        patch = torch.unique(torch.cat([corner, corner + 1, corner + width, corner + width + 1]))
        return patch // (height * width), patch // width % height, patch % width


@compiled
def _touched(maps, bounds):  # type: ignore[no-untyped-def]
    """(maps, rows + 1, columns + 1) which patches touch a cell above its unit's bound, and how many; see `_light`."""
    count, rows, columns = maps.shape
    hot = np.zeros((count, rows + 1, columns + 1), np.bool_)
    many = 0
    for number in range(count):
        bound = bounds[number % len(bounds)]
        above, least = 0, np.float32(bound)
        for value in maps[number].reshape(-1):  # most maps have none, which is seen many cells at a time
            above += value >= least
        if not above:
            continue
        for row in range(rows):
            for column in range(columns):
                if maps[number, row, column] > bound:
                    hot[number, row : row + 2, column : column + 2] = True
        many += hot[number].sum()
    return hot, many


@compiled
def _light(maps, touched, grid, bounds):  # type: ignore[no-untyped-def]
    """Pixels whose value is above their unit's bound, patch by patch of each map.

    Args:
        maps: (maps, rows, columns) float32, contiguous.
        touched: see `_touched`.
        grid: tables of rows and of columns; (height, width) of a segmentation.
        bounds: (units,) float64.

    Returns:
        of each pixel the map, the place and the value, as `Lit` has them.
    """
    (hot, many), ((low, high, first, weight), (left, right, start, across), (height, width)) = touched, grid
    most = many * weight.shape[1] * across.shape[1]
    found, places, values = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.float64)
    count = 0
    for number in range(len(maps)):
        bound = bounds[number % len(bounds)]
        for row in range(hot.shape[1]):
            for column in range(hot.shape[2]):
                if not hot[number, row, column]:
                    continue
                above, below = maps[number, low[row]], maps[number, high[row]]
                west, east = left[column], right[column]
                corner = (number // len(bounds) * height + first[row]) * width + start[column]
                top, fall = np.float64(above[west]), np.float64(above[east]) - np.float64(above[west])
                bottom, rise = np.float64(below[west]), np.float64(below[east]) - np.float64(below[west])
                for x in range(across.shape[1]):
                    upper = across[column, x] * fall + top
                    slope = across[column, x] * rise + bottom - upper
                    if upper <= bound and slope + upper <= bound:
                        continue  # what lies between the two, and is rounded, is between them
                    for y in range(weight.shape[1]):
                        value = weight[row, y] * slope + upper
                        if value > bound:
                            found[count], places[count], values[count] = number, corner + y * width + x, value
                            count += 1
    return found[:count].copy(), places[:count].copy(), values[:count].copy()


def _places(mask: torch.Tensor) -> torch.Tensor:
    """Flat indices of what is true; numpy finds them several times faster than torch."""
    if mask.device.type != "cpu":
        return mask.flatten().nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _divided(values: torch.Tensor, by: int) -> torch.Tensor:
    """Floor division; numpy's is five times faster than torch's."""
    return values // by if values.device.type != "cpu" else torch.from_numpy(values.numpy() // by)


def _mix(
    flat: torch.Tensor, base: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, weight: torch.Tensor
) -> torch.Tensor:
    """v0 + a (v1 - v0) along one grid row: (pixels of a patch, patches) float64."""
    first = flat.index_select(0, base + left).double()
    return weight * flat.index_select(0, base + right).double().sub_(first) + first
