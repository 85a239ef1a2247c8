"""Small pictures beside a stage's result, so that whoever explains it later needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from storage import Artifact, Draft

FILE, SIDE = "thumbnails.parquet", 160


def keep_thumbnails(draft: Draft, pictures: Iterable[bytes]) -> None:
    """Keep pictures.

    Args:
        draft: of the stage.
        pictures: WebP, in the order in which they are read back.
    """
    content = pa.array(list(pictures), pa.binary())
    with draft.publish(FILE, rows=len(content)) as sink:
        pq.write_table(pa.table({"picture": content}), sink, compression="none")


def kept_thumbnails(artifact: Artifact) -> list[bytes]:
    """What `keep_thumbnails` wrote."""
    with artifact.source(FILE) as source:
        content: list[bytes] = pq.read_table(source).column("picture").to_pylist()
    return content
