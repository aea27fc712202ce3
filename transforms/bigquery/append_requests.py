"""Rows on their way into a stream: what goes into one request, and which rows of which batch they are.

Limits: https://cloud.google.com/bigquery/quotas#write-api-limits
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

# Of a row: what its envelope leaves of a request's 10 MB.
MAX_ROW_BYTES = 9_500_000
# Of several rows. More than 1 MB is asked for; and gRPC servers that nobody has told otherwise take 4 MB.
REQUEST_BYTES = 3_000_000


class Part(NamedTuple):
    """Rows of one batch.

    Attributes:
      rows: int64 [rows]: their places in the batch that was appended.
    """

    batch: pa.RecordBatch
    source: Any
    rows: np.ndarray

    def slice(self, start: int, stop: int) -> "Part":
        return Part(self.batch.slice(start, stop - start), self.source, self.rows[start:stop])


class Request(NamedTuple):
    """Rows that are sent together."""

    parts: list[Part]
    rows: int
    data: bytes

    @staticmethod
    def of(parts: list[Part]) -> "Request":
        batch = parts[0].batch if len(parts) == 1 else pa.concat_batches([part.batch for part in parts])
        return Request(parts, batch.num_rows, batch.serialize().to_pybytes())

    def places(self) -> Iterator[tuple[Part, np.ndarray]]:
        """Yields the parts, and where in the request each of their rows stands."""
        start = 0
        for part in self.parts:
            yield part, np.arange(start, start + len(part.rows))
            start += len(part.rows)


def cut_part(part: Part) -> Iterator[Part]:
    """Yields pieces that go into one request each; none for no rows."""
    rows = len(part.rows)
    if rows > 1 and part.batch.nbytes > REQUEST_BYTES:
        yield from cut_part(part.slice(0, rows // 2))
        yield from cut_part(part.slice(rows // 2, rows))
    elif rows:
        yield part
