"""Rows kept as they were read: batches in Arrow's stream form, each after its length in bytes.

A batch has a stream of its own, because the batches of a job may differ in their schemas and dictionaries.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from sluice.models.errors import CorruptFile
from sluice.transforms.core.batches import RecordBatchCoder

_LENGTH = struct.Struct("<Q")
_CODER = RecordBatchCoder()


def write_batch(file: BinaryIO, batch: pa.RecordBatch) -> None:
    """Appends a batch."""
    data = _CODER.encode(batch)
    file.write(_LENGTH.pack(len(data)))
    file.write(data)


def read_batches(file: BinaryIO) -> Iterator[pa.RecordBatch]:
    """Yields the batches of a file, one at a time.

    Raises:
      CorruptFile: the file ends within a batch.
    """
    while length := file.read(_LENGTH.size):
        if len(length) < _LENGTH.size:
            raise CorruptFile("a file of kept rows ends within a batch")
        (size,) = _LENGTH.unpack(length)
        data = file.read(size)
        if len(data) < size:
            raise CorruptFile("a file of kept rows ends within a batch")
        yield _CODER.decode(data)
