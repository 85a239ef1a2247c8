"""Pictures of an indexed data set as a network takes them, and networks that take pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from microtome.datasets import Dataset, Frame
from microtome.networks.normalisation import Normalisation
from microtome.visualize.attribution import Scaled, scaled
from storage import Artifact
from tasks.index import chosen_images
from tasks.networks import network_of
from tasks.stage import Work


class Pictures:
    """Pictures by their number in the index.

    Args:
        work: whose job reaches a data set and its frame.
        index: which of the work's indexed data sets: `index`, or `negatives`.
    """

    def __init__(self, work: Work, index: str = "index") -> None:
        prefix = "" if index == "index" else f"{index}_"
        self._dataset: Dataset = work.job.reach[f"{prefix}dataset"]()
        self._frame: Frame = work.job.reach[f"{prefix}frame"]
        scale = work.job.reach["input"]
        self._normalised = Normalisation(scale["mean"], scale["std"])
        self._chosen = chosen_images(self._dataset, work.inputs[index].parameters)

    def __len__(self) -> int:
        return len(self._chosen)

    def pixels(self, image: int) -> NDArray[np.float32]:
        """(height, width, 3) in [0, 1], in the network's frame."""
        return self._framed(image).astype(np.float32) / np.float32(255)

    def normalised(self, image: int) -> NDArray[np.float32]:
        """(3, height, width), as the network takes it."""
        return self._normalised(self._framed(image))

    def _framed(self, image: int) -> NDArray[np.uint8]:
        index = self._chosen[image]
        return self._frame.place(self._dataset.records[index]).picture(self._dataset.picture(index))

    def landmarks(self, image: int) -> dict[str, tuple[float, float]]:
        """x, y of the landmarks that the picture shows, in the network's frame."""
        index = self._chosen[image]
        place = self._frame.place(self._dataset.records[index])
        marks = [(mark.name, place.landmark(mark)) for mark in self._dataset.landmarks(index)]
        return {name: (mark.x, mark.y) for name, mark in marks}

    def batch(self, images: Sequence[int], device: str = "cpu") -> torch.Tensor:
        """(pictures, 3, height, width) in [0, 1]."""
        stacked = np.stack([self.pixels(image).transpose(2, 0, 1) for image in images])
        return torch.from_numpy(stacked).to(device)


def pixel_network(work: Work) -> Scaled:
    """The stage's network behind its normalisation, on the session's device."""
    scale = work.job.reach["input"]
    return scaled(network_of(work), scale["mean"], scale["std"]).to(work.session.device)


def sampled(count: int, wanted: int, seed: int) -> list[int]:
    """`wanted` of `count` numbers, drawn without replacement, in order; all of them where they are fewer."""
    drawn = np.random.default_rng([seed, count]).permutation(count)[:wanted]
    return sorted(drawn.tolist())


THUMBNAILS, THUMB = "thumbnails.parquet", 160


def write_thumbnails(work: Work, pictures: Iterable[NDArray[np.float32]]) -> None:
    """Keep small pictures beside a stage's result, so that whoever explains it later needs nothing else.

    Args:
        work: the stage's.
        pictures: (height, width, 3) in [0, 1], in the order in which they are read back.
    """
    from PIL import Image

    content = []
    for picture in pictures:
        small = Image.fromarray((picture * 255).round().astype(np.uint8))
        content.append(file_of(np.array(small.resize((THUMB, THUMB), Image.Resampling.LANCZOS)), quality=72))
    with work.draft.publish(THUMBNAILS, rows=len(content)) as sink:
        pq.write_table(pa.table({"picture": pa.array(content, pa.binary())}), sink, compression="none")


def read_thumbnails(artifact: Artifact) -> list[bytes]:
    """What `write_thumbnails` wrote."""
    with artifact.source(THUMBNAILS) as source:
        content: list[bytes] = pq.read_table(source).column("picture").to_pylist()
    return content


def file_of(picture: NDArray[np.uint8], *, quality: int = 85) -> bytes:
    """A (height, width, 3) picture as WebP."""
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, "WEBP", quality=quality, method=4)
    return content.getvalue()
