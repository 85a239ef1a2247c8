"""What a unit looks at, found by covering it up (Zhou et al., arXiv 1412.6856)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from microtome.visualize.attribution import Layer, answer_of, at_rest, located
from microtome.visualize.names import REMOVALS

BATCH = 32


@dataclass(frozen=True)
class Occluder:
    """What covers a picture up.

    Args:
        width: of the square patch, in pixels.
        stride: between its places.
        mean: cover with the picture's mean colour instead of random pixels.
        seed: of the random pixels.
    """

    width: int = 11
    stride: int = 3
    mean: bool = False
    seed: int = 0


def discrepancy(
    network: nn.Module, layer: Layer, unit: int, picture: torch.Tensor, *, occluder: Occluder
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """How much the unit's highest cell loses under each place of the occluder.

    The network is asked only where the occluder touches the cell's field: elsewhere it can lose nothing.

    Args:
        network: takes the picture.
        layer, unit: geometry or dotted name of a layer with a grid, channel.
        picture: (3, height, width).
        occluder: what covers it.

    Returns:
        (height, width) loss with the occluder's centre at each pixel, NaN where it never is; and the cell.
    """
    places = _places(picture.shape[1:], occluder)
    layer = located(network, layer, picture.shape[1:]) or layer
    with torch.no_grad(), at_rest(network):
        whole = answer_of(network, picture[None], layer)[0, unit]
        cell = divmod(int(whole.argmax()), whole.shape[1])
        losses, patch = np.zeros(len(places)), _patch(picture, occluder)
        touching = np.flatnonzero([_touches(place, layer, cell, occluder) for place in places])
        for start in range(0, len(touching), BATCH):
            some = touching[start : start + BATCH]
            batch = torch.stack([_covered(picture, places[at], patch) for at in some])
            lost = whole[cell] - answer_of(network, batch, layer)[:, unit, cell[0], cell[1]]
            losses[some] = lost.double().cpu().numpy()
    return _spread(losses, places, picture.shape[1:], occluder), cell


@dataclass(frozen=True)
class Field:
    """An empirical receptive field.

    Args:
        heat: (2 height - 1, 2 width - 1) mean discrepancy, centred on the unit's cell.
        size: (height, width) of what exceeds the threshold, freed of the occluder's own width.
        images: how many pictures it is the mean of.
        whole: in how many of them what stands out ends before the picture does; of 0 the size is a lower bound.
    """

    heat: NDArray[np.float64]
    size: tuple[int, int]
    images: int
    whole: int


def receptive_field(
    maps: Sequence[NDArray[np.float64]],
    centres: Sequence[tuple[float, float]],
    *,
    occluder: Occluder,
    threshold: float = 0.1,
) -> Field:
    """Average discrepancy maps about the unit's place in each picture, and measure what stands out.

    An occluder of width o touches the field from (o - 1) / 2 pixels beyond each edge: o - 1 is taken off.

    Args:
        maps: from `discrepancy`, one per picture.
        centres: (row, column) in pixels of the unit's cell in each; one beyond the picture counts as its nearest pixel.
        occluder: as used.
        threshold: share of the largest mean discrepancy.
    """
    height, width = maps[0].shape
    total, count = np.zeros((2 * height - 1, 2 * width - 1)), np.zeros((2 * height - 1, 2 * width - 1))
    corners = [
        (
            height - 1 - min(max(round(row - 0.5), 0), height - 1),
            width - 1 - min(max(round(column - 0.5), 0), width - 1),
        )
        for row, column in centres
    ]
    for heat, (top, left) in zip(maps, corners, strict=True):
        seen = np.isfinite(heat)
        total[top : top + height, left : left + width] += np.where(seen, heat, 0)
        count[top : top + height, left : left + width] += seen
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    above = mean > threshold * mean.max() if mean.max() > 0 else np.zeros_like(mean, bool)
    rows, columns = np.flatnonzero(above.any(1)), np.flatnonzero(above.any(0))
    spans = [int(line[-1] - line[0] + 1) if len(line) else 0 for line in (rows, columns)]
    height_, width_ = (max(0, span - (occluder.width - 1)) for span in spans)
    whole = sum(
        all(
            not len(line) or (first < line[0] and line[-1] < first + side - 1)
            for line, first, side in ((rows, top, height), (columns, left, width))
        )
        for top, left in corners
    )
    return Field(mean, (height_, width_), len(maps), whole)


@dataclass(frozen=True)
class MinimalImage:
    """A picture stripped of what the prediction does not need.

    Args:
        predicted: number of the class.
        kept: (segments,) whether each is left.
        order: segments in the order of their removal.
        scores: of the predicted class: whole, then after each removal.
        picture: (3, height, width) what is left, the rest in the fill colour.
    """

    predicted: int
    kept: NDArray[np.bool_]
    order: list[int]
    scores: list[float]
    picture: torch.Tensor


def minimal_image(
    network: nn.Module, picture: torch.Tensor, segments: NDArray[np.int64], *, fill: torch.Tensor | None = None
) -> MinimalImage:
    """Remove, one at a time, the segment whose removal least lowers the predicted class's logit; stop before it flips.

    Args:
        network: takes the picture.
        picture: (3, height, width).
        segments: (height, width) numbers from 0.
        fill: (3,) what removed pixels become; the picture's mean colour by default.
    """
    colour = picture.mean((1, 2)) if fill is None else fill.to(picture)
    masks = _masks(segments).to(picture.device)
    kept, order = np.ones(len(masks), bool), []
    with torch.no_grad(), at_rest(network):
        answer = network(picture[None])[0]
        predicted = int(answer.argmax())
        scores, now = [float(answer[predicted])], picture
        while kept.sum() > 1:
            candidates = np.flatnonzero(kept)
            tried = torch.cat(_answers(network, now, [masks[at] for at in candidates], colour))
            held = (tried.argmax(1) == predicted).cpu().numpy()
            if not held.any():
                break
            value = np.where(held, tried[:, predicted].double().cpu().numpy(), -np.inf)
            best = int(value.argmax())
            now = torch.where(masks[candidates[best]], colour[:, None, None], now)
            kept[candidates[best]] = False
            order.append(int(candidates[best]))
            scores.append(float(value[best]))
    return MinimalImage(predicted, kept, order, scores, now)


def kept_at_random(
    network: nn.Module, picture: torch.Tensor, segments: NDArray[np.int64], found: MinimalImage, *, seed: int
) -> NDArray[np.bool_]:
    """(REMOVALS,) whether the prediction stays where as many segments go at random: the control of a minimal image.

    Args:
        network: takes the picture.
        picture: (3, height, width).
        segments: (height, width) numbers from 0.
        found: the minimal image; as there, what goes becomes the picture's mean colour.
        seed: of the draws.
    """
    masks, rng = _masks(segments), np.random.default_rng(seed)
    drawn = [rng.permutation(len(masks))[: len(found.order)] for _ in range(REMOVALS)]
    gone = [masks[torch.from_numpy(some)].any(0).to(picture.device) for some in drawn]
    with torch.no_grad(), at_rest(network):
        answers = torch.cat(_answers(network, picture, gone, picture.mean((1, 2))))
    kept: NDArray[np.bool_] = (answers.argmax(1) == found.predicted).cpu().numpy()
    return kept


def _masks(segments: NDArray[np.int64]) -> torch.Tensor:
    """(segments, height, width) where each is."""
    return torch.from_numpy(np.stack([segments == number for number in range(segments.max() + 1)]))


def _answers(
    network: nn.Module, picture: torch.Tensor, masks: Sequence[torch.Tensor], colour: torch.Tensor
) -> list[torch.Tensor]:
    """Logits with each of the masks covered, in batches."""
    found = []
    for at in range(0, len(masks), BATCH):
        covered = [torch.where(mask, colour[:, None, None], picture) for mask in masks[at : at + BATCH]]
        found.append(network(torch.stack(covered)))
    return found


def superpixels(picture: NDArray[np.float32], count: int = 40) -> NDArray[np.int64]:
    """SLIC segments (Achanta et al. 2012) of a (height, width, 3) picture in [0, 1], numbered from 0."""
    from skimage.segmentation import slic

    found = slic(picture.astype(np.float64), n_segments=count, compactness=10, start_label=0, channel_axis=2)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int64)


def _places(size: Sequence[int], occluder: Occluder) -> list[tuple[int, int]]:
    """Top left corners, also such that hang over the edge: a pixel at the edge is covered as often as any other."""
    first = 1 - occluder.width
    return [
        (row, column)
        for row in range(first, size[0], occluder.stride)
        for column in range(first, size[1], occluder.stride)
    ]


def _touches(place: tuple[int, int], layer: Layer, cell: tuple[int, int], occluder: Occluder) -> bool:
    """Whether the occluder reaches the cell's theoretical field, or a pixel beside it; always where none is known."""
    if isinstance(layer, str) or layer.is_global:
        return True
    centres = (layer.start[axis] + cell[axis] * layer.jump[axis] for axis in (0, 1))
    return all(
        at < centre + field / 2 + 1 and at + occluder.width > centre - field / 2 - 1
        for at, centre, field in zip(place, centres, layer.field, strict=True)
    )


