"""Tensors in Parquet: one row per image, the tensor as one binary value, C-contiguous and little-endian."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.files import HashingSink

Tensors = NDArray[np.floating]
"""(images, *shape) float32 or float16."""

ROW_GROUP = 48  # images: what is read, and reduced, at a time; a multiple of every micro-batch


class TensorWriter:
    """Writes tensors of one shape to one Parquet file, a row group at a time: memory does not grow with the file.

    Args:
        sink: a binary stream.
        shape: of one image's tensor.
        dtype: `float32` or `float16`.
        compression: `none`, `lz4` or `zstd`.
        about: strings for the file's metadata (layer, digest).
    """

    def __init__(
        self,
        sink: IO[bytes] | HashingSink,
        shape: Sequence[int],
        dtype: str,
        *,
        compression: str,
        about: dict[str, str],
    ) -> None:
        self._shape, self._dtype = tuple(shape), np.dtype(dtype).newbyteorder("<")
        metadata = {"shape": json.dumps(list(shape)), "dtype": dtype, **about}
        self._schema = pa.schema([("image", pa.int32()), ("tensor", pa.binary())], metadata=metadata)
        codec = None if compression == "none" else compression
        self._writer = pq.ParquetWriter(
            sink, self._schema, compression=codec, use_dictionary=False, write_statistics=["image"]
        )

    def write(self, first: int, tensors: Tensors) -> None:
        """Append one row group: the tensors of consecutive images, the first of which is number `first`."""
        if tensors.shape[1:] != self._shape:
            raise ValueError(f"tensors must have the shape (images, *{self._shape}), got {tensors.shape}")
        data = np.ascontiguousarray(tensors, self._dtype)
        step = data.nbytes // len(data)
        offsets = np.arange(len(data) + 1, dtype=np.int32) * step
        column = pa.Array.from_buffers(pa.binary(), len(data), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
        images = pa.array(np.arange(first, first + len(data), dtype=np.int32))
        self._writer.write_table(pa.table([images, column], schema=self._schema), row_group_size=len(data))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


@dataclass(frozen=True)
class TensorBlock:
    """Tensors of consecutive images, the first of which is number `first`: (images, *shape)."""

    first: int
    tensors: Tensors


def read_tensors(source: pa.NativeFile, groups: Sequence[int] | None = None) -> Iterator[TensorBlock]:
    """The row groups of a tensor file, without copying the values.

    Args:
        source: the file.
        groups: numbers of the wanted row groups; None for all.
    """
    file = pq.ParquetFile(source)
    metadata = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
    shape, dtype = json.loads(metadata["shape"]), np.dtype(metadata["dtype"]).newbyteorder("<")
    for group in range(file.num_row_groups) if groups is None else groups:
        table = file.read_row_group(group)
        first = table.column("image")[0].as_py()
        arrays = [_values(chunk, dtype).reshape(-1, *shape) for chunk in table.column("tensor").chunks]
        yield TensorBlock(first, arrays[0] if len(arrays) == 1 else np.concatenate(arrays))


def _values(chunk: pa.BinaryArray, dtype: np.dtype[np.floating]) -> Tensors:
    _, offsets, data = chunk.buffers()
    bounds = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    return np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]].view(dtype)
