"""The filter gradient that is added to a layer's task gradient, as a share of it, whatever the network's units are.

    u_f = n^2 x_f / m_f           m_f: running mean over pictures of the highest value of filter f's map
    v = m_f dLoss_f/du (one template per map)               so a step changes each filter in its own units
    v' = v - x <v, x> / <x, x>    over the batch's maps of each filter: to grow or to fade as a whole is no progress
    added to the layer's gradient: strength G v' / ||v'||       G: mean over the steps so far of ||g||,
    g_i = dL/dx_i / r_i           r_i: norm of the loss's slope on a picture's logits, beside that of one whose own
                                  class gets a probability of .9

dL/dx is the task's gradient: what reaches the layer, divided by how much the pressure on the layer above made that
layer's grow. g is what it would be if each picture were judged right with that probability: how much the answer hangs
on the maps, however well the task is solved. The task's own gradient fades where a network is sure, and with it a share
of it did: on data that the network tells apart from its start, nothing was pressed at all. A map of one cell at its
mean highest value has s = tau n^2 = 0.5, on every network. Without the third line maps only grow, which the loss
rewards and the task does not, and training diverges.
"""

from __future__ import annotations

import torch

from microtome.disentangle.filter_loss import FilterLoss, Partition, fitted_templates

KEEP = 0.9  # share of the running mean maximum that a batch leaves in place
SMALLEST = 1e-6  # a filter's unit is at least this share of the layer's largest


class FilterPressure(torch.nn.Module):
    """What training knows of one layer's filters: their units, and log Z_T in these.

    Args:
        filters: number of filters.
        n: side of their maps.
        above: of the layer above, pressed in the same backward pass before this one; what that adds does not count as
            this layer's task gradient.
    """

    above: FilterPressure | None
    unit: torch.Tensor
    size: torch.Tensor
    steps: torch.Tensor

    def __init__(self, filters: int, n: int, above: FilterPressure | None = None) -> None:
        super().__init__()
        self.__dict__["above"] = above  # no child: its state is its own
        self.share = 1.0
        self.partition = Partition(filters, n)
        self.register_buffer("unit", torch.full((filters,), float("nan")))
        self.register_buffer("size", torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def press(self, maps: torch.Tensor, wanted: torch.Tensor, strength: float, pull: torch.Tensor) -> None:
        """Add the filter gradient to the one that the next backward pass brings to a layer's maps.

        Args:
            maps: (images, filters, n, n), of which a gradient is wanted.
            wanted: (images, filters) whether the image is of the filter's category.
            strength: share of the mean norm of g.
            pull: (images,) r_i.
        """
        direction = self.direction(maps.detach(), wanted)

        def add(slope: torch.Tensor) -> torch.Tensor:
            even = slope / pull.clamp(min=SMALLEST)[:, None, None, None]
            size = slope.norm() * self.above.share if self.above else even.norm()
            self._follow_size(size)
            pressed = slope + strength * self.size * direction
            self.share = float(size / pressed.norm()) if size > 0 else 1.0
            return pressed

        maps.register_hook(add)  # type: ignore[no-untyped-call]

    def _follow_size(self, size: torch.Tensor) -> None:
        self.steps += 1
        self.size += (size - self.size) / self.steps

    def direction(self, maps: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Take a batch; gives (images, filters, n, n) v', along which the filter loss grows, of norm 1 or 0.

        Args:
            maps: (images, filters, n, n), without a gradient.
            wanted: (images, filters) whether the image is of the filter's category.
        """
        unit = self._follow(maps)[:, None, None]
        scaled = (maps * (maps.shape[2] ** 2 / unit)).requires_grad_()
        log_z = self.partition.update(scaled.detach())
        with torch.enable_grad():
            fitted, alike = fitted_templates(maps, wanted), torch.ones_like(self.unit)
            (slope,) = torch.autograd.grad(FilterLoss.apply(scaled, fitted, log_z, alike), scaled)
        return normed(sideways(slope * unit, maps))

    @torch.no_grad()
    def _follow(self, maps: torch.Tensor) -> torch.Tensor:
        highest = maps.amax((2, 3)).mean(0)
        self.unit.copy_(torch.where(self.unit.isnan(), highest, KEEP * self.unit + (1 - KEEP) * highest))
        smallest = (SMALLEST * self.unit.max()).clamp(min=torch.finfo(maps.dtype).tiny)
        return torch.maximum(self.unit, smallest)


def sideways(slope: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """A gradient without its part along the maps themselves, filter by filter; both (images, filters, n, n)."""
    along = (slope * maps).sum((0, 2, 3), keepdim=True)
    return slope - maps * (along / maps.square().sum((0, 2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny))


def normed(direction: torch.Tensor) -> torch.Tensor:
    """Of norm 1 as a whole; 0 where there is nothing."""
    size = direction.norm()
    return direction / size if size > 0 else direction
