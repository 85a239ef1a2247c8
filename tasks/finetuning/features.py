"""What the frozen part of a network answers to the pictures of a fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from microtome.datasets.source import Source
from microtome.disentangle.examples import Examples, Side
from tasks.session import Session

T = TypeVar("T")
BATCH = 16
CACHE_BYTES = 4e9  # frozen features beyond this are computed anew in every epoch


class Features:
    """Features of every picture and its mirror image: computed once where they fit memory.

    Args:
        sources: the pictures.
        examples: which of them, in order.
        base: the frozen part.
        session: for the device, and to end where the user asks to stop.
    """

    def __init__(
        self, sources: Mapping[Side, Source], examples: Examples, base: torch.nn.Module, session: Session
    ) -> None:
        self._sources, self._examples, self._base, self._device = sources, examples, base, session.device
        self.labels = torch.tensor(examples.labels, device=self._device)
        self._kept: torch.Tensor | None = None
        one = self._compute([0], [False])[0]
        if one.nbytes * 2 * len(examples) <= CACHE_BYTES:
            self._kept = self._all(one.shape, session)

    def features(self, images: Sequence[int], mirrored: Sequence[bool]) -> torch.Tensor:
        """(images, channels, rows, columns)."""
        if self._kept is None:
            return self._compute(images, mirrored)
        return self._kept[torch.tensor(mirrored, dtype=torch.long), torch.tensor(list(images))].to(self._device)

    def _all(self, shape: torch.Size, session: Session) -> torch.Tensor:
        """(2, images, channels, rows, columns): as they are, and mirrored."""
        kept = torch.empty(2, len(self._examples), *shape)
        for side in (False, True):
            for images in _batches(range(len(self._examples))):
                kept[int(side), images[0] : images[-1] + 1] = self._compute(images, [side] * len(images)).cpu()
                session.check()
        return kept

    def _compute(self, images: Sequence[int], mirrored: Sequence[bool]) -> torch.Tensor:
        """In batches of one size, the last one padded: an answer does not depend on who shares its batch."""
        parts = []
        for some in _batches(list(zip(images, mirrored, strict=True))):
            batch = torch.zeros(BATCH, 3, *self._sources["dataset"].frame.size)
            for place, (image, flip) in enumerate(some):
                picture = self._picture(image)
                batch[place] = picture.flip(2) if flip else picture
            with torch.no_grad():
                parts.append(self._base(batch.to(self._device))[: len(some)])
        return torch.cat(parts)

    def _picture(self, place: int) -> torch.Tensor:
        """(3, height, width), as the network takes it."""
        source = self._sources[self._examples.sides[place]]
        return torch.from_numpy(source.normalised(self._examples.images[place]))


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