def _patch(picture: torch.Tensor, occluder: Occluder) -> torch.Tensor:
    """(3, width, width) that covers a part of a picture."""
    if occluder.mean:
        return picture.mean((1, 2))[:, None, None].expand(-1, occluder.width, occluder.width)
    draw = torch.Generator().manual_seed(occluder.seed)
    low, high = picture.min(), picture.max()
    return torch.rand(3, occluder.width, occluder.width, generator=draw).to(picture) * (high - low) + low


def _covered(picture: torch.Tensor, place: tuple[int, int], patch: torch.Tensor) -> torch.Tensor:
    """A picture with the patch at a place; what hangs over an edge is cut off at its far side."""
    changed = picture.clone()
    rows, columns = (slice(max(0, at), max(0, at + patch.shape[1])) for at in place)
    under = changed[:, rows, columns]
    under[:] = patch[:, : under.shape[1], : under.shape[2]]
    return changed


def _spread(
    losses: NDArray[np.float64], places: Sequence[tuple[int, int]], size: Sequence[int], occluder: Occluder
) -> NDArray[np.float64]:
    """Each place's loss at the pixels about the occluder's centre, as many as its stride steps over."""
    heat = np.full(tuple(size), np.nan)
    centre, back = occluder.width // 2, (occluder.stride - 1) // 2
    for loss, (row, column) in zip(losses, places, strict=True):
        top, left = row + centre - back, column + centre - back
        heat[max(0, top) : max(0, top + occluder.stride), max(0, left) : max(0, left + occluder.stride)] = loss
    return heat
